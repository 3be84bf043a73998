"""Skin, face and hair of a random person: what shows where no cloth covers it.

The full range of skin tones and hair colours (paper section 3.2 asks for diverse people).
"""

from __future__ import annotations

import numpy as np

from pipeline.rendering.painter import CLASS, Colour, Mask, Painter
from pipeline.rendering.patterns import noise, random_colour

# From pale to very dark; tones between neighbours are blended.
SKIN_TONES = np.array(
    [(244, 214, 196), (234, 192, 165), (216, 168, 134), (190, 138, 102), (152, 104, 74), (110, 72, 50), (70, 46, 36)],
    np.float64,
)
HAIR_COLOURS = np.array(
    [
        (24, 20, 20), (44, 30, 24), (80, 52, 34), (120, 82, 48), (176, 134, 78),
        (214, 184, 126), (146, 62, 34), (150, 148, 146), (226, 224, 220),
    ],
    np.float64,
)  # fmt: skip
HAIR_WEIGHTS = np.array([0.27, 0.22, 0.15, 0.08, 0.08, 0.05, 0.05, 0.06, 0.04])


def paint_skin(painter: Painter) -> None:
    """Paint the whole body: skin, then face, then hair; the labels become those of an undressed person."""
    rng = painter.rng
    hair = HAIR_COLOURS[rng.choice(len(HAIR_COLOURS), p=HAIR_WEIGHTS / HAIR_WEIGHTS.sum())]
    if rng.random() < 0.05:
        hair = random_colour(rng)
    hair = np.clip(hair + rng.normal(0, 6), 8, 250)
    _skin(painter)
    _face(painter, hair)
    _hair(painter, hair)


def random_skin(rng: np.random.Generator) -> Colour:
    """(3,) RGB in 0..255, uniform over the range of skin tones."""
    tone = rng.uniform(0, len(SKIN_TONES) - 1)
    low = int(min(tone, len(SKIN_TONES) - 2))
    skin = SKIN_TONES[low] + (tone - low) * (SKIN_TONES[low + 1] - SKIN_TONES[low])
    return np.asarray(skin * rng.uniform(0.95, 1.05))


def _skin(painter: Painter) -> None:
    rng, texels = painter.rng, painter.texels
    painter.colour[:] = random_skin(rng)
    # Blood near the surface: hands, knees, elbows, ears.
    flush = texels.within("hand", "foot") | (np.abs(texels.limb - 1) < 0.06)
    painter.colour[flush] *= (1.0, 0.94, 0.92)


def _face(painter: Painter, hair: Colour) -> None:
    rng, texels = painter.rng, painter.texels
    face = texels.within("face") & (texels.normal[:, 2] > 0)
    if not face.any():
        return
    nose = texels.position[face][texels.position[face, 2].argmax()]
    x, y = texels.position[:, 0] - nose[0], texels.position[:, 1] - nose[1]
    front = texels.within("face", "hair") & (texels.position[:, 2] > nose[2] - 0.09) & (texels.normal[:, 2] > -0.2)

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> Mask:
        return front & (((np.abs(x) - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1)

    cheeks = front * np.exp(-(((np.abs(x) - 0.04) / 0.018) ** 2) - (y / 0.016) ** 2)
    painter.colour *= 1 - cheeks[:, None] * (0.0, 0.09, 0.09)
    if rng.random() < 0.22:
        beard = front & (y < -0.012) & (np.abs(x) < 0.08) & texels.within("face")
        if rng.random() < 0.4:
            beard &= (np.abs(x) < 0.032) & (y > -0.075)
        painter.wear(beard, 0.75 * painter.colour[beard] * 0.4 + hair * 0.6, None)
    lips = ellipse(0.0, -0.034, 0.024, 0.008)
    painter.wear(lips, painter.colour[lips] * (0.85, 0.55, 0.58), None)
    painter.wear(ellipse(0.031, 0.041, 0.015, 0.0075), np.array([236.0, 232, 228]), None)
    iris = np.array([(58, 38, 26), (84, 60, 34), (70, 96, 120), (72, 98, 66)])[rng.choice(4, p=[0.55, 0.2, 0.15, 0.1])]
    painter.wear(ellipse(0.031, 0.041, 0.0065, 0.0075), iris.astype(np.float64), None)
    brows = ellipse(0.031, 0.060, 0.02, 0.0045)
    painter.wear(brows, 0.3 * painter.colour[brows] + 0.7 * hair * 0.8, None)


def _hair(painter: Painter, hair: Colour) -> None:
    rng, texels = painter.rng, painter.texels
    style = rng.choice(["none", "short", "medium", "long"], p=[0.07, 0.45, 0.26, 0.22])
    grown = texels.within("hair")
    head = texels.joint("head")
    if style == "none":
        painter.label[grown] = CLASS["face"]
        return
    behind = texels.position[:, 2] < head[2] + (0.02 if style == "long" else 0.0)
    if style in ("medium", "long"):
        grown = grown | (texels.within("face") & behind & (texels.position[:, 1] > head[1] - 0.02))
        grown |= texels.within("neck") & (texels.normal[:, 2] < 0.2)
    if style == "long":
        # Falls over the shoulder blades, narrowing downwards.
        reach = rng.uniform(0.08, 0.24)
        back = painter.trunk & (texels.normal[:, 2] < -0.1) & (texels.metres_down < reach)
        grown |= back & (np.abs(texels.position[:, 0]) < 0.13 - 0.25 * texels.metres_down)
    strands = noise(rng, texels.position[grown] * (1.0, 0.25, 1.0), 0.03, 2)
    painter.wear(grown, hair * (1 + 0.22 * strands[:, None]), "hair")
