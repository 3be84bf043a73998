"""Crop geometry as exact properties, and the crops file as a contract."""

from __future__ import annotations

import multiprocessing
import pickle
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.crops import BATCH_ROWS, Crop, CropsError, CropStore, Square, crop, crop_mask, encode_jpeg, write_crops

SIZE = 16

squares = st.builds(
    Square,
    cx=st.floats(-500, 500),
    cy=st.floats(-500, 500),
    side=st.floats(1, 2000),
)


@given(square=squares, x=st.floats(-1000, 1000), y=st.floats(-1000, 1000), size=st.sampled_from([64, 80, 224]))
def test_points_go_to_the_crop_and_back(square: Square, x: float, y: float, size: int) -> None:
    point = np.array([[x, y]])
    assert np.allclose(square.to_image(square.to_crop(point, size), size), point, atol=1e-6)


@given(square=squares)
def test_the_corners_of_a_square_are_the_corners_of_its_crop(square: Square) -> None:
    half = square.side / 2
    corners = np.array([[square.cx - half, square.cy - half], [square.cx + half, square.cy + half]])
    assert np.allclose(square.to_crop(corners, 80), [[0, 0], [80, 80]], atol=1e-6)


def test_a_square_holds_its_box_with_the_margin_asked_for() -> None:
    square = Square.around((10, 20, 30, 60), scale=1.25)
    assert (square.cx, square.cy, square.side) == (25, 50, 75)


@pytest.mark.parametrize("side", [0.0, -1.0, float("nan")])
def test_a_square_without_area_is_refused(side: float) -> None:
    with pytest.raises(ValueError, match="positive side"):
        Square(0, 0, side)


def test_the_whole_image_at_its_own_size_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(crop(image, Square(32, 32, 64), 64), image)


def test_shrinking_by_a_whole_factor_averages_areas() -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    means = image.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(crop(image, Square(32, 32, 64), 16) - means).max() <= 0.5001


def test_a_fine_pattern_does_not_alias() -> None:
    checker = np.indices((300, 300)).sum(axis=0) % 2 * 255
    image = np.repeat(checker[..., None], 3, axis=2).astype(np.uint8)
    small = crop(image, Square(151.3, 149.2, 287), 40)
    assert small.std() < 12 and abs(small.mean() - 127.5) < 3


def test_a_square_larger_than_opencv_takes_is_sampled_less_densely(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    monkeypatch.setattr("pipeline.crops.MAX_SAMPLED", 2**10)  # the same with less memory
    cut = crop(image, Square(50, 50, 40_000), 200)
    assert cut.shape == (200, 200, 3) and 0 < cut[99:101, 99:101].mean() < 200
    assert cut.sum() == cut[98:102, 98:102].sum()


@settings(max_examples=40)
@given(cx=st.floats(40, 80), cy=st.floats(40, 80), side=st.floats(30, 70))
def test_a_bright_dot_lands_where_the_geometry_says(cx: float, cy: float, side: float) -> None:
    square, dot = Square(cx, cy, side), np.array([cx + side / 7, cy - side / 9])
    image = np.zeros((128, 128, 3), np.uint8)
    yy, xx = np.indices((128, 128)) + 0.5
    image[...] = (255 * np.exp(-((xx - dot[0]) ** 2 + (yy - dot[1]) ** 2) / 8))[..., None]
    cut = crop(image, square, 48)[..., 0].astype(float)
    rows, columns = np.indices(cut.shape) + 0.5
    centre = [(columns * cut).sum() / cut.sum(), (rows * cut).sum() / cut.sum()]
    assert np.allclose(centre, square.to_crop(dot, 48), atol=0.3)


def test_what_lies_outside_the_image_is_black_and_nobody() -> None:
    white = np.full((20, 20, 3), 255, np.uint8)
    square = Square(0, 10, 20)
    assert crop(white, square, 20)[:, :9].max() == 0
    assert crop(white, square, 20)[:, 11:].min() == 255
    mask = crop_mask(np.ones((20, 20), bool), square, 20)
    assert not mask[:, :10].any() and mask[:, 10:].all()


def test_image_and_mask_are_cut_alike() -> None:
    mask = np.zeros((100, 100), bool)
    mask[30:70, 40:60] = True
    square = Square(48.3, 51.7, 61)
    image = np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=2)
    assert ((crop(image, square, 80)[..., 0] > 127) == crop_mask(mask, square, 80)).mean() > 0.99


def make_crops(count: int, silhouettes: bool = True) -> list[Crop]:
    rng = np.random.default_rng(3)
    rows = []
    for number in range(count):
        image = np.full((SIZE, SIZE, 3), number % 256, np.uint8)
        known = silhouettes and number % 3 != 2
        rows.append(
            Crop(
                frame_id=f"{(number * 7919) % 2**40:016x}",
                jpeg=encode_jpeg(image),
                square=Square(*rng.uniform(1, 100, 3)),
                silhouette=np.packbits(rng.random((SIZE, SIZE)) < 0.5).tobytes() if known else None,
                silhouette_source="pgn" if known else None,
            )
        )
    return rows


@pytest.mark.parametrize("count", [0, 1, BATCH_ROWS, BATCH_ROWS + 1, 3 * BATCH_ROWS - 1])
def test_every_row_comes_back_as_it_was_written(tmp_path: Path, count: int) -> None:
    rows = make_crops(count)
    assert write_crops(tmp_path / "a.arrow", rows, SIZE) == count
    store = CropStore(tmp_path / "a.arrow")
    assert len(store) == count and store.size == SIZE
    for number in range(count):
        assert store.crop(number) == rows[number]
        assert store.row(rows[number].frame_id) == number


def test_pixels_and_silhouettes_are_decoded(tmp_path: Path) -> None:
    rows = make_crops(200)
    write_crops(tmp_path / "a.arrow", rows, SIZE)
    store = CropStore(tmp_path / "a.arrow")
    assert np.abs(store.image(150).astype(int) - 150).max() <= 1
    assert store.silhouette(2) is None
    silhouette = store.silhouette(150)
    assert silhouette is not None and silhouette.shape == (SIZE, SIZE)
    assert np.packbits(silhouette).tobytes() == rows[150].silhouette


def test_a_store_travels_to_other_processes_as_its_path(tmp_path: Path) -> None:
    write_crops(tmp_path / "a.arrow", make_crops(3), SIZE)
    store = CropStore(tmp_path / "a.arrow")
    assert len(pickle.dumps(store)) < 400 + len(str(tmp_path))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        assert other.submit(store.frame_id, 1).result() == store.frame_id(1)


def test_the_same_crops_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_crops(tmp_path / name, make_crops(300), SIZE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_record_without_crop_is_a_key_error(tmp_path: Path) -> None:
    write_crops(tmp_path / "a.arrow", make_crops(3), SIZE)
    store = CropStore(tmp_path / "a.arrow")
    with pytest.raises(KeyError, match="no crop of frame"):
        store.row("f" * 16)
    assert list(store.rows(["f" * 16, store.frame_id(2)])) == [-1, 2]


def test_opening_a_million_rows_takes_less_than_a_tenth_of_a_second(tmp_path: Path) -> None:
    path = tmp_path / "million.arrow"
    write_crops(path, make_crops(1), SIZE)
    schema = CropStore(path)._reader.schema
    batch = pa.RecordBatch.from_pydict(
        {
            "frame_id": [f"{i:016x}" for i in range(BATCH_ROWS)],
            "image": [b"x"] * BATCH_ROWS,
            "silhouette": [None] * BATCH_ROWS,
            "silhouette_source": [None] * BATCH_ROWS,
            **{name: [1.0] * BATCH_ROWS for name in ("cx", "cy", "side")},
        },
        schema=schema,
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for _ in range(1_000_000 // BATCH_ROWS):
            writer.write_batch(batch)
    start = time.process_time()
    store = CropStore(path)
    assert store.jpeg(len(store) // 2) == b"x"
    assert time.process_time() - start < 0.1
    assert len(store) > 999_000


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    write_crops(tmp_path / "a.arrow", make_crops(1), SIZE)
    schema = CropStore(tmp_path / "a.arrow")._reader.schema
    newer = schema.with_metadata({**schema.metadata, b"version": b"1.0"})
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as sink, pa.ipc.new_file(sink, newer):
        pass
    with pytest.raises(CropsError, match=r"b\.arrow: crops file version 1\.0, this code reads 2"):
        CropStore(tmp_path / "b.arrow")


def test_a_file_cut_short_or_absent_is_refused(tmp_path: Path) -> None:
    write_crops(tmp_path / "a.arrow", make_crops(200), SIZE)
    content = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "cut.arrow").write_bytes(content[: len(content) // 2])
    with pytest.raises(CropsError, match="not an Arrow file or cut short"):
        CropStore(tmp_path / "cut.arrow")
    with pytest.raises(CropsError, match="no such crops file"):
        CropStore(tmp_path / "absent.arrow")


def test_a_row_that_breaks_a_rule_leaves_no_file(tmp_path: Path) -> None:
    good = make_crops(2)
    bad = Crop(frame_id="0" * 16, jpeg=b"", square=Square(0, 0, 1), silhouette=b"short", silhouette_source="pgn")
    with pytest.raises(ValueError, match="silhouette has 5 bytes"):
        write_crops(tmp_path / "a.arrow", [*good, bad], SIZE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [0, 100, None], ids=["empty", "cut short", "another size"])
def test_a_damaged_image_is_named_with_its_row_and_frame(tmp_path: Path, kept: int | None) -> None:
    path, rows = tmp_path / "crops.arrow", make_crops(3)
    other = encode_jpeg(np.zeros((SIZE, SIZE + 1, 3), np.uint8))
    rows[1] = replace(rows[1], jpeg=other if kept is None else rows[1].jpeg[:kept])
    write_crops(path, rows, SIZE)
    store = CropStore(path)
    with pytest.raises(CropsError, match=rf"crops\.arrow: the image of row 1, frame {rows[1].frame_id}, is damaged"):
        store.image(1)
    assert store.image(2).shape == (SIZE, SIZE, 3)


def test_the_hash_of_the_frames_is_that_of_the_file_and_tells_other_rows_apart(tmp_path: Path) -> None:
    rows = make_crops(2 * BATCH_ROWS + 1)
    swapped = [rows[1], rows[0], *rows[2:]]
    without_pixels = [replace(row, jpeg=b"") for row in rows]
    found = []
    for number, some in enumerate((rows, swapped, rows[:-1], rows[:BATCH_ROWS], [], without_pixels)):
        write_crops(tmp_path / f"{number}.arrow", some, SIZE)
        found.append(CropStore(tmp_path / f"{number}.arrow").frames)
    assert len(set(found[:-1])) == 5
    assert found[-1] == found[0]


def test_a_silhouette_of_another_size_in_a_file_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "crops.arrow"
    write_crops(path, make_crops(1), SIZE)
    with pa.ipc.open_file(path) as reader:
        table = reader.read_all()
    shorter = pa.array([bytes(5)], pa.binary())
    changed = table.set_column(table.schema.get_field_index("silhouette"), table.schema.field("silhouette"), shorter)
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(changed)
    with pytest.raises(CropsError, match=f"silhouette of row 0, frame {0:016x}, has 5 bytes, not 16 x 16 bits"):
        CropStore(path).silhouette(0)
