"""Furniture of random size, shape and texture, for rooms that are looked at from several sides.

Part of the scenes behind the initialisation CroCo (paper section 4.2); solids as in `pipeline.rendering.solids`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.rendering.backgrounds import covering
from pipeline.rendering.patterns import random_cloth, random_colour
from pipeline.rendering.solids import Ball, Box, Cylinder, Solid, Texture

Rng = np.random.Generator

TEXELS = 64
"""Side of the texture of a thing; walls and floors have finer ones."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Furniture: it stands on the floor, its back along z = 0, its front towards +z, x from -width / 2 to width / 2."""

    solids: list[Solid]
    width: float
    depth: float


def plain(rng: Rng) -> Texture:
    """One colour, with some wear."""
    worn = cv2.resize(rng.uniform(0.9, 1.1, (8, 8)), (TEXELS, TEXELS), interpolation=cv2.INTER_CUBIC)
    return Texture(random_colour(rng) * worn[..., None], (1.0, 1.0))


def wood(rng: Rng) -> Texture:
    """Grain along one axis."""
    base = np.array([[158, 112, 72], [110, 74, 46], [205, 170, 120], [222, 218, 208]])[rng.integers(4)]
    grain = cv2.resize(rng.uniform(0.8, 1.15, (24, 2)), (TEXELS, TEXELS), interpolation=cv2.INTER_LINEAR)
    picture = base * rng.uniform(0.8, 1.1) * rng.uniform(0.9, 1.1, 3) * grain[..., None]
    metres = rng.uniform(0.5, 1.0)
    return Texture(picture if rng.random() < 0.5 else np.swapaxes(picture, 0, 1), (metres, metres))


def _cloth(rng: Rng) -> Texture:
    """As clothes have it, in a larger pattern."""
    down, across = (0.5 * axis.ravel() / TEXELS for axis in np.mgrid[:TEXELS, :TEXELS])
    colours = random_cloth(rng, down, across, np.stack([across, down, 0 * down], axis=1))
    metres = rng.uniform(0.8, 1.6)
    return Texture(colours.reshape(TEXELS, TEXELS, 3), (metres, metres))


def _any(rng: Rng) -> Texture:
    return (plain, wood, _cloth)[rng.integers(3)](rng)


def _box(low: tuple[float, float, float], high: tuple[float, float, float], texture: Texture) -> Box:
    lowest, highest = np.array(low, np.float64), np.array(high, np.float64)
    return Box((lowest + highest) / 2, (highest - lowest) / 2, texture)


def _cylinder(x: float, z: float, low: float, high: float, radius: float, texture: Texture) -> Cylinder:
    return Cylinder(np.array([x, (low + high) / 2, z]), np.array([radius, (high - low) / 2, radius]), texture)


def _cupboard(rng: Rng) -> Piece:
    """Doors or drawers of another colour, in one to three columns; sometimes something on top."""
    width, height, depth = rng.uniform(0.6, 1.6), rng.uniform(0.7, 2.1), rng.uniform(0.35, 0.6)
    parts: list[Solid] = [_box((-width / 2, 0, 0), (width / 2, height, depth), wood(rng))]
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    front = [_any(rng), _any(rng)]
    w, h = width / columns, (height - 0.06) / rows
    for i in range(columns):
        for j in range(rows):
            x, y = -width / 2 + i * w, 0.06 + j * h
            parts.append(
                _box((x + 0.02, y + 0.02, depth), (x + w - 0.02, y + h - 0.02, depth + 0.015), front[(i + j) % 2])
            )
    if height < 1.4:
        parts += _trinkets(rng, width, depth, height)
    return Piece(parts, width, depth)


def _shelf(rng: Rng) -> Piece:
    """Boards with books between them."""
    width, depth, boards = rng.uniform(0.7, 1.4), rng.uniform(0.25, 0.35), int(rng.integers(3, 6))
    timber, step = wood(rng), rng.uniform(0.32, 0.4)
    parts: list[Solid] = [
        _box((x - 0.015, 0, 0), (x + 0.015, (boards - 1) * step + 0.12, depth), timber) for x in (-width / 2, width / 2)
    ]
    for board in range(boards):
        bottom = 0.08 + board * step
        parts.append(_box((-width / 2, bottom, 0), (width / 2, bottom + 0.02, depth), timber))
        x = -width / 2 + 0.03
        while board < boards - 1 and x < width / 2 - 0.2:
            thick = rng.uniform(0.06, 0.2)
            if rng.random() < 0.75:
                top = bottom + 0.02 + step * rng.uniform(0.5, 0.85)
                parts.append(
                    _box((x, bottom + 0.02, 0.02), (x + thick, top, depth * rng.uniform(0.6, 0.95)), _any(rng))
                )
            x += thick + 0.01
    return Piece(parts, width, depth)


def _sofa(rng: Rng) -> Piece:
    """Seat, back, arms, cushions."""
    width, depth = rng.uniform(0.8, 2.1), rng.uniform(0.75, 0.95)
    seat, back = rng.uniform(0.38, 0.48), rng.uniform(0.75, 0.95)
    cloth = _cloth(rng)
    half = width / 2
    parts: list[Solid] = [
        _box((-half, 0.06, 0), (half, seat, depth), cloth),
        _box((-half, seat, 0), (half, back, 0.22), cloth),
        _box((-half, seat, 0.22), (-half + 0.16, seat + 0.18, depth), cloth),
        _box((half - 0.16, seat, 0.22), (half, seat + 0.18, depth), cloth),
    ]
    for x in np.arange(-half + 0.4, half - 0.35, 0.55):
        if rng.random() < 0.8:
            middle, half_size = np.array([x, seat + 0.19, 0.32]), np.array([0.2, 0.19, 0.07])
            parts.append(Box(middle, half_size, _cloth(rng), rng.normal(0, 0.2)))
    return Piece(parts, width, depth)


def _bed(rng: Rng) -> Piece:
    """Its head at the wall."""
    width, depth, height = rng.uniform(0.9, 1.6), rng.uniform(1.9, 2.1), rng.uniform(0.4, 0.55)
    half = width / 2
    parts: list[Solid] = [
        _box((-half, 0.1, 0), (half, height - 0.15, depth), wood(rng)),
        _box((-half + 0.02, height - 0.15, 0.06), (half - 0.02, height, depth - 0.02), plain(rng)),
        _box((-half - 0.01, 0.2, 0.7), (half + 0.01, height + 0.04, depth + 0.01), _cloth(rng)),
        _box((-half, 0, 0), (half, rng.uniform(0.7, 1.1), 0.06), wood(rng)),
    ]
    parts += [
        _box((x - 0.27, height, 0.1), (x + 0.27, height + 0.13, 0.5), _cloth(rng))
        for x in ((-0.35, 0.35) if width > 1.3 else (0.0,))
    ]
    return Piece(parts, width, depth)


def _desk(rng: Rng) -> Piece:
    width, depth = rng.uniform(0.9, 1.7), rng.uniform(0.5, 0.8)
    return Piece(_table_top(rng, width, depth, rng.uniform(0.68, 0.78)), width, depth)


def _table(rng: Rng) -> Piece:
    """With a rug below it and stools around."""
    width, depth = rng.uniform(0.7, 1.5), rng.uniform(0.6, 0.9)
    parts = _table_top(rng, width, depth, rng.choice([rng.uniform(0.4, 0.5), rng.uniform(0.68, 0.78)]))
    seat = _any(rng)
    for x, z in ((-width / 2 - 0.3, depth / 2), (width / 2 + 0.3, depth / 2), (0.0, depth + 0.3), (0.0, -0.3)):
        if rng.random() < 0.5:
            parts += _stool(rng, x, z, seat)
    rug = rng.uniform(0.3, 0.6)
    if rng.random() < 0.6:
        parts.append(_box((-width / 2 - rug, 0, -rug), (width / 2 + rug, 0.008, depth + rug), _cloth(rng)))
    return Piece(parts, width, depth)


def _table_top(rng: Rng, width: float, depth: float, height: float) -> list[Solid]:
    top, legs = _any(rng), plain(rng)
    parts: list[Solid] = [_box((-width / 2, height - 0.04, 0), (width / 2, height, depth), top)]
    for x in (-width / 2 + 0.06, width / 2 - 0.06):
        parts += [
            _box((x - 0.03, 0, z - 0.03), (x + 0.03, height - 0.04, z + 0.03), legs) for z in (0.06, depth - 0.06)
        ]
    return parts + _trinkets(rng, width, depth, height)


def _stool(rng: Rng, x: float, z: float, texture: Texture) -> list[Solid]:
    if rng.random() < 0.5:
        return [
            _cylinder(x, z, 0.38, 0.45, 0.19, texture),
            _cylinder(x, z, 0.0, 0.38, 0.05, texture),
            _cylinder(x, z, 0.0, 0.03, 0.17, texture),
        ]
    return [_box((x - 0.18, 0.0, z - 0.18), (x + 0.18, 0.42, z + 0.18), texture)]


def _trinkets(rng: Rng, width: float, depth: float, height: float) -> list[Solid]:
    """Things on a table or a chest."""
    parts: list[Solid] = []
    for x in np.linspace(-width / 2 + 0.15, width / 2 - 0.15, max(1, int(width / 0.3))):
        z, tall, kind = rng.uniform(0.15, max(0.16, depth - 0.15)), rng.uniform(0.08, 0.35), rng.integers(5)
        if kind == 0:
            parts.append(_cylinder(x, z, height, height + tall, rng.uniform(0.04, 0.09), _any(rng)))
        elif kind == 1:
            parts.append(Ball(np.array([x, height + 0.1, z]), np.full(3, 0.1), _any(rng)))
        elif kind == 2:
            half = np.array([rng.uniform(0.05, 0.13), tall / 2, rng.uniform(0.02, 0.1)])
            parts.append(Box(np.array([x, height + tall / 2, z]), half, _any(rng), rng.uniform(0, np.pi)))
        elif kind == 3:
            parts += [
                _cylinder(x, z, height, height + tall, 0.02, plain(rng)),
                _cylinder(x, z, height + tall, height + tall + 0.16, 0.11, _any(rng)),
            ]
    return parts


def _plant(rng: Rng) -> Piece:
    """Leaves in a pot."""
    radius, tall = rng.uniform(0.12, 0.22), rng.uniform(0.5, 1.5)
    leaves = Texture(covering(rng, "grass", TEXELS), (0.5, 0.5))
    parts: list[Solid] = [
        _cylinder(0.0, 0.3, 0.0, 0.3, radius, _any(rng)),
        _cylinder(0.0, 0.3, 0.3, tall, 0.025, wood(rng)),
    ]
    for _ in range(int(rng.integers(2, 5))):
        middle = np.array([0.0, tall, 0.3]) + rng.normal(0, 0.08, 3)
        parts.append(Ball(middle, rng.uniform(0.12, 0.24, 3), leaves))
    return Piece(parts, 0.6, 0.6)


def _lamp_stand(rng: Rng) -> Piece:
    """Not lit."""
    height = rng.uniform(1.2, 1.7)
    parts: list[Solid] = [
        _cylinder(0.0, 0.25, 0.0, 0.03, 0.15, plain(rng)),
        _cylinder(0.0, 0.25, 0.03, height, 0.015, plain(rng)),
        _cylinder(0.0, 0.25, height, height + 0.28, 0.2, _cloth(rng)),
    ]
    return Piece(parts, 0.5, 0.5)


def _boxes(rng: Rng) -> Piece:
    """A pile of boxes, each a little smaller than the one below."""
    parts: list[Solid] = []
    bottom, half = 0.0, rng.uniform(0.2, 0.35)
    for _ in range(int(rng.integers(1, 4))):
        height = rng.uniform(0.2, 0.45)
        middle = np.array([0.0, bottom + height / 2, 0.38])
        size = np.array([half, height / 2, half * rng.uniform(0.7, 1)])
        parts.append(Box(middle, size, _any(rng), rng.normal(0, 0.3)))
        bottom, half = bottom + height, half * rng.uniform(0.7, 0.95)
    return Piece(parts, 0.8, 0.76)


def _drum(rng: Rng) -> Piece:
    """A bin, a drum, a round seat; sometimes a ball on it."""
    radius, height = rng.uniform(0.15, 0.35), rng.uniform(0.3, 0.6)
    parts: list[Solid] = [_cylinder(0.0, 0.36, 0.0, height, radius, _any(rng))]
    if rng.random() < 0.5:
        parts.append(Ball(np.array([0.0, height + 0.6 * radius, 0.36]), np.full(3, 0.6 * radius), _any(rng)))
    return Piece(parts, 0.72, 0.72)


WALLSIDE: tuple[Callable[[Rng], Piece], ...] = (
    _cupboard, _cupboard, _cupboard, _shelf, _shelf, _sofa, _sofa, _bed, _desk, _desk,
    _plant, _lamp_stand, _boxes, _drum,
)  # fmt: skip
MIDDLE: tuple[Callable[[Rng], Piece], ...] = (_table, _table, _boxes, _drum)
