"""The 13 keypoints of Penn Action for the images of a batch, whichever set their dataset annotates
(CroCo-Human App. C.1): from the image to the stored crop to the square that was cut out of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.crops import CropStore
from pipeline.manifests import ManifestError, read_records

NAMES = (
    "head", "left shoulder", "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist",
    "left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle",
)  # fmt: skip

SETS: dict[str, tuple[int, tuple[int, ...]]] = {
    "penn13": (13, (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)),
    "coco17": (17, (0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)),
    "openpose18": (18, (0, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)),
    "body25": (25, (0, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11)),
    "smpl24": (24, (15, 16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8)),
    "spin49": (49, (44, 34, 33, 35, 32, 36, 31, 28, 27, 29, 26, 30, 25)),
}
"""Keypoints of each set of `pipeline.records`, and where the 13 stand among them. COCO's nose lends itself as head."""


def penn13(points: NDArray, keypoint_set: str) -> NDArray:
    """(..., K, D) of a set -> (..., 13, D) in the order of `NAMES`.

    Raises:
        ValueError: an unknown set, or a number of keypoints that is not the set's.
    """
    if keypoint_set not in SETS:
        raise ValueError(f"no keypoint set is called {keypoint_set!r}; known: {', '.join(SETS)}")
    count, places = SETS[keypoint_set]
    if points.shape[-2] != count:
        raise ValueError(f"{points.shape[-2]} keypoints where {keypoint_set} has {count}")
    return points[..., places, :]


class Keypoints:
    """Keypoints of the crops of several crops files, kept as arrays (156 bytes a crop); safe to share among threads.

    Args:
        files: records manifest and crops file of each source, in the order of the sources of the `PairPool`.
        size: side of the network's input, px.

    Raises:
        ManifestError, CropsError: a file is missing or damaged, or there are records and none has keypoints.
    """

    def __init__(self, files: Sequence[tuple[Path, Path]], size: int) -> None:
        self._size = size
        self._points = [_of_crops(records, CropStore(crops)) for records, crops in files]

    def of(self, cut: Tensor) -> Tensor:
        """(B, 13, 3) float32 x, y in px of the network's input, and confidence.

        A keypoint outside the input counts as missing: what the network can not see it has no answer to,
        and the paper gives missing ones no weight.

        Args:
            cut: (B, 4) int64 source, row, top, left, as in `PairBatch`.
        """
        places = cut.cpu().numpy()
        found = np.empty((len(places), len(NAMES), 3), np.float32)
        for source in np.unique(places[:, 0]):
            here = places[:, 0] == source
            found[here] = self._points[source][places[here, 1]]
        found[..., :2] -= places[:, None, [3, 2]]
        inside = ((found[..., :2] >= 0) & (found[..., :2] < self._size)).all(axis=-1)
        found[..., 2] *= inside
        return torch.from_numpy(found)


def _of_crops(records: Path, store: CropStore) -> NDArray[np.float32]:
    """(rows of the crops file, 13, 3): x, y in px of the stored crop, and confidence; 0 where nothing is known."""
    points = np.zeros((len(store), len(NAMES), 3), np.float32)
    table = read_records(records, ["frame_id", "keypoints_2d", "keypoint_set"])
    annotated = table.filter(pc.is_valid(table["keypoints_2d"]))
    if table.num_rows and not annotated.num_rows:
        raise ManifestError(
            f"{records}: none of its {table.num_rows} records has 2D keypoints; take the data set out of the runs "
            "of params.yaml whose method learns keypoints"
        )
    squares = store.squares()
    for name in annotated["keypoint_set"].unique().to_pylist():
        of_set = annotated.filter(pc.equal(annotated["keypoint_set"], name))
        values = of_set["keypoints_2d"].combine_chunks().flatten().to_numpy()
        try:
            in_image = penn13(values.reshape(of_set.num_rows, -1, 3), name)
        except ValueError as error:
            raise ManifestError(f"{records}: {error}") from error
        rows = store.rows(of_set["frame_id"].to_pylist())
        known = rows >= 0
        rows, in_image = rows[known], in_image[known]
        corners, sides = squares[rows, None, :2] - squares[rows, None, 2:] / 2, squares[rows, None, 2:]
        points[rows, :, :2] = (in_image[..., :2] - corners) * (store.size / sides)
        points[rows, :, 2] = in_image[..., 2]
    return points
