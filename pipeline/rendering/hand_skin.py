"""Random looks of a hand: skin, nails, creases, veins, marks, a ring or a watch, and the sleeve beyond.

What tells one hand from another, and one side of it from the other, wherever a camera stands
(paper section 3.1: completion across views and poses has to find the same spot again). All of it is
painted by where a texel lies on the unposed right hand: palm down, fingers along -x, thumb at +z.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.bodies.anatomy import MANO_JOINT_NAMES
from pipeline.rendering.clothes import Look
from pipeline.rendering.hand_surface import HandSurface, HandTexels
from pipeline.rendering.painter import CLASS
from pipeline.rendering.patterns import GIRTH, noise, random_cloth, random_colour
from pipeline.rendering.skin import random_skin

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]

# Palms of dark hands are this light at least.
PALM = np.array([205.0, 158.0, 132.0])
RED = np.array([1.0, 0.84, 0.80])
NAIL_HALF = np.array([0.0065, 0.0052])
"""Half length and half width of a nail, metres."""


class _HandPainter:
    """Colours of all texels while a look grows."""

    def __init__(self, rng: np.random.Generator, surface: HandSurface, texels: HandTexels) -> None:
        self.rng, self.surface, self.texels = rng, surface, texels
        self.colour = np.zeros((len(texels.position), 3))
        self.on_hand = texels.along_arm < 0
        # 1 on the palm, 0 on the back of the hand.
        self.palm = np.clip(0.5 - 1.2 * texels.normal[:, 1], 0, 1)

    def darken(self, amount: Array | Mask, colour: Array = RED) -> None:
        """Multiply by `colour`, where amount (M,) is 1; leave alone where it is 0."""
        self.colour *= 1 - amount[:, None] * (1 - colour)

    def cover(self, mask: Mask, colour: Array) -> None:
        self.colour[mask] = colour


def random_hand_look(rng: np.random.Generator, surface: HandSurface, side: int = 512) -> Look:
    """Draw the look of one person's hands on a `side` x `side` texture; the left one is the mirror image."""
    texels = surface.texels(side)
    painter = _HandPainter(rng, surface, texels)
    _skin(painter)
    _back(painter)
    _creases(painter)
    _nails(painter)
    _marks(painter)
    _worn(painter)
    colour = np.clip(painter.colour, 0, 255).round().astype(np.uint8)
    return Look(texture=colour[texels.index], labels=np.full((side, side), CLASS["right_arm"], np.uint8))


def _skin(painter: _HandPainter) -> None:
    rng, texels = painter.rng, painter.texels
    skin = random_skin(rng)
    palm = 0.45 * skin + 0.55 * np.maximum(skin, PALM) * (1.02, 0.97, 0.96)
    painter.colour[:] = skin + painter.palm[:, None] * painter.on_hand[:, None] * (palm - skin)
    painter.colour *= 1 + 0.06 * noise(rng, texels.position, 0.05)[:, None]
    # Blood shows through in blotches, on the palm more than on the back.
    blotches = np.clip(noise(rng, texels.position, 0.025, 2), 0, 1)
    painter.darken(blotches * (0.15 + 0.35 * painter.palm) * painter.on_hand)


def _back(painter: _HandPainter) -> None:
    """Knuckles with their folds, and veins between them and the wrist."""
    rng, texels, joints = painter.rng, painter.texels, painter.surface.joints
    strength = rng.uniform(0.3, 1.0)
    for finger, (bend, _) in painter.surface.axes.items():
        first = MANO_JOINT_NAMES.index(f"{finger}1")
        for part in range(3):
            joint = joints[first + part]
            end = joints[first + part + 1] if part < 2 else painter.surface.tips[finger]
            along = (end - joint) / np.linalg.norm(end - joint)
            away = texels.position - joint
            back = texels.normal @ np.cross(along, bend) > 0.25
            t, across = away @ along, away @ bend
            near = np.exp(-((np.linalg.norm(away, axis=1) / 0.013) ** 2)) * back
            painter.darken(0.55 * strength * near)
            if part:
                folds = np.abs((t / 0.0028 + 0.25 * (across / 0.006) ** 2 + 0.5) % 1 - 0.5) < 0.13
                width = 0.0065 if part == 1 else 0.004
                fold = back & folds & (np.abs(t) < width) & (np.abs(across) < 0.008)
                painter.darken(0.8 * strength * fold, np.array([0.68, 0.6, 0.58]))
    winding = 0.004 * noise(rng, texels.position, 0.04, 2)
    on_back = (texels.normal[:, 1] > 0.3) & (texels.position[:, 0] > -0.005)
    ropes = np.abs(((texels.position[:, 2] + winding + 0.12 * (texels.position[:, 0] - 0.05)) / 0.016) % 1 - 0.5)
    veins = np.exp(-((ropes / 0.09) ** 2)) * on_back * (noise(rng, texels.position, 0.05, 1) > -0.2)
    painter.darken(rng.uniform(0.0, 0.35) * veins, np.array([0.72, 0.85, 0.92]))


def _creases(painter: _HandPainter) -> None:
    """Lines of the palm, and those across the inside of the fingers and the wrist."""
    rng, texels, joints = painter.rng, painter.texels, painter.surface.joints
    ink = rng.uniform(0.66, 0.82)
    line = np.array([ink + 0.06, ink - 0.06, ink - 0.08])
    for finger, (bend, _) in painter.surface.axes.items():
        first = MANO_JOINT_NAMES.index(f"{finger}1")
        for part in range(3):
            joint, end = joints[first + part], joints[first + part + 1] if part < 2 else painter.surface.tips[finger]
            along = (end - joint) / np.linalg.norm(end - joint)
            # The finger leaves the palm halfway along its first bone.
            place = joint + 0.45 * (end - joint) if part == 0 and finger != "thumb" else joint
            away = texels.position - place
            inside = texels.normal @ np.cross(along, bend) < -0.15
            t = away @ along - 0.06 * (away @ bend) * rng.normal()
            near = inside & (np.linalg.norm(away, axis=1) < 0.017)
            for shift in (-0.0012, 0.0012) if part != 2 else (0.0,):
                painter.darken(np.exp(-(((t - shift) / 0.0007) ** 2)) * near, line)
    on_palm = painter.on_hand & (texels.normal[:, 1] < -0.3)
    x, z = texels.position[:, 0], texels.position[:, 2]
    jitter = rng.normal(0, 0.003, (3, 4, 2))
    curves = (
        # Heart, head and life line, from the fingers to the wrist: (x, z) in metres.
        ((-0.012, 0.024), (0.004, 0.012), (0.010, -0.010), (0.012, -0.036)),
        ((0.012, 0.036), (0.022, 0.014), (0.034, -0.010), (0.046, -0.028)),
        ((0.012, 0.038), (0.028, 0.020), (0.052, 0.010), (0.084, 0.010)),
    )
    for curve, shift in zip(curves, jitter, strict=True):
        distance = _distance(np.stack([x, z], axis=1), _smooth(np.array(curve) + shift))
        painter.darken(np.exp(-((distance / 0.0010) ** 2)) * on_palm, line)
    wrist = np.abs(np.abs(x - 0.086 - 0.25 * z**2 / 0.03) - 0.0025) < 0.0009
    painter.darken(0.7 * (wrist & on_palm), line)


def _nails(painter: _HandPainter) -> None:
    rng, texels, joints = painter.rng, painter.texels, painter.surface.joints
    polish = random_colour(rng) if rng.random() < 0.2 else None
    free_edge = rng.uniform(0.1, 0.35)
    for finger, (bend, _) in painter.surface.axes.items():
        last, tip = joints[MANO_JOINT_NAMES.index(f"{finger}3")], painter.surface.tips[finger]
        along = (tip - last) / np.linalg.norm(tip - last)
        outwards = np.cross(along, bend)
        size = NAIL_HALF * (1.25 if finger == "thumb" else 0.82 if finger == "pinky" else 1.0)
        away = texels.position - (tip - 1.05 * size[0] * along)
        u, v = away @ along / size[0], away @ bend / size[1]
        facing = (texels.normal @ outwards > 0.1) & (np.linalg.norm(away, axis=1) < 0.014)
        radius = np.abs(u) ** 2.6 + np.abs(v) ** 2.6
        rim = facing & (radius < 1.45)
        painter.cover(rim, painter.colour[rim] * (0.72, 0.6, 0.58))
        nail = facing & (radius < 1.0)
        if polish is not None:
            painter.cover(nail, polish)
            continue
        painter.cover(nail, 0.45 * painter.colour[nail] + 0.55 * np.array([236.0, 190, 178]))
        moon, edge = nail & (u < -0.62), nail & (u > 1 - 2 * free_edge)
        painter.cover(moon, 0.5 * painter.colour[moon] + 0.5 * np.array([240.0, 222, 212]))
        painter.cover(edge, 0.3 * painter.colour[edge] + 0.7 * np.array([240.0, 234, 222]))


def _marks(painter: _HandPainter) -> None:
    """Moles, freckles and, on some, a tattoo: where a hand is nobody else's."""
    rng, texels = painter.rng, painter.texels
    for _ in range(rng.integers(2, 9)):
        place = texels.position[rng.integers(len(texels.position))]
        size = rng.uniform(0.0008, 0.0026)
        painter.darken(
            np.exp(-((np.linalg.norm(texels.position - place, axis=1) / size) ** 4)), np.array([0.5, 0.38, 0.34])
        )
    if rng.random() < 0.3:
        freckles = noise(rng, texels.position, 0.006, 1) > 0.75
        painter.darken(0.6 * (freckles & (painter.palm < 0.3)), np.array([0.75, 0.6, 0.5]))
    if rng.random() < 0.12:
        shape = noise(rng, texels.position, 0.03, 2)
        where = (texels.normal[:, 1] > 0.1) & (texels.position[:, 0] > rng.choice([0.01, 0.1]))
        painter.darken(0.75 * (where & (np.abs(shape) < 0.12)), np.array([0.25, 0.32, 0.4]))


def _worn(painter: _HandPainter) -> None:
    """A ring, a watch or a bracelet, and the sleeve."""
    rng, texels, joints = painter.rng, painter.texels, painter.surface.joints
    metals = np.array([(212, 175, 85), (196, 198, 204), (52, 52, 58), (186, 120, 92)], np.float64)
    fingers = [name for name in painter.surface.axes if name != "thumb"]
    for _ in range(rng.choice(3, p=[0.6, 0.3, 0.1])):
        finger = fingers[rng.integers(len(fingers))]
        first = MANO_JOINT_NAMES.index(f"{finger}1")
        bone = joints[first + 1] - joints[first]
        away = texels.position - (joints[first] + 0.72 * bone)
        t = away @ bone / np.linalg.norm(bone)
        band = (np.abs(t) < rng.uniform(0.0012, 0.0026)) & (np.linalg.norm(away, axis=1) < 0.014)
        painter.cover(band, metals[rng.integers(len(metals))] * rng.uniform(0.85, 1.1))
    if rng.random() < 0.3:
        wide = rng.uniform(0.004, 0.013)
        strap = np.abs(texels.position[:, 0] - 0.118) < wide
        painter.cover(strap, random_colour(rng))
        face = strap & (np.hypot(texels.position[:, 0] - 0.118, texels.position[:, 2] - 0.006) < 1.1 * wide)
        face &= texels.normal[:, 1] > 0.3
        if wide > 0.008:
            painter.cover(face, metals[rng.integers(len(metals))] if rng.random() < 0.5 else np.array([28.0, 28, 32]))
    sleeve = texels.along_arm > 1
    around = np.arctan2(texels.position[:, 2], texels.position[:, 1]) / (2 * np.pi) * GIRTH
    cloth = random_cloth(rng, texels.position[sleeve, 0], around[sleeve], texels.position[sleeve])
    painter.cover(sleeve, cloth)
    painter.darken(sleeve & (texels.along_arm < 1.08), np.full(3, 0.75))
    # Towards the elbow an arm is lost in the dark: nobody sees that it ends.
    painter.darken(np.clip(1.6 * (texels.along_arm - 1.3), 0, 1), np.zeros(3))


def _smooth(points: Array) -> Array:
    """(40, 2) points of a curve through four."""
    t = np.linspace(0, 1, len(points))
    fit = np.polyfit(t, points, 3)
    return np.stack([np.polyval(fit[:, axis], np.linspace(0, 1, 40)) for axis in (0, 1)], axis=1)


def _distance(points: Array, curve: Array) -> Array:
    """(M,) from points (M, 2) to the nearest of the curve's segments, metres."""
    nearest = np.full(len(points), np.inf)
    for start, end in pairwise(curve):
        bone = end - start
        t = np.clip((points - start) @ bone / (bone @ bone), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(points - start - t[:, None] * bone, axis=1))
    return nearest
