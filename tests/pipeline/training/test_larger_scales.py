"""What is declared for the scales that ask for a GPU takes its steps here as well, on a few small pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from models import catalog
from pipeline.layout import PROJECT, Layout
from pipeline.reporting.metric_table import read_file, read_history
from pipeline.run_spec import Params
from pipeline.tasks.body_mesh import body_mesh
from pipeline.training.pretrain import pretrain
from pipeline.weights import import_weights
from tests.pipeline.toy_bodies import write_body, write_people
from tests.pipeline.toy_world import small_params, write_keypoints, write_pool

pytestmark = pytest.mark.slow

STEPS = 1
SHORT = {"steps": STEPS, "warmup_steps": 0, "batch": 2, "checkpoint_every": STEPS}
OF_FEW_PAIRS = {"datasets": {"aist": 1.0}, "kinds": {"view": 1.0}, "heldout": 0.5, "num_previews": 0}
# The compiler takes minutes over these networks on a processor; test_precision has it fuse smaller ones.
PRETRAIN = {**SHORT, **OF_FEW_PAIRS, "compile": False}
BODY_MESH = {**SHORT, "max_train": 2, "max_test": 2}


@pytest.mark.parametrize("scale, run", [("gpu", "mae_body"), ("gpu", "croco_keypoints_body"), ("paper", "croco_body")])
def test_a_run_of_a_larger_scale_is_trained_and_fine_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: str, run: str
) -> None:
    # What is measured and drawn costs a pass of the whole network for each picture.
    for number in ("pretrain.MAX_VALIDATION", "pretrain.NUM_PICTURES"):
        monkeypatch.setattr(f"pipeline.training.{number}", 1)
    monkeypatch.setattr("pipeline.tasks.body_mesh.NUM_PICTURES", 1)
    layout = Layout("test", tmp_path)
    base = PROJECT / "scales" / scale / "params.yaml"
    changes = {f"pretrain__{run}__{key}": value for key, value in PRETRAIN.items()}
    changes |= {f"body_mesh__{key}": value for key, value in BODY_MESH.items()}
    params, _ = small_params(tmp_path, base, **changes)
    write_pool(layout, "aist", 2, size=params.crops.size)
    write_keypoints(layout, "aist", 2)
    layout.bodies.mkdir(parents=True)
    write_body(layout.smpl)
    people = partial(write_people, layout, count=2, seed=0, size=params.crops.size)
    people(params.body_mesh.train_dataset, "body_mesh", "train")
    people(params.body_mesh.test_dataset, "body", params.body_mesh.test_split)
    init = params.pretrain[run].init
    write_published(init, params, layout)
    import_weights(init, layout, params.import_weights[init])
    pretrain(run, params, layout)
    assert read_file(layout.metrics("pretrain", run), "test").values["heldout_loss"].value > 0
    body_mesh(run, 0, params, layout)
    assert read_file(layout.metrics("body_mesh", f"{run}/0"), "test").values["pa_mpjpe"].value > 0
    for stage, name in (("pretrain", run), ("body_mesh", f"{run}/0")):
        assert [line["step"] for line in read_history(layout.history(stage, name))] == [*range(1, STEPS + 1)]


def write_published(name: str, params: Params, layout: Layout) -> None:
    """Random weights where published ones are expected, in a file like theirs."""
    spec = params.import_weights[name]
    if spec.source != "random":
        path = layout.raw("weights") / spec.source
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"model": catalog.create(spec.network, 0).state_dict()}, path)
