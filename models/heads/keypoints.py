"""2D keypoints as dense heat-maps: a simple head on patch tokens, its targets and its loss
(CroCo-Human App. C.1 and Table 3; the paper says "a simple prediction head" and no more).

Image coordinates are continuous px: the pixel in column j covers [j, j + 1), its centre lies at j + 0.5."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import LayerNorm
from models.patches import unpatchify

SIGMA = 8 / 224
"""Deviation of a target's Gaussian, in sides of the image: 8 px in the paper's input of 224 px."""
COVERED = 2 * math.pi * SIGMA**2
"""Mean of a heat-map with one such Gaussian: what a head that knows nothing yet should answer everywhere."""


class KeypointHead(nn.Module):
    """Norm and linear map of each token to the heat-map values of its patch: (B, N, C) -> (B, K, S, S) logits.

    The counterpart of the linear prediction of pixels in completion. The norm leaves the encoder's tokens at their
    scale: logits reach far, and without it tokens grow to more than twice their size, from which the regressor of
    body meshes diverges.

    Args:
        width: channels C of a token.
        patch_size: side of a patch, px.
        grid: side of the square grid of N = grid^2 patches; S = grid * patch_size.
        num_keypoints: K.
    """

    def __init__(self, width: int, patch_size: int, grid: int, num_keypoints: int = 13) -> None:
        super().__init__()
        self.config: dict[str, Any] = dict(width=width, patch_size=patch_size, grid=grid, num_keypoints=num_keypoints)
        self.patch_size, self.grid = patch_size, (grid, grid)
        self.norm = LayerNorm(width)
        self.linear = nn.Linear(width, num_keypoints * patch_size**2)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights: Xavier uniform with gain 0.01, so that all starts at the mean of the targets."""
        self.norm.reset_parameters()
        nn.init.xavier_uniform_(self.linear.weight, gain=0.01, generator=generator)
        nn.init.constant_(self.linear.bias, math.log(COVERED / (1 - COVERED)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Raises ValueError when the tokens do not fill the grid."""
        return unpatchify(self.linear(self.norm(tokens)), self.patch_size, self.grid)


def draw_heatmaps(points: Tensor, size: int) -> Tensor:
    """One Gaussian of height 1 per keypoint: (..., 2) x, y in px -> (..., size, size) in [0, 1]."""
    centres = torch.arange(size, device=points.device, dtype=points.dtype) + 0.5
    across = torch.exp(-0.5 * ((centres - points[..., None]) / (SIGMA * size)) ** 2)
    return across[..., 1, :, None] * across[..., 0, None, :]


def heatmap_loss(logits: Tensor, keypoints: Tensor) -> Tensor:
    """Binary cross-entropy between predicted heat-maps and those of the true keypoints, weighted by confidence.

    The mean over all keypoints, missing ones (confidence 0) counted as 0 (so does JointsMSELoss of
    microsoft/human-pose-estimation.pytorch): the loss of a batch is the mean of those of its parts.

    Args:
        logits: (B, K, S, S).
        keypoints: (B, K, 3) x, y in px and confidence in [0, 1].
    """
    targets = draw_heatmaps(keypoints[..., :2].float(), logits.shape[-1])
    errors = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    return (errors.mean(dim=(2, 3)) * keypoints[..., 2].float()).mean()


def peaks(heatmaps: Tensor) -> Tensor:
    """(..., S, S) heat-maps, or their logits -> (..., 2) x, y of the centre of the highest pixel, px."""
    size = heatmaps.shape[-1]
    highest = heatmaps.flatten(-2).argmax(dim=-1)
    return torch.stack([highest % size, highest // size], dim=-1) + 0.5
