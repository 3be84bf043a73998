"""The human parser: labels stay with their pixels, views of it are honest, and a run leaves what parsing needs."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline.crops import Square
from pipeline.datasets.synthetic import ANNOTATION_SHAPES
from pipeline.layout import Layout
from pipeline.reporting.metric_table import read_file
from pipeline.silhouettes import load_parser
from pipeline.training.checkpoint import TrainingError, save_state
from pipeline.training.parser import evaluate, train_parser
from pipeline.training.parser_data import LabelledCrops, crop_labels, read_labelled, training_views
from tests.pipeline.toy_world import small_params

SIDE = 96
LENGTHS = {"S": 1, "C": 2, "I": 1, "3": 3, "4": 4, "2": 2}


def write_scenes(root: Path, count: int) -> None:
    """The layout of `synthetic`: bright people of two parts, trousers below a shirt, on dark ground."""
    rng = np.random.default_rng(0)
    for number in range(count):
        name = f"s{number:06d}"
        for folder in ("images", "parts"):
            (root / folder / name).mkdir(parents=True)
        boxes = np.zeros((1, 1, 2, 4))
        for camera in range(2):
            parts = np.zeros((SIDE, SIDE), np.uint8)
            x, y = rng.integers(30, 50), rng.integers(10, 20)
            parts[y : y + 35, x : x + 22], parts[y + 35 : y + 70, x : x + 22] = 5, 9
            palette = np.zeros((20, 3), np.uint8)
            palette[0], palette[5], palette[9] = rng.integers(0, 60, 3), (230, 200, 190), (90, 120, 240)
            cv2.imwrite(str(root / f"images/{name}/c{camera}_000.jpg"), palette[parts])
            cv2.imwrite(str(root / f"parts/{name}/c{camera}_000.png"), parts)
            boxes[0, 0, camera] = (x, y, 22, 70)
        arrays = {
            key: np.zeros([LENGTHS.get(letter, 24) for letter in letters]) for key, letters in ANNOTATION_SHAPES.items()
        }
        arrays |= {"scene": np.array([name]), "box": boxes, "size": np.array([SIDE, SIDE]), "betas": np.zeros((1, 10))}
        arrays |= {"body_pose": np.zeros((1, 1, 69)), "camera_K": np.tile(np.eye(3), (1, 2, 1, 1))}
        arrays |= {"joints_3d": np.ones((1, 1, 24, 3)), "camera_R": np.tile(np.eye(3), (1, 2, 1, 1))}
        (root / "annotations").mkdir(exist_ok=True)
        np.savez(root / f"annotations/{name}.npz", **arrays)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout("test", tmp_path_factory.mktemp("project"))
    write_scenes(layout.standin("synthetic"), 12)
    return layout


def test_labels_are_cut_where_the_image_is(layout: Layout) -> None:
    for crops in read_labelled(layout.standin("synthetic"), 1.2, 80):
        assert len(crops)
        bright = crops.images.max(axis=-1) > 140
        assert (bright == (crops.labels > 0)).mean() > 0.97


def test_held_out_scenes_are_not_trained_on(layout: Layout) -> None:
    train, heldout = read_labelled(layout.standin("synthetic"), 1.2, 80)
    scenes = [{name.split("/")[2] for name in crops.names} for crops in (train, heldout)]
    assert scenes[1]
    assert not scenes[0] & scenes[1]
    assert len(scenes[0] | scenes[1]) == 12


def test_a_square_beyond_the_image_is_background() -> None:
    labels = crop_labels(np.full((10, 10), 7, np.uint8), Square(0.0, 0.0, 10.0), 10)
    assert (labels[5:, 5:] == 7).all()
    assert (labels[:5] == 0).all()
    assert (labels[:, :5] == 0).all()


def test_views_keep_labels_on_their_pixels_and_mirror_left_and_right() -> None:
    # Left arm (14) red, right arm (15) green: a mirrored view must exchange the names.
    labels = np.zeros((120, 120), np.uint8)
    labels[20:100, 20:55], labels[20:100, 65:100] = 14, 15
    images = np.zeros((120, 120, 3), np.uint8)
    images[labels == 14], images[labels == 15] = (250, 30, 30), (30, 250, 30)
    crops = LabelledCrops(np.stack([images] * 64), np.stack([labels] * 64), ["x"] * 64)
    pixels, classes = training_views(crops, np.arange(64), 80, np.random.default_rng(0))
    mirrored = 0
    for image, truth in zip(pixels, classes, strict=True):
        redness = image[0] - image[1]
        if (
            min((truth == 14).sum(), (truth == 15).sum()) < 100
            or abs(redness[truth == 14].mean() - redness[truth == 15].mean()) < 40
        ):
            continue  # hardly in view, or turned grey
        flipped = redness[truth == 14].mean() < redness[truth == 15].mean()
        mirrored += int(flipped)
        sign = -1 if flipped else 1
        assert (sign * redness[truth == 14] > sign * redness[truth == 15].mean()).float().mean() > 0.9
    assert 10 < mirrored < 54


def test_views_hang_on_the_generator_alone() -> None:
    crops = LabelledCrops(np.full((4, 120, 120, 3), 100, np.uint8), np.zeros((4, 120, 120), np.uint8), ["x"] * 4)
    one, other = (training_views(crops, np.arange(4), 80, np.random.default_rng(5))[0] for _ in range(2))
    assert torch.equal(one, other)


def test_scores_of_a_half_right_answer() -> None:
    truth = np.zeros((1, 4, 4), np.uint8)
    truth[0, :2] = 5
    found = np.zeros_like(truth)
    found[0, :1] = 5
    values = evaluate(found, truth)
    assert values["silhouette_iou"].value == pytest.approx(0.5)
    assert values["silhouette_miou"].value == pytest.approx((0.5 + 8 / 12) / 2)
    assert values["parts_miou"].value == pytest.approx((0.5 + 8 / 12) / 2)


def test_a_run_leaves_a_parser_that_parses(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    params, _ = small_params(layout.root, parser__steps=60, parser__batch=4, parser__size=80)
    caplog.set_level(logging.INFO)
    train_parser(params, layout)
    assert "samples_per_second" in caplog.text
    metrics = read_file(layout.metrics("train_parser", "pgn"), "test")
    assert metrics.values["silhouette_iou"].value > 0.3
    assert len(list(layout.pictures("parser", "pgn").glob("*.png"))) == 2
    parser = load_parser(layout.checkpoint("pgn"))
    assert parser(np.zeros((2, 80, 80, 3), np.uint8)).shape == (2, 80, 80)


def test_a_run_changed_in_mid_course_is_refused(layout: Layout) -> None:
    left = layout.scratch("train_parser", "pgn-0123456789abcdef")
    save_state(left, 3, {})
    params, _ = small_params(layout.root, parser__steps=61, parser__batch=4, parser__size=80)
    with pytest.raises(TrainingError, match=f"rm -r {left}"):
        train_parser(params, layout)
    shutil.rmtree(left)


def test_a_dataset_without_part_labels_is_named(tmp_path: Path) -> None:
    write_scenes(tmp_path, 1)
    for path in (tmp_path / "parts").rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="no person with part labels"):
        read_labelled(tmp_path, 1.2, 80)
