"""Batches of pairs: what is drawn, that it hangs on (seed, step) alone, and that masks follow their image."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.crops import CropStore, write_crops
from pipeline.layout import Layout
from pipeline.loading.crop_pixels import CropPixels
from pipeline.loading.pairs import Limits, Masking, PairBatch, PairPool, Source
from pipeline.manifests import ManifestError, read_pairs
from tests.pipeline.toy_world import write_pool

MASKING = Masking("human", 0.75, "max_n", min_human=8, patch=8)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout("test", tmp_path_factory.mktemp("pool"))
    write_pool(layout, "synthetic", 12)
    write_pool(layout, "aist", 6, ("view", "pose"))
    write_pool(layout, "3dpw", 6, ("pose",), masks=False)
    return layout


def source(layout: Layout, name: str, weight: float = 1.0) -> Source:
    return Source(name, layout.pairs("body", name), layout.crops("body", name), weight)


def pool(
    layout: Layout, weights: dict[str, float], kinds: dict[str, float] | None = None, **changes: object
) -> PairPool:
    options: dict = {"heldout": 0.0, "size": 64, "masking": MASKING, "jitter": 0.4, "seed": 0} | changes
    sources = [source(layout, name, weight) for name, weight in weights.items()]
    return PairPool(sources, kinds or {"view": 1.0, "pose": 1.0}, **options)


def same(a: PairBatch, b: PairBatch) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(PairBatch))


def drawn(some: PairPool, count: int) -> list[str]:
    return some.ids(some.batch(0, count))


def test_a_step_gives_the_same_batch_to_every_process_and_in_any_order(layout: Layout) -> None:
    one, other = pool(layout, {"synthetic": 1, "aist": 1}), pool(layout, {"synthetic": 1, "aist": 1})
    later = one.batch(7, 16)
    assert same(other.batch(3, 16), one.batch(3, 16))
    assert same(other.batch(7, 16), later)
    assert not same(one.batch(8, 16), later)
    assert not same(pool(layout, {"synthetic": 1, "aist": 1}, seed=1).batch(7, 16), later)


def test_a_batch_says_which_patches_are_visible(layout: Layout) -> None:
    batch = pool(layout, {"synthetic": 1.0, "3dpw": 1.0}).batch(0, 16)
    seen = torch.ones_like(batch.hidden).scatter(1, batch.visible, False)
    assert seen.equal(batch.hidden) and batch.visible.equal(batch.visible.sort(dim=1).values)


@pytest.mark.parametrize("masking", [MASKING, Masking("uniform", 0.75, "max_n", min_human=8, patch=8)])
def test_processes_that_share_a_step_have_the_parts_of_one_batch(layout: Layout, masking: Masking) -> None:
    some = pool(layout, {"synthetic": 1, "aist": 1}, masking=masking)
    whole, halves = some.batch(5, 16), [some.batch(5, 16, part) for part in (slice(0, 8), slice(8, 16))]
    together = {f.name: torch.cat([getattr(half, f.name) for half in halves]) for f in fields(PairBatch)}
    assert same(whole, PairBatch(**together))


def test_every_pair_is_seen_once_before_any_is_seen_again(layout: Layout) -> None:
    some = pool(layout, {"synthetic": 1})
    seen = [name for step in range(3) for name in some.ids(some.batch(step, some.epoch // 3))]
    assert sorted(seen) == sorted(read_pairs(layout.pairs("body", "synthetic"))["pair_id"].to_pylist())


def test_datasets_and_kinds_are_drawn_by_weight(layout: Layout) -> None:
    some = pool(layout, {"synthetic": 6, "aist": 1}, {"view": 1.0, "pose": 3.0})
    assert some.shares == pytest.approx({"synthetic/view": 0.6, "aist/view": 0.1, "aist/pose": 0.3})
    ids = drawn(some, 4000)
    share = {
        cell: np.mean([name.startswith(cell) for name in ids]) for cell in ("view-synthetic", "view-aist", "pose-aist")
    }
    assert share == pytest.approx({"view-synthetic": 0.6, "view-aist": 0.1, "pose-aist": 0.3}, abs=0.01)


def test_a_kind_left_out_is_never_drawn(layout: Layout) -> None:
    ids = drawn(pool(layout, {"aist": 1}, {"view": 1.0}), 200)
    assert all(name.startswith("view-") for name in ids)


def test_no_pairs_of_the_kinds_asked_for_is_an_error_that_names_the_files(layout: Layout) -> None:
    with pytest.raises(ManifestError, match=r"no pairs of kind pose in .*synthetic\.parquet"):
        pool(layout, {"synthetic": 1}, {"pose": 1.0})
    with pytest.raises(ManifestError, match=r"no pairs of kind view in .*, beside those that the run's `without`"):
        pool(layout, {"synthetic": 1}, {"view": 1.0}, limits=Limits(without={"synthetic": ["view"]}))


def test_pairs_that_the_run_itself_leaves_out_are_not_said_to_be_missing(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ManifestError, match=r"^nothing is left .* pairs of synthetic/view: .*`heldout`"):
        pool(layout, {"synthetic": 1}, heldout=1.0)
    caplog.clear()
    some = pool(layout, {"aist": 1}, limits=Limits(gap_s=(90.0, 91.0)))
    assert some.counts.keys() == {"aist/view"}
    assert "left out: aist/pose: none of their pairs is within the run's limits" in caplog.text
    caplog.clear()
    pool(layout, {"synthetic": 1}, heldout=1e-9)
    assert "none of these pairs is held out, there will be no validation" in caplog.text


@pytest.mark.parametrize(
    ("rows", "example"),
    [
        ([*range(24)], r" \(the target of pair view-synthetic-25, frame \w+, row 25, is not there\)"),
        ([1, 0, *range(2, 48)], r" \(the target of pair view-synthetic-1, frame \w+, row 1, is row 0 there\)"),
        ([*range(48), 0], ""),
    ],
    ids=["fewer", "in another order", "more"],
)
def test_pairs_of_other_crops_are_refused(layout: Layout, tmp_path: Path, rows: list[int], example: str) -> None:
    here, store = source(layout, "synthetic"), CropStore(layout.crops("body", "synthetic"))
    remade = tmp_path / "crops.arrow"
    write_crops(remade, [store.crop(row) for row in rows], store.size)
    mixed = replace(here, crops=remade)
    said = rf"synthetic\.parquet was made from other crops than {remade} holds{example}; `dvc repro` makes"
    with pytest.raises(ManifestError, match=said):
        PairPool([mixed], {"view": 1.0}, heldout=0.0, size=64, masking=MASKING, jitter=0.4, seed=0)


def test_each_image_has_its_own_crop_and_the_mask_follows_the_target(layout: Layout) -> None:
    batch = pool(layout, {"synthetic": 1}, jitter=0.0).batch(0, 64)
    pixels = CropPixels(layout.crops("body", "synthetic"))
    stored, silhouettes = (rows.whole(np.arange(len(pixels))) for rows in (pixels.images, pixels.silhouettes))
    corners = []
    for target, reference, human, *told in zip(
        batch.target.numpy(),
        batch.reference.numpy(),
        batch.human.numpy(),
        batch.target_cut.tolist(),
        batch.reference_cut.tolist(),
        strict=True,
    ):
        places = []
        for image in (target, reference):
            found = [
                (row, top, left)
                for row in range(len(stored))
                for top, left in np.argwhere((stored[row, :17, :17] == image[0, 0]).all(-1))
                if (stored[row, top : top + 64, left : left + 64] == image).all()
            ]
            assert len(found) == 1
            places.append(found[0])
        assert told == [[0, *place] for place in places]
        (row, top, left), (other, *_) = places
        assert abs(row - other) == 1  # two neighbouring frames of one person
        cut = silhouettes[row, top : top + 64, left : left + 64].reshape(8, 8, 8, 8).any(axis=(1, 3)).reshape(-1)
        assert (cut == human).all()
        corners.append(places)
    assert len({tuple(place[1:]) for pair in corners for place in pair}) > 20
    assert sum(pair[0][1:] == pair[1][1:] for pair in corners) < 5
    assert 10 < sum(pair[0][0] > pair[1][0] for pair in corners) < 54  # roles are swapped at random


def test_each_image_has_its_own_colours_within_the_jitter(layout: Layout) -> None:
    batch = pool(layout, {"synthetic": 1}, jitter=0.4).batch(0, 64)
    colours = torch.cat([batch.target_colours, batch.reference_colours])
    assert len(colours.flatten().unique()) == colours.numel()
    assert (colours.amin(dim=0) - 0.6).abs().max() < 0.05
    assert (colours.amax(dim=0) - 1.4).abs().max() < 0.05


def test_shared_crops_lie_at_one_place_and_change_nothing_else(layout: Layout) -> None:
    own, shared = (pool(layout, {"synthetic": 1, "aist": 1}, shared_crops=how).batch(3, 64) for how in (False, True))
    assert torch.equal(shared.target_cut[:, 2:], shared.reference_cut[:, 2:])
    assert not torch.equal(own.target_cut[:, 2:], own.reference_cut[:, 2:])
    assert len(shared.target_cut[:, 2:].unique(dim=0)) > 20
    assert torch.equal(shared.reference_cut[:, :2], own.reference_cut[:, :2])
    kept = (f.name for f in fields(PairBatch) if not f.name.startswith("reference") or f.name == "reference_colours")
    assert all(torch.equal(getattr(shared, name), getattr(own, name)) for name in kept)


def test_people_without_silhouette_are_masked_uniformly_in_the_same_batch(layout: Layout) -> None:
    batch = pool(layout, {"synthetic": 1, "3dpw": 1}).batch(0, 64)
    counts = batch.hidden.sum(dim=1)
    assert (counts == counts[0]).all()
    known = batch.human.any(dim=1)
    assert known.any()
    assert not known.all()
    hidden_human = (batch.hidden & batch.human).sum(1)[known].float() / batch.human.sum(1)[known]
    assert torch.allclose(hidden_human, torch.floor(0.75 * batch.human.sum(1)[known]) / batch.human.sum(1)[known])


def test_held_out_pairs_share_no_frame_with_training_pairs(layout: Layout) -> None:
    table = read_pairs(layout.pairs("body", "synthetic"))
    apart = table["group_rank"].to_numpy() < 0.4
    assert 0 < apart.sum() < len(apart)
    frames = [
        {
            name
            for column in ("target_frame_id", "reference_frame_id")
            for name in table.filter(mask)[column].to_pylist()
        }
        for mask in (apart, ~apart)
    ]
    assert not frames[0] & frames[1]


def test_validation_shows_plain_centre_crops_of_held_out_pairs(layout: Layout) -> None:
    some = pool(layout, {"synthetic": 1}, heldout=0.4)
    batch = some.validation(8)
    assert batch is not None
    assert same(batch, pool(layout, {"synthetic": 1}, heldout=0.4).validation(8))
    assert torch.equal(batch.target_colours, torch.ones_like(batch.target_colours))
    trained = {name for step in range(20) for name in some.ids(some.batch(step, 16))}
    assert len(trained) == some.epoch
    assert not trained & set(some.ids(batch))
    assert pool(layout, {"synthetic": 1}).validation(8) is None


def test_a_file_too_large_to_keep_is_decoded_at_every_use_with_the_same_pixels(layout: Layout) -> None:
    path, rows, corners = (
        layout.crops("body", "aist"),
        np.array([3, 0, 3, 7]),
        np.array([(0, 1), (5, 0), (7, 7), (2, 3)]),
    )
    stores = CropPixels(path, kept_bytes=0), CropPixels(path)
    side = stores[0].size
    for wholes in ([store.images.whole(rows) for store in stores], [store.silhouettes.whole(rows) for store in stores]):
        assert (wholes[0] == wholes[1]).all()
    for store in (*stores, stores[1]):
        cuts = np.zeros((4, side - 7, side - 9, 3), np.uint8)
        store.images.cut(rows, corners, list(cuts))
        for cut, whole, (top, left) in zip(cuts, stores[0].images.whole(rows), corners, strict=True):
            assert (cut == whole[top : top + side - 7, left : left + side - 9]).all()


@pytest.mark.parametrize(
    ("limits", "column", "low", "high"),
    [
        (Limits(baseline_degrees=(30, 75)), "baseline_degrees", 30, 75),
        (Limits(gap_s=(0.5, 1.25)), "dt_seconds", 0.5, 1.25),
    ],
)
def test_pairs_beyond_a_limit_are_neither_trained_on_nor_held_out(
    layout: Layout, limits: Limits, column: str, low: float, high: float
) -> None:
    rows = read_pairs(layout.pairs("body", "aist")).to_pylist()
    within = {row["pair_id"] for row in rows if row[column] is None or low <= abs(row[column]) < high}
    assert 0 < len(within) < len(rows)
    everything = pool(layout, {"aist": 1}, limits=limits)
    assert set(drawn(everything, 10 * everything.epoch)) == within
    some = pool(layout, {"aist": 1}, limits=limits, heldout=0.5)
    heldout = some.validation(1000)
    assert heldout is not None
    assert set(some.ids(heldout)) == within - set(drawn(some, 10 * some.epoch)) != set()


def test_a_kind_that_a_run_leaves_aside_is_neither_trained_on_nor_held_out(layout: Layout) -> None:
    both = {"aist": 1.0, "3dpw": 1.0}
    some = pool(layout, both, limits=Limits(without={"aist": ["pose"]}), heldout=0.3)
    assert set(some.counts) == {"aist/view", "3dpw/pose"}
    pairs = some.validation(1000)
    assert pairs is not None
    names = [list(both)[source] for source, _ in pairs.pairs.tolist()]
    assert set(zip(names, some.kinds(pairs), strict=True)) == {("aist", "view"), ("3dpw", "pose")}


def test_few_pairs_are_spread_evenly_over_the_manifest(layout: Layout) -> None:
    ids = read_pairs(layout.pairs("body", "synthetic"))["pair_id"].to_pylist()
    some = pool(layout, {"synthetic": 1, "3dpw": 1}, limits=Limits(max_pairs=5))
    assert some.counts == {"synthetic/view": 5, "3dpw/pose": 5}
    places = [ids.index(name) for name in set(drawn(some, 100)) if name in ids]
    assert sorted(places) == [0, 8, 17, 26, 35]
    assert pool(layout, {"synthetic": 1}, limits=Limits(max_pairs=1000)).counts == {"synthetic/view": len(ids)}
