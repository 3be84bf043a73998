"""Numbers of a random generator -> a furnished room, and pictures of it from any place inside.

Stands in for the scanned scenes behind CroCo's own pairs, which the paper starts from (section 4.2): nobody is there,
nothing moves, every surface has a texture of its own, one lamp throws shadows. World in metres, y up, floor at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.rendering import solids
from pipeline.rendering.backgrounds import art, covering, sky, tint
from pipeline.rendering.cameras import Camera
from pipeline.rendering.patterns import random_cloth, random_colour
from pipeline.rendering.shading import FINE
from pipeline.rendering.solids import Array, Ball, Box, Cylinder, Group, Seen, Solid, Texture

Rng = np.random.Generator

TEXELS = 64
"""Side of the texture of a thing; walls and floors have finer ones."""
CLEARANCE = 0.3
"""Metres between a camera and the nearest wall or piece of furniture."""
REACH = 3.0
"""Metres from the lamp at which its light has fallen to a half."""
WALL = 0.2
"""Half of a wall's thickness, metres."""


@dataclass(frozen=True)
class Hung:
    """What hangs on a wall: from and to, metres."""

    width: tuple[float, float]
    height: tuple[float, float]
    middle: tuple[float, float]


HUNG = {
    "picture": Hung((0.3, 1.0), (0.3, 0.9), (1.3, 1.7)),
    "window": Hung((0.8, 1.7), (0.9, 1.3), (1.5, 1.5)),
    "door": Hung((0.8, 0.95), (2.0, 2.0), (1.0, 1.0)),
}


@dataclass(frozen=True, eq=False)
class Piece:
    """Furniture: it stands on the floor, its back along z = 0, its front towards +z, x from -width / 2 to width / 2."""

    solids: list[Solid]
    width: float
    depth: float


@dataclass(frozen=True, eq=False)
class Room:
    """What is there to see; it spans -size / 2 to size / 2, its floor is at 0."""

    size: Array
    """(3,) metres."""
    walls: tuple[Solid, ...]
    """With floor, ceiling and what hangs on them: these hide nothing."""
    furniture: tuple[Group, ...]
    lamp: Array
    """(3,) metres."""
    light: Array
    """(3,) how bright and of which colour the lamp is."""
    ambient: float
    """Light from everywhere."""

    @cached_property
    def solids(self) -> list[Solid]:
        """All, in the order of their numbers in a view."""
        return [*self.walls, *(solid for group in self.furniture for solid in group.parts)]

    def is_free(self, place: Array) -> bool:
        """Whether a camera may stand above (x, z)."""
        room = self.size[[0, 2]] / 2 - CLEARANCE
        bounds = [group.bound for group in self.furniture]
        inside = [(np.abs(place - bound.centre[[0, 2]]) < bound.half[[0, 2]] + CLEARANCE).all() for bound in bounds]
        return bool((np.abs(place) < room).all()) and not any(inside)

    def look(self, camera: Camera, size_hw: tuple[int, int]) -> Seen:
        """What each pixel of an image of that size shows, as geometry."""
        return solids.look(self.solids, camera, size_hw)

    def is_furniture(self, seen: Seen) -> NDArray[np.bool_]:
        """(H, W) whether a pixel shows more than walls and what hangs on them."""
        return np.asarray(seen.solid >= len(self.walls))

    def clear(self, points: Array, target: Array) -> NDArray[np.bool_]:
        """(M,) whether `target` (3,) is seen from points (M, 3) on surfaces."""
        return solids.clear(self.furniture, points, target)

    def photograph(self, camera: Camera, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        height, width = size_hw
        fine = Camera(np.diag([FINE, FINE, 1.0]) @ camera.K, camera.R, camera.t)
        seen = self.look(fine, (FINE * height, FINE * width))
        colour, normals = self._surfaces(seen, focal=float(fine.K[0, 0]))
        towards = self.lamp.astype(np.float32) - seen.points
        distance = np.linalg.norm(towards, axis=2)
        facing = np.maximum((normals * towards).sum(axis=2) / distance, 0)
        lamp = (self._lit(seen, facing) * facing / (1 + (distance / REACH) ** 2))[..., None] * self.light
        # The ceiling and what faces it is a little brighter than what faces the floor.
        light = self.ambient * (0.85 + 0.15 * normals[..., 1:2]) + lamp
        glows = np.array([solid.texture.glows for solid in self.solids])[seen.solid]
        colour *= np.where(glows[..., None], 1.0, light).astype(np.float32)
        image = cv2.resize(np.minimum(colour, 255), (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(image + 0.5, np.uint8)

    def _lit(self, seen: Seen, facing: Array) -> NDArray[np.bool_]:
        """(H, W) whether the lamp shines there: one answer for all samples of a pixel."""
        points, lit = seen.points[::FINE, ::FINE], facing[::FINE, ::FINE] > 0
        lit[lit] = self.clear(points[lit], self.lamp)
        return lit.repeat(FINE, axis=0).repeat(FINE, axis=1)

    def _surfaces(self, seen: Seen, focal: float) -> tuple[Array, Array]:
        """(H, W, 3) colour in 0..255 and (H, W, 3) unit normals."""
        points, width = seen.points.reshape(-1, 3), (seen.depth / focal).ravel()
        colour, normals = np.empty_like(points), np.empty_like(points)
        order = np.argsort(seen.solid, axis=None, kind="stable")
        numbers, starts = np.unique(seen.solid.ravel()[order], return_index=True)
        for number, at in zip(numbers, np.split(order, starts[1:]), strict=True):
            normals[at], places = self.solids[number].describe(points[at])
            colour[at] = self.solids[number].texture.colours(places, width[at])
        return colour.reshape(seen.points.shape), normals.reshape(seen.points.shape)


def random_room(rng: Rng) -> Room:
    """Of 11 to 35 square metres, with up to a dozen pieces of furniture along its walls and in the middle."""
    size = np.array([rng.uniform(3.4, 6.0), rng.uniform(2.4, 3.0), rng.uniform(3.2, 5.8)])
    furniture: list[Group] = []
    for _ in range(40):
        if len(furniture) >= 9:
            break
        piece = WALLSIDE[rng.integers(len(WALLSIDE))](rng)
        side = int(rng.integers(4))
        length, reach = _wall(size, side)
        if length > piece.width:
            along, gap = rng.uniform(-1, 1) * (length - piece.width) / 2, rng.uniform(0.0, 0.06)
            _stand(furniture, size, piece, np.array([along, 0.0, gap - reach / 2]), side)
    for _ in range(4):
        piece = MIDDLE[rng.integers(len(MIDDLE))](rng)
        x, z = rng.uniform(-1, 1, 2) * (size[[0, 2]] / 2 - 0.9)
        _stand(furniture, size, piece, np.array([x, 0.0, z - piece.depth / 2]), 0, rng.normal(0, 0.3))
    walls = (*_shell(rng, size), *(solid for side in range(4) for solid in _hung(rng, size, side)))
    x, z = rng.uniform(-0.3, 0.3, 2) * size[[0, 2]]
    light = rng.uniform(1.0, 1.5) * np.array([1.0, rng.uniform(0.9, 1.0), rng.uniform(0.75, 1.0)])
    lamp = np.array([x, size[1] - rng.uniform(0.3, 0.6), z])
    return Room(size, walls, tuple(furniture), lamp, light, rng.uniform(0.35, 0.55))


def _wall(size: Array, side: int) -> tuple[float, float]:
    """Metres along a wall, and from it to the one opposite."""
    return (size[0], size[2]) if side % 2 == 0 else (size[2], size[0])


def _shell(rng: Rng, size: Array) -> list[Solid]:
    """Floor, ceiling and four walls, one or two of them unlike the others."""
    x, y, z = size / 2
    floor = _covering(rng, "boards", "boards", "tile", "carpet")
    ceiling = Texture(np.broadcast_to(tint(rng, 190, 235, 0.1), (1, 1, 3)), (1.0, 1.0))
    usual = _covering(rng, "paint", "paint", "wallpaper", "brick", "tile")
    walls = [usual if rng.random() < 0.6 else _covering(rng, "paint", "wallpaper", "brick", "boards") for _ in range(4)]
    found: list[Solid] = [
        Box(np.array([0, -WALL, 0]), np.array([x + 2 * WALL, WALL, z + 2 * WALL]), floor),
        Box(np.array([0, 2 * y + WALL, 0]), np.array([x + 2 * WALL, WALL, z + 2 * WALL]), ceiling),
    ]
    for side, texture in enumerate(walls):
        length, reach = (x, z) if side % 2 == 0 else (z, x)
        wall = Box(np.array([0, y, -reach - WALL]), np.array([length + 2 * WALL, y, WALL]), texture)
        skirting = Box(np.array([0, 0.05, -reach]), np.array([length, 0.05, 0.012]), _plain(rng))
        found += [part.moved(np.zeros(3), side * np.pi / 2) for part in (wall, skirting)]
    return found


def _hung(rng: Rng, size: Array, side: int) -> list[Solid]:
    """Doors, windows and pictures on one wall; furniture may stand before them."""
    found: list[Solid] = []
    length, reach = _wall(size, side)
    end = 0.15 - length / 2
    while True:
        kind = str(rng.choice(["picture", "picture", "picture", "window", "door"]))
        width, begin = rng.uniform(*HUNG[kind].width), end + rng.uniform(0.1, 0.9)
        end = begin + width
        if found and end > length / 2 - 0.15:
            return [part.moved(np.zeros(3), side * np.pi / 2) for part in found]
        place = np.array([begin + width / 2, rng.uniform(*HUNG[kind].middle), -reach / 2])
        half = np.array([width, rng.uniform(*HUNG[kind].height), 0.04]) / 2
        if kind == "door":
            texture = _wood(rng)
            found.append(Ball(place + np.array([0.42 * width, 0.0, 0.05]), np.full(3, 0.035), _plain(rng)))
        else:
            shows = sky if kind == "window" else art
            texture = Texture(shows(rng, TEXELS, TEXELS), (width, 2 * half[1]), glows=kind == "window")
        found += [Box(place, half, texture), Box(place, half + np.array([0.05, 0.05, -0.005]), _plain(rng))]


def _stand(furniture: list[Group], size: Array, piece: Piece, at: Array, side: int, turn: float = 0.0) -> None:
    """Put a piece where there is room for it; else it is left out."""
    here = np.zeros(3)
    parts = (part.moved(here, turn).moved(at, 0.0).moved(here, side * np.pi / 2) for part in piece.solids)
    group = Group(tuple(parts))
    new = group.bound
    within = np.abs(new.centre) + new.half < size / 2 + 0.02
    apart = [np.abs(new.centre - other.bound.centre) - new.half - other.bound.half for other in furniture]
    if within[[0, 2]].all() and all((gap[[0, 2]] > 0).any() for gap in apart):
        furniture.append(group)


def _covering(rng: Rng, *kinds: str) -> Texture:
    side = rng.uniform(1.6, 2.6)
    return Texture(covering(rng, str(rng.choice(kinds)), 2 * TEXELS), (side, side))


def _plain(rng: Rng) -> Texture:
    """One colour, with some wear."""
    worn = cv2.resize(rng.uniform(0.9, 1.1, (8, 8)), (TEXELS, TEXELS), interpolation=cv2.INTER_CUBIC)
    return Texture(random_colour(rng) * worn[..., None], (1.0, 1.0))


def _wood(rng: Rng) -> Texture:
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
    return (_plain, _wood, _cloth)[rng.integers(3)](rng)


def _box(low: tuple[float, float, float], high: tuple[float, float, float], texture: Texture) -> Box:
    lowest, highest = np.array(low, np.float64), np.array(high, np.float64)
    return Box((lowest + highest) / 2, (highest - lowest) / 2, texture)


def _cylinder(x: float, z: float, low: float, high: float, radius: float, texture: Texture) -> Cylinder:
    return Cylinder(np.array([x, (low + high) / 2, z]), np.array([radius, (high - low) / 2, radius]), texture)


def _cupboard(rng: Rng) -> Piece:
    """Doors or drawers of another colour, in one to three columns; sometimes something on top."""
    width, height, depth = rng.uniform(0.6, 1.6), rng.uniform(0.7, 2.1), rng.uniform(0.35, 0.6)
    parts: list[Solid] = [_box((-width / 2, 0, 0), (width / 2, height, depth), _wood(rng))]
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
    wood, step = _wood(rng), rng.uniform(0.32, 0.4)
    parts: list[Solid] = [
        _box((x - 0.015, 0, 0), (x + 0.015, (boards - 1) * step + 0.12, depth), wood) for x in (-width / 2, width / 2)
    ]
    for board in range(boards):
        bottom = 0.08 + board * step
        parts.append(_box((-width / 2, bottom, 0), (width / 2, bottom + 0.02, depth), wood))
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
    width, depth, seat, back = (
        rng.uniform(0.8, 2.1),
        rng.uniform(0.75, 0.95),
        rng.uniform(0.38, 0.48),
        rng.uniform(0.75, 0.95),
    )
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
            cushion = Box(
                np.array([x, seat + 0.19, 0.32]), np.array([0.2, 0.19, 0.07]), _cloth(rng), rng.normal(0, 0.2)
            )
            parts.append(cushion)
    return Piece(parts, width, depth)


def _bed(rng: Rng) -> Piece:
    """Its head at the wall."""
    width, depth, height = rng.uniform(0.9, 1.6), rng.uniform(1.9, 2.1), rng.uniform(0.4, 0.55)
    half = width / 2
    parts: list[Solid] = [
        _box((-half, 0.1, 0), (half, height - 0.15, depth), _wood(rng)),
        _box((-half + 0.02, height - 0.15, 0.06), (half - 0.02, height, depth - 0.02), _plain(rng)),
        _box((-half - 0.01, 0.2, 0.7), (half + 0.01, height + 0.04, depth + 0.01), _cloth(rng)),
        _box((-half, 0, 0), (half, rng.uniform(0.7, 1.1), 0.06), _wood(rng)),
    ]
    parts += [
        _box((x - 0.27, height, 0.1), (x + 0.27, height + 0.13, 0.5), _cloth(rng))
        for x in ((-0.35, 0.35) if width > 1.3 else (0.0,))
    ]
    return Piece(parts, width, depth)


def _desk(rng: Rng) -> Piece:
    width, depth = rng.uniform(0.9, 1.7), rng.uniform(0.5, 0.8)
    parts = [*_table_top(rng, width, depth, rng.uniform(0.68, 0.78))]
    return Piece(parts, width, depth)


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
    top, legs = _any(rng), _plain(rng)
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
                _cylinder(x, z, height, height + tall, 0.02, _plain(rng)),
                _cylinder(x, z, height + tall, height + tall + 0.16, 0.11, _any(rng)),
            ]
    return parts


def _plant(rng: Rng) -> Piece:
    """Leaves in a pot."""
    radius, tall = rng.uniform(0.12, 0.22), rng.uniform(0.5, 1.5)
    leaves = Texture(covering(rng, "grass", TEXELS), (0.5, 0.5))
    parts: list[Solid] = [
        _cylinder(0.0, 0.3, 0.0, 0.3, radius, _any(rng)),
        _cylinder(0.0, 0.3, 0.3, tall, 0.025, _wood(rng)),
    ]
    for _ in range(int(rng.integers(2, 5))):
        middle = np.array([0.0, tall, 0.3]) + rng.normal(0, 0.08, 3)
        parts.append(Ball(middle, rng.uniform(0.12, 0.24, 3), leaves))
    return Piece(parts, 0.6, 0.6)


def _lamp_stand(rng: Rng) -> Piece:
    """Not lit."""
    height = rng.uniform(1.2, 1.7)
    parts: list[Solid] = [
        _cylinder(0.0, 0.25, 0.0, 0.03, 0.15, _plain(rng)),
        _cylinder(0.0, 0.25, 0.03, height, 0.015, _plain(rng)),
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
        parts.append(
            Box(middle, np.array([half, height / 2, half * rng.uniform(0.7, 1)]), _any(rng), rng.normal(0, 0.3))
        )
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
