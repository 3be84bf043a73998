"""Percentage of correct keypoints: how often a predicted 2D keypoint lies near the true one."""

from __future__ import annotations

from torch import Tensor


def pck(predicted: Tensor, truth: Tensor, limit: float) -> Tensor:
    """Share of the annotated keypoints whose prediction lies within `limit` of them; nan when there are none.

    PCK@a of Penn Action takes as limit a times the longer side of the person's box, a = 0.2.

    Args:
        predicted: (B, K, 2) px.
        truth: (B, K, 3) px and confidence; those of confidence 0 do not count, all others alike.
        limit: px.
    """
    counted = truth[..., 2] > 0
    near = (predicted - truth[..., :2]).norm(dim=-1) <= limit
    return near[counted].float().mean()
