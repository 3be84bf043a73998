"""Pixels and silhouettes of a crops file as arrays, decoded at first use and kept while they fit.

Processes that are forked from the one that opened a file share what is kept, and decode by threads of their own.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.crops import CropStore
from pipeline.process import memory, num_cores

KEPT_BYTES = max(1 << 30, memory() // 32)
"""A file whose decoded crops take no more than this is decoded once; a larger one at every use. A process reads some
five files, and a machine of several GPUs has a process for each."""
MAX_THREADS = 16
TASKS_PER_THREAD = 4
"""Rows go to threads by the handful: handing over one costs as much as cutting it."""


class CropPixels:
    """Crops of one file by row number.

    Opening costs nothing per row: memory is touched, and JPEGs decoded, when a row is first asked for.

    Raises:
        pipeline.crops.CropsError: the file is missing, cut short, or holds a damaged image.
    """

    def __init__(self, path: Path, kept_bytes: int = KEPT_BYTES) -> None:
        store = CropStore(path)
        self._count, self.size, self.frames = len(store), store.size, store.frames
        keep = self._count * self.size**2 * 3 <= kept_bytes
        shape = (self._count, self.size, self.size)
        self.images = Rows(path, _image, _shared((*shape, 3), np.uint8) if keep else None)
        """uint8 RGB, (S, S, 3) each."""
        self.silhouettes = Rows(path, _silhouette, _shared(shape, np.bool_) if keep else None)
        """bool, (S, S) each, True = person; all False where none is known."""

    def __len__(self) -> int:
        return self._count


class Rows:
    """What `read` finds in each row of a crops file, by several threads: decoding releases the interpreter's lock.

    Args:
        kept: room for all rows (see `_shared`), to read each of them once only; None = no room.
    """

    def __init__(self, path: Path, read: Callable[[CropStore, int], NDArray[Any]], kept: NDArray[Any] | None) -> None:
        self._path, self._read, self._kept, self._local = path, read, kept, threading.local()
        self._known = _shared((0 if kept is None else len(kept),), np.bool_)
        self._pools: dict[int, tuple[int, ThreadPoolExecutor]] = {}

    def whole(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Those of the rows, in their order, stacked."""
        if self._kept is None:
            return np.stack(list(self._threads()[1].map(self._row, rows.tolist())))
        self._learn(rows)
        return self._kept[rows]

    def cut(self, rows: NDArray[np.int64], corners: NDArray[np.int64], places: Sequence[NDArray[Any]]) -> None:
        """Of each row the part of the size of its place, from its corner (top, left) on, into that place."""

        jobs = list(zip(rows.tolist(), corners.tolist(), places, strict=True))

        def fill(jobs: Iterable[tuple[int, list[int], NDArray[Any]]]) -> None:
            for row, (top, left), place in jobs:
                height, width = place.shape[:2]
                place[:] = self._row(row)[top : top + height, left : left + width]

        if self._kept is not None:  # memory to memory: threads would wait for each other
            self._learn(rows)
            fill(jobs)
        else:
            threads, pool = self._threads()
            count = min(len(jobs), threads * TASKS_PER_THREAD)
            list(pool.map(fill, (jobs[first::count] for first in range(count))))

    def _learn(self, rows: NDArray[np.int64]) -> None:
        if self._known[rows].all():
            return
        missing = np.unique(rows[~self._known[rows]])
        for row, found in zip(missing, self._threads()[1].map(self._decoded, missing.tolist()), strict=True):
            self._kept[row] = found  # type: ignore[index]
        self._known[missing] = True

    def _threads(self) -> tuple[int, ThreadPoolExecutor]:
        """Their number, and the pool of them. A fork leaves threads behind, and takes along who counts them."""
        if os.getpid() not in self._pools:
            threads = min(MAX_THREADS, num_cores())
            self._pools[os.getpid()] = threads, ThreadPoolExecutor(threads)
        return self._pools[os.getpid()]

    def _row(self, row: int) -> NDArray[Any]:
        return self._decoded(row) if self._kept is None else self._kept[row]

    def _decoded(self, row: int) -> NDArray[Any]:
        # A store remembers its last batch, so each thread reads through its own.
        if not hasattr(self._local, "store"):
            self._local.store = CropStore(self._path)
        return self._read(self._local.store, row)


def _shared(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Zeros that processes forked from this one see and change; memory is taken where it is first touched."""
    count = int(np.prod(shape))
    return np.frombuffer(mmap.mmap(-1, max(1, count * np.dtype(dtype).itemsize)), dtype, count).reshape(shape)


def _image(store: CropStore, row: int) -> NDArray[np.uint8]:
    return store.image(row)


def _silhouette(store: CropStore, row: int) -> NDArray[np.bool_]:
    found = store.silhouette(row)
    return np.zeros((store.size, store.size), bool) if found is None else found
