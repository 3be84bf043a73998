"""Keypoints of thirteen kinds from every set, and that they stay on what they mark through crop and cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.crops import Crop, Square, crop, encode_jpeg, write_crops
from pipeline.datasets import keypoints as from_coco
from pipeline.loading.augment import random_corners
from pipeline.loading.crop_pixels import CropPixels
from pipeline.loading.keypoints import NAMES, SETS, Keypoints, penn13
from pipeline.manifests import ManifestError, write_records
from pipeline.records import FrameRecord

SIZE = 64
COLOURS = np.array([[255, 40 * (i % 5), 255 - 20 * i] for i in range(13)], np.uint8)


@given(seed=st.integers(0, 1000), frames=st.integers(1, 3))
def test_every_way_round_through_another_set_gives_the_same_thirteen(seed: int, frames: int) -> None:
    coco = np.random.default_rng(seed).normal(size=(frames, 17, 3))
    expected = from_coco.penn13(coco)
    ways = {
        "coco17": coco,
        "penn13": expected,
        "openpose18": from_coco.openpose18(coco),
        "body25": from_coco.body25(coco),
        "spin49": from_coco.spin49(coco),
    }
    assert set(ways) == set(SETS) - {"smpl24"}
    for name, points in ways.items():
        assert np.array_equal(penn13(points, name), expected), name


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_thirteen_different_places(name: str) -> None:
    count, places = SETS[name]
    assert len(places) == len(set(places)) == len(NAMES)
    assert set(places) <= set(range(count))


def test_smpl_joints_stand_where_smpl_has_them() -> None:
    joints = dict(zip(NAMES, SETS["smpl24"][1], strict=True))
    # SMPL's joint order: left before right, from the hips (1, 2) and the shoulders (16, 17) outwards.
    for number, name in enumerate(("hip", "knee", "ankle")):
        assert (joints[f"left {name}"], joints[f"right {name}"]) == (1 + 3 * number, 2 + 3 * number)
    for number, name in enumerate(("shoulder", "elbow", "wrist")):
        assert (joints[f"left {name}"], joints[f"right {name}"]) == (16 + 2 * number, 17 + 2 * number)
    assert joints["head"] == 15


def test_another_set_or_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no keypoint set is called 'halpe26'; known: penn13, coco17"):
        penn13(np.zeros((26, 3)), "halpe26")
    with pytest.raises(ValueError, match="16 keypoints where coco17 has 17"):
        penn13(np.zeros((16, 3)), "coco17")


def record(number: int, points: np.ndarray | None, keypoint_set: str | None) -> FrameRecord:
    return FrameRecord(
        dataset="aist", split="train", sequence=f"{number:04d}", subject="0", camera="c", frame_index=0,
        image="image.jpg", width=400, height=300, box=(100.0, 50.0, 120.0, 200.0),
        keypoints_2d=points, keypoint_set=keypoint_set,
    )  # fmt: skip


def write(folder: Path, people: int, keypoint_set: str = "coco17") -> tuple[Path, Path]:
    """People made of a dot for each keypoint, in a colour of its own, each cut out by a square of its own."""
    rng = np.random.default_rng(0)
    records, crops = [], []
    count, places = SETS[keypoint_set]
    for number in range(people):
        image = np.zeros((300, 400, 3), np.uint8)
        points = np.zeros((count, 3))
        points[places, :2] = rng.uniform([110, 60], [210, 240], (13, 2))
        points[places, 2] = rng.uniform(0.1, 1.0, 13) * (rng.random(13) < 0.8)
        y, x = np.mgrid[:300, :400] + 0.5
        for place, colour in zip(places, COLOURS, strict=True):
            near = np.hypot(x - points[place, 0], y - points[place, 1]) < 7
            image[near] = colour
        one = record(number, points, keypoint_set)
        square = Square(160 + rng.uniform(-5, 5), 150 + rng.uniform(-5, 5), rng.uniform(180, 220))
        records.append(one)
        crops.append(Crop(frame_id=one.frame_id, jpeg=encode_jpeg(crop(image, square, 80)), square=square))
    write_records(records, folder / "records.parquet")
    write_crops(folder / "crops.arrow", crops[::-1], 80)
    return folder / "records.parquet", folder / "crops.arrow"


@pytest.mark.parametrize("keypoint_set", ["coco17", "openpose18"])
def test_a_keypoint_stays_on_what_it_marks(tmp_path: Path, keypoint_set: str) -> None:
    files = write(tmp_path, 20, keypoint_set)
    rows = np.repeat(np.arange(20), 3)
    corners = random_corners(np.random.default_rng(1), len(rows), 80, SIZE)
    cuts = torch.from_numpy(np.column_stack([np.ones_like(rows), rows, corners]))
    pixels = CropPixels(files[1])
    images = np.zeros((len(rows), SIZE, SIZE, 3), np.uint8)
    pixels.images.cut(rows, corners, list(images))
    found = Keypoints([write(tmp_path / "other", 2), files], SIZE).of(cuts).numpy()
    counted = 0
    for image, points in zip(images, found, strict=True):
        for number, (x, y, confidence) in enumerate(points):
            apart = np.hypot(*(points[:, :2] - points[number, :2]).T) > 8  # others would hide it
            if confidence > 0 and apart.sum() == 12:
                assert np.abs(image[int(y), int(x)].astype(int) - COLOURS[number]).max() < 40
                counted += 1
    assert counted > 100


def test_a_keypoint_outside_the_cut_or_not_annotated_has_no_confidence(tmp_path: Path) -> None:
    files = write(tmp_path, 20)
    rows = np.arange(20)
    whole = Keypoints([files], 80).of(torch.from_numpy(np.column_stack([0 * rows, rows, 0 * rows, 0 * rows])))
    part = Keypoints([files], SIZE).of(torch.from_numpy(np.column_stack([0 * rows, rows, 0 * rows + 16, 0 * rows])))
    assert torch.equal(part[..., 0], whole[..., 0])
    assert torch.allclose(part[..., 1], whole[..., 1] - 16, atol=1e-5)
    inside = ((part[..., :2] >= 0) & (part[..., :2] < SIZE)).all(-1)
    assert torch.equal(part[..., 2], whole[..., 2] * inside)
    lost = (whole[..., 2] > 0) & ~inside
    assert lost.any()
    assert (whole[..., 2] == 0).any()
    assert ((whole[..., 2] > 0) & (whole[..., 2] < 1)).any()  # confidence comes through as it is


def test_records_without_keypoints_are_an_error_that_names_them(tmp_path: Path) -> None:
    _, crops = write(tmp_path, 2)
    bare = tmp_path / "bare.parquet"
    write_records([record(number, None, None) for number in range(3)], bare)
    with pytest.raises(ManifestError, match=r"bare\.parquet: none of its 3 records has 2D keypoints"):
        Keypoints([(bare, crops)], SIZE)
    odd = tmp_path / "odd.parquet"
    write_records([record(0, np.zeros((26, 3)), "halpe26")], odd)
    with pytest.raises(ManifestError, match=r"odd\.parquet: no keypoint set is called 'halpe26'"):
        Keypoints([(odd, crops)], SIZE)


def test_a_data_set_that_is_left_out_has_no_keypoints_and_no_error(tmp_path: Path) -> None:
    write_records([], tmp_path / "records.parquet")
    write_crops(tmp_path / "crops.arrow", [], 80)
    files = (tmp_path / "records.parquet", tmp_path / "crops.arrow")
    assert Keypoints([files], SIZE).of(torch.zeros(0, 4, dtype=torch.int64)).shape == (0, 13, 3)


def test_a_record_of_which_no_crop_was_made_is_passed_over(tmp_path: Path) -> None:
    records, crops = write(tmp_path, 3)
    write_crops(tmp_path / "fewer.arrow", [Crop(frame_id="0" * 16, jpeg=b"", square=Square(1, 1, 1))], 80)
    points = Keypoints([(records, tmp_path / "fewer.arrow")], SIZE).of(torch.zeros(1, 4, dtype=torch.int64))
    assert not points[..., 2].any()
    assert Keypoints([(records, crops)], SIZE).of(torch.zeros(1, 4, dtype=torch.int64))[..., 2].any()
