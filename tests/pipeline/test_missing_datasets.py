"""A dataset that is neither present nor stood in for is left out, visibly; the others go on without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import manifests
from pipeline.crops import CropStore
from pipeline.datasets import standin
from pipeline.datasets.index import index
from pipeline.layout import Layout
from pipeline.manifests import ManifestError
from pipeline.pairs.selection import write_selection
from pipeline.parsing import Cutting, parse, to_cut
from pipeline.reporting.metric_table import read_file
from pipeline.run_spec import Params
from pipeline.tasks.body_mesh_data import read_samples
from pipeline.training.pretrain import pretrain
from pipeline.weights import import_weights
from tests.pipeline.toy_world import small_params, write_pool

RUN = "croco_body"
PRESENT, MISSING = "synthetic", "humbi"
SMALL = {
    f"pretrain__{RUN}__{key}": value
    for key, value in {
        "steps": 3, "warmup_steps": 1, "batch": 4, "heldout": 0.2, "precision": "fp32",
        "datasets": {PRESENT: 1.0, MISSING: 1.0},
    }.items()
}  # fmt: skip


@pytest.fixture
def params(tmp_path: Path) -> Params:
    return small_params(tmp_path, **SMALL)[0]


@pytest.fixture
def layout(params: Params, tmp_path: Path) -> Layout:
    """A project in which one dataset went from its empty folder to its pairs."""
    layout = Layout(params.scale, tmp_path)
    layout.standin(MISSING).mkdir(parents=True)  # as `flows.render` leaves it at a scale without stand-ins
    (layout.standin(MISSING) / ".DS_Store").write_bytes(b"left by a file manager")
    assert index(MISSING, layout, params) == {"records": 0, "quarantined": 0}
    records, crops = layout.records(MISSING), layout.crops("body", MISSING)
    cutting = Cutting(layout.source(MISSING), params.crops.size, params.crops.scale, "none")
    assert parse(to_cut(records), crops, layout.scratch("parse", "test"), cutting).crops == 0
    write_selection(records, CropStore(crops), layout.pairs("body", MISSING), params.pairs, ("view",))
    assert manifests.validate(layout.pairs("body", MISSING)) == "pairs"
    import_weights("random", layout, params.import_weights["random"])
    return layout


def test_pre_training_goes_on_with_those_that_are_there(
    layout: Layout, params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    write_pool(layout, PRESENT, 8)
    pretrain(RUN, params, layout)
    assert f"left out: {MISSING}, it has no pairs" in caplog.text
    metrics = read_file(layout.metrics("pretrain", RUN), params.scale)
    assert metrics.values["heldout_loss"].n


def test_pre_training_stops_where_nothing_is_left(layout: Layout, params: Params) -> None:
    write_pool(layout, PRESENT, 0)
    with pytest.raises(ManifestError, match=r"no pairs of kind view or pose in .*make doctor"):
        pretrain(RUN, params, layout)


def test_nothing_is_fine_tuned_on_a_dataset_that_is_not_there(layout: Layout) -> None:
    with pytest.raises(ManifestError, match="the dataset is not present; `make doctor` says how to get it"):
        read_samples(layout.records(MISSING), layout.crops("body", MISSING), "train", 10, None)


def test_nobody_is_rendered_without_photographs_for_the_background(layout: Layout, params: Params) -> None:
    layout.bodies.mkdir()
    layout.smpl.write_bytes(b"a body")
    layout.motions.mkdir()
    layout.standin("coco").mkdir()
    with pytest.raises(ValueError, match=r"no photographs .* COCO is not present .*data/raw/coco/SOURCE.md"):
        standin.plan(PRESENT, layout, params)
