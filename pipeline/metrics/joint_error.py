"""Errors of predicted joints and vertices in millimetres, as 3DPW and FreiHAND are scored (CroCo-Human Sec. 4.1).

Every function takes point sets in metres and gives one number per sample; a table holds the
mean over samples. "PA" aligns the prediction to the truth first, by the best rotation, scale
and translation of each sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

MILLIMETRES = 1000.0


def mpjpe(pred: Tensor, gt: Tensor) -> Tensor:
    """Mean distance of corresponding points, no alignment: subtract each root joint before.

    Args:
        pred, gt: (B, K, 3) metres; tensors or arrays.

    Returns:
        (B,) float64 millimetres.

    Raises:
        ValueError: shapes differ or are not (B, K, 3).
    """
    pred, gt = _checked(pred, gt)
    return _mean_distance(pred, gt)


def pa_mpjpe(pred: Tensor, gt: Tensor) -> Tensor:
    """Mean distance after a similarity alignment of each sample's prediction to its truth.

    The alignment minimises squared distances (as nkolot/SPIN scores 3DPW), so the mean distance
    may in rare samples exceed the unaligned one. Arguments and result as `mpjpe`.
    """
    pred, gt = _checked(pred, gt)
    return _mean_distance(align(pred, gt), gt)


def mpvpe(pred: Tensor, gt: Tensor) -> Tensor:
    """`mpjpe` of vertices; subtract from each mesh its own pelvis (body) or wrist (hand) before."""
    return mpjpe(pred, gt)


def pa_mpvpe(pred: Tensor, gt: Tensor) -> Tensor:
    """`pa_mpjpe` of vertices: the alignment is estimated on the vertices themselves."""
    return pa_mpjpe(pred, gt)


def align(pred: Tensor, gt: Tensor) -> Tensor:
    """Move each prediction onto its truth by rotation (never a reflection), scale and translation.

    Umeyama's closed form of the least-squares similarity. A prediction whose points coincide has no
    scale; it collapses to the truth's centre.

    Args:
        pred, gt: (B, K, 3), any unit.

    Returns:
        (B, K, 3) float64.
    """
    pred, gt = _checked(pred, gt)
    pred_centre, gt_centre = pred.mean(dim=1, keepdim=True), gt.mean(dim=1, keepdim=True)
    source, goal = pred - pred_centre, gt - gt_centre
    u, singular, vh = torch.linalg.svd(source.transpose(1, 2) @ goal)
    # The weakest axis is flipped where the best orthogonal map would be a mirror.
    sign = torch.ones_like(singular)
    sign[:, 2] = torch.sign(torch.linalg.det(u) * torch.linalg.det(vh))
    rotation = u @ (sign[:, :, None] * vh)
    variance = source.square().sum(dim=(1, 2))
    scale = (singular * sign).sum(dim=1) / variance.clamp_min(torch.finfo(variance.dtype).tiny)
    return scale[:, None, None] * (source @ rotation) + gt_centre


def _mean_distance(pred: Tensor, gt: Tensor) -> Tensor:
    return MILLIMETRES * torch.linalg.vector_norm(pred - gt, dim=-1).mean(dim=-1)


def _checked(pred: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    # float64: the alignment of far-off points loses digits that single precision does not have.
    pred, gt = (torch.as_tensor(points).to(torch.float64) for points in (pred, gt))
    if pred.shape != gt.shape or pred.ndim != 3 or pred.shape[-1] != 3:
        raise ValueError(f"expected two (B, K, 3) point sets, got {tuple(pred.shape)} and {tuple(gt.shape)}")
    return pred, gt
