"""Decoding: right frames in the right order, and damaged files named instead of guessed at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.frames import (
    FrameError,
    read_coarse,
    read_image,
    read_labels,
    read_mask,
    read_video_frames,
    stream_video,
    video_info,
)
from tests.pipeline.videos.moving_figure import without_duration

PROJECT = Path(__file__).resolve().parents[2]
BITS = 8


def write_coded_video(path: Path, frames: int, codec: str = "mp4v", size: tuple[int, int] = (96, 64)) -> Path:
    """A video whose every frame shows its own number as eight dark or bright columns."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, size)
    assert writer.isOpened()
    column = size[0] // BITS
    for number in range(frames):
        frame = np.full((size[1], size[0], 3), 20, np.uint8)
        for bit in range(BITS):
            if number >> bit & 1:
                frame[:, bit * column : (bit + 1) * column] = 230
        writer.write(frame)
    writer.release()
    return path


def number_in(frame: np.ndarray) -> int:
    column = frame.shape[1] // BITS
    middle = frame[frame.shape[0] // 3 : -frame.shape[0] // 3]
    return sum(int(middle[:, b * column + 3 : (b + 1) * column - 3].mean() > 128) << b for b in range(BITS))


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coded_video(tmp_path_factory.mktemp("videos") / "coded.mp4", frames=90)


@pytest.mark.parametrize("indices", [range(90), [89, 3, 3, 41, 0], [7], [60, 61, 62, 12]])
def test_every_frame_asked_for_is_the_one_returned(coded: Path, indices: Sequence[int]) -> None:
    frames = read_video_frames(coded, indices)
    assert frames.shape == (len(indices), 64, 96, 3)
    assert [number_in(frame) for frame in frames] == list(indices)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.ts", "mpg2"), ("a.MTS", "mp4v"), ("a.mpg", "mpg1"), ("a.mpg", "mpg2"), ("a.mkv", "mpg2"), ("a.mxf", "mpg2")],
)
def test_frames_stored_in_another_order_come_under_their_own_numbers(tmp_path: Path, name: str, codec: str) -> None:
    path = write_coded_video(tmp_path / name.lower(), frames=60, codec=codec).rename(tmp_path / name)
    assert [number_in(frame) for frame in read_video_frames(path, [0, 7, 30, 59])] == [0, 7, 30, 59]


def test_streaming_gives_each_frame_once_in_rising_order(coded: Path) -> None:
    streamed = list(stream_video(coded, [30, 2, 30, 5]))
    assert [index for index, _ in streamed] == [2, 5, 30]
    assert [number_in(frame) for _, frame in streamed] == [2, 5, 30]


def test_streaming_in_small_batches_loses_nothing(coded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.frames.BATCH_BYTES", 3 * 96 * 64 * 3)
    assert [number_in(frame) for _, frame in stream_video(coded, range(0, 90, 7))] == list(range(0, 90, 7))


def test_video_info_tells_size_rate_and_length(coded: Path) -> None:
    info = video_info(coded)
    assert (info.frames, info.fps, info.width, info.height) == (90, 25.0, 96, 64)


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "VP80"), ("a.mkv", "mp4v")])
def test_the_frames_of_a_video_that_states_no_duration_are_counted(tmp_path: Path, name: str, codec: str) -> None:
    path = without_duration(write_coded_video(tmp_path / name, frames=40, codec=codec))
    info = video_info(path)
    assert (info.frames, info.fps, info.width, info.height) == (40, 25.0, 96, 64)
    assert [number_in(frame) for frame in read_video_frames(path, range(40))] == list(range(40))


def test_a_truncated_video_gives_the_frames_before_the_cut(tmp_path: Path) -> None:
    whole = write_coded_video(tmp_path / "whole.avi", frames=60, codec="MJPG").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    streamed = list(stream_video(cut, range(60)))
    assert 20 < len(streamed) < 60
    assert [number_in(frame) for _, frame in streamed] == list(range(len(streamed)))
    with pytest.raises(FrameError, match=r"cut\.avi: \d+ of the frames asked for"):
        read_video_frames(cut, range(60))


def test_an_index_past_the_end_is_an_error_with_the_file_name(coded: Path) -> None:
    with pytest.raises(FrameError, match=r"coded\.mp4: 1 of the frames asked for do not decode, the first is 90"):
        read_video_frames(coded, [1, 90])


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 50])
def test_a_file_that_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fake.mp4"
    path.write_bytes(content)
    with pytest.raises(FrameError, match=r"fake\.mp4: not a readable video"):
        video_info(path)


def test_a_video_whose_name_is_not_utf8_is_to_be_renamed(coded: Path, tmp_path: Path) -> None:
    """In a process of its own: OpenCV would end it with a signal."""
    path = os.fsencode(tmp_path) + b"/r\xe4ume.mp4"
    os.link(coded, path)
    says = "import sys; from pipeline.frames import video_info; video_info(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", says, path], capture_output=True, text=True, check=False, cwd=PROJECT)
    assert done.returncode == 1
    assert "FrameError" in done.stderr and "is not UTF-8; rename it" in done.stderr


def test_an_image_whose_name_is_not_utf8_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    path = os.fsdecode(os.fsencode(tmp_path) + b"/r\xe4ume.png")
    (tmp_path / "a.png").rename(path)
    assert read_image(path).shape == (2, 3, 3)
    assert read_coarse(path).shape == (2, 3)


def test_images_come_back_as_rgb(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[..., 0] = 200
    Image.fromarray(pixels).save(tmp_path / "red.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "red.png"), pixels)
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.full((20, 30, 3), 200))


def test_a_mask_is_true_where_any_channel_is_not_zero(tmp_path: Path) -> None:
    mask = np.zeros((10, 12), np.uint8)
    mask[2:5, 3:9] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(np.dstack([mask * 0, mask * 0, mask * 255])).save(tmp_path / "colour.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask > 0)
    assert np.array_equal(read_mask(tmp_path / "colour.png"), mask > 0)


def test_labels_are_taken_as_they_are_or_refused(tmp_path: Path) -> None:
    labels = np.arange(120, dtype=np.uint8).reshape(10, 12)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    assert np.array_equal(read_labels(tmp_path / "labels.png"), labels)
    Image.fromarray(labels).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.dstack([labels] * 3)).save(tmp_path / "colour.png")
    for name in ("palette", "colour"):
        with pytest.raises(FrameError, match=rf"{name}\.png: no image of part labels \(one channel of 8 bits\)"):
            read_labels(tmp_path / f"{name}.png")


def test_a_coarse_photograph_is_an_eighth_of_its_size_and_of_the_same_brightness(tmp_path: Path) -> None:
    pixels = np.full((400, 640, 3), 40, np.uint8)
    pixels[:, 320:] = 200
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    coarse = read_coarse(tmp_path / "a.jpg")
    assert coarse.shape == (50, 80)
    assert (coarse[:, :38] == 40).all()
    assert (coarse[:, 42:] == 200).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (40, 7)])
def test_a_coarse_photograph_may_be_of_a_few_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (90, 90, 90)).save(tmp_path / "a.jpg")
    coarse = read_coarse(tmp_path / "a.jpg")
    assert coarse.size > 0
    assert (coarse == 90).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_image_is_an_error_naming_the_file(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FrameError, match=f"cut{suffix}: not a readable image"):
        read_image(path)
    with pytest.raises(FrameError, match=f"cut{suffix}: not a readable image"):
        read_coarse(path)


def test_a_missing_image_is_an_error_naming_the_file(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"gone\.jpg: no such image"):
        read_image(tmp_path / "gone.jpg")


def test_real_videos_decode_the_same_by_seeking_and_from_the_start(shared: Path) -> None:
    paths = [path for path in sorted((shared / "samples/videos").rglob("*")) if path.is_file()]
    assert paths
    for path in paths:
        info = video_info(path)
        # Declared lengths are sometimes one too long; the last frames are left alone here.
        wanted = sorted({0, 1, info.frames // 3, max(info.frames - 3, 0)})
        seeked = read_video_frames(path, wanted[::-1])[::-1]
        assert seeked.shape[1:3] == (info.height, info.width)
        capture = cv2.VideoCapture(str(path))
        for position in range(wanted[-1] + 1):
            decoded, frame = capture.read()
            assert decoded
            if position in wanted:
                difference = np.abs(frame[..., ::-1].astype(int) - seeked[wanted.index(position)])
                assert difference.mean() < 3, f"{path.name} frame {position}"


def test_a_rotation_flag_turns_the_frames(shared: Path) -> None:
    path = shared / "samples/videos/edge_cases/rotation_flag_90.mov"
    info = video_info(path)
    assert (info.width, info.height) == (320, 568)
    assert read_video_frames(path, [0]).shape == (1, 568, 320, 3)
