"""Cross-view pairs: one person at one instant, seen by two cameras (paper section 3.2).

Any change of viewpoint is allowed, front to back included; only cameras that look in nearly
the same direction may be kept from pairing, since such a pair asks for no 3D understanding.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.pairs.candidates import Candidates, sorted_groups


def candidates(records: pa.Table) -> Candidates:
    """All pairs of records that share dataset, split, sequence, subject and frame index, and differ in camera."""
    camera = records["camera"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order, _, end = sorted_groups(records, ("dataset", "split", "sequence", "subject", "frame_index"), camera)
    place = np.arange(len(order), dtype=np.int64)
    # A key names a record, so within a group every row has a camera of its own.
    return Candidates(order, place, place + 1, end)


def viewing_directions(records: pa.Table) -> NDArray[np.float64]:
    """(N, 3) unit vectors along the optical axis in the world frame; NaN where the camera is unknown."""
    directions = np.full((records.num_rows, 3), np.nan)
    for row, rotation in enumerate(records["camera_R"].to_pylist()):
        if rotation is not None:
            directions[row] = rotation[6:9]  # third row of R: the camera's z axis
    return directions


def baseline_degrees(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Angle between two viewing directions (3,), 0 to 180 degrees; None where one is unknown."""
    if np.isnan(one).any() or np.isnan(other).any():
        return None
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(one, other)), one @ other)))
