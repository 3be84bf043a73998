"""A dark studio where hands are filmed by many cameras at once, as for InterHand2.6M (paper section 3.1).

Upright cameras see colour, lying ones are grey; nothing but the hands is lit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.datasets.hands import PosedHand
from pipeline.rendering.cameras import Camera, direction, look_at

Pixels = NDArray[np.uint8]
COLOUR, GREY = "400", "410"
"""How names of the cameras begin."""
SHORT_OVER_LONG = 334 / 512
FOCAL_OVER_LONG = 1265 / 512
CONTACT = 0.012
"""Metres between the vertices of two hands that touch."""


@dataclass(frozen=True, eq=False)
class StudioCamera:
    """One camera of the rig: where it stands (world y up, metres) and the studio behind the hands, (H, W, 3)."""

    name: str
    camera: Camera
    background: Pixels

    @property
    def size_hw(self) -> tuple[int, int]:
        height, width, _ = self.background.shape
        return height, width

    def develop(self, rng: np.random.Generator, image: Pixels) -> Pixels:
        """What the sensor makes of a rendering: some are grey, the others see greenish light; all have noise."""
        grey = self.name.startswith(GREY)
        picture = image.mean(axis=2, keepdims=True) * np.ones(3) if grey else image * np.array([0.97, 1.0, 0.85])
        return np.clip(picture + rng.normal(0, 1.5, (*image.shape[:2], 1)), 0, 255).astype(np.uint8)


def rig(rng: np.random.Generator, count: int, side: int) -> list[StudioCamera]:
    """`count` cameras about hands at the origin of a person who faces +z; `side`: longer side of an image, px."""
    cameras = []
    long, short = side, round(SHORT_OVER_LONG * side)
    for index in range(count):
        upright = index % 2 == 0
        size_hw = (long, short) if upright else (short, long)
        azimuth = np.radians(240 * ((index + rng.uniform(0.1, 0.9)) / count - 0.5))
        elevation = np.radians(rng.uniform(-25, 60))
        target, distance = rng.normal(0, 0.01, 3), rng.uniform(0.95, 1.15)
        focal = FOCAL_OVER_LONG * long * rng.uniform(0.99, 1.01)
        camera = look_at(target + distance * direction(azimuth, elevation), target, size_hw, focal)
        camera.K[:2, 2] += rng.normal(0, 0.015, 2) * long
        name = f"{COLOUR if upright else GREY}{3 + 7 * index:03d}"
        cameras.append(StudioCamera(name, camera, _studio(rng, size_hw)))
    return cameras


def _studio(rng: np.random.Generator, size_hw: tuple[int, int]) -> Pixels:
    """(H, W, 3) nearly black, with a few lamps that shine into the camera."""
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    picture = np.full((height, width), rng.uniform(4, 12))
    for _ in range(rng.integers(0, 7)):
        radius = rng.uniform(0.004, 0.009) * max(size_hw)
        away = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height)) / radius
        picture += 320 * np.exp(-(away**4)) + 60 * np.exp(-away / 2)
    return np.clip(picture, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)


def beside(right: PosedHand, left: PosedHand) -> tuple[PosedHand, PosedHand]:
    """Both hands of a person about the origin, moved along x until they would touch at some instant."""
    apart = float(right.vertices[..., 0].max() - left.vertices[..., 0].min()) + CONTACT
    nearer = apart - _approach(right, left, apart)
    return right.shifted(np.array([-nearer / 2, 0.0, 0.0])), left.shifted(np.array([nearer / 2, 0.0, 0.0]))


def _approach(right: PosedHand, left: PosedHand, apart: float) -> float:
    """Metres that two arms `apart` along x may come nearer before, at some instant, they touch."""
    trees = [cKDTree(arm[::3]) for arm in right.arm]
    for step in np.arange(0.0, apart, CONTACT):
        there = left.arm[:, ::3] + np.array([apart - step, 0.0, 0.0], np.float32)
        if min(tree.query(arm)[0].min() for tree, arm in zip(trees, there, strict=True)) < CONTACT:
            return max(0.0, float(step) - CONTACT)
    return apart
