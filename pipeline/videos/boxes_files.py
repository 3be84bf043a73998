"""Person boxes that the user brings: one MOT Challenge text file beside each video.

`clip.mp4` is described by `clip.txt`, lines of `frame, id, x, y, width, height[, confidence, ...]`
with frames counted from 1 and pixels of the video, as most trackers write them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GivenBox:
    frame: int
    """Frame of the video, from 0."""
    person: int
    box: tuple[float, float, float, float]
    """x, y, width, height, px."""


def boxes_file(video: Path) -> Path:
    return video.with_suffix(".txt")


def read_boxes(path: Path) -> list[GivenBox]:
    """Boxes with area and a confidence above zero, by frame and person. ValueError naming file and line."""
    found: dict[tuple[int, int], GivenBox] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [float(part) for part in line.split(",")]
            frame, person, x, y, width, height, *rest = values
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: expected `frame, id, x, y, width, height[, confidence, ...]`, "
                f"got {line[:60]!r}"
            ) from error
        if frame < 1 or frame != int(frame):
            raise ValueError(f"{path}, line {number}: frames are counted from 1, got {frame:g}")
        if width <= 0 or height <= 0 or (rest and rest[0] == 0):
            continue  # MOT marks boxes to be ignored by confidence 0
        key = (int(frame) - 1, int(person))
        if key in found:
            raise ValueError(f"{path}, line {number}: person {key[1]} stands twice in frame {int(frame)}")
        found[key] = GivenBox(key[0], key[1], (x, y, width, height))
    return [found[key] for key in sorted(found)]
