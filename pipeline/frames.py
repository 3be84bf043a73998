"""Images and videos on disk to RGB arrays: the only place that decodes pixels.

A file that can not be decoded raises FrameError naming it; a video that ends early gives the
frames it has, and the caller counts the rest. Pixels come as stored: annotations of the data
sets refer to the stored raster, so an EXIF orientation tag of a photo is not applied. The
rotation flag of a video is, as every player and every data set made from video does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import decord
import numpy as np
from numpy.typing import NDArray
from PIL import Image

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is no image: SyntaxError for a broken PNG, the last for a size beyond belief."""
TRANSPORT_STREAMS = frozenset((".ts", ".mts", ".m2ts"))
"""Decord 0.6.0 loses the first frames of these."""
JUMPED_IN = frozenset((".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm"))
JUMPED_WITH = frozenset(("h264", "avc1", "vp80", "vp90", "mjpg"))
"""Containers and codecs in which decord finds the frame asked for by key frames. In others (HEVC, and MPEG-1, 2 and 4
where frames are stored in another order than shown) it may come back with one some places away."""
BATCH_BYTES = 64 * 2**20
"""Decoded frames held at once while streaming a video."""


class FrameError(ValueError):
    """An image or video can not be decoded; the message names the file."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video's container declares; a damaged file may hold fewer frames."""

    frames: int
    fps: float
    width: int
    """After rotation, px."""
    height: int


def read_image(path: str | Path) -> Pixels:
    """(H, W, 3) uint8 RGB. FrameError when the file is missing, truncated or no image."""
    return np.asarray(_open_image(Path(path)).convert("RGB"))


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """(H, W) bool, True where any colour channel of a mask image is not zero. FrameError as `read_image`."""
    image = _open_image(Path(path))
    # An opaque alpha channel says nothing about the person.
    pixels = np.asarray(image.convert("RGB") if image.mode in ("RGBA", "LA", "PA") else image)
    return np.asarray(pixels.reshape(*pixels.shape[:2], -1).any(axis=2))


def read_labels(path: str | Path) -> Pixels:
    """(H, W) uint8 class of each pixel, of an image of one channel of 8 bits. FrameError as `read_image`, and for
    another kind of image."""
    image = _open_image(Path(path))
    if image.mode != "L":
        raise FrameError(f"{path}: no image of part labels (one channel of 8 bits)")
    return np.asarray(image)


def read_coarse(path: str | Path) -> Pixels:
    """(h, w) uint8 grey: a JPEG at an eighth of its size, in a tenth of the time; other images at their own.

    FrameError as `read_image`.
    """
    return np.asarray(_open_image(Path(path), coarse=True).convert("L"))


def _open_image(path: Path, coarse: bool = False) -> Image.Image:
    try:
        image = Image.open(path)
        if coarse:
            image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()  # decodes everything, so a file cut short fails here
    except FileNotFoundError as error:
        raise FrameError(f"{path}: no such image") from error
    except UNREADABLE as error:
        raise FrameError(f"{path}: not a readable image ({error})") from error
    return image


def video_info(path: str | Path) -> VideoInfo:
    """Declared frames, frame rate and size of a video. FrameError when it can not be opened.

    Where the container states no duration, as what browsers record, all frames are decoded and counted.
    """
    path = Path(path)
    capture, first = _open_video(path)
    try:
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if frames < 1:
            frames = 1
            while capture.grab():
                frames += 1
        fps = capture.get(cv2.CAP_PROP_FPS)
        if not np.isfinite(fps) or fps <= 0:
            raise FrameError(f"{path}: the video declares no frame rate")
    finally:
        capture.release()
    return VideoInfo(frames=frames, fps=float(fps), width=first.shape[1], height=first.shape[0])


def _open_video(path: Path) -> tuple[cv2.VideoCapture, NDArray]:
    """OpenCV's reader of a video, to be released, and the frame (H, W, 3) that it has read already."""
    if not path.is_file():
        raise FrameError(f"{path}: no such video")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        # OpenCV would end the process.
        raise FrameError(f"{path}: its name, or that of a folder it lies in, is not UTF-8; rename it") from error
    capture = cv2.VideoCapture(str(path))
    decoded, first = capture.read()
    if not decoded:
        raise FrameError(f"{path}: not a readable video (no frame could be decoded)")
    return capture, first


def read_video_frames(path: str | Path, indices: Sequence[int]) -> Pixels:
    """Frames of a video in the order asked for, repeats included: (T, H, W, 3) uint8 RGB.

    Raises FrameError when the file can not be opened or any of the frames can not be decoded.
    """
    found = dict(stream_video(path, indices))
    missing = sorted(set(map(int, indices)) - found.keys())
    if missing:
        raise FrameError(f"{path}: {len(missing)} of the frames asked for do not decode, the first is {missing[0]}")
    return np.stack([found[int(index)] for index in indices])


def stream_video(path: str | Path, indices: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
    """Yield (index, (H, W, 3) uint8 RGB) in rising order, each index once, those that decode.

    Runs of neighbouring frames are decoded together and gaps are jumped by key frame, where that is
    sure to find the frame (`can_jump`); else all before the last one asked for are decoded. Frames
    that do not decode (damaged file, index past the end) are left out: the caller knows what it
    asked for. FrameError when the file can not be opened at all.
    """
    path = Path(path)
    wanted = sorted(set(map(int, indices)))
    if wanted and wanted[0] < 0:
        raise ValueError(f"{path}: frame index {wanted[0]} is negative")
    if path.suffix.lower() in TRANSPORT_STREAMS:
        _open_video(path)[0].release()
        yield from _stream_opencv(path, wanted)
        return
    jumps, frame_bytes = _jumps(path)
    batch = max(1, BATCH_BYTES // frame_bytes)
    done = -1
    try:
        # One thread: the steps run in several processes, and order then is the same everywhere.
        reader = decord.VideoReader(str(path), num_threads=1)
        inside = [index for index in wanted if index < len(reader)]
        asked = set(inside)
        # Decord's skipping goes astray as its jumps do: what comes before is decoded and dropped.
        decoded = inside if jumps else range(inside[-1] + 1 if inside else 0)
        for start in range(0, len(decoded), batch):
            group = decoded[start : start + batch]
            for index, frame in zip(group, reader.get_batch(group).asnumpy(), strict=True):
                if index in asked:
                    yield index, frame
                    done = index
    except (decord.DECORDError, RuntimeError) as error:
        # Decord's reader thread gives up frames before the damaged place; OpenCV reads up to it.
        log.warning("%s: decord stopped after frame %d, going on with OpenCV (%s)", path, done, _first_line(error))
        yield from _stream_opencv(path, [index for index in wanted if index > done])


def can_jump(path: str | Path) -> bool:
    """Whether frames far into a video are had without decoding all before them. FrameError as `video_info`."""
    return Path(path).suffix.lower() not in TRANSPORT_STREAMS and _jumps(Path(path))[0]


def _jumps(path: Path) -> tuple[bool, int]:
    """Whether decord finds frames of a video by key frames, and the bytes of one. FrameError as `video_info`."""
    capture, first = _open_video(path)
    codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("latin-1").lower()
    capture.release()
    return codec in JUMPED_WITH and path.suffix.lower() in JUMPED_IN, first.nbytes


def _stream_opencv(path: Path, wanted: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
    """Decode from the start, frame by frame: slow, and right for any file."""
    capture = cv2.VideoCapture(str(path))
    try:
        position = 0
        for index in wanted:
            while position < index:
                if not capture.grab():
                    return
                position += 1
            decoded, frame = capture.read()
            if not decoded:
                return
            position += 1
            yield index, np.ascontiguousarray(frame[..., ::-1], dtype=np.uint8)
    finally:
        capture.release()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
