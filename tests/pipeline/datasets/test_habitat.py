"""Pairs of static scenes: the stand-in read back, two views of one place, damage, and the pairs made of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import frames, manifests
from pipeline.crops import CropStore
from pipeline.datasets.habitat import BASELINE, SHARED, two_views
from pipeline.datasets.world import generator
from pipeline.pairs.selection import select
from pipeline.parsing import Cutting, parse
from pipeline.records import FrameRecord
from pipeline.rendering.cameras import Camera
from pipeline.rendering.rooms import Room, random_room
from pipeline.run_spec import Pairs
from tests.pipeline.datasets.conftest import SIZES, read

NAME = "habitat"
ROOMS, PAIRS, SIDE = SIZES[NAME].values()
SETTINGS = Pairs(
    max_view=400, max_pose=400, patch=8, input_size=48, min_human_patches=8, min_gap_s=0.1, max_gap_s=4.0,
    min_baseline_degrees=5.0, seed=0,
)  # fmt: skip
Pair = tuple[FrameRecord, FrameRecord]


@pytest.fixture(scope="module")
def pairs(root: Path) -> list[Pair]:
    records, entries = read(NAME, root)
    assert entries == []
    return list(zip(records[::2], records[1::2], strict=True))


def scenes(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.rglob("metadata.json"))


def camera(record: FrameRecord) -> Camera:
    return Camera(record.camera_K, record.camera_R, record.camera_t)


def room(record: FrameRecord) -> Room:
    """The room that a record of the stand-in shows."""
    number = int(record.sequence.split("/")[-2].removesuffix("-room"))
    return random_room(generator(0, NAME, number))


def matches(pair: Pair) -> tuple[NDArray, NDArray]:
    """(M, 2) pixels of the first image, and of the second one where that shows the same place: by two depth maps."""
    first, second = map(camera, pair)
    seen, there = (room(record).look(camera(record), (SIDE, SIDE)) for record in pair)
    points = seen.points.reshape(-1, 3).astype(np.float64)
    pixels = second.project(points)
    inside = ((pixels >= 0) & (pixels < SIDE)).all(axis=1)
    x, y = np.floor(np.where(inside[:, None], pixels, 0)).astype(int).T
    found = inside & (np.abs(second.to_camera(points)[:, 2] - there.depth[y, x]) < 0.1)
    return np.floor(first.project(points[found])).astype(int), np.stack([x, y], axis=1)[found]


def test_every_pair_is_two_records_of_one_instant_that_fill_their_images(pairs: list[Pair], root: Path) -> None:
    assert len(pairs) == ROOMS * PAIRS
    for one, other in pairs:
        assert (one.sequence, one.subject, one.frame_index) == (other.sequence, other.subject, other.frame_index)
        assert (one.camera, other.camera) == ("1", "2")
        for record in (one, other):
            assert frames.read_image(root / record.image).shape == (SIDE, SIDE, 3)
            assert record.box == (0.0, 0.0, SIDE, SIDE)
            assert record.silhouette is None and record.keypoints_2d is None
    assert len({record.frame_id for pair in pairs for record in pair}) == 2 * len(pairs)


def test_cameras_see_sixty_degrees_from_the_height_of_a_head(pairs: list[Pair]) -> None:
    for record in (record for pair in pairs for record in pair):
        assert np.degrees(2 * np.arctan(SIDE / 2 / record.camera_K[0, 0])) == pytest.approx(60)
        assert 1.2 <= camera(record).centre[1] <= 1.8
        # Images stand upright: the image's y axis points to the floor.
        assert record.camera_R[1, 1] < -0.8


def test_both_images_show_half_of_each_other_from_two_sides(pairs: list[Pair]) -> None:
    for one, other in pairs:
        for pair in ((one, other), (other, one)):
            # The share was measured on fewer rays.
            assert len(matches(pair)[0]) / SIDE**2 > SHARED - 0.12
        assert np.degrees(np.arccos(one.camera_R[2] @ other.camera_R[2])) > BASELINE
        assert np.linalg.norm(camera(one).centre - camera(other).centre) > 0.2


def test_what_both_images_show_has_the_same_colour_in_both(pairs: list[Pair], root: Path) -> None:
    for pair in pairs:
        first, second = (frames.read_image(root / record.image).astype(float) for record in pair)
        (x, y), (u, v) = (places.T for places in matches(pair))
        apart = np.abs(first[y, x] - second[v, u]).mean(axis=1)
        shuffled = np.random.default_rng(0).permutation(len(u))
        by_chance = np.abs(first[y, x] - second[v[shuffled], u[shuffled]]).mean(axis=1)
        assert np.median(apart) < 12
        assert np.median(apart) < 0.5 * np.median(by_chance)


def test_pairs_of_different_rooms_look_different(pairs: list[Pair], root: Path) -> None:
    images = [frames.read_image(root / one.image).astype(float) for one, _ in pairs]
    assert all(np.abs(one - other).mean() > 10 for one, other in pairwise(images))


def test_the_metadata_says_how_much_is_seen_by_both(pairs: list[Pair], root: Path) -> None:
    for folder in scenes(root):
        content = json.loads((folder / "metadata.json").read_text())
        assert content["resolution"] == [SIDE, SIDE] and content["views_count"] == 2
        assert list(content["multiviews"]) == [f"{number:08d}" for number in range(PAIRS)]
        for entry in content["multiviews"].values():
            shared = np.array(entry["pairwise_visibility_ratios"])
            assert shared.min() >= SHARED
            assert entry["covisibility_ratios"][1] == min(shared[0, 1], shared[1, 0])


@pytest.mark.parametrize(("width", "problem"), [(0.5, "so full that nobody can stand"), (0.7, "no two views")])
def test_a_room_that_is_too_narrow_has_no_two_views(width: float, problem: str) -> None:
    narrow = replace(random_room(np.random.default_rng(0)), size=np.array([width, 2.5, width]), furniture=())
    with pytest.raises(LookupError, match=problem):
        two_views(np.random.default_rng(0), narrow, SIDE)


def test_scenes_of_validation_are_left_out(copy: Path) -> None:
    train = copy / "habitat_release/hm3d/train"
    for split in ("val", "minival"):
        shutil.copytree(train, train.with_name(split))
    shutil.copytree(train / "00000-room", copy / "habitat_release/scannet/valley/00000-room")
    records, entries = read(NAME, copy)
    assert len(records) == 2 * (ROOMS + 1) * PAIRS
    assert {record.split for record in records} == {"train"}
    assert entries == []


def test_scenes_are_read_through_links_and_once_where_links_go_in_a_circle(copy: Path, tmp_path: Path) -> None:
    without, _ = read(NAME, copy)
    elsewhere = tmp_path / "disk"
    (copy / "habitat_release/hm3d").rename(elsewhere)
    (copy / "habitat_release/hm3d").symlink_to(elsewhere)
    (elsewhere / "train/back").symlink_to(copy)
    (elsewhere / "train/00000-room/again").symlink_to(elsewhere / "train")
    records, entries = read(NAME, copy)
    assert [record.image for record in records] == [record.image for record in without]
    assert entries == []


def test_damaged_images_and_cameras_are_listed_and_the_rest_is_read(copy: Path) -> None:
    first, second = scenes(copy)
    (first / "00000000_1.jpeg").write_bytes(b"")
    (first / "00000001_2.jpeg").unlink()
    content = json.loads((first / "metadata.json").read_text())
    del content["multiviews"]["00000001"]["positions"]
    content["multiviews"]["00000002"]["orientations"][1] = [0.0, 0.0, 0.0, 0.0]
    (first / "metadata.json").write_text(json.dumps(content))
    (second / "metadata.json").write_text("[1")
    records, entries = read(NAME, copy)
    found = [(Path(record.sequence).parent.name, Path(record.image).name) for record in records]
    assert [name for scene, name in found if scene == "00000-room"] == ["00000000_2.jpeg", "00000002_1.jpeg"]
    assert sum(scene == "00001-room" for scene, _ in found) == 2 * PAIRS
    assert all((record.camera_K is None) == ("00001" in record.sequence) for record in records)
    reasons = {Path(file).name: reason for file, reason in entries}
    assert reasons["00000000_1.jpeg"].startswith("not a readable image")
    assert reasons["00000001_1.jpeg"] == "no positions of its camera"
    assert "quaternion" in reasons["00000002_2.jpeg"]
    assert reasons["metadata.json"].startswith("no cameras: not readable as JSON")


def test_pairs_are_the_two_views_of_a_place_and_nothing_else(root: Path, pairs: list[Pair], tmp_path: Path) -> None:
    manifests.write_records([record for pair in pairs for record in pair], tmp_path / "records.parquet")
    table = manifests.read_records(tmp_path / "records.parquet")
    # As `Params.crop_scale` says of this pool: the crop is the image.
    cutting = Cutting(root, SIDE, 1.0, "none")
    assert parse(table, tmp_path / "crops.arrow", tmp_path / "scratch", cutting).crops == 2 * len(pairs)
    store = CropStore(tmp_path / "crops.arrow")
    image = frames.read_image(root / pairs[0][0].image).astype(float)
    assert np.abs(store.image(store.row(pairs[0][0].frame_id)) - image).mean() < 3
    rows, counts = select(table, store, SETTINGS, ("view",))
    made = {frozenset((row["target_frame_id"], row["reference_frame_id"])) for row in rows}
    assert made == {frozenset((one.frame_id, other.frame_id)) for one, other in pairs}
    assert counts["view"] == len(pairs)
    assert all(row["target_patch_mask"] is None for row in rows)


def test_without_cameras_pairs_are_made_all_the_same(copy: Path, tmp_path: Path) -> None:
    for folder in scenes(copy):
        (folder / "metadata.json").write_text("{}")
    records, entries = read(NAME, copy)
    assert {reason for _, reason in entries} == {"no cameras: not the metadata of a scene"}
    manifests.write_records(records, tmp_path / "records.parquet")
    table = manifests.read_records(tmp_path / "records.parquet")
    parse(table, tmp_path / "crops.arrow", tmp_path / "scratch", Cutting(copy, SIDE, 1.0, "none"))
    rows, _ = select(table, CropStore(tmp_path / "crops.arrow"), SETTINGS, ("view",))
    assert len(rows) == ROOMS * PAIRS
    assert {row["baseline_degrees"] for row in rows} == {None}
