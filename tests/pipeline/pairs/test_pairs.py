"""Pairs: what they share, what they must not, how many of them and always the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.crops import Crop, CropStore, Square, encode_jpeg, write_crops
from pipeline.manifests import read_pairs, read_records, validate, write_records
from pipeline.pairs import candidates as candidates_module
from pipeline.pairs import cross_pose, cross_view, selection
from pipeline.pairs.candidates import Candidates
from pipeline.pairs.selection import select, spread, write_selection
from pipeline.records import FrameRecord
from pipeline.run_spec import Pairs

SIZE = 80


def record(sequence: str, subject: str, camera: int, index: int, split: str = "train") -> FrameRecord:
    """Ten instants per second; camera k looks along the direction k * 30 degrees."""
    angle = np.radians(30 * camera)
    rotation = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
    return FrameRecord(
        dataset="capture", split=split, sequence=sequence, subject=subject, camera=f"cam{camera}",
        frame_index=index, time_s=index / 10, image=f"{sequence}/{camera}/{index}.jpg", width=100, height=100,
        box=(10, 10, 50, 80), camera_R=rotation,
    )  # fmt: skip


def params(**changes: object) -> Pairs:
    values: dict[str, object] = {
        "max_view": 100, "max_pose": 100, "patch": 8, "input_size": 64, "min_human_patches": 8,
        "min_gap_s": 0.2, "max_gap_s": 1.0, "min_baseline_degrees": 0.0, "seed": 0,
    }  # fmt: skip
    return Pairs.model_validate(values | changes)


def table_of(records: Sequence[FrameRecord], folder: Path) -> pa.Table:
    write_records(records, folder / "records.parquet")
    return read_records(folder / "records.parquet")


def store_of(
    records: pa.Table, folder: Path, masks: dict[str, np.ndarray] | None = None, alike: bool = False
) -> CropStore:
    """Crops of a records table, each of its own colour; `masks` maps frame_id -> silhouette."""

    def crop(number: int, frame: str) -> Crop:
        colour = (0, 0, 0) if alike else (number % 16 * 16, number // 16 % 16 * 16, number // 256 * 16)
        mask = (masks or {}).get(frame)
        return Crop(
            frame_id=frame,
            jpeg=encode_jpeg(np.full((SIZE, SIZE, 3), colour, np.uint8)),
            square=Square(50, 50, 80),
            silhouette=None if mask is None else np.packbits(mask).tobytes(),
            silhouette_source=None if mask is None else "pgn",
        )

    frames = records["frame_id"].to_pylist()
    write_crops(folder / "crops.arrow", (crop(number, frame) for number, frame in enumerate(frames)), SIZE)
    return CropStore(folder / "crops.arrow")


captures = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 4), st.integers(0, 12)),
    unique=True,
    max_size=60,
).map(lambda keys: [record(*key) for key in keys])


def columns(records: Sequence[FrameRecord]) -> pa.Table:
    names = ("dataset", "split", "sequence", "subject", "camera", "frame_index", "time_s")
    schema = {"frame_index": pa.int64(), "time_s": pa.float64()}
    values = {name: pa.array([getattr(r, name) for r in records], schema.get(name, pa.string())) for name in names}
    return pa.table(values)


def all_pairs(found: Candidates) -> list[frozenset[int]]:
    one, other = found.pairs(np.arange(len(found)))
    return [frozenset(pair) for pair in zip(one.tolist(), other.tolist(), strict=True)]


@given(records=captures)
def test_view_candidates_are_all_pairs_of_one_instant_and_two_cameras(records: list[FrameRecord]) -> None:
    expected = {
        frozenset((i, j))
        for i, j in combinations(range(len(records)), 2)
        if (records[i].sequence, records[i].subject, records[i].frame_index)
        == (records[j].sequence, records[j].subject, records[j].frame_index)
    }
    found = all_pairs(cross_view.candidates(columns(records)))
    assert len(found) == len(set(found)) and set(found) == expected
    assert all(records[min(pair)].camera != records[max(pair)].camera for pair in found)


@given(records=captures, gaps=st.sampled_from([(0.1, 0.1), (0.3, 0.7), (0.2, 9.0)]))
def test_pose_candidates_are_all_pairs_of_one_track_within_the_gap(
    records: list[FrameRecord], gaps: tuple[float, float]
) -> None:
    expected = {
        frozenset((i, j))
        for i, j in combinations(range(len(records)), 2)
        if (records[i].sequence, records[i].subject, records[i].camera)
        == (records[j].sequence, records[j].subject, records[j].camera)
        and round(gaps[0] * 10) <= abs(records[i].frame_index - records[j].frame_index) <= round(gaps[1] * 10)
    }
    found = all_pairs(cross_pose.candidates(columns(records), *gaps))
    assert len(found) == len(set(found)) and set(found) == expected


def test_records_without_a_time_make_no_pose_pair() -> None:
    timed = columns([record("a", "x", 0, i) for i in range(4)])
    untimed = timed.set_column(timed.schema.get_field_index("time_s"), "time_s", pa.nulls(4, pa.float64()))
    assert len(cross_pose.candidates(timed, 0.1, 1)) == 6
    assert len(cross_pose.candidates(untimed, 0.1, 1)) == 0


@pytest.mark.parametrize("gaps", [(0.0, 1.0), (2.0, 1.0)])
def test_a_gap_that_can_not_be_is_refused(gaps: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must rise from above zero"):
        cross_pose.candidates(columns([record("a", "x", 0, 0)]), *gaps)


@pytest.mark.parametrize("listed", [2**20, 1])
def test_shuffling_gives_every_pair_once_whether_listed_or_drawn(monkeypatch: pytest.MonkeyPatch, listed: int) -> None:
    monkeypatch.setattr(candidates_module, "LISTED", listed)
    found = cross_view.candidates(columns([record("a", "x", camera, i) for camera in range(5) for i in range(6)]))
    shuffled = [frozenset(pair) for pair in found.shuffled(np.random.default_rng(0))]
    assert len(shuffled) == len(found) == 60 and set(shuffled) == set(all_pairs(found))
    assert shuffled != all_pairs(found)


@given(one=st.floats(0, 180), other=st.floats(0, 180))
def test_the_baseline_is_the_angle_between_the_cameras(one: float, other: float) -> None:
    directions = [np.array([np.sin(np.radians(a)), 0, np.cos(np.radians(a))]) for a in (one, other)]
    assert cross_view.baseline_degrees(*directions) == pytest.approx(abs(one - other), abs=1e-5)
    assert cross_view.baseline_degrees(directions[0], np.full(3, np.nan)) is None


@given(seed=st.integers(0, 2**32 - 1))
def test_a_viewing_direction_is_straight_ahead_of_its_camera(seed: int) -> None:
    rotations = Rotation.random(5, np.random.default_rng(seed)).as_matrix()
    directions = cross_view.viewing_directions(pa.table({"camera_R": [*rotations.reshape(5, 9).tolist(), None]}))
    ahead = np.einsum("nij,nj->ni", rotations, directions[:5])
    assert ahead == pytest.approx(np.tile([0.0, 0.0, 1.0], (5, 1)), abs=1e-9)
    assert np.isnan(directions[5]).all()


mixed = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 3), st.integers(0, 9),
    ),
    unique=True,
    min_size=4,
    max_size=60,
)  # fmt: skip


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=mixed, seed=st.integers(0, 3), quota=st.integers(1, 30))
def test_pairs_keep_their_promises(
    tmp_path: Path, keys: list[tuple[str, str, int, int]], seed: int, quota: int
) -> None:
    split_of = {"a": "train", "b": "test", "c": "val"}
    table = table_of([record(*key, split=split_of[key[0]]) for key in keys], tmp_path)
    rows, counts = select(
        table, store_of(table, tmp_path), params(max_view=quota, max_pose=quota, seed=seed), ["view", "pose"]
    )
    by_id = {row["frame_id"]: row for row in table.to_pylist()}
    unordered = set()
    for row in rows:
        target, reference = by_id[row["target_frame_id"]], by_id[row["reference_frame_id"]]
        assert target["split"] == reference["split"] == "train"
        assert (target["sequence"], target["subject"]) == (reference["sequence"], reference["subject"])
        if row["kind"] == "view":
            assert target["frame_index"] == reference["frame_index"] and target["camera"] != reference["camera"]
            assert row["dt_seconds"] is None and row["baseline_degrees"] >= 29
        else:
            assert target["camera"] == reference["camera"] and row["baseline_degrees"] is None
            assert row["dt_seconds"] == pytest.approx(reference["time_s"] - target["time_s"])
            assert 0.2 - 1e-6 <= abs(row["dt_seconds"]) <= 1.0 + 1e-6
        unordered.add((row["kind"], frozenset((row["target_frame_id"], row["reference_frame_id"]))))
    assert len(unordered) == len(rows)
    for kind in ("view", "pose"):
        assert counts.get(kind, 0) == min(quota, counts[f"{kind}_candidates"])


def a_capture() -> list[FrameRecord]:
    return [record(s, "x", camera, i) for s in "abc" for camera in range(4) for i in range(8)]


def test_the_manifest_is_valid_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    table = table_of(a_capture(), tmp_path)
    store = store_of(table, tmp_path)
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        records, out = tmp_path / "records.parquet", tmp_path / f"{name}.parquet"
        write_selection(records, store, out, params(seed=seed), ["view", "pose"])
    contents = [(tmp_path / f"{name}.parquet").read_bytes() for name in ("one", "two", "three")]
    assert contents[0] == contents[1] != contents[2]
    assert validate(tmp_path / "one.parquet") == "pairs"
    pairs = read_pairs(tmp_path / "one.parquet")
    assert Counter(pairs["kind"].to_pylist()) == {"view": 100, "pose": 100}
    assert [store.frame_id(row) for row in pairs["target_crop"].to_pylist()] == pairs["target_frame_id"].to_pylist()


def test_only_what_pairs_hang_on_is_read_of_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Joints and body parameters of a large dataset take gigabytes."""
    table, chosen_from = table_of(a_capture(), tmp_path), []
    store, records, out = store_of(table, tmp_path), tmp_path / "records.parquet", tmp_path / "p.parquet"
    monkeypatch.setattr(selection, "select", lambda records, *a: chosen_from.append(records) or select(records, *a))
    write_selection(records, store, out, params(), ["view", "pose"])
    assert chosen_from[0].column_names == selection.COLUMNS
    assert select(table, store, params(), ["view", "pose"]) == select(chosen_from[0], store, params(), ["view", "pose"])


def test_roles_are_random(tmp_path: Path) -> None:
    table = table_of(a_capture(), tmp_path)
    rows, _ = select(table, store_of(table, tmp_path), params(), ["pose"])
    forward = sum(row["dt_seconds"] > 0 for row in rows)
    assert 30 < forward < 70


def test_pairs_spread_evenly_over_sequences_and_a_short_one_gives_its_share_away(tmp_path: Path) -> None:
    long = [record(s, "x", camera, i) for s in "ab" for camera in range(4) for i in range(30)]
    short = [record("c", "x", camera, 0) for camera in range(3)]
    table = table_of(long + short, tmp_path)
    rows, _ = select(table, store_of(table, tmp_path), params(max_view=103), ["view"])
    sequence_of = dict(zip(table["frame_id"].to_pylist(), table["sequence"].to_pylist(), strict=True))
    assert Counter(sequence_of[row["target_frame_id"]] for row in rows) == {"a": 50, "b": 50, "c": 3}


def test_a_quota_smaller_than_the_number_of_sequences_is_met_exactly() -> None:
    draws = [iter([{"sequence": number}] * 5) for number in range(10)]
    taken = list(spread(draws, 4, np.random.default_rng(0)))
    assert len({row["sequence"] for row in taken}) == len(taken) == 4


def test_other_sequences_do_not_change_the_pairs_of_this_one(tmp_path: Path) -> None:
    few = table_of([record("a", "x", camera, i) for camera in range(3) for i in range(5)], tmp_path)
    few_rows, _ = select(few, store_of(few, tmp_path), params(max_view=5), ["view"])
    many = table_of([record(s, "x", camera, i) for s in "ab" for camera in range(3) for i in range(5)], tmp_path)
    many_rows, _ = select(many, store_of(many, tmp_path), params(max_view=10), ["view"])
    assert {row["pair_id"] for row in few_rows} < {row["pair_id"] for row in many_rows}


def test_cameras_that_look_alike_are_left_out_and_counted(tmp_path: Path) -> None:
    table = table_of([record("a", "x", camera, 0) for camera in range(4)], tmp_path)
    rows, counts = select(table, store_of(table, tmp_path), params(min_baseline_degrees=45), ["view"])
    assert sorted(round(row["baseline_degrees"]) for row in rows) == [60, 60, 90]
    assert counts["small_baseline"] == 3


@pytest.mark.parametrize("least", [8, 24])
def test_frames_that_show_too_little_of_the_person_are_left_out_unless_nothing_is_known(
    tmp_path: Path, least: int
) -> None:
    table = table_of([record("a", "x", camera, 0) for camera in range(4)], tmp_path)
    ids = table["frame_id"].to_pylist()
    small, large = np.zeros((2, SIZE, SIZE), bool)
    small[30:40, 30:40] = True
    large[16:64, 16:48] = True
    store = store_of(table, tmp_path, {ids[0]: small, ids[1]: large})
    rows, counts = select(table, store, params(min_human_patches=least), ["view"])
    assert counts["too_few_human_patches"] == 1 and len(rows) == 3
    for row in rows:
        for role in ("target", "reference"):
            mask = row[f"{role}_patch_mask"]
            assert row[f"{role}_frame_id"] != ids[0]
            assert (mask is None) == (row[f"{role}_frame_id"] != ids[1])
            if mask is not None:
                # The silhouette spans 8..56 by 8..40 of the centre crop: 6 x 4 of its 8 x 8 patches.
                grid = np.unpackbits(np.frombuffer(mask, np.uint8)).reshape(8, 8)
                assert grid[1:7, 1:5].all() and grid.sum() == 24


def test_frames_without_crop_and_still_pictures_make_no_pair(tmp_path: Path) -> None:
    table = table_of(a_capture(), tmp_path)
    store = store_of(table.slice(0, 40), tmp_path)
    _, counts = select(table, store, params(), ["view"])
    assert counts["no_crop"] == 56 and counts["usable"] == 40
    rows, counts = select(table, store_of(table, tmp_path, alike=True), params(), ["pose"])
    assert rows == [] and counts["same_picture"] == counts["pose_candidates"]


def test_no_pair_at_all_is_an_error_that_tells_why(tmp_path: Path) -> None:
    table = table_of([record("a", "x", camera, 0, split="test") for camera in range(3)], tmp_path)
    records, store = tmp_path / "records.parquet", store_of(table, tmp_path)
    with pytest.raises(ValueError, match=r"no pair of kind view could be made: .*'not_train': 3"):
        write_selection(records, store, tmp_path / "p.parquet", params(), ["view"])


def test_an_input_larger_than_the_crop_is_refused(tmp_path: Path) -> None:
    table = table_of(a_capture(), tmp_path)
    with pytest.raises(ValueError, match="at most the crop size 80"):
        select(table, store_of(table, tmp_path), params(input_size=96), ["view"])
