"""Parsing: every record gets its own crop or a place in the quarantine list, however often it is stopped."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import pipeline.parsing
from pipeline.crops import CropStore
from pipeline.manifests import write_records
from pipeline.parsing import Cutting, content_fingerprint, parse, plan_shards, quarantine_path, to_cut
from pipeline.records import FrameRecord

SIZE = 32


def record(image: str, index: int, **changes: object) -> FrameRecord:
    values: dict[str, object] = {
        "dataset": "d", "split": "train", "sequence": "s", "subject": "0", "camera": "c",
        "frame_index": index, "image": image, "width": 64, "height": 48, "box": (8.0, 8.0, 30.0, 32.0),
    }  # fmt: skip
    return FrameRecord(**(values | changes))


def grey_of(index: int) -> int:
    return 20 + 4 * index


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Six stills and a video of twenty frames; the brightness of each tells its number."""
    root = tmp_path / "root"
    root.mkdir()
    for index in range(6):
        Image.fromarray(np.full((48, 64, 3), grey_of(index), np.uint8)).save(root / f"{index}.png")
    writer = cv2.VideoWriter(str(root / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for index in range(20):
        writer.write(np.full((48, 64, 3), grey_of(index), np.uint8))
    writer.release()
    mask = np.zeros((48, 64), np.uint8)
    mask[10:38, 15:30] = 255
    Image.fromarray(mask).save(root / "mask.png")
    return root


def records_of_all() -> list[FrameRecord]:
    stills = [record(f"{i}.png", i, camera="still") for i in range(6)]
    video = [
        record("v.avi", i, camera="video", video_frame=i, subject=str(person), box=(8.0 + 4 * person, 8, 24, 30))
        for i in range(20)
        for person in range(2)
    ]
    return stills + video


def table_of(records: Sequence[FrameRecord], folder: Path) -> pa.Table:
    write_records(records, folder / "records.parquet")
    return to_cut(folder / "records.parquet")


class BrightIsPerson:
    fingerprint = "bright"
    calls = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        BrightIsPerson.calls += 1
        return (images.mean(axis=3) > 10).astype(np.uint8) * 3


def test_every_record_gets_the_crop_of_its_own_frame(world: Path, tmp_path: Path) -> None:
    table = table_of(records_of_all(), tmp_path)
    cutting = Cutting(world, SIZE, 1.0, "none")
    summary = parse(table, tmp_path / "out/d.arrow", tmp_path / "scratch", cutting, shard_records=7)
    store = CropStore(tmp_path / "out/d.arrow")
    assert (summary.records, summary.crops, summary.silhouettes, summary.quarantined) == (46, 46, 0, 0)
    assert [store.frame_id(row) for row in range(46)] == table["frame_id"].to_pylist()
    of_frame = {item.frame_id: item.frame_index for item in records_of_all()}
    for row, index in enumerate(map(of_frame.__getitem__, table["frame_id"].to_pylist())):
        assert abs(int(np.median(store.image(row))) - grey_of(index)) <= 2
        assert store.silhouette(row) is None
    assert not (tmp_path / "scratch").exists()


def test_each_file_is_opened_once_however_many_persons_it_shows(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = pipeline.parsing.stream_video

    def spy(path: Path, indices: list[int]) -> object:
        asked.extend(indices)
        return real(path, indices)

    monkeypatch.setattr(pipeline.parsing, "stream_video", spy)
    table = table_of(records_of_all(), tmp_path)
    parse(table, tmp_path / "d.arrow", tmp_path / "scratch", Cutting(world, SIZE, 1.0, "none"), shard_records=8)
    assert sorted(asked) == list(range(20))


@pytest.mark.parametrize("shard_records", [1, 7, 1000])
def test_shards_hold_every_row_once_and_never_split_a_frame(tmp_path: Path, shard_records: int) -> None:
    table = table_of(records_of_all(), tmp_path)
    shards = plan_shards(table, tmp_path, shard_records)
    assert sorted(np.concatenate(shards)) == list(range(46))
    frames = [{(table["image"][int(r)].as_py(), table["video_frame"][int(r)].as_py()) for r in rows} for rows in shards]
    assert sum(map(len, frames)) == len(set().union(*frames))


@pytest.mark.parametrize(("codec", "suffix", "shards"), [("mp4v", ".mp4", 4), ("VP80", ".webm", 5)])
def test_a_video_that_has_to_be_decoded_from_its_start_is_cut_near_there_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, suffix: str, shards: int
) -> None:
    writer = cv2.VideoWriter(str(tmp_path / f"a{suffix}"), cv2.VideoWriter.fourcc(*codec), 25, (64, 48))
    for _ in range(40):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    monkeypatch.setattr(pipeline.parsing, "MOST_AGAIN", 20)
    records = [record(f"a{suffix}", number, video_frame=number) for number in range(40)]
    found = plan_shards(table_of([*records, record("0.png", 40)], tmp_path), tmp_path, 10)
    assert len(found) == shards
    assert sorted(np.concatenate(found)) == list(range(41))


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(records_of_all(), tmp_path)
    cutting = Cutting(world, SIZE, 1.2, "pgn", BrightIsPerson())
    parse(table, tmp_path / "whole.arrow", tmp_path / "s1", cutting, shard_records=10)

    def stop(done: int, total: int) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parse(table, tmp_path / "resumed.arrow", tmp_path / "s2", cutting, shard_records=10, progress=stop)
    assert not (tmp_path / "resumed.arrow").exists()
    before = BrightIsPerson.calls
    summary = parse(table, tmp_path / "resumed.arrow", tmp_path / "s2", cutting, shard_records=10)
    assert BrightIsPerson.calls - before == len(plan_shards(table, world, 10)) - 2
    assert summary.silhouettes == 46
    assert (tmp_path / "resumed.arrow").read_bytes() == (tmp_path / "whole.arrow").read_bytes()


def test_other_sizes_never_go_on_from_old_shards(world: Path, tmp_path: Path) -> None:
    table = table_of(records_of_all(), tmp_path)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parse(table, tmp_path / "d.arrow", tmp_path / "s", Cutting(world, SIZE, 1.0, "none"), progress=stop)
    parse(table, tmp_path / "d.arrow", tmp_path / "s", Cutting(world, 2 * SIZE, 1.0, "none"))
    assert CropStore(tmp_path / "d.arrow").image(0).shape == (64, 64, 3)


def test_another_box_mask_or_code_is_not_cut_as_before(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_code: Callable[[str], Path]
) -> None:
    """Records keep their ids when annotations are corrected between a run that was stopped and the next."""
    cutting = Cutting(world, SIZE, 1.0, "dataset")

    def known(**changes: object) -> str:
        item = dataclasses.replace(record("0.png", 0), **changes)
        return content_fingerprint(table_of([item, record("1.png", 1)], tmp_path), cutting)

    before = known()
    masked = known(silhouette="mask.png")
    assert known() == before
    assert len({before, masked, known(box=(8.0, 8.0, 30.0, 30.0)), known(width=65), known(image="2.png")}) == 5
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(world / "mask.png")
    assert known(silhouette="mask.png") != masked
    monkeypatch.setattr("pipeline.code.PROJECT", other_code("pipeline/crops.py"))
    assert known() != before


def test_more_shards_than_a_process_may_hold_open_are_joined(world: Path, tmp_path: Path) -> None:
    table = table_of([record(f"{i % 6}.png", i) for i in range(6)] + records_of_all()[6:], tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = len(list(Path("/proc/self/fd").iterdir()))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline.parsing, "OPEN_SHARDS", 4)
            resource.setrlimit(resource.RLIMIT_NOFILE, (held + 16, hard))
            summary = parse(
                table, tmp_path / "d.arrow", tmp_path / "s", Cutting(world, SIZE, 1, "none"), shard_records=1
            )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert summary.crops == 46
    assert len(plan_shards(table, world, 1)) == 26


def test_shards_of_another_version_of_the_crops_file_are_left_alone(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(records_of_all(), tmp_path)
    cutting = Cutting(world, SIZE, 1.0, "none")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as earlier, pytest.raises(KeyboardInterrupt):
        earlier.setattr("pipeline.crops.VERSION", "0.1")
        parse(table, tmp_path / "d.arrow", tmp_path / "s", cutting, shard_records=10, progress=stop)
    assert parse(table, tmp_path / "d.arrow", tmp_path / "s", cutting, shard_records=10).crops == 46


def test_masks_of_the_dataset_are_cut_with_the_same_square(world: Path, tmp_path: Path) -> None:
    records = [record("0.png", 0, silhouette="mask.png"), record("1.png", 1), record("2.png", 2, silhouette="gone.png")]
    table = table_of(records, tmp_path)
    cutting = Cutting(world, 32, 1.0, "dataset")
    summary = parse(table, tmp_path / "d.arrow", tmp_path / "scratch", cutting)
    store = CropStore(tmp_path / "d.arrow")
    assert (summary.crops, summary.silhouettes) == (3, 1)
    silhouette = store.silhouette(0)
    # Box (8, 8, 30, 32) gives the square from (7, 8) to (39, 40), one pixel of the image each.
    assert silhouette is not None and silhouette[2:30, 8:23].all() and silhouette.sum() == 28 * 15
    assert store.silhouette_source(0) == "dataset"
    assert store.silhouette(1) is None and store.silhouette(2) is None
    listed = json.loads(quarantine_path(tmp_path / "d.arrow").read_text())
    assert listed["records"] == 0
    assert listed["entries"][0]["file"] == "gone.png" and "no such image" in listed["entries"][0]["reason"]


def test_a_mask_of_another_size_is_left_out_with_both_sizes_and_what_to_do(world: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((24, 32), 255, np.uint8)).save(world / "half.png")
    table = table_of([record("0.png", 0, silhouette="half.png"), record("1.png", 1, silhouette="mask.png")], tmp_path)
    summary = parse(table, tmp_path / "d.arrow", tmp_path / "scratch", Cutting(world, 32, 1.0, "dataset"))
    assert (summary.crops, summary.silhouettes, summary.quarantined) == (2, 1, 0)
    store = CropStore(tmp_path / "d.arrow")
    assert store.silhouette(0) is None and store.silhouette(1) is not None
    (entry,) = json.loads(quarantine_path(tmp_path / "d.arrow").read_text())["entries"]
    reason = "silhouette left out: it is 32x24, its image 64x48; bring it to that size, and parse again"
    assert entry == {"file": "half.png", "reason": reason, "records": 0}


def test_what_can_not_be_read_is_listed_and_counted(world: Path, tmp_path: Path) -> None:
    whole = (world / "v.avi").read_bytes()
    (world / "cut.avi").write_bytes(whole[: len(whole) * 3 // 4])
    png = (world / "0.png").read_bytes()
    (world / "cut.png").write_bytes(png[: len(png) // 2])
    records = [
        record("1.png", 1),
        record("cut.png", 2, camera="a"),
        record("gone.png", 3, camera="b"),
        record("3.png", 4, camera="e", width=640, height=480),
        *(record("cut.avi", i, camera="f", video_frame=i) for i in range(20)),
    ]
    table = table_of(records, tmp_path)
    summary = parse(table, tmp_path / "d.arrow", tmp_path / "scratch", Cutting(world, SIZE, 1.0, "none"))
    listed = json.loads(quarantine_path(tmp_path / "d.arrow").read_text())
    assert summary.records == 24 and summary.crops + summary.quarantined == 24
    assert listed["records"] == summary.quarantined
    reasons = {entry["file"]: entry["reason"] for entry in listed["entries"]}
    assert set(reasons) == {"cut.png", "gone.png", "3.png", "cut.avi"}
    assert "the image is 64x48, its record says 640x480" in reasons["3.png"]
    assert "frames do not decode, the first is" in reasons["cut.avi"]
    assert str(tmp_path) not in json.dumps(listed)
    store = CropStore(tmp_path / "d.arrow")
    assert 5 < len(store) - 1 < 20
    assert store.frame_id(0) == records[0].frame_id


@pytest.mark.parametrize("side", [8 * 64 + 1.0, 1e5, 1e308])
def test_a_box_far_larger_than_the_image_is_listed_and_the_rest_goes_on(
    world: Path, tmp_path: Path, side: float
) -> None:
    records = [record("0.png", 0, box=(-20.0, -20.0, 8 * 64, 9.0)), record("1.png", 1, box=(-20.0, -20.0, 9.0, side))]
    table = table_of(records, tmp_path)
    summary = parse(table, tmp_path / "d.arrow", tmp_path / "scratch", Cutting(world, SIZE, 1.0, "none"))
    assert (summary.crops, summary.quarantined) == (1, 1)
    (entry,) = json.loads(quarantine_path(tmp_path / "d.arrow").read_text())["entries"]
    reason = f"the box is far larger than the image: its square has {side:g} px, the image 64x48; correct the box"
    assert entry == {"file": "1.png", "reason": reason, "records": 1}


def test_a_wrong_folder_is_an_error_that_says_so(world: Path, tmp_path: Path) -> None:
    table = table_of([record("0.png", 0)], tmp_path)
    shutil.rmtree(world)
    with pytest.raises(ValueError, match=r"none of 1 records gave a crop: 1x no such image"):
        parse(table, tmp_path / "d.arrow", tmp_path / "scratch", Cutting(world, SIZE, 1.0, "none"))


def test_silhouettes_from_a_parser_need_a_parser(world: Path) -> None:
    with pytest.raises(ValueError, match="none is given"):
        Cutting(world, SIZE, 1.0, "pgn")
