"""Boxes of one frame, and the regions of it that move: who is not seen upright is seen in motion.

Motion is honest about its limits: it sees whoever moves, alone or apart from others, before a
background at rest, and can not tell a person from a dog.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.videos.motion import SIDE

MIN_FLOW = 0.6
"""Flow, px at `SIDE`, that counts as motion; below is noise of the estimate."""
FLOW_SHARE = 0.25
"""A pixel moves when its flow reaches this share of the frame's strongest."""
MAX_MOVING = 0.5
"""Where more than this share of the frame moves, the camera passes a scene in depth: no boxes."""
MARGIN = 0.1
"""Share of its height by which a moving region grows on every side: head and feet rest most."""
MAX_WIDTH_OVER_HEIGHT = 1.3

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """A box (x, y, width, height) in shares of the frame's width and height."""

    box: Box
    score: float
    """How sure it is, above 0: votes of the detector's windows, or the share of the box that moves."""


def moving_persons(motion: NDArray[np.float32], min_height: float) -> list[Detection]:
    """Person-like boxes of a motion map (h, w), best first.

    Args:
        motion: flow that the camera does not explain, px (`pipeline.videos.motion`).
        min_height: smallest box, as a share of the frame's height.
    """
    threshold = max(MIN_FLOW, FLOW_SHARE * float(np.percentile(motion, 99)))
    moving = motion > threshold
    if moving.mean() > MAX_MOVING:
        return []
    opened = cv2.morphologyEx(moving.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    # Taller than wide: joins head, trunk and legs of one person rather than two neighbours.
    unit = max(motion.shape) / SIDE
    gap = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_odd(7 * unit), _odd(25 * unit)))
    regions = _upright_regions(cv2.morphologyEx(opened, cv2.MORPH_CLOSE, gap) > 0, min_height)
    return [_grown(region, motion.shape[0] / motion.shape[1]) for region in regions]


def _upright_regions(mask: NDArray[np.bool_], min_height: float) -> list[Detection]:
    height, width = mask.shape
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    found = []
    for x, y, w, h, area in stats[1:count].tolist():
        if h >= min_height * height and w <= MAX_WIDTH_OVER_HEIGHT * h:
            found.append(Detection((x / width, y / height, w / width, h / height), area / (w * h)))
    return sorted(found, key=lambda detection: (-detection.score, detection.box))


def _grown(region: Detection, height_over_width: float) -> Detection:
    x, y, width, height = region.box
    up, aside = MARGIN * height, MARGIN * height * height_over_width
    left, top = max(0.0, x - aside), max(0.0, y - up)
    right, bottom = min(1.0, x + width + aside), min(1.0, y + height + up)
    return Detection((left, top, right - left, bottom - top), region.score)


def intersection(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area that boxes (..., 4) and (..., 4) share, broadcast."""
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., :2] + one[..., 2:], other[..., :2] + other[..., 2:])
    return np.asarray(np.prod(np.clip(high - low, 0, None), axis=-1))


def _odd(value: float) -> int:
    return 2 * int(value / 2) + 1
