"""Rays against boxes, cylinders and balls: what a camera sees of them, and whether two points see each other.

Static scenes are drawn so, without OpenGL: what is seen from two sides can be asked of the same geometry exactly
(pairs behind the initialisation CroCo, paper section 4.2). World in metres, y up; cameras as in
`pipeline.rendering.cameras`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.rendering.cameras import Camera

Array = NDArray[np.floating]
Span = tuple[Array, Array]
"""Where rays enter and leave, in lengths of the ray; entered after it was left = missed."""

CORNERS = np.array(list(product((-1.0, 1.0), repeat=3)))
NEAR = 0.02
"""Metres before a camera in which nothing is drawn."""
ROUNDING = 0.004
"""Metres that a point on a surface may lie under it."""


@dataclass(frozen=True, eq=False)
class Texture:
    """A picture (S, S, 3) RGB in 0..255, S a power of two, laid again every `metres` (across, down)."""

    picture: Array
    metres: tuple[float, float]
    glows: bool = False
    """Whether it shows as it is, whatever light falls on it: a window, a lamp."""

    @cached_property
    def _levels(self) -> list[Array]:
        """The picture, and each time half as fine, down to a single texel: what is far off is not sampled at random."""
        levels = [np.asarray(self.picture, np.float32)]
        while len(levels[-1]) > 1:
            half = len(levels[-1]) // 2
            levels.append(np.asarray(cv2.resize(levels[-1], (half, half), interpolation=cv2.INTER_AREA)))
        return levels

    def colours(self, places: Array, width: Array) -> Array:
        """(M, 3) at places (M, 2), metres across and down; `width` (M,): metres that a sample covers."""
        parts = places / np.asarray(self.metres, np.float32)
        texels = width * len(self.picture) / min(self.metres)
        level = np.clip(np.round(np.log2(np.maximum(texels, 1.0))), 0, len(self._levels) - 1).astype(int)
        found = np.empty((len(places), 3), np.float32)
        for number in np.unique(level):
            at = level == number
            picture = self._levels[number]
            found[at] = picture[tuple(np.floor(parts[at] % 1.0 * len(picture)).astype(int).T[::-1] % len(picture))]
        return found


@dataclass(frozen=True, eq=False)
class Solid(ABC):
    """A shape that fills -1..1 along its own axes, there stretched by `half` (3,), turned and moved.

    turn: about the vertical, radians.
    """

    centre: Array
    half: Array
    texture: Texture
    turn: float = 0.0

    @abstractmethod
    def span(self, origin: Array, rays: Array) -> Span:
        """Of rays (3, M) from `origin` (3, M or 1), all in the solid's own axes."""

    @abstractmethod
    def surface(self, points: Array) -> tuple[Array, Array]:
        """Outward direction (M, 3) and place on the texture (M, 2) of points (M, 3), all in the solid's own axes.

        Directions are not yet stretched; places count in metres, across and down.
        """

    @cached_property
    def _axes(self) -> Array:
        """(3, 3): rows are the solid's axes in the world, over their half lengths."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        return (np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) / np.asarray(self.half)[:, None]).astype(np.float32)

    @cached_property
    def _middle(self) -> Array:
        return np.asarray(self.centre, np.float32)[:, None]

    def hits(self, origin: Array, rays: Array) -> Span:
        """`span` of rays (3, M) from `origin` (3, M or 1) in the world."""
        return self.span(self._axes @ (origin - self._middle), self._axes @ rays)

    def describe(self, points: Array) -> tuple[Array, Array]:
        """Unit normals (M, 3) in the world and places on the texture (M, 2) of points (M, 3) on the surface."""
        outwards, places = self.surface((points - self._middle.T) @ self._axes.T)
        # Normals go by the inverse transpose of what stretches the shape.
        normals = outwards @ self._axes
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9), places

    @cached_property
    def corners(self) -> Array:
        """(8, 3) of the box around it, in the world."""
        return (CORNERS * self.half) @ (self._axes * np.asarray(self.half)[:, None]) + self.centre

    def moved(self, by: Array, turn: float) -> Solid:
        """Turned about the vertical axis of the world, then moved."""
        c, s = np.cos(turn), np.sin(turn)
        x, y, z = self.centre
        centre = np.array([c * x + s * z, y, c * z - s * x]) + by
        return replace(self, centre=centre, turn=self.turn + turn)


@dataclass(frozen=True, eq=False)
class Box(Solid):
    """Each side shows the texture upright; top and bottom as seen from the front (+z)."""

    def span(self, origin: Array, rays: Array) -> Span:
        return _slabs(origin, rays)

    def surface(self, points: Array) -> tuple[Array, Array]:
        axis = np.abs(points).argmax(axis=1)
        rows = np.arange(len(points))
        outwards = np.zeros_like(points)
        outwards[rows, axis] = np.sign(points[rows, axis])
        metres = points * np.asarray(self.half, np.float32)
        across = np.where(axis == 0, metres[:, 2], metres[:, 0])
        down = np.where(axis == 1, metres[:, 2], -metres[:, 1])
        # Counted from the corner: one whole picture on a side that is as large as it.
        width = np.where(axis == 0, self.half[2], self.half[0])
        height = np.where(axis == 1, self.half[2], self.half[1])
        return outwards, np.stack([across + width, down + height], axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Cylinder(Solid):
    """Upright."""

    def span(self, origin: Array, rays: Array) -> Span:
        near, far = _round(origin[[0, 2]], rays[[0, 2]])
        below, above = _slabs(origin[1:2], rays[1:2])
        return np.maximum(near, below), np.minimum(far, above)

    def surface(self, points: Array) -> tuple[Array, Array]:
        x, y, z = points.T
        lid = np.abs(y) > np.hypot(x, z)
        outwards = np.where(lid[:, None], points * [0, 1, 0], points * [1, 0, 1])
        rx, ry, rz = np.asarray(self.half, np.float32)
        across = np.where(lid, rx * x, rx * np.arctan2(x, z))
        down = np.where(lid, rz * z, -ry * y)
        return outwards, np.stack([across, down], axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Ball(Solid):
    """A ball, or an egg where the halves differ."""

    def span(self, origin: Array, rays: Array) -> Span:
        return _round(origin, rays)

    def surface(self, points: Array) -> tuple[Array, Array]:
        x, y, z = points.T
        rx, ry, _ = np.asarray(self.half, np.float32)
        places = np.stack([rx * np.arctan2(x, z), -ry * np.arcsin(np.clip(y, -1, 1))], axis=1)
        return points, places.astype(np.float32)


def _slabs(origin: Array, rays: Array) -> Span:
    """Between the planes -1 and 1 along every axis given: (n, ...) each."""
    step = 1 / (rays + np.float32(1e-12))  # never 0
    one, other = (-1 - origin) * step, (1 - origin) * step
    return np.minimum(one, other).max(axis=0), np.maximum(one, other).min(axis=0)


def _round(origin: Array, rays: Array) -> Span:
    """Within 1 of the axis, or of the middle: (n, ...) each."""
    a = np.maximum((rays**2).sum(axis=0), 1e-12)
    b = (origin * rays).sum(axis=0) / a
    inside = b**2 - ((origin**2).sum(axis=0) - 1) / a
    root = np.sqrt(np.maximum(inside, 0))
    return np.where(inside > 0, -b - root, np.float32(np.inf)), np.where(inside > 0, -b + root, np.float32(-np.inf))


@dataclass(frozen=True, eq=False)
class Seen:
    """What the rays of an image of H x W samples meet first."""

    depth: Array
    """(H, W) metres along the optical axis; infinite where they meet nothing."""
    solid: NDArray[np.intp]
    """(H, W) number of the solid, -1 where there is none."""
    points: Array
    """(H, W, 3) in the world, metres; NaN where there is none."""


@dataclass(frozen=True, eq=False)
class Group:
    """Solids that stand close together: what passes them by all is not asked of each."""

    parts: tuple[Solid, ...]

    @cached_property
    def bound(self) -> Box:
        """Around all of them, along the axes of the world."""
        corners = np.concatenate([part.corners for part in self.parts])
        low, high = corners.min(axis=0), corners.max(axis=0)
        return Box((low + high) / 2, np.maximum((high - low) / 2, ROUNDING), self.parts[0].texture)


def look(solids: Sequence[Solid], camera: Camera, size_hw: tuple[int, int]) -> Seen:
    """One ray through the middle of every pixel of an image of that size, which `camera` is for."""
    height, width = size_hw
    pixels = np.stack([*np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), np.ones((height, width))])
    # The third coordinate of a pixel is 1, so lengths along a ray are depths.
    rays = np.tensordot(camera.R.T @ np.linalg.inv(camera.K), pixels, 1).astype(np.float32)
    origin = camera.centre.astype(np.float32)[:, None]
    depth, number = np.full(size_hw, np.inf, np.float32), np.full(size_hw, -1)
    for index, (top, bottom, left, right) in _frames(camera, solids, size_hw):
        part = np.s_[top:bottom, left:right]
        near, far = solids[index].hits(origin, rays[:, *part].reshape(3, -1))
        before = depth[part]
        near = np.where((near < far) & (near > NEAR), near, np.float32(np.inf)).reshape(before.shape)
        nearest = near < before
        before[nearest] = near[nearest]
        number[part][nearest] = index
    points = origin[:, None] + np.where(number < 0, np.float32(np.nan), depth) * rays
    return Seen(depth, number, np.moveaxis(points, 0, -1))


def clear(groups: Sequence[Group], points: Array, target: Array) -> NDArray[np.bool_]:
    """(M,) whether nothing stands between points (M, 3) on surfaces and `target` (3,)."""
    origin = points.T.astype(np.float32)
    rays = np.asarray(target, np.float32)[:, None] - origin
    slack = ROUNDING / np.maximum(np.linalg.norm(rays, axis=0), ROUNDING)
    free = np.ones(len(points), bool)

    def behind(solid: Solid, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        near, far = solid.hits(origin[:, rows], rays[:, rows])
        return (near < far) & (near < 1) & (far > slack[rows])

    for group in groups:
        left = np.flatnonzero(free)
        left = left[behind(group.bound, left)]
        for solid in group.parts if len(left) else ():
            free[left[behind(solid, left)]] = False
    return free


def _frames(
    camera: Camera, solids: Sequence[Solid], size_hw: tuple[int, int]
) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """Solids that can be seen, by number, with rows from and to, columns from and to of the part that may show them."""
    height, width = size_hw
    corners = np.concatenate([solid.corners for solid in solids])
    x, y, z = (camera.K @ camera.to_camera(corners).T).reshape(3, -1, len(CORNERS))
    outside = [z < NEAR, x < 0, y < 0, x > width * z, y > height * z]
    seen = np.flatnonzero(~np.any([side.all(axis=1) for side in outside], axis=0))
    # Of what is partly behind the camera, corners say little.
    whole = (z < NEAR).any(axis=1)
    edges = []
    for places, end in ((y, height), (x, width)):
        pixels = places / np.where(z < NEAR, 1.0, z)
        edges += [np.where(whole, 0, np.floor(pixels.min(axis=1))), np.where(whole, end, np.ceil(pixels.max(axis=1)))]
    ends = np.array([height, height, width, width])
    for index in seen:
        top, bottom, left, right = np.clip([edge[index] for edge in edges], 0, ends).astype(int).tolist()
        yield int(index), (top, bottom, left, right)
