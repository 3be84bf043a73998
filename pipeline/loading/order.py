"""In which order samples are drawn: by weight, without replacement, and any place of the order at once.

An epoch is as many samples as there are. Each cell (a set of samples that are drawn alike) has its share of
every epoch, at places that are mixed anew for each; within a cell every sample comes once before any comes
again. All of it follows from (seed, number of the sample) by permutations that are computed place by place, so
nothing is shuffled, kept or replayed: a run goes on in the middle of an epoch at no cost, and millions of samples
cost what ten do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6
"""Of the Feistel network; four make it indistinguishable from chance, given good round functions."""

Ints = NDArray[np.int64]


class Order:
    """Samples of several cells, drawn by weight.

    Args:
        lengths: number of samples in each cell, all above 0.
        weights: how often each cell is drawn, in any unit.
    """

    def __init__(self, lengths: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self._lengths, self._seed = np.array(lengths, np.int64), seed
        self.epoch = int(self._lengths.sum())
        """Samples in an epoch."""
        bounds = np.round(np.cumsum(weights) / np.sum(weights) * self.epoch).astype(np.int64)
        self._starts = np.concatenate([[0], bounds])

    def draw(self, first: int, count: int) -> tuple[Ints, Ints]:
        """Cells and places within them (count,) of samples number `first`, `first` + 1, ... of the run."""
        epochs, places = np.divmod(np.arange(first, first + count), self.epoch)
        mixed = np.empty_like(places)
        for epoch in np.unique(epochs):
            mixed[epochs == epoch] = permuted(places[epochs == epoch], self.epoch, self._seed, 0, int(epoch))
        cells = np.searchsorted(self._starts, mixed, side="right") - 1
        shares = np.diff(self._starts)
        rounds, within = np.divmod(epochs * shares[cells] + mixed - self._starts[cells], self._lengths[cells])
        picks = np.empty_like(within)
        for cell, number in np.unique(np.stack([cells, rounds]), axis=1).T.tolist():
            here = (cells == cell) & (rounds == number)
            picks[here] = permuted(within[here], int(self._lengths[cell]), self._seed, 1 + cell, number)
        return cells, picks


def permuted(places: Ints, length: int, *key: int) -> Ints:
    """Where a permutation of 0, ..., `length` - 1, chosen by `key`, takes these places.

    A Feistel network on the next even number of bits; what it takes out of range goes through again until it is back
    (cycle walking: J. Black and P. Rogaway, "Ciphers with arbitrary finite domains", 2002).
    """
    half = max(1, (max(1, length - 1).bit_length() + 1) // 2)
    round_keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64).astype(np.uint64)
    moved = _feistel(places.astype(np.uint64), np.uint64(half), round_keys)
    while len(outside := np.flatnonzero(moved >= length)):
        moved[outside] = _feistel(moved[outside], np.uint64(half), round_keys)
    return moved.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half: np.uint64, round_keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in round_keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: every bit of the input moves every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
