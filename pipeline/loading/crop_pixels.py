"""Pixels and silhouettes of a crops file as arrays, decoded at first use and kept while they fit."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.crops import CropStore

KEPT_BYTES = 1 << 30
"""A file whose decoded crops take no more than this is decoded once; a larger one at every use."""


class CropPixels:
    """Crops of one file by row number.

    Opening costs nothing per row: memory is touched, and JPEGs decoded, when a row is first asked for.

    Raises:
        pipeline.crops.CropsError: the file is missing, cut short, or holds a damaged image.
    """

    def __init__(self, path: Path, kept_bytes: int = KEPT_BYTES) -> None:
        self._path, self._store, self._local = path, CropStore(path), threading.local()
        self.size = self._store.size
        shape = (len(self._store), self.size, self.size, 3)
        self._kept = np.empty(shape, np.uint8) if int(np.prod(shape)) <= kept_bytes else None
        self._decoded = np.zeros(shape[0], bool)
        # JPEG decoding releases the interpreter lock.
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))

    def __len__(self) -> int:
        return len(self._decoded)

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, S, S, 3) uint8 RGB of the rows, in their order."""
        if self._kept is None:
            return np.stack(list(self._pool.map(self._image, rows.tolist())))
        missing = np.unique(rows[~self._decoded[rows]])
        for row, image in zip(missing, self._pool.map(self._image, missing.tolist()), strict=True):
            self._kept[row] = image
        self._decoded[missing] = True
        return self._kept[rows]

    def silhouettes(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(B, S, S) bool, True = person; all False where none is known."""
        found = np.zeros((len(rows), self.size, self.size), bool)
        for place, row in zip(found, rows.tolist(), strict=True):
            silhouette = self._store.silhouette(row)
            if silhouette is not None:
                place[:] = silhouette
        return found

    def _image(self, row: int) -> NDArray[np.uint8]:
        # A store remembers its last batch, so each thread reads through its own.
        if not hasattr(self._local, "store"):
            self._local.store = CropStore(self._path)
        return self._local.store.image(row)
