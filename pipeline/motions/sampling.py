"""Poses drawn from motions as the synthetic data needs them, and the split of motions by subject."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.motions.amass import Motion

TEST_EVERY = 4
"""Every fourth subject is kept for test."""


def split_by_subject(motions: Sequence[Motion]) -> dict[str, list[Motion]]:
    """`train` and `test` motions that share no person.

    A person is the last part of `Motion.subject`, so that one who appears in several
    dataset folders stays on one side. Fewer than two persons leave test empty.
    """
    people = sorted({person(motion) for motion in motions})
    held_out = set(people[TEST_EVERY - 1 :: TEST_EVERY]) or set(people[1:2])
    splits: dict[str, list[Motion]] = {"train": [], "test": []}
    for motion in motions:
        splits["test" if person(motion) in held_out else "train"].append(motion)
    return splits


def person(motion: Motion) -> str:
    return motion.subject.rpartition("/")[2]


def sample_frames(
    motions: Sequence[Motion], rng: np.random.Generator, count: int, min_gap_s: float = 0.5
) -> list[tuple[int, int]]:
    """`count` pairs (motion, frame): uniform over motions, then over their frames.

    Frames of one motion are at least `min_gap_s` apart, as long as there are such frames
    left; then a new round starts with other frames.
    """
    if not motions:
        raise ValueError("no motions to sample from; `python -m pipeline.motions` makes licence-free ones")
    drawn: list[tuple[int, int]] = []
    left: list[list[int]] = [[] for _ in motions]
    while len(drawn) < count:
        open_motions = [index for index, frames in enumerate(left) if frames]
        if not open_motions:
            left = [_round(motion, rng, min_gap_s) for motion in motions]
            continue
        motion = open_motions[rng.integers(len(open_motions))]
        drawn.append((motion, left[motion].pop()))
    return drawn


def sample_poses(
    motions: Sequence[Motion], rng: np.random.Generator, count: int, min_gap_s: float = 0.5
) -> NDArray[np.float64]:
    """(count, 72) axis-angle poses drawn by `sample_frames`, in the axes the motions are in."""
    frames = sample_frames(motions, rng, count, min_gap_s)
    return np.array([motions[motion].poses[frame] for motion, frame in frames]).reshape(count, 72)


def _round(motion: Motion, rng: np.random.Generator, min_gap_s: float) -> list[int]:
    """Frames a gap apart, from a random start, in random order."""
    step = max(1, round(min_gap_s * motion.fps))
    start = rng.integers(min(step, len(motion)))
    return [int(frame) for frame in rng.permutation(np.arange(start, len(motion), step))]
