"""The state of a look while it is painted: colour and part label of every texel of the body.

Labels are the 20 classes of CIHP, which the paper's silhouettes come from (section 3.1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.bodies.anatomy import CIHP_NAMES, REGION_TO_CIHP, REGIONS
from pipeline.rendering.patterns import GIRTH, random_cloth
from pipeline.rendering.texels import Texels

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]
Colour = NDArray[np.float64]

CLASS = {name: index for index, name in enumerate(CIHP_NAMES)}
SKIN_CLASS = np.array([CLASS[REGION_TO_CIHP[region]] for region in REGIONS], np.uint8)


class Painter:
    """Colours and labels of all texels while a look grows, garment by garment from the skin outwards."""

    def __init__(self, rng: np.random.Generator, texels: Texels) -> None:
        self.rng = rng
        self.texels = texels
        self.colour = np.zeros((len(texels.position), 3), np.float32)
        self.label = SKIN_CLASS[texels.region]
        girth = np.full(len(texels.position), 4 * GIRTH, np.float32)
        girth[texels.within("thigh", "shin", "foot")] = 2 * GIRTH
        girth[texels.within("upper_arm", "forearm", "hand")] = GIRTH
        self.across = texels.around / (2 * np.pi) * girth
        self.trunk = texels.within("chest", "abdomen", "hips")
        self.to_thigh = self.trunk | (texels.within("thigh") & (texels.limb < 0.6))
        self.arms = texels.within("upper_arm", "forearm", "hand")
        self.legs = texels.within("thigh", "shin", "foot")
        self.head = texels.within("hair", "face")

    def cloth(self, mask: Mask) -> Array:
        """(n, 3) colours of a random pattern on the masked texels; a vest has no cuffs, so n may be 0."""
        texels = self.texels
        if not mask.any():
            return np.zeros((0, 3))
        return random_cloth(self.rng, texels.metres_down[mask], self.across[mask], texels.position[mask])

    def wear(self, mask: Mask, colour: Array, label: str | None) -> None:
        """Cover the masked texels; `label` None keeps the class that shows there (side of the shoe, say)."""
        self.colour[mask] = colour
        if label is not None:
            self.label[mask] = CLASS[label]

    def darken(self, mask: Mask, factor: float) -> None:
        self.colour[mask] *= factor
