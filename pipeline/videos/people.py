"""Boxes of upright people in one frame: OpenCV's HOG detector, its windows joined by vote.

The detector (Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, CVPR 2005)
comes with OpenCV 4, needs no download, and sees who stands or walks, moving or not, also in a
crowd. A person fires it in many windows that differ little and chance in few, so windows vote.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.frames import Pixels
from pipeline.videos.detection import Box, Detection, intersection

WINDOW_HEIGHT = 128
"""px; the detector's window is 64 x 128."""
MARGIN = (0.2, 0.1)
"""Share of a window, left and right, above and below, that is not the person."""
BORDER = 0.2
"""Share of the frame's height by which its edge pixels go on: people who fill the frame still have a margin."""
ZOOM = 1.1
"""Between two sizes of window."""
SAME = 0.5
"""Windows with at least this intersection over union vote for each other."""
INSIDE = 0.6
"""Of two boxes that share this much of the smaller one, the one with fewer votes is dropped."""
MIN_VOTES = 1.5
"""Sum of the detector's margins over the windows of one box."""


class PeopleFinder:
    """Finds people no smaller than `min_height`, a share of the frame's height; smaller costs more time."""

    def __init__(self, min_height: float) -> None:
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32))
        self._height = round(WINDOW_HEIGHT * (1 - 2 * MARGIN[1]) / min_height)

    def __call__(self, image: Pixels) -> list[Detection]:
        """People in a frame (H, W, 3); a detection's score is its votes."""
        width = max(1, round(image.shape[1] * self._height / image.shape[0]))
        way = cv2.INTER_AREA if self._height < image.shape[0] else cv2.INTER_LINEAR
        scaled = cv2.resize(image, (width, self._height), interpolation=way)
        border = round(BORDER * self._height)
        framed = cv2.copyMakeBorder(scaled, border, border, border, border, cv2.BORDER_REPLICATE)
        windows, margins = self._hog.detectMultiScale(
            framed, hitThreshold=0.0, winStride=(8, 8), padding=(0, 0), scale=ZOOM, groupThreshold=0
        )
        if not len(windows):
            return []
        found = np.column_stack([np.asarray(windows, float) - [border, border, 0, 0], np.ravel(margins)])
        found = found[np.lexsort(found.T)]  # threads find them in any order
        boxes = _person_in(found[:, :4]) / [width, self._height, width, self._height]
        return join(boxes, found[:, 4])


def join(boxes: NDArray[np.float64], margins: NDArray[np.float64]) -> list[Detection]:
    """Boxes (N, 4) that several windows agree on, most votes first, cut off at the frame's edges.

    Args:
        boxes: x, y, width, height of the person in each window, shares of the frame.
        margins: (N,) how sure the detector is of each window, above 0.
    """
    shared = intersection(boxes[:, None], boxes)
    area = boxes[:, 2] * boxes[:, 3]
    alike = shared >= SAME * (area[:, None] + area - shared)
    inside = shared > INSIDE * np.minimum(area[:, None], area)
    votes = alike @ margins
    left = np.ones(len(boxes), bool)
    people = []
    for best in np.argsort(-votes, kind="stable"):
        if votes[best] < MIN_VOTES:
            break
        if left[best]:
            voters = alike[best] & left
            people.append(
                Detection(_cut(np.average(boxes[voters], axis=0, weights=margins[voters])), float(votes[best]))
            )
            left &= ~inside[best]
    return people


def _person_in(windows: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, width, height = windows.T
    aside, above = MARGIN
    return np.column_stack([x + aside * width, y + above * height, (1 - 2 * aside) * width, (1 - 2 * above) * height])


def _cut(box: NDArray[np.float64]) -> Box:
    left, top = np.clip(box[:2], 0, 1).tolist()
    right, bottom = np.clip(box[:2] + box[2:], 0, 1).tolist()
    return left, top, right - left, bottom - top
