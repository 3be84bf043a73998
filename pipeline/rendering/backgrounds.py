"""Numbers of a random generator -> pictures to stand behind rendered people: rooms, streets, open land.

The paper puts COCO photographs behind its synthetic people (section 3.2); where no COCO is
present, its stand-in is filled with the pictures drawn here.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.rendering.patterns import random_colour

Picture = NDArray[np.floating]

# Colour overhead and at the horizon: clear, overcast, evening.
SKIES = np.array(
    [
        [(86, 142, 205), (196, 216, 232)],
        [(150, 158, 168), (208, 210, 212)],
        [(92, 98, 150), (240, 180, 130)],
    ],
    np.float64,
)


def standin_photo(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    """(height, width, 3) RGB: a procedural picture of a room, a street or open land, with grain and uneven light."""
    # Drawn finer and reduced: smooth edges everywhere for one resize.
    scene = (_room, _street, _land)[rng.choice(3, p=[0.45, 0.25, 0.30])]
    picture = scene(rng, 2 * height, 2 * width)
    picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
    light = 1 + 0.35 * _clouds(rng, height, width, feature=0.9)
    picture = picture * light[..., None] * rng.uniform(0.8, 1.1) * rng.uniform(0.94, 1.06, 3).astype(np.float32)
    picture += rng.uniform(1, 5) * rng.standard_normal(picture.shape, np.float32)
    if rng.random() < 0.35:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.6, 1.8)))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _clouds(rng: np.random.Generator, height: int, width: int, feature: float, octaves: int = 1) -> Picture:
    """(H, W) smooth noise in about -1..1; `feature`: size of the largest blob over the longer side."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cells = max(2.0, 2**octave / feature)
        grid = [max(2, round(cells * side / max(height, width)) + 1) for side in (height, width)]
        lattice = rng.uniform(-1, 1, grid).astype(np.float32)
        total += cv2.resize(lattice, (width, height), interpolation=cv2.INTER_CUBIC) * 0.55**octave
    return total


def tint(rng: np.random.Generator, low: float, high: float, strength: float = 0.5) -> NDArray[np.float32]:
    """A colour of the given brightness, between grey and fully coloured."""
    colour = random_colour(rng)
    colour = colour / max(colour.mean(), 1.0)
    return np.clip((1 - strength + strength * colour) * rng.uniform(low, high), 0, 255).astype(np.float32)


def _polygon(picture: Picture, corners: list[tuple[float, float]], colour: NDArray[np.floating]) -> None:
    points = np.round(np.array(corners) * 16).astype(np.int32)
    cv2.fillPoly(picture, [points], np.asarray(colour, np.float64).tolist(), cv2.LINE_AA, shift=4)


def _rectangle(picture: Picture, x: float, y: float, w: float, h: float, colour: NDArray[np.floating]) -> None:
    _polygon(picture, [(x, y), (x + w, y), (x + w, y + h), (x, y + h)], colour)


def _trapezium(
    picture: Picture, x: float, base: float, base_half: float, top: float, top_half: float, colour: NDArray[np.floating]
) -> None:
    corners = [(x - base_half, base), (x + base_half, base), (x + top_half, top), (x - top_half, top)]
    _polygon(picture, corners, colour)


def _ground(texture: Picture, horizon: float, widening: float, picture: Picture) -> None:
    """Lay `texture` from the horizon to the viewer's feet."""
    height, width = picture.shape[:2]
    far = [(-0.3 * width, horizon), (1.3 * width, horizon)]
    _warp(texture, [*far, ((1 + widening) * width, 1.1 * height), (-widening * width, 1.1 * height)], picture)


def _warp(texture: Picture, corners: list[tuple[float, float]], picture: Picture) -> None:
    """Lay `texture` into the quadrilateral (top-left, top-right, bottom-right, bottom-left)."""
    rows, columns = texture.shape[:2]
    source = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32)
    target = np.array(corners, np.float32)
    matrix = cv2.getPerspectiveTransform(source, target)
    size = (picture.shape[1], picture.shape[0])
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, np.round(target).astype(np.int32), 1)
    laid = cv2.warpPerspective(texture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cv2.copyTo(laid, mask, picture)


def covering(rng: np.random.Generator, kind: str, side: int = 256) -> Picture:
    """(side, side, 3) texture of a wall or floor: paint, wallpaper, brick, tile, boards, carpet, asphalt, grass."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    grain = _clouds(rng, side, side, 0.25, 4)[..., None]
    if kind == "paint":
        return (tint(rng, 120, 225, 0.35) * (1 + 0.04 * grain)).astype(np.float32)
    if kind == "wallpaper":
        first, second = tint(rng, 120, 220, 0.5), tint(rng, 100, 220, 0.6)
        period = side / rng.integers(8, 20)
        dotted = np.hypot(x % period - period / 2, y % period - period / 2) < period * 0.28
        on = dotted if rng.random() < 0.5 else x % period < period * rng.uniform(0.3, 0.7)
        return (np.where(on[..., None], first, second) * (1 + 0.04 * grain)).astype(np.float32)
    if kind in ("brick", "tile", "boards"):
        rows = int(rng.integers(6, 14))
        h = side / rows
        w = {"brick": 2.4 * h, "tile": h, "boards": side / 2}[kind]
        shift = {"brick": 0.5 * w, "tile": 0.0, "boards": 0.37 * w}[kind]
        row = np.floor(y / h)
        column = np.floor((x + row * shift) / w)
        glaze = tint(rng, 120, 230, 0.3)
        base = {"brick": np.array([150.0, 82, 64]), "tile": glaze, "boards": np.array([158.0, 112, 72])}[kind]
        shade = rng.uniform(0.82, 1.12, (64, 64))[row.astype(int) % 64, column.astype(int) % 64]
        joint = (y % h < 0.07 * h + 1) | ((x + row * shift) % w < 0.04 * w + 1)
        colour = base * rng.uniform(0.7, 1.15) * shade[..., None] * (1 + 0.12 * grain)
        return np.where(joint[..., None], colour * (1.3 if kind == "brick" else 0.6), colour).astype(np.float32)
    if kind == "carpet":
        return (tint(rng, 60, 170, 0.5) * (1 + 0.1 * grain + rng.normal(0, 0.06, (side, side, 1)))).astype(np.float32)
    if kind == "asphalt":
        return (tint(rng, 80, 135, 0.1) * (1 + 0.15 * grain + rng.normal(0, 0.07, (side, side, 1)))).astype(np.float32)
    green = np.array([96.0, 128, 56]) * rng.uniform(0.7, 1.2) * rng.uniform(0.85, 1.15, 3)
    return (green * (1 + 0.25 * grain + rng.normal(0, 0.12, (side, side, 1)))).astype(np.float32)


def _box(
    picture: Picture,
    rng: np.random.Generator,
    front: tuple[float, float, float, float],
    depth: float,
    vanish: tuple[float, float],
    colour: NDArray[np.floating],
) -> None:
    """A piece of furniture: front (left, base, width, height), the side and top that are seen, its shadow."""
    (x, base, w, h), (vx, vy) = front, vanish

    def back(px: float, py: float) -> tuple[float, float]:
        return px + (vx - px) * depth, py + (vy - py) * depth

    shadow = np.array([(x - 0.06 * w, base), (x + 1.06 * w, base), (x + w, base + 0.06 * h), (x, base + 0.06 * h)])
    _polygon(picture, [tuple(p) for p in shadow], colour * 0.25)
    if base - h > vy:
        _polygon(picture, [(x, base - h), (x + w, base - h), back(x + w, base - h), back(x, base - h)], colour * 1.2)
    side = x + w if vx > x + w else x
    if not x < vx < x + w:
        _polygon(picture, [(side, base - h), back(side, base - h), back(side, base), (side, base)], colour * 0.6)
    _rectangle(picture, x, base - h, w, h, colour)
    if rng.random() < 0.7:
        # Doors, drawers or shelves.
        rows, columns = int(rng.integers(1, 5)), int(rng.integers(1, 4))
        inner = colour * rng.uniform(0.65, 0.9)
        for i in range(rows):
            for j in range(columns):
                corner = x + w * (j + 0.08) / columns, base - h + h * (i + 0.1) / rows
                _rectangle(picture, *corner, 0.84 * w / columns, 0.8 * h / rows, inner)


def _room(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Back wall, side wall, floor; windows, pictures, furniture."""
    picture = np.zeros((height, width, 3), np.float32)
    left, right = rng.uniform(-0.1, 0.3) * width, rng.uniform(0.7, 1.1) * width
    top, bottom = rng.uniform(-0.2, 0.12) * height, rng.uniform(0.58, 0.82) * height
    vanish = (rng.uniform(0.35, 0.65) * width, rng.uniform(0.35, 0.5) * height)
    wall = str(rng.choice(["paint", "paint", "wallpaper", "brick", "tile"]))
    wall_texture, floor_texture = covering(rng, wall), covering(rng, str(rng.choice(["boards", "tile", "carpet"])))

    def outwards(px: float, py: float, reach: float = 4.0) -> tuple[float, float]:
        return px + (px - vanish[0]) * reach, py + (py - vanish[1]) * reach

    left_wall = [outwards(left, top), (left, top), (left, bottom), outwards(left, bottom)]
    right_wall = [(right, top), outwards(right, top), outwards(right, bottom), (right, bottom)]
    for corners in (left_wall, right_wall):
        _warp(wall_texture * rng.uniform(0.65, 0.9), corners, picture)
    _polygon(picture, [outwards(left, top), outwards(right, top), (right, top), (left, top)], tint(rng, 190, 245, 0.1))
    _warp(floor_texture, [(left, bottom), (right, bottom), outwards(right, bottom), outwards(left, bottom)], picture)
    _warp(wall_texture, [(left, top), (right, top), (right, bottom), (left, bottom)], picture)
    _rectangle(picture, left, bottom - 0.02 * height, right - left, 0.02 * height, tint(rng, 140, 235, 0.2))
    for _ in range(int(rng.integers(1, 4))):
        w, h = rng.uniform(0.1, 0.24) * width, rng.uniform(0.12, 0.3) * height
        x = rng.uniform(left, max(left + 1, right - w))
        y = max(top, 0.03 * height) + rng.uniform(0, 0.15) * height
        frame = 0.01 * width
        _rectangle(picture, x - frame, y - frame, w + 2 * frame, h + 2 * frame, tint(rng, 60, 240, 0.3))
        inside = sky if rng.random() < 0.5 else art
        _paste(picture, inside(rng, max(2, int(h)), max(2, int(w))), x, y)
    pieces = sorted(rng.uniform(bottom, bottom + 0.5 * (height - bottom), int(rng.integers(1, 5))))
    for base in pieces:
        scale = 0.7 + 0.8 * (base - bottom) / max(height - bottom, 1)
        w, h = rng.uniform(0.12, 0.34) * width * scale, rng.uniform(0.12, 0.5) * height * scale
        x, depth = rng.uniform(-0.1, 0.95) * width, rng.uniform(0.08, 0.2)
        _box(picture, rng, (x, base, w, h), depth, vanish, tint(rng, 60, 190, 0.3))
    if rng.random() < 0.4:
        _plant(picture, rng, rng.uniform(0.05, 0.95) * width, bottom + 0.1 * height, rng.uniform(0.1, 0.22) * height)
    return picture


def _street(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Sky, a row of house fronts with windows, a road."""
    picture = np.zeros((height, width, 3), np.float32)
    horizon = rng.uniform(0.5, 0.72) * height
    picture[:] = sky(rng, height, width)
    x = rng.uniform(-0.2, 0) * width
    while x < width:
        w, h = rng.uniform(0.18, 0.42) * width, rng.uniform(0.3, 0.95) * horizon
        front = covering(rng, str(rng.choice(["paint", "brick", "paint", "boards"]))) * rng.uniform(0.7, 1.05)
        _warp(front, [(x, horizon - h), (x + w, horizon - h), (x + w, horizon), (x, horizon)], picture)
        rows, columns = max(1, int(h / (0.13 * height))), int(rng.integers(2, 6))
        frame, glass = tint(rng, 80, 240, 0.2), tint(rng, 40, 150, 0.3)
        for i in range(rows):
            for j in range(columns):
                wx, wy = x + w * (j + 0.22) / columns, horizon - h + h * (i + 0.2) / rows
                _rectangle(picture, wx, wy, 0.56 * w / columns, 0.58 * h / rows, frame)
                pane = 0.56 * w / columns - 6, 0.58 * h / rows - 6
                _rectangle(picture, wx + 3, wy + 3, *pane, glass * rng.uniform(0.6, 1.4))
        x += w * rng.choice([1.0, 1.0, 1.15])
    ground = covering(rng, str(rng.choice(["asphalt", "tile", "asphalt"])))
    _ground(ground, horizon, 2.0, picture)
    _rectangle(picture, 0, horizon, width, 0.035 * height, tint(rng, 110, 190, 0.1))
    for _ in range(int(rng.integers(0, 3))):
        _tree(picture, rng, rng.uniform(0, 1) * width, horizon + 0.04 * height, rng.uniform(0.25, 0.55) * height)
    for _ in range(int(rng.integers(0, 3))):
        base, tall = horizon + rng.uniform(0.04, 0.16) * height, rng.uniform(0.06, 0.13) * height
        box = (rng.uniform(-0.1, 0.9) * width, base, rng.uniform(0.1, 0.3) * width, tall)
        _box(picture, rng, box, 0.15, (0.5 * width, horizon - 0.1 * height), tint(rng, 60, 200, 0.6))
    return picture


def _land(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Sky, hills, meadow, sand or water, trees."""
    picture = np.zeros((height, width, 3), np.float32)
    horizon = rng.uniform(0.35, 0.62) * height
    picture[:] = sky(rng, height, width)
    columns = np.arange(width)
    haze = np.array([170.0, 190, 205])
    for ridge in range(int(rng.integers(1, 4)), 0, -1):
        profile = horizon - height * 0.05 * ridge * (1 + _clouds(rng, 1, width, rng.uniform(0.15, 0.5), 3)[0])
        green = tint(rng, 60, 120, 0.4) * (0.8, 1.1, 0.75)
        colour = green + (haze - green) * 0.22 * ridge
        outline = list(zip(columns.tolist(), profile.tolist(), strict=True))
        _polygon(picture, [(0.0, float(height)), *outline, (float(width), float(height))], colour)
    kind = str(rng.choice(["grass", "grass", "sand", "water"]))
    ground = covering(rng, "grass" if kind == "grass" else "carpet")
    if kind != "grass":
        target = np.array([206.0, 184, 140]) if kind == "sand" else np.array([70.0, 108, 128])
        ground = ground.mean(axis=2, keepdims=True) / ground.mean() * target.astype(np.float32)
    _ground(ground, horizon, 3.0, picture)
    if rng.random() < 0.4:
        middle, narrow = rng.uniform(0.2, 0.8) * width, 0.02 * width
        wide = rng.uniform(0.15, 0.4) * width
        foot = middle + rng.uniform(-0.4, 0.4) * width
        far, near = (
            [(middle - narrow, horizon), (middle + narrow, horizon)],
            [(foot + wide, height), (foot - wide, height)],
        )
        path = far + near
        _warp(covering(rng, "asphalt") * np.array([1.3, 1.2, 1.05], np.float32), path, picture)
    for base in sorted(rng.uniform(0.0, 0.25, int(rng.integers(1, 8)))):
        tall = (0.16 + 1.6 * base) * height * rng.uniform(0.7, 1.3)
        _tree(picture, rng, rng.uniform(-0.05, 1.05) * width, horizon + base * height, tall)
    return picture.astype(np.float32)


def sky(rng: np.random.Generator, height: int, width: int) -> Picture:
    """(H, W, 3) clear, overcast or evening sky with clouds."""
    upper, lower = SKIES[rng.choice(3, p=[0.6, 0.25, 0.15])]
    share = np.linspace(0, 1, height)[:, None, None] ** 0.8
    clear = (upper * (1 - share) + lower * share).astype(np.float32)
    cloud = np.clip(_clouds(rng, height, width, 0.4, 5) - rng.uniform(-0.1, 0.5), 0, 0.8)[..., None]
    return clear * (1 - cloud) + 245 * cloud


def art(rng: np.random.Generator, height: int, width: int) -> Picture:
    """A picture on a wall: coloured shapes."""
    picture = np.broadcast_to(tint(rng, 80, 240, 0.6), (height, width, 3)).astype(np.float32).copy()
    for _ in range(int(rng.integers(2, 7))):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        axes = (int(rng.uniform(0.1, 0.5) * width) + 1, int(rng.uniform(0.1, 0.5) * height) + 1)
        cv2.ellipse(
            picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, random_colour(rng).tolist(), -1, cv2.LINE_AA
        )
    return picture


def _foliage(rng: np.random.Generator, side: int) -> tuple[Picture, Picture]:
    """(side, side, 3) leaves and (side, side) how much they cover."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    ragged = 0.78 - np.hypot(x, y) + 0.3 * _clouds(rng, side, side, 0.35, 4)
    leaves = 0.5 + 0.35 * _clouds(rng, side, side, 0.12, 3) - 0.3 * y
    green = np.array([74.0, 112, 46]) * rng.uniform(0.6, 1.3) * rng.uniform(0.75, 1.25, 3)
    return (green * (0.55 + 0.9 * np.clip(leaves, 0, 1.3)[..., None])).astype(np.float32), np.clip(ragged * 14, 0, 1)


def _tree(picture: Picture, rng: np.random.Generator, x: float, base: float, tall: float) -> None:
    trunk = np.array([88.0, 66, 48]) * rng.uniform(0.6, 1.2)
    _trapezium(picture, x, base, 0.035 * tall, base - 0.6 * tall, 0.02 * tall, trunk)
    side = max(8, int(0.75 * tall))
    leaves, cover = _foliage(rng, side)
    _paste(picture, leaves, x - side / 2, base - tall, cover)


def _plant(picture: Picture, rng: np.random.Generator, x: float, base: float, tall: float) -> None:
    pot = tint(rng, 90, 200, 0.6)
    _trapezium(picture, x, base, 0.11 * tall, base - 0.3 * tall, 0.16 * tall, pot)
    side = max(8, int(0.85 * tall))
    leaves, cover = _foliage(rng, side)
    _paste(picture, leaves, x - side / 2, base - tall, cover)


def _paste(picture: Picture, patch: Picture, x: float, y: float, cover: Picture | None = None) -> None:
    """Lay `patch` at (x, y), cut off at the border; `cover` (h, w) 0..1 is its opacity."""
    left, top = round(x), round(y)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + patch.shape[1], picture.shape[1]), min(top + patch.shape[0], picture.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    inner = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = np.ones((y1 - y0, x1 - x0, 1), np.float32) if cover is None else cover[inner][..., None]
    picture[y0:y1, x0:x1] = alpha * patch[inner] + (1 - alpha) * picture[y0:y1, x0:x1]
