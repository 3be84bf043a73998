"""What stands in for the reference of a held-out pair, what is measured with it, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest

from models import catalog
from models.completion import completion_loss
from pipeline.layout import Layout
from pipeline.loading.pairs import Masking, PairBatch, PairPool, Source
from pipeline.training.completion import (
    PER_PERSON,
    black_like,
    clustered_mean,
    plain,
    reference_use,
    savings,
    stand_ins,
)
from tests.pipeline.toy_world import write_pool

DATASETS = ("synthetic", "aist")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> PairPool:
    layout = Layout("test", tmp_path_factory.mktemp("pool"))
    write_pool(layout, "synthetic", 8)
    write_pool(layout, "aist", 8, ("view", "pose"), masks=False)
    return PairPool(
        [Source(name, layout.pairs("body", name), layout.crops("body", name), 1.0) for name in DATASETS],
        {"view": 1.0, "pose": 1.0},
        heldout=0.6,
        size=64,
        masking=Masking("human", 0.75, "max_n", min_human=8, patch=8),
        jitter=0.4,
        seed=0,
    )


@pytest.fixture(scope="module")
def pairs(pool: PairPool) -> PairBatch:
    found = pool.validation(1000)
    assert found is not None
    return found


def test_kinds_and_groups_are_those_of_the_manifest(pool: PairPool, pairs: PairBatch) -> None:
    names = pool.ids(pairs)
    assert pool.kinds(pairs).tolist() == [name.split("-")[0] for name in names]
    # The frames of one person are linked; four to a person, numbered through.
    people = [(name.split("-")[1], int(name.split("-")[2]) // 4) for name in names]
    groups = pool.groups(pairs)
    assert len(set(groups.tolist())) == len(set(people)) > 4
    assert len(set(zip(groups.tolist(), people, strict=True))) == len(set(people))


def test_stand_ins_are_of_the_same_person_and_of_another(pool: PairPool, pairs: PairBatch) -> None:
    groups, images = pool.groups(pairs), pairs.reference_cut[:, :2].numpy()
    chosen = stand_ins(pairs, groups)
    others = chosen["other"]
    assert (others >= 0).all()
    assert (groups[others] != groups).all()
    same, has = chosen["same"], chosen["same"] >= 0
    assert has.mean() > 0.5
    assert (groups[same[has]] == groups[has]).all()
    assert (images[same[has]] != images[has]).any(axis=1).all()
    assert (images[same[has]] != pairs.target_cut[has][:, :2].numpy()).any(axis=1).all()


def test_references_that_no_pair_can_have_are_not_completed_with(pool: PairPool) -> None:
    alone = pool.validation(1)
    assert alone is not None
    model, passes = catalog.create("croco_mini_patch8_64"), []
    model.register_forward_hook(lambda *_: passes.append(1))
    losses = reference_use(model, alone, pool.groups(alone), normalize=True)
    assert {name.removesuffix(PER_PERSON) for name in losses} == {"true", "black"}
    assert len(passes) == 2


@pytest.mark.parametrize("chunk", [1, 5])
def test_each_loss_is_that_of_completing_with_that_reference(pool: PairPool, pairs: PairBatch, chunk: int) -> None:
    model, groups = catalog.create("croco_mini_patch8_64", seed=3).eval(), pool.groups(pairs)
    losses = reference_use(model, pairs, groups, normalize=True, chunk=chunk)
    target = plain(pairs.target)
    chosen = {"true": np.arange(len(pairs))} | stand_ins(pairs, groups)
    for pair in (0, 7, len(pairs) - 1):
        one = slice(pair, pair + 1)
        references = {name: plain(pairs.reference[rows[one]]) for name, rows in chosen.items() if rows[pair] >= 0}
        references["black"] = black_like(target[one])
        for name, reference in references.items():
            prediction = model(target[one], reference, pairs.hidden[one]).prediction
            loss = completion_loss(prediction, target[one], pairs.hidden[one], normalize=True).item()
            assert losses[name][pair] == pytest.approx(loss, rel=1e-4)
    assert (np.isnan(losses["same"]) == (chosen["same"] < 0)).all()
    # Silhouettes are known of the first of the two data sets alone.
    assert (np.isnan(losses["true" + PER_PERSON]) == (pairs.pairs[:, 0] == 1).numpy()).all()


def test_a_single_pair_has_no_other_reference_but_a_black_one(pool: PairPool) -> None:
    pair = pool.validation(1)
    assert pair is not None
    losses = reference_use(catalog.create("croco_mini_patch8_64"), pair, pool.groups(pair), normalize=True)
    assert {name.partition("/")[0] for name in losses} == {"true", "black"}
    assert all(len(loss) == 1 for loss in losses.values())
    assert {saving.against for saving in savings(losses, pool.kinds(pair), pool.groups(pair))} == {"black"}


def test_a_network_without_reference_has_one_loss(pool: PairPool, pairs: PairBatch) -> None:
    losses = reference_use(catalog.create("mae_mini_patch8_64"), pairs, pool.groups(pairs), normalize=True)
    assert set(losses) == {"true", "true" + PER_PERSON}
    assert savings(losses, pool.kinds(pairs), pool.groups(pairs)) == []


def test_where_there_is_one_recording_no_other_stands_in(pool: PairPool, pairs: PairBatch) -> None:
    chosen = stand_ins(pairs, np.zeros(len(pairs), np.int64))
    assert (chosen["other"] == -1).all()
    assert (chosen["same"] >= 0).all()


def test_a_saving_is_the_difference_of_two_losses_over_pairs_of_one_kind() -> None:
    nan = np.nan
    losses = {
        "true": np.array([1.0, 2.0, 3.0, 4.0]),
        "other": np.array([2.0, 4.0, 6.0, 8.0]),
        "true/human": np.array([1.0, nan, 1.0, 1.0]),
        "other/human": np.array([1.5, nan, 1.5, 3.0]),
    }
    kinds, groups = np.array(["view", "view", "view", "pose"]), np.array([0, 0, 1, 2])
    found = {(item.kind, item.patches): item for item in savings(losses, kinds, groups)}
    assert set(found) == {(kind, patches) for kind in ("view", "pose") for patches in ("hidden", "person")}
    view = found["view", "hidden"]
    assert (view.against, view.loss, view.saves, view.pairs, view.recordings) == ("other", 2.0, 2.0, 3, 2)
    assert found["view", "person"].saves == 0.5
    assert found["view", "person"].pairs == 2
    assert found["pose", "hidden"].saves == 4.0
    assert found["pose", "hidden"].standard_error is None


def test_the_error_of_a_mean_is_over_groups() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=40)
    alone = clustered_mean(values, np.arange(40))
    assert alone == (values.mean(), pytest.approx(values.std(ddof=1) / np.sqrt(40)), 40)
    # The same measured ten times is no surer.
    again = clustered_mean(values.repeat(10), np.arange(40).repeat(10))
    assert again == (pytest.approx(alone[0]), pytest.approx(alone[1]), 40)
    assert clustered_mean(values, np.zeros(40, np.int64))[1:] == (None, 1)
