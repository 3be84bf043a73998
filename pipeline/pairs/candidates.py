"""All pairs that a rule admits, as a numbered set that is never written out.

A capture with a hundred cameras has thousands of pairs per instant; so candidates are kept
as ranges (this frame goes with those), and any pair is found from its number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Rows = NDArray[np.int64]

LISTED = 2**20
"""Up to this many candidates a shuffled list of all is made; beyond, numbers are drawn and remembered."""
BLOCK = 4096
"""Candidates looked up at a time."""


@dataclass(frozen=True)
class Candidates:
    """Unordered pairs of rows: `order[anchor[i]]` with each of `order[first[i]:last[i]]`.

    Ranges lie behind their anchor, so no pair comes twice and no row meets itself.
    """

    order: Rows
    anchor: Rows
    first: Rows
    last: Rows

    def __len__(self) -> int:
        return int((self.last - self.first).sum())

    def pairs(self, numbers: Rows) -> tuple[Rows, Rows]:
        """Rows of the pairs with these numbers in [0, len)."""
        ends = np.cumsum(self.last - self.first)
        at = np.searchsorted(ends, numbers, side="right")
        offset = numbers - (ends[at] - (self.last - self.first)[at])
        return self.order[self.anchor[at]], self.order[self.first[at] + offset]

    def shuffled(self, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """Every pair once in random order."""
        for numbers in _random_numbers(len(self), rng):
            one, other = self.pairs(numbers)
            yield from zip(one.tolist(), other.tolist(), strict=True)

    def split(self, groups: NDArray[np.integer]) -> dict[int, Candidates]:
        """The same pairs apart by group; `groups` (rows,) is the same for both rows of any pair."""
        of_anchor = groups[self.order[self.anchor]]
        by_group = np.argsort(of_anchor, kind="stable")
        values, starts = np.unique(of_anchor[by_group], return_index=True)
        apart = {}
        for value, start, end in zip(values, starts, [*starts[1:], len(by_group)], strict=False):
            part = by_group[start:end]
            apart[int(value)] = Candidates(self.order, self.anchor[part], self.first[part], self.last[part])
        return apart


def _random_numbers(count: int, rng: np.random.Generator) -> Iterator[Rows]:
    if count <= LISTED:
        numbers = rng.permutation(count).astype(np.int32)  # it stays while others are asked in turn
        yield from (numbers[start : start + BLOCK].astype(np.int64) for start in range(0, count, BLOCK))
        return
    seen: set[int] = set()
    while len(seen) < count:
        fresh = [number for number in dict.fromkeys(rng.integers(count, size=BLOCK).tolist()) if number not in seen]
        seen.update(fresh)
        yield np.array(fresh, np.int64)


def sorted_groups(records: pa.Table, by: tuple[str, ...], then: NDArray[np.floating] | Rows) -> tuple[Rows, Rows, Rows]:
    """Rows sorted by group and, within a group, by `then`; with first and last place of each row's group.

    Args:
        records: any table with the columns `by`, N rows.
        then: (N,) sort key within groups.

    Returns:
        order (N,): row numbers; start, end (N,): for each place in `order`, the range of its group.
    """
    codes = [records[name].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False) for name in by]
    order = np.lexsort((then, *reversed(codes))).astype(np.int64)
    new = np.ones(len(order), bool)
    new[1:] = np.any([np.diff(code[order]) != 0 for code in codes], axis=0)
    starts = np.flatnonzero(new)
    sizes = np.diff([*starts, len(order)])
    return order, np.repeat(starts, sizes), np.repeat(starts + sizes, sizes)
