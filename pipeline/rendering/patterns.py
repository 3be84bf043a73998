"""Patterns of cloth: colour as a function of where on the body a point lies.

Every pattern takes two cloth coordinates in metres, down and across, and draws its colours
and sizes from the generator it is given.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
GIRTH = 0.24
"""Metres of cloth round an arm; legs take twice, the trunk four times that: periods that divide it close round all."""
Colour = NDArray[np.float64]


def random_colour(rng: np.random.Generator) -> Colour:
    """(3,) RGB in 0..255 as clothes have it: vivid, muted, pale, dark or nearly grey."""
    hue = rng.random()
    kind = rng.choice(5, p=[0.34, 0.22, 0.14, 0.14, 0.16])
    saturation, value = (
        (rng.uniform(0.65, 1.0), rng.uniform(0.55, 0.95)),
        (rng.uniform(0.3, 0.55), rng.uniform(0.4, 0.75)),
        (rng.uniform(0.12, 0.35), rng.uniform(0.85, 1.0)),
        (rng.uniform(0.3, 0.8), rng.uniform(0.12, 0.32)),
        (rng.uniform(0.0, 0.08), rng.uniform(0.08, 0.97)),
    )[kind]
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def contrasting(rng: np.random.Generator, *others: Colour, apart: float = 110.0) -> Colour:
    """A colour at least `apart` (RGB distance) from the others, or the farthest of twenty draws."""
    best, best_distance = others[0], -1.0
    for _ in range(20):
        colour = random_colour(rng)
        distance = min(float(np.linalg.norm(colour - other)) for other in others)
        if distance >= apart:
            return colour
        if distance > best_distance:
            best, best_distance = colour, distance
    return best


def noise(rng: np.random.Generator, points: Array, size: float, octaves: int = 3) -> Array:
    """(M,) smooth noise in about -1..1 at 3D points (M, 3); `size` is its largest feature in metres."""
    total, weight = np.zeros(len(points), np.float32), 0.0
    steps = np.array(points.T / size, np.float32, order="C")
    for octave in range(octaves):
        lattice = rng.uniform(-1, 1, (16, 16, 16)).astype(np.float32)
        shift = rng.uniform(0, 16, (3, 1)).astype(np.float32)
        total += _between(lattice, steps * 2**octave + shift) / 2**octave
        weight += 0.5**octave
    return total * (1.4 / weight)


def _between(lattice: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M,) trilinear values at points (3, M), in steps of a cubic lattice that repeats; its side is a power of two.

    `scipy.ndimage.map_coordinates` does the same in three times the time.
    """
    side, values = len(lattice), lattice.ravel()
    whole = np.floor(points).astype(np.int32)
    fx, fy, fz = points - whole.astype(np.float32)
    (x0, y0, z0), (x1, y1, z1) = whole & (side - 1), (whole + 1) & (side - 1)

    def along_z(row: NDArray[np.int32]) -> NDArray[np.float32]:
        first = values[row + z0]
        return first + (values[row + z1] - first) * fz

    def along_y(plane: NDArray[np.int32]) -> NDArray[np.float32]:
        first = along_z(plane + y0 * side)
        return first + (along_z(plane + y1 * side) - first) * fy

    first = along_y(x0 * side**2)
    return first + (along_y(x1 * side**2) - first) * fx


def plain(rng: np.random.Generator, down: Array, across: Array, points: Array) -> Array:
    """One colour, sometimes fading to a second towards the hem."""
    first = random_colour(rng)
    if rng.random() < 0.75:
        return np.broadcast_to(first, (len(down), 3)).copy()
    second = contrasting(rng, first)
    share = np.clip((down - down.min()) / max(np.ptp(down), 1e-6), 0, 1)[:, None]
    return first * (1 - share) + second * share


def hoops(rng: np.random.Generator, down: Array, across: Array, points: Array) -> Array:
    """Stripes round the body."""
    return _stripes(rng, down)


def pinstripes(rng: np.random.Generator, down: Array, across: Array, points: Array) -> Array:
    """Stripes along the body."""
    return _stripes(rng, across, closing=True)


def checks(rng: np.random.Generator, down: Array, across: Array, points: Array) -> Array:
    """Tartan: two sets of stripes over each other."""
    first = random_colour(rng)
    second, third = contrasting(rng, first), contrasting(rng, first, apart=60)
    period = _closing(rng.uniform(0.05, 0.14))
    width = rng.uniform(0.3, 0.55)
    rows, columns = _wave(down, period) < width, _wave(across + 0.5 * width * period, period) < width
    both = np.where((rows & columns)[:, None], second, (first + second) / 2)
    colour = np.where((rows | columns)[:, None], both, first)
    lines = (_wave(down + period / 3, period) < 0.1) | (_wave(across + period / 3, period) < 0.1)
    return np.where(lines[:, None], 0.4 * colour + 0.6 * third, colour)


def dots(rng: np.random.Generator, down: Array, across: Array, points: Array) -> Array:
    """Dots in offset rows."""
    ground = random_colour(rng)
    dot = contrasting(rng, ground)
    period = _closing(rng.uniform(0.05, 0.11))
    row = np.floor(down / period)
    u, v = _wave(down, period) - 0.5, _wave(across + 0.5 * period * (row % 2), period) - 0.5
    return np.where((np.hypot(u, v) < rng.uniform(0.22, 0.36))[:, None], dot, ground)


def zigzag(rng: np.random.Generator, down: Array, across: Array, points: Array) -> Array:
    """Bands that run up and down."""
    period = _closing(rng.uniform(0.08, 0.16))
    bend = np.abs(_wave(across, period) - 0.5) * period * rng.uniform(0.6, 1.2)
    return _stripes(rng, down + bend)


def blotches(rng: np.random.Generator, down: Array, across: Array, points: Array) -> Array:
    """Camouflage, flowers or dye, by the size of the blotches: three colours."""
    colours = [random_colour(rng)]
    colours.append(contrasting(rng, colours[0], apart=70))
    colours.append(contrasting(rng, *colours, apart=70))
    size = rng.uniform(0.06, 0.22)
    first, second = noise(rng, points, size, 2), noise(rng, points, size, 2)
    return np.where((first > 0.12)[:, None], colours[1], np.where((second > 0.2)[:, None], colours[2], colours[0]))


def halves(rng: np.random.Generator, down: Array, across: Array, points: Array) -> Array:
    """Two colours: left and right, front and back, or above and below a line."""
    first = random_colour(rng)
    second = contrasting(rng, first)
    axis = rng.integers(3)
    edge = np.median(points[:, 1]) + rng.uniform(-0.05, 0.12) if axis == 1 else 0.0
    return np.where((points[:, axis] > edge)[:, None], first, second)


PATTERNS: dict[str, tuple[float, Callable[[np.random.Generator, Array, Array, Array], Array]]] = {
    "plain": (1.10, plain),
    "hoops": (0.17, hoops),
    "pinstripes": (0.10, pinstripes),
    "checks": (0.13, checks),
    "dots": (0.09, dots),
    "zigzag": (0.05, zigzag),
    "blotches": (0.10, blotches),
    "halves": (0.06, halves),
}
"""Name -> (how often, function); three garments in five are plain, as in the street."""


def random_cloth(rng: np.random.Generator, down: Array, across: Array, points: Array) -> Array:
    """(M, 3) colours in 0..255 of a random pattern at M points; all coordinates in metres."""
    weights = np.array([weight for weight, _ in PATTERNS.values()])
    name = list(PATTERNS)[rng.choice(len(PATTERNS), p=weights / weights.sum())]
    return PATTERNS[name][1](rng, down, across, points)


def random_print(rng: np.random.Generator, colour: Colour, side: int = 64) -> NDArray[np.uint8]:
    """(side, side, 4) RGBA of a print on a shirt: a number, letters, a badge or bars."""
    picture = np.zeros((side, side, 4), np.uint8)
    ink = (*contrasting(rng, colour, apart=150).astype(int).tolist(), 255)
    other = (*contrasting(rng, colour, apart=90).astype(int).tolist(), 255)
    middle = (side // 2, side // 2)
    kind = rng.integers(5)
    if kind == 0:
        _centred_text(picture, str(rng.integers(1, 100)), ink, thickness=7)
    elif kind == 1:
        letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUVXYZ"), rng.integers(2, 4)))
        cv2.rectangle(picture, (2, side // 4), (side - 3, 3 * side // 4), other, -1)
        _centred_text(picture, letters, ink, thickness=4)
    elif kind == 2:
        cv2.circle(picture, middle, side // 2 - 2, other, -1, cv2.LINE_AA)
        cv2.circle(picture, middle, int(side * rng.uniform(0.15, 0.35)), ink, -1, cv2.LINE_AA)
    elif kind == 3:
        points = int(rng.integers(3, 7))
        angle = np.arange(2 * points) * np.pi / points - np.pi / 2
        radius = np.where(np.arange(2 * points) % 2, rng.uniform(0.18, 0.3), 0.47) * side
        star = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None] + side / 2
        cv2.fillPoly(picture, [star.astype(np.int32)], ink, cv2.LINE_AA)
    else:
        for bar in range(int(rng.integers(2, 5))):
            top = 4 + bar * side // 4
            cv2.rectangle(picture, (2, top), (side - 3, top + side // 7), ink if bar % 2 else other, -1)
    return picture


def _centred_text(picture: NDArray[np.uint8], text: str, ink: tuple[int, ...], thickness: int) -> None:
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), _ = cv2.getTextSize(text, font, 1.0, thickness)
    scale = min(0.85 * picture.shape[1] / width, 0.85 * picture.shape[0] / height)
    (width, height), _ = cv2.getTextSize(text, font, scale, thickness)
    origin = ((picture.shape[1] - width) // 2, (picture.shape[0] + height) // 2)
    cv2.putText(picture, text, origin, font, scale, ink, thickness, cv2.LINE_AA)


def _wave(x: Array, period: float) -> Array:
    """Phase 0..1."""
    return (x / period) % 1.0


def _closing(period: float) -> float:
    """The nearest period that runs round an arm, a leg and the trunk without a break."""
    return GIRTH / max(1, round(GIRTH / period))


def _stripes(rng: np.random.Generator, x: Array, closing: bool = False) -> Array:
    colours = [random_colour(rng)]
    colours.append(contrasting(rng, colours[0]))
    if rng.random() < 0.35:
        colours.append(contrasting(rng, *colours))
    period = rng.uniform(0.045, 0.16)
    period = _closing(period) if closing else period
    share = rng.uniform(0.3, 0.6)
    # A stripe is centred on 0, so that none begins where the cloth closes.
    phase = _wave(x + 0.5 * share * period, period)
    if len(colours) == 2:
        return np.where((phase < share)[:, None], colours[0], colours[1])
    return np.where((phase < share)[:, None], colours[0], np.where((phase < (1 + share) / 2)[:, None], *colours[1:]))
