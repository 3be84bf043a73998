"""Supervised 2D keypoints, alone and beside completion: what is minimised, what a run leaves, and through a kill."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from models import catalog, checkpoints
from models.completion import completion_loss
from models.croco import CroCo
from models.encoder import encoder_of
from models.heads.keypoints import KeypointHead, heatmap_loss
from pipeline.layout import PROJECT, Layout
from pipeline.loading.augment import jitter_and_normalize
from pipeline.loading.keypoints import Keypoints
from pipeline.loading.pairs import Masking, PairPool, Source
from pipeline.manifests import ManifestError, read_records, write_table
from pipeline.metrics.pck import pck
from pipeline.reporting.metric_table import read_file, read_history
from pipeline.run_spec import ParamsError, load
from pipeline.training.completion import Completing
from pipeline.training.keypoints import (
    PREDICTED,
    TRUE,
    CompletionWithKeypoints,
    CrossCompletionWithKeypoints,
    KeypointNetwork,
    SingleKeypoints,
    draw_keypoints,
    new_head,
    validate_keypoints,
)
from pipeline.training.pretrain import KEYPOINT_HEAD, pretrain
from pipeline.training.team import WHOLE, Share
from pipeline.weights import import_weights
from tests.pipeline.toy_world import small_params, write_keypoints, write_pool
from tests.pipeline.training.programs import Program, wait_for

STEPS = {"keypoints_body": 100, "croco_keypoints_body": 150}
"""By run: so many, and keypoints are found better than by their mean places."""
SMALL = {
    f"pretrain__{run}__{key}": value
    for run, steps in STEPS.items()
    for key, value in {
        "steps": steps, "warmup_steps": 5, "batch": 8, "checkpoint_every": 40, "heldout": 0.2, "precision": "fp32",
        "datasets": {"aist": 1.0},
    }.items()
}  # fmt: skip
HOW = Completing(batch=8, normalize=True, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout("test", tmp_path_factory.mktemp("project"))
    write_pool(layout, "aist", 24, ("view", "pose"))
    write_keypoints(layout, "aist", 24)
    write_pool(layout, "humbi", 4)
    params, _ = small_params(layout.root, **SMALL)
    import_weights("random", layout, params.import_weights["random"])
    return layout


@pytest.fixture(scope="module")
def pool(layout: Layout) -> PairPool:
    source = Source("aist", layout.pairs("body", "aist"), layout.crops("body", "aist"), 1.0)
    masking = Masking("human", 0.75, "max_n", min_human=8, patch=8)
    return PairPool([source], {"view": 1.0, "pose": 1.0}, heldout=0.2, size=64, masking=masking, jitter=0.4, seed=0)


@pytest.fixture(scope="module")
def keypoints(layout: Layout) -> Keypoints:
    return Keypoints([(layout.records("aist"), layout.crops("body", "aist"))], 64)


@pytest.fixture
def croco() -> CroCo:
    model = catalog.create("croco_mini_patch8_64", seed=3)
    assert isinstance(model, CroCo)
    return model


def test_keypoints_alone_are_learned_on_both_images_of_a_pair(
    croco: CroCo, pool: PairPool, keypoints: Keypoints
) -> None:
    network = KeypointNetwork(encoder_of(croco), new_head(croco, 0))
    task = SingleKeypoints(network, pool, keypoints, HOW)
    batch = task.batch(4)
    pairs = pool.batch(4, 8)
    assert task.ids(batch) == pool.ids(pairs)
    halves = [
        heatmap_loss(network(jitter_and_normalize(images, colours)), keypoints.of(cut))
        for images, colours, cut in (
            (pairs.target, pairs.target_colours, pairs.target_cut),
            (pairs.reference, pairs.reference_colours, pairs.reference_cut),
        )
    ]
    assert task.losses(batch)["loss"].item() == pytest.approx(sum(half.item() for half in halves) / 2, rel=1e-5)


def test_the_loss_of_both_is_the_weighted_sum_with_keypoints_of_the_reference(
    croco: CroCo, pool: PairPool, keypoints: Keypoints
) -> None:
    network = CompletionWithKeypoints(croco, new_head(croco, 0))
    task = CrossCompletionWithKeypoints(network, pool, keypoints, HOW, weight=2.5)
    losses = task.losses(task.batch(4))
    pairs = pool.batch(4, 8)
    target = jitter_and_normalize(pairs.target, pairs.target_colours)
    reference = jitter_and_normalize(pairs.reference, pairs.reference_colours)
    completion = completion_loss(croco(target, reference, pairs.hidden).prediction, target, pairs.hidden)
    heat = heatmap_loss(network.head(croco.encode(reference)), keypoints.of(pairs.reference_cut))
    assert losses["completion"].item() == pytest.approx(completion.item(), rel=1e-5)
    assert losses["keypoints"].item() == pytest.approx(heat.item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx(completion.item() + 2.5 * heat.item(), rel=1e-5)
    losses["loss"].backward()
    assert all(value.grad is not None for value in network.parameters())


@pytest.mark.parametrize("single", [True, False])
def test_the_mean_over_shares_is_the_loss_of_the_whole(
    croco: CroCo, pool: PairPool, keypoints: Keypoints, single: bool
) -> None:
    if single:
        task = SingleKeypoints(KeypointNetwork(encoder_of(croco), new_head(croco, 0)), pool, keypoints, HOW)
    else:
        both = CompletionWithKeypoints(croco, new_head(croco, 0))
        task = CrossCompletionWithKeypoints(both, pool, keypoints, HOW, weight=2.5)
    whole = task.losses(task.batch(2, WHOLE))["loss"].item()
    parts = [task.losses(task.batch(2, Share(index, 4)))["loss"].item() for index in range(4)]
    assert np.mean(parts) == pytest.approx(whole, rel=1e-5)
    assert np.ptp(parts) > 0


@pytest.mark.slow
@pytest.mark.parametrize("run", STEPS)
def test_a_run_learns_and_leaves_a_checkpoint_of_croco_with_the_head_in_it(
    layout: Layout, pool: PairPool, keypoints: Keypoints, run: str
) -> None:
    params, _ = small_params(layout.root, **SMALL)
    pretrain(run, params, layout)
    folder = layout.checkpoint(run)
    start, trained = checkpoints.load_croco(layout.checkpoint("random")), checkpoints.load_croco(folder)
    head = checkpoints.load(folder / KEYPOINT_HEAD)
    assert isinstance(head, KeypointHead)
    before, after = start.state_dict(), trained.state_dict()
    assert not torch.equal(before["patch_embed.proj.weight"], after["patch_embed.proj.weight"])
    # Without completion there is nothing a decoder could learn from.
    untouched = torch.equal(before["prediction_head.weight"], after["prediction_head.weight"])
    assert untouched == (run == "keypoints_body")

    metrics = read_file(layout.metrics("pretrain", run), "test")
    assert metrics.checkpoint is not None
    assert metrics.checkpoint.sha256 == checkpoints.fingerprint(folder)
    found = metrics.values
    assert ("heldout_loss" in found) == (run == "croco_keypoints_body")
    pairs, longer_side = pool.validation(512), 80 / params.crops.scale
    again = validate_keypoints(KeypointNetwork(encoder_of(trained), head), pairs, keypoints, longer_side)
    fresh = validate_keypoints(KeypointNetwork(encoder_of(start), new_head(start, 0)), pairs, keypoints, longer_side)
    for name, value in again.items():
        assert (found[name].value, found[name].n) == (pytest.approx(value.value, rel=1e-4), value.n)
    assert found["heldout_keypoint_loss"].value < 0.9 * fresh["heldout_keypoint_loss"].value
    assert found["heldout_pck_05"].value > fresh["heldout_pck_05"].value + 0.2
    assert found["heldout_pck_05"].value > found["heldout_pck_05_of_mean_place"].value + 0.1

    history = read_history(layout.history("pretrain", run))
    assert history[-1]["loss"] < history[0]["loss"]
    assert ({"completion", "keypoints"} <= set(history[0])) == (run == "croco_keypoints_body")
    pictures = sorted(path.name for path in layout.pictures("pretrain", run).glob("*.png"))
    assert sum(name.startswith("keypoints_") for name in pictures) == 8
    assert sum(name.startswith("completion_") for name in pictures) == (8 if run == "croco_keypoints_body" else 0)
    assert Image.open(layout.pictures("pretrain", run) / "keypoints_00.png").size == (4 * 192, 192)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(
    layout: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run, digests = "croco_keypoints_body", []
    changes = SMALL | {f"pretrain__{run}__steps": 12, f"pretrain__{run}__checkpoint_every": 3}
    for kill in (False, True):
        root = tmp_path / f"root-{kill}"
        (root / "data").mkdir(parents=True)
        (root / "data" / "test").symlink_to(layout.data)
        params, path = small_params(root, **changes)
        if kill:
            process = Program("pretrain", path, root, run)
            wait_for(lambda root=root: list(root.glob(".scratch/*/*/step-*.pt")))
            assert process.runs(), "ended before it could be killed"
            process.kill()
            process.end()
        pretrain(run, params, Layout("test", root))
        assert ("going on from step" in caplog.text) == kill
        folder = layout.checkpoint(run)
        digests.append((checkpoints.fingerprint(folder), checkpoints.fingerprint(folder / KEYPOINT_HEAD)))
    assert digests[0] == digests[1]


def test_a_data_set_without_keypoints_is_refused_by_name(layout: Layout, tmp_path: Path) -> None:
    table = read_records(layout.records("aist"))
    for name in ("keypoints_2d", "keypoint_set"):
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.nulls(table.num_rows, field.type))
    write_table(table, layout.records("humbi"))
    params, _ = small_params(tmp_path, **SMALL | {"pretrain__keypoints_body__datasets": {"aist": 1.0, "humbi": 1.0}})
    with pytest.raises(ManifestError, match=r"humbi\.parquet: none of its 96 records has 2D keypoints; take the data"):
        pretrain("keypoints_body", params, layout)


def test_an_unknown_method_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        ParamsError, match=r"keypoints_body\.method: Input should be .*'keypoints' or 'croco_keypoints'"
    ):
        small_params(tmp_path, pretrain__keypoints_body__method="heatmaps")
    assert load(PROJECT / "params.yaml").pretrain["keypoints_body"].method == "keypoints"


def test_pck_counts_annotated_keypoints_within_the_limit() -> None:
    truth = torch.tensor([[[10.0, 10.0, 1.0], [20.0, 20.0, 0.3], [30.0, 30.0, 0.0]]])
    predicted = torch.tensor([[[13.0, 14.0], [20.0, 26.0], [30.0, 30.0]]])
    assert pck(predicted, truth, 4.99) == 0
    assert pck(predicted, truth, 5.0) == 0.5
    assert pck(predicted, truth, 6.0) == 1


def test_drawn_keypoints_lie_where_they_are(croco: CroCo, pool: PairPool, keypoints: Keypoints) -> None:
    network = KeypointNetwork(encoder_of(croco), new_head(croco, 0))
    truth = torch.zeros(1, 13, 3)
    truth[0, 4] = torch.tensor([40.5, 20.5, 1.0])
    (row,) = draw_keypoints(network, torch.zeros(1, 64, 64, 3, dtype=torch.uint8), truth)
    image, true, _, marked = np.split(row, 4, axis=1)
    assert not image.any()
    y, x = np.unravel_index(true.sum(axis=2).argmax(), true.shape[:2])
    assert abs(x / 3 - 40.5) < 1 and abs(y / 3 - 20.5) < 1
    assert 10 < (marked == PREDICTED).all(axis=2).sum() < 200  # one dot and the line to it
    green = np.argwhere((marked == TRUE).all(axis=2)).mean(axis=0)
    assert np.allclose(green / 3, [20.5, 40.5], atol=0.7)
