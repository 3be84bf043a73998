"""Videos of a striped figure that crosses a textured scene: what moves is known to the pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

FPS = 10


def background(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth coloured texture (H, W, 3), so that corners can be followed."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    return cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)


def walk(
    seed: int, seconds: float, size: tuple[int, int] = (320, 240), pan: float = 0.0, start: float = 0.2
) -> tuple[list[np.ndarray], list[tuple[float, float, float, float]]]:
    """Frames of an upright striped figure that crosses a textured scene, and its boxes."""
    width, height = size
    scene = background(seed, (2 * width, height))
    figure = background(seed + 100, (width // 8, height // 2))
    frames, boxes = [], []
    for number in range(int(seconds * FPS)):
        shift = round(pan * number)
        frame = scene[:, shift : shift + width].copy()
        x, y = round(width * start + 4 * number), height // 4 + round(3 * np.sin(number))
        frame[y : y + figure.shape[0], x : x + figure.shape[1]] = figure[:, : width - x]
        frames.append(frame)
        boxes.append((float(x), float(y), float(figure.shape[1]), float(figure.shape[0])))
    return frames, boxes


def write_video(path: Path, frames: Sequence[np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    return path


def without_duration(video: Path) -> Path:
    """The WebM or Matroska file with its duration struck out: what browsers record states none."""
    content = video.read_bytes()
    at = content.index(b"\x44\x89\x88")  # a duration, in eight bytes
    video.write_bytes(content[:at] + b"\xec\x89" + bytes(9) + content[at + 11 :])  # as many bytes of nothing
    return video
