"""Person silhouettes of crops: from a human parser or from the dataset, and what masking needs of them.

A silhouette is a boolean mask of a crop; its patch mask tells which patches of the network's
input show the person, which is what human-centric masking hides (paper section 3.1). A
rough silhouette is enough there, so one pass of the parser at one scale is made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]

SPECK_SHARE = 0.05
"""A piece smaller than this share of the largest one is taken for noise."""


class Parser(Protocol):
    """A human parser: (B, S, S, 3) uint8 RGB -> (B, S, S) class labels, 0 = not a person."""

    fingerprint: str
    """Changes whenever the labels may change; part of what a resumed run is keyed by."""

    def __call__(self, images: Pixels) -> NDArray[np.integer]: ...


def parse_silhouettes(parser: Parser, images: Pixels) -> Mask:
    """Silhouettes (B, S, S) of crops (B, S, S, 3): any class but background, specks dropped."""
    labels = np.asarray(parser(images))
    if labels.shape != images.shape[:3]:
        raise ValueError(f"the parser gave labels of shape {labels.shape} for images of shape {images.shape}")
    return np.stack([drop_specks(mask) for mask in labels > 0])


def drop_specks(mask: Mask, share: float = SPECK_SHARE) -> Mask:
    """Keep the connected pieces (8 neighbours) that have at least `share` of the largest one's area."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # piece 0 is the background
    return (areas >= share * areas.max())[pieces] & mask


def pack(mask: Mask) -> bytes:
    """Bits of a mask of any shape in row order, high bit first, padded with zeros to whole bytes."""
    return np.packbits(mask).tobytes()


def unpack(packed: bytes, count: int) -> Mask:
    """(count,) bool: inverse of `pack`."""
    if len(packed) != (count + 7) // 8:
        raise ValueError(f"{len(packed)} bytes do not hold {count} bits")
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool)


def centre(mask: Mask, size: int) -> Mask:
    """The middle (size, size) of a square mask: what the network sees of a stored crop."""
    side = mask.shape[0]
    if size > side:
        raise ValueError(f"an input of {size} px does not fit into a crop of {side} px; crops.size must not be smaller")
    start = (side - size) // 2
    return mask[start : start + size, start : start + size]


def patch_mask(silhouette: Mask, patch: int, threshold: float = 0.0) -> Mask:
    """Patches of a square silhouette (S, S) that show the person: (N,) bool in raster order.

    A patch counts as human when more than the share `threshold` of its pixels does; with 0,
    when any pixel does.
    """
    size = silhouette.shape[0]
    if silhouette.shape != (size, size) or size % patch:
        raise ValueError(f"a silhouette of shape {silhouette.shape} does not divide into patches of {patch} px")
    grid = size // patch
    coverage = silhouette.reshape(grid, patch, grid, patch).mean(axis=(1, 3))
    return (coverage > threshold).reshape(-1)


def load_parser(checkpoint: str | Path) -> Parser:
    """The PGN of a checkpoint (own directory or a converted CIHP_PGN file) as a Parser, on the first GPU if any.

    A checkpoint whose config names an `input_size` was trained on images of that side: smaller or
    larger crops are brought to it, since its maps have one cell per eight pixels of its input.
    A pixel is background only where that is likelier than all parts together. Threads that share it take turns on a
    GPU, which has room for the maps of one batch.

    Raises what `models.checkpoints.load_pgn` raises for an absent or unfit checkpoint.
    """
    # torch loads in seconds, and whoever only needs patch masks should not wait for it.
    import torch

    from models.checkpoints import fingerprint, load_pgn, read_config
    from models.pgn import mean_logits, person_labels
    from models.weight_files import sha256_of

    path = Path(checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_pgn(path).eval().to(device)
    turn: AbstractContextManager[object] = threading.Lock() if device.type == "cuda" else nullcontext()
    input_size: int | None = read_config(path).get("input_size") if path.is_dir() else None

    def labels(images: Pixels) -> NDArray[np.uint8]:
        scale = input_size / images.shape[1] if input_size else 1.0
        with turn:
            logits = mean_logits(model, torch.from_numpy(images).to(device), scales=(scale,), flip=False)
            return person_labels(logits).cpu().numpy()

    return _Parser(labels, fingerprint(path) if path.is_dir() else sha256_of(path))


class _Parser:
    def __init__(self, labels: Callable[[Pixels], NDArray[np.integer]], fingerprint: str) -> None:
        self._labels = labels
        self.fingerprint = fingerprint

    def __call__(self, images: Pixels) -> NDArray[np.integer]:
        return self._labels(images)
