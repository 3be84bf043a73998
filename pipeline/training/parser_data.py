"""Rendered people with part labels -> crops and changed training views for the human parser.

The parser learns from renderings and then parses other people's videos, so training views vary
colour and background beyond what renderings show. They vary no more than that: a small parser that
sees a few thousand views is limited by what it learns, not by what it forgets.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pipeline import datasets
from pipeline.crops import Square, crop
from pipeline.datasets.quarantine import Quarantine
from pipeline.frames import FrameError, read_image, read_labels
from pipeline.process import num_cores
from pipeline.records import FrameRecord

logger = logging.getLogger(__name__)

MARGIN = 1.5
"""Stored crops show this much more than the parser's view, so that views may move and shrink."""
MAX_IMAGES = 8000
HELDOUT = 0.08
"""Share of the scenes that the parser never sees."""
MIRRORED = (14, 15, 16, 17, 18, 19)
"""CIHP classes of arms, legs and shoes; neighbours are left and right."""


@dataclass(frozen=True)
class LabelledCrops:
    """People seen in squares of one size."""

    images: NDArray[np.uint8]
    """(N, S, S, 3) RGB"""
    labels: NDArray[np.uint8]
    """(N, S, S) CIHP classes"""
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)


def read_labelled(root: Path, scale: float, size: int) -> tuple[LabelledCrops, LabelledCrops]:
    """Training crops with a margin (side `size * MARGIN`) and held-out crops as pairs will see them (side `size`).

    Args:
        root: folder of the `synthetic` dataset.
        scale: side of a crop over the longer side of the person's box.

    Raises:
        ValueError: no labelled person in the dataset.
    """
    records = [record for record in datasets.get("synthetic").records(root) if record.silhouette is not None]
    scenes = sorted({record.sequence for record in records}, key=_unit_hash)
    apart = set(scenes[: max(1, round(HELDOUT * len(scenes)))]) if len(scenes) > 1 else set()
    if len(records) > MAX_IMAGES:
        records = [records[i] for i in np.linspace(0, len(records) - 1, MAX_IMAGES).round().astype(int)]
    sets: dict[bool, list[tuple[NDArray, NDArray, str]]] = {True: [], False: []}
    quarantine = Quarantine()

    def read(record: FrameRecord) -> tuple[NDArray, NDArray] | FrameError:
        try:
            image, parts = read_image(root / record.image), read_labels(root / str(record.silhouette))
        except FrameError as error:
            return error
        held = record.sequence in apart
        square = Square.around(record.box, scale if held else scale * MARGIN)
        side = size if held else round(size * MARGIN)
        return crop(image, square, side), crop_labels(parts, square, side)

    with ThreadPoolExecutor(num_cores()) as pool:
        found = pool.map(read, records)
        for record, pair in tqdm(
            zip(records, found, strict=True), desc="labelled crops", unit="crop", mininterval=1.0, total=len(records)
        ):
            if isinstance(pair, FrameError):
                quarantine.add(record.image, str(pair))
            else:
                sets[record.sequence in apart].append((*pair, record.key))
    if len(quarantine):
        logger.warning("left out %d images: %s", len(quarantine), quarantine.summary(0))
    if not sets[False]:
        raise ValueError(f"{root}: no person with part labels to train a parser on; render the synthetic dataset first")
    return _stack(sets[False], round(size * MARGIN)), _stack(sets[True], size)


def crop_labels(parts: NDArray[np.uint8], square: Square, size: int) -> NDArray[np.uint8]:
    """(H, W) classes -> (size, size) of a square: the nearest pixel, outside is background."""
    middles = np.repeat(np.arange(size)[:, None] + 0.5, 2, axis=1)
    columns, rows = np.floor(square.to_image(middles, size)).astype(int).T
    found = np.zeros((size, size), np.uint8)
    across, down = (
        (places >= 0) & (places < length) for places, length in zip((columns, rows), parts.shape[::-1], strict=True)
    )
    found[np.ix_(down, across)] = parts[np.ix_(rows[down], columns[across])]
    return found


def training_views(
    crops: LabelledCrops, rows: NDArray[np.int64], size: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random views of stored crops: (B, 3, size, size) float RGB in 0..255 and (B, size, size) int64 classes."""
    images = torch.from_numpy(crops.images[rows]).permute(0, 3, 1, 2).float()
    labels = torch.from_numpy(crops.labels[rows])[:, None].float()
    grid, flipped = _random_grid(len(rows), size, rng)
    pixels = F.grid_sample(images, grid, align_corners=False)
    classes = F.grid_sample(labels, grid, mode="nearest", align_corners=False)[:, 0].long()
    swap = torch.arange(20)
    swap[list(MIRRORED)] = torch.tensor([k ^ 1 for k in MIRRORED])
    classes = torch.where(flipped[:, None, None], swap[classes], classes)
    return _disturb(_other_ground(pixels, classes, rng), rng), classes


def _random_grid(count: int, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    angle = np.radians(rng.normal(0, 6, count))
    # In units of the stored crop's half side; 1 / MARGIN is the view that inference has.
    zoom = np.exp(rng.uniform(-0.1, 0.1, count)) / MARGIN
    shift = rng.uniform(-0.05, 0.05, (count, 2))
    flipped = rng.random(count) < 0.5
    mirror = np.where(flipped, -1.0, 1.0)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    rows = np.stack([mirror * cos, -sin, shift[:, 0], mirror * sin, cos, shift[:, 1]], axis=1).reshape(-1, 2, 3)
    theta = torch.tensor(rows, dtype=torch.float32)
    return F.affine_grid(theta, [count, 3, size, size], align_corners=False), torch.from_numpy(flipped)


def _other_ground(pixels: Tensor, classes: Tensor, rng: np.random.Generator) -> Tensor:
    """One person in three before a plain wall with a shade: studios look like that, renderings do not."""
    count, _, size, _ = pixels.shape
    chosen = torch.from_numpy(rng.random(count) < 0.33)
    ends = torch.tensor(rng.uniform(0, 255, (2, count, 3, 1, 1)), dtype=torch.float32)
    towards = torch.linspace(0, 1, size).view(1, 1, size, 1)
    wall = (ends[0] + 0.5 * towards * (ends[1] - ends[0])).expand(-1, -1, -1, size)
    background = chosen[:, None, None, None] & (classes == 0)[:, None]
    return torch.where(background, wall, pixels)


def _disturb(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Brightness, tint and contrast, each image on its own."""
    count = len(pixels)

    def column(values: NDArray) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).view(count, -1, 1, 1)

    gain = column(rng.uniform(0.75, 1.25, (count, 1)) * rng.uniform(0.92, 1.08, (count, 3)))
    contrast = column(rng.uniform(0.75, 1.2, (count, 1)))
    return ((pixels * gain - 127.5) * contrast + 127.5).clamp(0, 255)


def _stack(rows: Sequence[tuple[NDArray, NDArray, str]], size: int) -> LabelledCrops:
    if not rows:
        return LabelledCrops(np.zeros((0, size, size, 3), np.uint8), np.zeros((0, size, size), np.uint8), [])
    images, labels, names = zip(*rows, strict=True)
    return LabelledCrops(np.stack(images), np.stack(labels), list(names))


def _unit_hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()
