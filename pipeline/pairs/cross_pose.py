"""Cross-pose pairs: one person before one camera at two instants (paper section 3.3).

The gap is random; the paper found no gain in fixing it. Two frames that are too
close show the same picture, two that are too far may no longer show the same scene.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.pairs.candidates import Candidates, sorted_groups

TOLERANCE = 1e-6
"""Seconds: times are frame numbers over a frame rate, and 0.3 s must not miss a gap of 3 / 10."""


def times(records: pa.Table) -> NDArray[np.float64]:
    """(N,) seconds within the sequence; NaN where unknown."""
    return records["time_s"].combine_chunks().fill_null(np.nan).to_numpy()


def candidates(records: pa.Table, min_gap_s: float, max_gap_s: float) -> Candidates:
    """All pairs of one sequence, subject and camera whose times differ by min_gap_s to max_gap_s seconds.

    Records without a time pair with none. Raises ValueError for a gap that can not be.
    """
    if not 0 < min_gap_s <= max_gap_s:
        raise ValueError(f"pairs.min_gap_s and max_gap_s must rise from above zero, got {min_gap_s} and {max_gap_s}")
    time = times(records)
    known = np.flatnonzero(~np.isnan(time)).astype(np.int64)
    time = time[known]
    kept = records.take(pa.array(known))
    order, start, end = sorted_groups(kept, ("dataset", "split", "sequence", "subject", "camera"), time)
    ranges = np.empty((2, len(order)), np.int64)
    for begin, stop in np.unique(np.stack([start, end]), axis=1).T:
        group = time[order[begin:stop]]
        ranges[0, begin:stop] = begin + np.searchsorted(group, group + (min_gap_s - TOLERANCE), side="left")
        ranges[1, begin:stop] = begin + np.searchsorted(group, group + (max_gap_s + TOLERANCE), side="right")
    return Candidates(known[order], np.arange(len(order), dtype=np.int64), *ranges)
