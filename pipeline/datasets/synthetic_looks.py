"""The synthetic scenes again, but every camera sees the person with another skin, hair and clothes.

For the study of what makes the reference pay: pose, shape, light, cameras and backgrounds are those of
`pipeline.datasets.synthetic`, so that what such a pair lacks beside one of theirs is the person's looks.
"""

from __future__ import annotations

import numpy as np

from pipeline.datasets.synthetic import Sizes, Synthetic
from pipeline.datasets.world import World
from pipeline.rendering.clothes import Look


class SyntheticLooks(Synthetic):
    """As `Synthetic`; the first camera sees the very image it sees there."""

    name = "synthetic_looks"

    def looks(self, look: Look, world: World, rng: np.random.Generator, sizes: Sizes) -> list[Look]:
        return [look, *(world.look(rng, sizes.width, sizes.height) for _ in range(sizes.cameras - 1))]


DATASET = SyntheticLooks()
