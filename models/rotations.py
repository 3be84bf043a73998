"""Rotations as axis-angle vectors, matrices and the continuous 6D form that the body head predicts
(CroCo-Human Sec. 3.4, after SPIN). Rotation matrices act on column vectors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def rotation_6d_to_matrix(rotation_6d: Tensor) -> Tensor:
    """Gram-Schmidt on two columns: (..., 6) -> (..., 3, 3).

    Layout of SPIN and its mean-pose file: the six numbers are a 3 x 2 matrix in row-major order, so
    the two columns are interleaved: (a_x, b_x, a_y, b_y, a_z, b_z). Code of the 4D-Humans line lists
    (a, b) one after the other; mixing the two ruins the start pose.

    Raises:
        ValueError: the last axis is not 6.
    """
    _check_shape(rotation_6d, (6,))
    a, b = rotation_6d.unflatten(-1, (3, 2)).unbind(-1)
    first = F.normalize(a, dim=-1)
    second = F.normalize(b - (first * b).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """First two columns of a rotation matrix, (..., 3, 3) -> (..., 6), in SPIN's layout.

    Raises:
        ValueError: the last two axes are not 3 x 3.
    """
    _check_shape(matrix, (3, 3))
    return matrix[..., :2].flatten(-2)


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula: (..., 3) radians -> (..., 3, 3). Smooth at zero, also in its gradient.

    Raises:
        ValueError: the last axis is not 3.
    """
    _check_shape(axis_angle, (3,))
    angle = torch.linalg.vector_norm(axis_angle, dim=-1)[..., None, None]
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    # sin(a) / a and (1 - cos(a)) / a^2, written so that they stay exact near a = 0
    identity = torch.eye(3, dtype=cross.dtype, device=cross.device)
    sine = torch.sinc(angle / torch.pi)
    versine = 0.5 * torch.sinc(angle / (2 * torch.pi)).square()
    return identity + sine * cross + versine * (cross @ cross)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """(..., 3, 3) rotation matrices -> (..., 3) radians, angle in [0, pi].

    Goes through the unit quaternion with the best conditioned of its four formulas, hence also
    accurate near half a turn, where the sign of the axis is arbitrary.

    Raises:
        ValueError: the last two axes are not 3 x 3.
    """
    _check_shape(matrix, (3, 3))
    m = matrix
    diagonal = torch.stack([m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]], dim=-1)
    trace = diagonal.sum(-1)
    # 4 q q^T, from which the row with the largest diagonal entry is read
    skew = [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]]
    w = torch.stack([1 + trace, *skew], dim=-1)
    rows = [w]
    for i in range(3):
        entries = [skew[i]]
        for j in range(3):
            if i == j:
                entries.append(1 + 2 * diagonal[..., i] - trace)
            else:
                entries.append(m[..., i, j] + m[..., j, i])
        rows.append(torch.stack(entries, dim=-1))
    outer = torch.stack(rows, dim=-2)
    best = torch.diagonal(outer, dim1=-2, dim2=-1).argmax(dim=-1)
    quaternion = outer.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    quaternion = F.normalize(quaternion, dim=-1)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    vector = quaternion[..., 1:]
    sine = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, quaternion[..., :1])
    return torch.where(sine > 1e-8, vector / sine.clamp_min(1e-8) * angle, 2 * vector)


def _check_shape(rotation: Tensor, last: tuple[int, ...]) -> None:
    if tuple(rotation.shape[-len(last) :]) != last:
        wanted = ", ".join(str(size) for size in last)
        raise ValueError(f"expected rotations of shape (..., {wanted}), not {tuple(rotation.shape)}")
