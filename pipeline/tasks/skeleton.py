"""Joints of a body without its surface: all that a training step of body mesh recovery needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.bodies import SMPL_PARENTS, BodyModel


class Skeleton(nn.Module):
    """The 24 joints of a body model from rotations and shape: the model's own joints, some hundred times cheaper.

    Resting joints are linear in the betas, so eleven evaluations of the body give all of them.
    """

    rest: Tensor
    by_beta: Tensor

    def __init__(self, body: BodyModel) -> None:
        super().__init__()
        with torch.no_grad():
            shapes = torch.cat([torch.zeros(1, 10), torch.eye(10)])
            joints = body(shapes, torch.zeros(11, 69), torch.zeros(11, 3)).joints
        self.register_buffer("rest", joints[0], persistent=False)
        self.register_buffer("by_beta", (joints[1:] - joints[0]).clone(), persistent=False)

    def forward(self, rotations: Tensor, betas: Tensor) -> Tensor:
        """Posed joints (B, 24, 3), metres, as `BodyModel` gives them without translation.

        rotations: (B, 24, 3, 3) relative to the parent, root first; betas: (B, 10).
        """
        rest = self.rest + torch.einsum("bk,kjc->bjc", betas, self.by_beta)
        bones = rest[:, 1:] - rest[:, list(SMPL_PARENTS[1:])]
        # A bone beside the rotation at its end: one product turns both by all that comes before.
        steps = torch.cat([rotations[:, 1:], bones[..., None]], dim=3).unbind(1)
        turned, placed = [rotations[:, 0]], [rest[:, 0]]
        for parent, step in zip(SMPL_PARENTS[1:], steps, strict=True):
            turn, shift = (turned[parent] @ step).split([3, 1], dim=2)
            turned.append(turn)
            placed.append(placed[parent] + shift[:, :, 0])
        return torch.stack(placed, dim=1)
