"""Pairs of JPEGs with silhouettes at the size of the paper's crops, to measure speed with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.crops import Crop, CropStore, Square, write_crops
from pipeline.loading.pairs import Masking, PairPool, Source
from pipeline.manifests import write_pairs
from pipeline.silhouettes import pack

SIDE = 256
"""Of a crop, px."""


def photo_pool(folder: Path, jpegs: Sequence[bytes], count: int, bucket: int = 1) -> PairPool:
    """A pool of `count` crops, each paired with the one before it; the JPEGs come again where there are fewer."""
    person = np.zeros((SIDE, SIDE), bool)
    person[30:230, 80:180] = True
    mask = {"silhouette": pack(person), "silhouette_source": "dataset"}
    crops = [
        Crop(frame_id=f"{number:016x}", jpeg=jpegs[number % len(jpegs)], square=Square(1.0, 1.0, 2.0), **mask)
        for number in range(count)
    ]
    write_crops(folder / "crops.arrow", crops, SIDE)
    pair = {"kind": "view", "dataset": "aist", "target_patch_mask": None, "reference_patch_mask": None,
            "num_patches": 196, "dt_seconds": None, "baseline_degrees": None}  # fmt: skip
    pairs = [
        pair
        | {"pair_id": f"{number}", "target_crop": number, "reference_crop": number - 1}
        | {"target_frame_id": crops[number].frame_id, "reference_frame_id": crops[number - 1].frame_id}
        for number in range(1, count)
    ]
    write_pairs(pairs, folder / "pairs.parquet", CropStore(folder / "crops.arrow").frames)
    return PairPool(
        [Source("aist", folder / "pairs.parquet", folder / "crops.arrow", 1.0)], {"view": 1.0},
        heldout=0.0, size=224, masking=Masking("human", 0.75, "max_n", 8, 16, bucket), jitter=0.4, seed=0,
    )  # fmt: skip
