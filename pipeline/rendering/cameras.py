"""Where the cameras stand: around one person, in a fixed ring, or carried by hand.

Cameras have OpenCV axes (x right, y down, z forward), map world to camera by
`x_camera = R x_world + t` in metres, and their pixels start at the top-left corner of the
image (paper section 3.2: several viewpoints per pose, the person fully visible; only `sample_around`
makes sure of it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Array = NDArray[np.floating]

# SURREAL's lens: 60 mm before a sensor 32 mm wide.
FOCAL_OVER_WIDTH = 60.0 / 32.0


@dataclass(frozen=True, eq=False)
class Camera:
    """K (3, 3) in pixels, R (3, 3) world to camera, t (3,) metres."""

    K: Array
    R: Array
    t: Array

    @property
    def centre(self) -> Array:
        """(3,) metres, world frame."""
        return -self.R.T @ self.t

    def to_camera(self, points: Array) -> Array:
        """(N, 3) metres, world to camera frame."""
        # One row per axis in memory: sums and extremes over the points are several times faster so.
        return (self.R @ np.transpose(points) + self.t[:, None]).T

    def project(self, points: Array) -> Array:
        """(N, 2) pixels of world points (N, 3); NaN for points on or behind the camera plane."""
        x = self.to_camera(np.asarray(points, dtype=np.float64)).T
        depth = np.where(x[2] > 1e-6, x[2], np.nan)
        return (self.K[:2] @ x / depth).T


def look_at(eye: Array, target: Array, size_hw: tuple[int, int], focal: float, roll: float = 0.0) -> Camera:
    """Camera at `eye` (3,) that sees `target` (3,) in the image centre, world y up.

    focal: pixels; roll: radians about the optical axis. Raises ValueError when eye and
    target coincide or the line of sight is vertical.
    """
    eye, target = np.asarray(eye, np.float64), np.asarray(target, np.float64)
    forward = target - eye
    # The cross product with "up", (0, 1, 0).
    right = np.array([-forward[2], 0.0, forward[0]])
    if np.linalg.norm(right) < 1e-9:
        raise ValueError(f"a camera at {eye} can not look at {target}: no distance, or straight up or down")
    forward, right = forward / np.linalg.norm(forward), right / np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    R = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]) @ R
    K = np.array([[focal, 0, size_hw[1] / 2], [0, focal, size_hw[0] / 2], [0, 0, 1]])
    return Camera(K=K, R=R, t=-R @ eye)


def direction(azimuth: float, elevation: float) -> Array:
    """(3,) unit vector from the person to the camera; radians, azimuth 0 = +z, where an unposed person faces."""
    return np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])


def frame_share(camera: Camera, points: Array, size_hw: tuple[int, int]) -> float:
    """Longer side of the box around projected points (N, 3) over that side of the frame; inf when one leaves it."""
    pixels = camera.project(points)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    extent = np.array([size_hw[1], size_hw[0]], np.float64)
    # NaN (behind the camera) fails the comparison too.
    if not ((low >= 0).all() and (high <= extent).all()):
        return float("inf")
    return float(((high - low) / extent).max())


def framed(
    points: Array,
    azimuth: float,
    elevation: float,
    fill: float,
    size_hw: tuple[int, int],
    target: Array | None = None,
    focal: float | None = None,
) -> Camera:
    """Camera in the given direction, as far off as makes the box of `points` (N, 3) fill `fill` of the frame.

    target: what the image centre shows, default the middle of the points; focal: pixels,
    default SURREAL's lens over the longer image side. The box is found for points in front
    of the camera; whether all of them are in the frame is for `frame_share` to say.
    """
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    target = middle if target is None else np.asarray(target, np.float64)
    focal = FOCAL_OVER_WIDTH * max(size_hw) if focal is None else focal
    radius = float(np.linalg.norm(points - middle, axis=1).max())
    extent = np.array([size_hw[1], size_hw[0]], np.float64)
    distance = 2 * radius * focal / (fill * min(size_hw))
    towards = direction(azimuth, elevation)
    # The extent on the image goes almost as 1 / distance: a few fixed-point steps are exact enough.
    for _ in range(4):
        camera = look_at(target + distance * towards, target, size_hw, focal)
        pixels = camera.project(points)
        share = float((np.ptp(pixels, axis=0) / extent).max())
        if not np.isfinite(share):
            distance *= 2
            continue
        distance = max(distance * share / fill, 1.05 * radius)
    return look_at(target + distance * towards, target, size_hw, focal)


def sample_around(
    rng: np.random.Generator,
    vertices: Array,
    size_hw: tuple[int, int],
    count: int,
    fill: tuple[float, float] = (0.5, 0.9),
    elevation_degrees: tuple[float, float] = (-10.0, 45.0),
    focal: float | None = None,
    azimuth: Callable[[np.random.Generator], float] | None = None,
) -> list[Camera]:
    """`count` cameras around one body, each seeing every vertex (V, 3).

    Azimuth uniform unless drawn by `azimuth`, elevation and fill uniform in their ranges, the
    person a little off the centre where there is room. Raises RuntimeError when the body can not be brought into frame.
    """
    cameras: list[Camera] = []
    span = np.ptp(vertices, axis=0)
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    # A tenth of the vertices decides the distance; all of them decide whether the view is kept.
    coarse = vertices[::10]
    for _ in range(100 * count):
        towards = rng.uniform(0, 2 * np.pi) if azimuth is None else azimuth(rng)
        elevation = np.deg2rad(rng.uniform(*elevation_degrees))
        target = middle + rng.uniform(-0.12, 0.12, 3) * span.max()
        wanted = rng.uniform(*fill)
        camera = framed(coarse, towards, elevation, wanted, size_hw, target, focal)
        if frame_share(camera, vertices, size_hw) <= 1.0:
            cameras.append(camera)
            if len(cameras) == count:
                return cameras
    raise RuntimeError(f"no {count} views of {size_hw[1]}x{size_hw[0]} pixels hold a body of {span.round(2)} m whole")


def ring(
    rng: np.random.Generator,
    points: Array,
    size_hw: tuple[int, int],
    count: int,
    fill: float = 0.85,
    elevation_degrees: tuple[float, float] = (0.0, 20.0),
    focal: float | None = None,
) -> list[Camera]:
    """`count` fixed cameras of a capture rig, evenly around the volume that `points` (N, 3) span.

    points: vertices or joints of the whole motion, all or some. The box around them has the size
    that `fill` says, but not its middle in that of the image: with a `fill` near 1 a hand or a
    foot may reach a few pixels beyond the frame. Azimuths are evenly spaced with a jitter of a
    fifth of the step.
    """
    step = 2 * np.pi / count
    cameras = []
    for index in range(count):
        azimuth = step * (index + rng.uniform(-0.2, 0.2))
        elevation = np.deg2rad(rng.uniform(*elevation_degrees))
        cameras.append(framed(points, azimuth, elevation, fill, size_hw, focal=focal))
    return cameras


def hand_held(
    rng: np.random.Generator,
    centres: Array,
    extent: float,
    size_hw: tuple[int, int],
    fps: float,
    azimuth: float,
    fill: float = 0.65,
    focal: float | None = None,
) -> list[Camera]:
    """One camera per frame that follows a person as someone walking along would.

    centres: (T, 3) metres, middle of the body per frame; extent: metres, its largest size over
    the clip; azimuth: radians, from where; fill: share of the shorter image side that `extent`
    takes on average. Position, aim and roll drift and tremble smoothly; the person stays near the centre.
    """
    centres = np.asarray(centres, np.float64)
    length = len(centres)
    focal = FOCAL_OVER_WIDTH * max(size_hw) if focal is None else focal
    # People follow with a lag of about a third of a second.
    followed = gaussian_filter1d(centres, max(fps / 3, 1e-3), axis=0, mode="nearest")
    distance = extent * focal / (fill * min(size_hw))
    azimuths = azimuth + np.deg2rad(12) * _drift(rng, length, fps, 2.0)
    elevation = np.deg2rad(rng.uniform(-3, 12) + 2 * _drift(rng, length, fps, 2.0))
    distances = distance * (1 + 0.06 * _drift(rng, length, fps, 2.0))
    aims = followed + 0.02 * extent * np.stack([_drift(rng, length, fps, 0.4) for _ in range(3)], axis=1)
    roll = np.deg2rad(1.5) * _drift(rng, length, fps, 0.8)
    return [
        look_at(aims[i] + distances[i] * direction(azimuths[i], elevation[i]), aims[i], size_hw, focal, roll[i])
        for i in range(length)
    ]


def _drift(rng: np.random.Generator, length: int, fps: float, seconds: float) -> Array:
    """(T,) smooth noise of mean 0 and spread 1 that changes over about `seconds`."""
    sigma = seconds * fps / 2
    margin = int(4 * sigma) + 1
    noise = gaussian_filter1d(rng.standard_normal(length + 2 * margin), sigma)[margin : margin + length]
    # Variance of white noise after a Gaussian filter of this width.
    return noise * np.sqrt(2 * sigma * np.sqrt(np.pi))
