"""What moves in a video apart from the camera, and where a shot ends.

No network and no weights are needed: the camera's motion is fitted to tracked corners and
taken away, and what dense optical flow is left belongs to things that move by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.frames import Pixels

SIDE = 320
"""Longer side, px, at which motion is measured; flow below is in these pixels per sample."""

# Three signs of a cut; two of them make one. Measured on eight real videos and on cuts between them: within
# shots at most 0.29, at least 0.19 and 0.81; across cuts at least 0.60, at most 0.05 and 0.55.
CUT_CHANGED = 0.45
"""More than this share of the pixels changes its bin of hue and brightness."""
CUT_FOLLOWED = 0.1
"""Less than this share of the corners follows any one motion of the camera."""
CUT_LIKENESS = 0.6
"""The blurred pictures, camera motion taken away, correlate less than this."""
BLUR = 3.0
"""Standard deviation, px, of that blur."""

MIN_CHANGE = 8
"""Grey levels by which a pixel must change for the flow about it to count."""
REACH = 21
"""Side, px, of the neighbourhood in which one changed pixel vouches for the flow of the others."""


@dataclass(frozen=True)
class Small:
    """A sampled frame, shrunk to `SIDE`."""

    grey: Pixels
    histogram: NDArray[np.float32]

    @classmethod
    def of(cls, image: Pixels) -> Small:
        scale = min(1.0, SIDE / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        hue_value = cv2.calcHist([cv2.cvtColor(small, cv2.COLOR_RGB2HSV)], [0, 2], None, [12, 12], [0, 180, 0, 256])
        return cls(
            np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8),
            np.asarray(hue_value / hue_value.sum(), np.float32),
        )


@dataclass(frozen=True)
class Step:
    """From one sampled frame to the next."""

    is_cut: bool
    motion: NDArray[np.float32]
    """(h, w) size of the flow that the camera does not explain, px; zeros across a cut."""
    camera: NDArray[np.float64]
    """(2, 3) shift, turn and zoom by which the camera moved what it shows, of points in shares
    of width and height."""

    @classmethod
    def first(cls, frame: Small) -> Step:
        """Into the first frame of a video: no cut, and nothing moved yet."""
        return cls(False, np.zeros(frame.grey.shape, np.float32), np.eye(2, 3))


class MotionMeter:
    """Measures steps; holds the flow estimator, which is costly to make."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def step(self, before: Small, after: Small) -> Step:
        camera, followed = camera_motion(before.grey, after.grey)
        size = (after.grey.shape[1], after.grey.shape[0])
        still = np.asarray(cv2.warpAffine(before.grey, camera, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)
        signs = (
            float(np.abs(before.histogram - after.histogram).sum() / 2) > CUT_CHANGED,
            followed < CUT_FOLLOWED,
            likeness(still, after.grey) < CUT_LIKENESS,
        )
        if sum(signs) >= 2:
            return Step(True, np.zeros(after.grey.shape, np.float32), np.eye(2, 3))
        field = self._flow.calc(still, after.grey, np.zeros((*after.grey.shape, 2), np.float32))
        flow = np.linalg.norm(field, axis=2)
        # On bare ground any flow fits equally well: only what looks different has moved.
        changed_here = (cv2.absdiff(still, after.grey) > MIN_CHANGE).astype(np.uint8)
        vouched = cv2.dilate(changed_here, np.ones((REACH, REACH), np.uint8)) > 0
        # What the camera has only now brought into view can not be compared with anything.
        in_view = cv2.warpAffine(np.ones_like(before.grey), camera, size)
        seen = cv2.erode(in_view, np.ones((REACH, REACH), np.uint8), borderValue=1) > 0
        own = np.clip(flow - np.median(flow), 0, None) * (vouched & seen)
        width, height = size
        in_shares = camera * [[1, height / width, 1 / width], [width / height, 1, 1 / height]]
        return Step(False, own.astype(np.float32), in_shares)


def likeness(one: Pixels, other: Pixels) -> float:
    """Correlation, -1 to 1, of two grey pictures after blurring; 1 where either is blank."""
    a, b = (np.asarray(cv2.GaussianBlur(picture, (0, 0), BLUR), np.float64).ravel() for picture in (one, other))
    if min(a.std(), b.std()) < 1:
        return 1.0
    return float(np.corrcoef(a, b)[0, 1])


def camera_motion(before: Pixels, after: Pixels) -> tuple[NDArray[np.float64], float]:
    """Shift, turn and zoom (2, 3) that most corners follow, and the share of corners that do.

    The identity where there are too few corners to tell.
    """
    corners = cv2.goodFeaturesToTrack(before, 400, 0.005, 6)
    if corners is None or len(corners) < 12:
        return np.eye(2, 3), 1.0
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.zeros_like(corners))
    kept = found[:, 0] > 0
    if kept.sum() < 6:
        return np.eye(2, 3), 0.0
    cv2.setRNGSeed(0)  # RANSAC draws from OpenCV's global generator
    fitted, inliers = cv2.estimateAffinePartial2D(corners[kept], moved[kept], ransacReprojThreshold=1.0)
    if fitted is None:
        return np.eye(2, 3), 0.0
    return np.asarray(fitted, np.float64), float(inliers.sum() / len(corners))
