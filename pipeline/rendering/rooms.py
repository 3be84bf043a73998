"""Numbers of a random generator -> a furnished room, and pictures of it from any place inside.

Stands in for the scanned scenes behind CroCo's own pairs, which the paper starts from (section 4.2): nobody is there,
nothing moves, every surface has a texture of its own, one lamp throws shadows. World in metres, y up, floor at 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.rendering import solids
from pipeline.rendering.backgrounds import art, covering, sky, tint
from pipeline.rendering.cameras import Camera
from pipeline.rendering.furniture import MIDDLE, TEXELS, WALLSIDE, Piece, plain, wood
from pipeline.rendering.shading import FINE
from pipeline.rendering.solids import Array, Ball, Box, Group, Seen, Solid, Texture

Rng = np.random.Generator

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
        # What faces the ceiling is a little brighter than what faces the floor.
        light = self.ambient * (0.85 + 0.15 * normals[..., 1:2]) + lamp
        glows = np.array([solid.texture.glows for solid in self.solids])[seen.solid]
        colour *= np.where(glows[..., None], 1.0, light).astype(np.float32)
        image = cv2.resize(np.minimum(colour, 255), (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(image + 0.5, np.uint8)

    def _lit(self, seen: Seen, facing: Array) -> NDArray[np.bool_]:
        """(H, W) whether the lamp shines there: asked once a pixel; of each sample where several solids share one."""

        def spread(values: NDArray) -> NDArray:
            return values[::FINE, ::FINE].repeat(FINE, axis=0).repeat(FINE, axis=1)

        asked = seen.solid != spread(seen.solid)
        asked[::FINE, ::FINE] = True
        lit = asked & (facing > 0)
        lit[lit] = self.clear(seen.points[lit], self.lamp)
        return np.where(asked, lit, spread(lit))

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
        skirting = Box(np.array([0, 0.05, -reach]), np.array([length, 0.05, 0.012]), plain(rng))
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
            texture = wood(rng)
            found.append(Ball(place + np.array([0.42 * width, 0.0, 0.05]), np.full(3, 0.035), plain(rng)))
        else:
            shows = sky if kind == "window" else art
            texture = Texture(shows(rng, TEXELS, TEXELS), (width, 2 * half[1]), glows=kind == "window")
        found += [Box(place, half, texture), Box(place, half + np.array([0.05, 0.05, -0.005]), plain(rng))]


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
