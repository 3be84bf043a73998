"""Boxes of single frames to tracks: one person through one shot.

Boxes are linked by overlap, gaps are bridged, edges are smoothed over time; tracks that are
short, unsure or repeat another are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.videos.detection import Box, Detection, intersection

MIN_STEPS = 4
"""Shortest track in sampled frames, however few of them a second has."""
MIN_OVERLAP = 0.25
"""Intersection over union that links two boxes."""
SAME_PERSON = 0.5
"""Two tracks show one person where they share this much of the smaller box, ..."""
REPEATED = 0.5
"""... and a track is dropped that does so in this share of its frames."""


@dataclass(frozen=True)
class Track:
    """One person; `steps` rise without gaps."""

    steps: NDArray[np.int64]
    """Numbers of sampled frames within the shot."""
    boxes: NDArray[np.float64]
    """(T, 4): x, y, width, height as shares of the frame."""
    score: float
    """Mean score of its detections; frames without one count 0."""


@dataclass(frozen=True)
class Demand:
    """What a track must be to be kept, and how it is smoothed."""

    seconds: float
    """Shortest track."""
    score: float
    window_s: float
    """Half width of the smoothing window."""
    spread: float
    """Edges are the quantiles `spread` and 1 - `spread` of the window: 0.5 is the median, less is generous."""


@dataclass
class _Open:
    """A track that may go on."""

    seen: list[tuple[int, Detection]]
    expected: Box
    """Where the person is now if only the camera has moved since."""


def link(
    frames: Sequence[Sequence[Detection]], camera: Sequence[NDArray[np.float64]], fps: float, max_gap_s: float
) -> list[Track]:
    """Tracks through the sampled frames of one shot, all of them, unsmoothed.

    Args:
        frames: detections of each sampled frame.
        camera: (2, 3) by which the camera moved what it shows, from the frame before into each.
        fps: sampled frames per second.
        max_gap_s: a track not seen for longer ends.
    """
    from scipy.optimize import linear_sum_assignment  # half a second to load, and crops of a dataset do without

    tracks: list[_Open] = []
    for step, (detections, move) in enumerate(zip(frames, camera, strict=True)):
        open_ = [track for track in tracks if (step - track.seen[-1][0] - 1) / fps <= max_gap_s]
        for track in open_:
            track.expected = _moved(track.expected, move)
        overlap = overlaps([track.expected for track in open_], [detection.box for detection in detections])
        taken = set()
        for row, column in zip(*linear_sum_assignment(-overlap), strict=True):
            if overlap[row, column] >= MIN_OVERLAP:
                open_[row].seen.append((step, detections[column]))
                open_[row].expected = detections[column].box
                taken.add(column)
        tracks += [_Open([(step, one)], one.box) for column, one in enumerate(detections) if column not in taken]
    return [_bridge(track.seen) for track in tracks]


def _moved(box: Box, camera: NDArray[np.float64]) -> Box:
    x, y, width, height = box
    centre = camera @ [x + width / 2, y + height / 2, 1]
    zoom = float(np.sqrt(abs(np.linalg.det(camera[:, :2]))))
    return float(centre[0]) - zoom * width / 2, float(centre[1]) - zoom * height / 2, zoom * width, zoom * height


def settle(tracks: Sequence[Track], fps: float, demand: Demand, known: Sequence[Track] = ()) -> list[Track]:
    """Smoothed tracks that meet the demand, longest first, that repeat neither each other nor a known one."""
    kept: list[Track] = []
    for track in sorted(tracks, key=lambda track: (-len(track.steps), int(track.steps[0]), tuple(track.boxes[0]))):
        if len(track.steps) < max(MIN_STEPS, demand.seconds * fps) or track.score < demand.score:
            continue
        boxes = smooth(track.boxes, max(1, round(demand.window_s * fps)), demand.spread)
        smoothed = Track(track.steps, boxes, track.score)
        if _repeated(smoothed, [*known, *kept]) < REPEATED:
            kept.append(smoothed)
    return kept


def smooth(boxes: NDArray[np.float64], half: int, spread: float) -> NDArray[np.float64]:
    """Boxes (T, 4) whose edges are quantiles over a window of 2 * half + 1 frames."""
    edges = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    padded = np.pad(edges, ((half, half), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=0)
    low = np.quantile(windows[:, :2], spread, axis=2)
    high = np.quantile(windows[:, 2:], 1 - spread, axis=2)
    return np.concatenate([low, np.maximum(high - low, 1e-3)], axis=1)


def overlaps(one: Sequence[Box], other: Sequence[Box]) -> NDArray[np.float64]:
    """(len(one), len(other)) intersection over union of boxes (x, y, width, height)."""
    a, b = np.reshape(one, (-1, 4)).astype(float), np.reshape(other, (-1, 4)).astype(float)
    shared = intersection(a[:, None], b)
    union = (a[:, 2] * a[:, 3])[:, None] + b[:, 2] * b[:, 3] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _bridge(seen: Sequence[tuple[int, Detection]]) -> Track:
    steps = np.array([step for step, _ in seen])
    boxes = np.array([detection.box for _, detection in seen], np.float64)
    all_steps = np.arange(steps[0], steps[-1] + 1)
    bridged = np.stack([np.interp(all_steps, steps, boxes[:, edge]) for edge in range(4)], axis=1)
    score = sum(detection.score for _, detection in seen) / len(all_steps)
    return Track(all_steps.astype(np.int64), bridged, score)


def _repeated(track: Track, others: Sequence[Track]) -> float:
    """Share of a track's frames in which one of the others shows the same person."""
    repeated = np.zeros(len(track.steps), bool)
    for other in others:
        _, here, there = np.intersect1d(track.steps, other.steps, return_indices=True)
        one, two = track.boxes[here], other.boxes[there]
        smaller = np.minimum(one[:, 2] * one[:, 3], two[:, 2] * two[:, 3])
        repeated[here] |= intersection(one, two) > SAME_PERSON * smaller
    return float(repeated.mean())
