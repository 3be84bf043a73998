"""Random looks: skin, hair, face and clothes of one person, as texture and part labels.

Takes the place of SURREAL's scanned textures (paper section 3.2). Garments are cut by where
a texel lies on the body, so that a person is recognisable from any side; what CIHP class a
texel has follows from the garment that covers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.rendering.painter import CLASS, Mask, Painter
from pipeline.rendering.patterns import contrasting, noise, random_colour, random_print
from pipeline.rendering.skin import paint_skin
from pipeline.rendering.texels import texels_of

if TYPE_CHECKING:
    from pipeline.bodies.model import BodyModel

# Denim, black, khaki, washed denim, sand.
TROUSER_COLOURS = np.array([(44, 62, 102), (32, 34, 42), (92, 84, 66), (70, 96, 138), (120, 104, 80)], np.float64)


@dataclass(frozen=True, eq=False)
class Look:
    """What a person wears: texture (S, S, 3) RGB and labels (S, S) of CIHP classes, both uint8, row 0 at v = 1."""

    texture: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def random_look(rng: np.random.Generator, body: BodyModel, side: int = 256) -> Look:
    """Draw one person's look on a `side` x `side` texture.

    Raises ValueError when the body has no texture coordinates or surface regions.
    """
    texels = texels_of(body, side)
    painter = Painter(rng, texels)
    paint_skin(painter)
    _garments(painter)
    _feet(painter)
    _extras(painter)
    # Cloth and skin are never quite even.
    painter.colour *= 1 + 0.05 * noise(rng, texels.position, 0.12, 2)[:, None]
    texture = texels.spread(np.clip(painter.colour, 0, 255).round().astype(np.uint8))
    return Look(texture=texture, labels=texels.spread(painter.label))


def _garments(painter: Painter) -> None:
    kind = painter.rng.choice(["separate", "dress", "overall"], p=[0.82, 0.12, 0.06])
    kept_label, kept_colour = painter.label.copy(), painter.colour.copy()
    if kind == "dress":
        _dress(painter)
    else:
        _lower(painter, overall=kind == "overall")
        _upper(painter, overall=kind == "overall")
    # Long hair hangs over the clothes.
    hair = kept_label == CLASS["hair"]
    painter.label[hair], painter.colour[hair] = kept_label[hair], kept_colour[hair]


def _sleeves(painter: Painter, lengths: tuple[float, ...], weights: tuple[float, ...]) -> tuple[float, Mask]:
    length = float(painter.rng.choice(lengths, p=weights)) + painter.rng.uniform(-0.08, 0.08)
    length = min(length, 2.05)
    return length, painter.arms & (painter.texels.limb < length)


def _neckline(painter: Painter) -> Mask:
    """(M,) texels of the trunk above a round or pointed neckline: skin."""
    rng, texels = painter.rng, painter.texels
    neck = texels.joint("neck")
    depth = rng.choice([0.0, 0.05, 0.10])
    x, y = texels.position[:, 0] - neck[0], texels.position[:, 1] - neck[1]
    front = texels.normal[:, 2] > 0
    if rng.random() < 0.6:
        return painter.trunk & front & (np.hypot(x / 0.07, np.minimum(y + 0.01, 0) / (depth + 0.02)) < 1)
    return painter.trunk & front & (np.abs(x) < 0.07 + 0.6 * (y + 0.01)) & (y > -depth - 0.06)


def _upper(painter: Painter, overall: bool) -> None:
    rng, texels = painter.rng, painter.texels
    length, sleeves = _sleeves(painter, (0.0, 0.6, 1.3, 1.95), (0.1, 0.45, 0.1, 0.35))
    hips = texels.joint("pelvis")[1]
    hem = hips + rng.uniform(-0.06, 0.07)
    # The thighs begin above the hem at the sides.
    shirt = (painter.to_thigh & (texels.position[:, 1] > hem) & ~_neckline(painter)) | sleeves
    if length < 0.1:
        # A vest leaves the shoulders free.
        shoulder = painter.trunk & (np.abs(texels.position[:, 0]) > 0.125) & (texels.metres_down < 0.10)
        shirt &= ~painter.arms & ~shoulder
    if rng.random() < 0.25:
        shirt |= texels.within("neck") & (texels.metres_down > -0.06) & (painter.label != CLASS["hair"])
    if overall:
        shirt &= ~(painter.label == CLASS["pants"])
    painter.wear(shirt, painter.cloth(shirt), "upper_clothes")
    if rng.random() < 0.25:
        cuffs = sleeves & shirt
        painter.wear(cuffs, painter.cloth(cuffs), None)
    _prints(painter, shirt & painter.trunk)
    painter.darken(shirt & painter.arms & (texels.limb > length - 0.07), 0.82)
    painter.darken(shirt & painter.to_thigh & (texels.position[:, 1] < hem + 0.018), 0.8)
    if not overall and rng.random() < 0.2:
        _coat(painter, hem - rng.uniform(0.0, 0.08))


def _prints(painter: Painter, shirt: Mask) -> None:
    """A picture on the chest, another on the back, each on every fourth shirt."""
    rng, texels = painter.rng, painter.texels
    neck = texels.joint("neck")
    for towards, how_often in ((1, 0.25), (-1, 0.25)):
        if not shirt.any() or rng.random() > how_often:
            continue
        picture = random_print(rng, np.median(painter.colour[shirt], axis=0))
        size = rng.uniform(0.15, 0.26)
        offset = rng.uniform(-0.05, 0.05) if size < 0.18 else 0.0
        top = neck[1] - rng.uniform(0.09, 0.14)
        u = (towards * (texels.position[:, 0] - neck[0] - offset) / size + 0.5) * picture.shape[1]
        v = (top - texels.position[:, 1]) / size * picture.shape[0]
        inside = (u >= 0) & (u < picture.shape[1]) & (v >= 0) & (v < picture.shape[0])
        on = shirt & inside & (towards * texels.normal[:, 2] > 0.15)
        rgba = picture[v[on].astype(int), u[on].astype(int)].astype(np.float64)
        alpha = rgba[:, 3:] / 255
        painter.colour[on] = alpha * rgba[:, :3] + (1 - alpha) * painter.colour[on]


def _coat(painter: Painter, hem: float) -> None:
    """An open jacket over the shirt: the shirt shows in a strip down the front."""
    rng, texels = painter.rng, painter.texels
    _, sleeves = _sleeves(painter, (1.95,), (1.0,))
    opening = 0.025 + rng.uniform(0.0, 0.35) * np.clip(texels.metres_down, 0, 0.5) * 0.4
    strip = (texels.normal[:, 2] > 0) & (np.abs(texels.position[:, 0]) < opening)
    coat = ((painter.to_thigh & (texels.position[:, 1] > hem) & ~strip) | sleeves) & (painter.label != CLASS["hair"])
    coat &= ~(painter.trunk & (texels.metres_down < 0.02))
    painter.wear(coat, painter.cloth(coat), "coat")
    edge = coat & painter.trunk & (texels.normal[:, 2] > 0) & (np.abs(texels.position[:, 0]) < opening + 0.012)
    painter.darken(edge, 0.7)
    if rng.random() < 0.4:
        _prints(painter, coat & painter.trunk & (texels.normal[:, 2] < 0))


def _lower(painter: Painter, overall: bool) -> None:
    rng, texels = painter.rng, painter.texels
    waist = texels.joint("spine1")[1] - 0.02
    hips = painter.trunk & (texels.position[:, 1] < waist)
    if not overall and rng.random() < 0.12:
        length = rng.uniform(0.4, 0.95)
        skirt = hips | (painter.legs & (texels.limb < length))
        painter.wear(skirt, painter.cloth(skirt), "skirt")
        painter.darken(skirt & (np.abs(texels.limb - length) < 0.06), 0.8)
        return
    length = float(rng.choice([0.35, 0.75, 1.4, 1.97], p=[0.1, 0.22, 0.08, 0.6])) + rng.uniform(-0.08, 0.02)
    trousers = hips | (painter.legs & (texels.limb < length))
    if overall:
        chest = texels.joint("spine3")[1]
        bib = painter.trunk & (texels.position[:, 1] < chest) & (np.abs(texels.position[:, 0]) < 0.11)
        straps = painter.trunk & (np.abs(np.abs(texels.position[:, 0]) - 0.085) < 0.022)
        trousers |= bib | straps
    if rng.random() < 0.55:
        base = random_colour(rng) if rng.random() < 0.45 else TROUSER_COLOURS[rng.integers(len(TROUSER_COLOURS))]
        painter.wear(trousers, base, "pants")
    else:
        painter.wear(trousers, painter.cloth(trousers), "pants")
    if rng.random() < 0.3:
        outside = trousers & painter.legs & (np.abs(np.abs(texels.around) - np.pi / 2) < 0.3)
        outside &= np.sign(texels.around) == np.sign(texels.position[:, 0])
        painter.wear(outside, contrasting(rng, np.median(painter.colour[trousers], axis=0)), None)
    painter.darken(trousers & (np.abs(texels.limb - length) < 0.05), 0.8)
    painter.darken(hips & (np.abs(texels.position[:, 1] - waist + 0.1) < 0.014), 0.6)


def _dress(painter: Painter) -> None:
    rng, texels = painter.rng, painter.texels
    length, sleeves = _sleeves(painter, (0.0, 0.5, 1.95), (0.4, 0.4, 0.2))
    hem = rng.uniform(0.5, 1.35)
    skirt = painter.legs & (texels.limb < hem)
    dress = (painter.trunk & ~_neckline(painter)) | skirt | (sleeves if length > 0.1 else np.zeros_like(sleeves))
    painter.wear(dress, painter.cloth(dress), "dress")
    if rng.random() < 0.5:
        waist = painter.trunk & (np.abs(texels.position[:, 1] - texels.joint("spine1")[1]) < 0.03)
        painter.wear(waist, contrasting(rng, np.median(painter.colour[dress], axis=0)), None)
    painter.darken(skirt & (texels.limb > hem - 0.06), 0.8)
    if rng.random() < 0.3:
        stockings = painter.legs & ~skirt
        painter.wear(stockings, random_colour(rng) * 0.6, "socks")


def _feet(painter: Painter) -> None:
    rng, texels = painter.rng, painter.texels
    if rng.random() < 0.07:
        return
    bare = np.isin(painter.label, [CLASS["left_leg"], CLASS["right_leg"]])
    if rng.random() < 0.6:
        top = rng.choice([1.85, 1.6, 1.25], p=[0.5, 0.3, 0.2])
        socks = bare & painter.legs & (texels.limb > top)
        painter.wear(socks, random_colour(rng) if rng.random() < 0.7 else painter.cloth(socks), "socks")
    boots = rng.random() < 0.15
    shoes = texels.within("foot") | (painter.legs & (texels.limb > (1.55 if boots else 1.96)))
    colour = random_colour(rng)
    floor = texels.position[painter.legs, 1].min()
    for part in ("left", "right"):
        own = shoes & texels.within(f"{part}_shin", f"{part}_foot")
        painter.wear(own, colour, f"{part}_shoe")
    sole = shoes & (texels.position[:, 1] < floor + 0.022)
    painter.wear(sole, contrasting(rng, colour), None)
    if rng.random() < 0.5:
        toe = texels.position[shoes, 2].max()
        cap = shoes & ~sole & (texels.position[:, 2] > toe - 0.06)
        painter.wear(cap, contrasting(rng, colour, apart=70), None)


def _extras(painter: Painter) -> None:
    rng, texels = painter.rng, painter.texels
    head = texels.joint("head")
    crown = texels.position[painter.head, 1].max()
    nose = texels.position[texels.within("face"), 2].argmax()
    nose_y, nose_z = texels.position[texels.within("face")][nose, 1:]
    if rng.random() < 0.14:
        tilt = 0.25 * (texels.position[:, 2] - head[2])
        hat = painter.head & (texels.position[:, 1] > nose_y + 0.075 + tilt - 0.02)
        painter.wear(hat, painter.cloth(hat), "hat")
        painter.darken(hat & (texels.position[:, 1] < nose_y + 0.075 + tilt - 0.002), 0.6)
        painter.darken(hat & (texels.position[:, 1] > crown - 0.012), 0.7)
    if rng.random() < 0.08:
        x, y = np.abs(texels.position[:, 0]), texels.position[:, 1] - nose_y
        lens = ((x - 0.032) / 0.026) ** 2 + ((y - 0.039) / 0.017) ** 2 < 1
        bar = (np.abs(y - 0.045) < 0.005) & (texels.position[:, 2] > head[2])
        front = texels.within("face") & (texels.position[:, 2] > nose_z - 0.13)
        glasses = front & ((lens & (texels.normal[:, 2] > -0.2)) | bar)
        painter.wear(glasses, np.array([18.0, 18, 22]), "sunglasses")
    if rng.random() < 0.06:
        gloves = texels.within("hand")
        painter.wear(gloves, random_colour(rng), "glove")
    if rng.random() < 0.08:
        collar = painter.trunk & (texels.metres_down < 0.035) & (np.abs(texels.position[:, 0]) < 0.1)
        scarf = (texels.within("neck") & (texels.metres_down > -0.09)) | collar
        painter.wear(scarf, painter.cloth(scarf), "scarf")
