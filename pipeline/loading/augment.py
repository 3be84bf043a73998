"""Random crops and colours of image batches (recipe of CroCo v1; CroCo-Human is silent)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.patches import IMAGE_MEAN, IMAGE_STD

GREY = (0.299, 0.587, 0.114)
"""Weights of luma (ITU-R BT.601)."""


def random_corners(rng: np.random.Generator, count: int, stored: int, size: int) -> NDArray[np.int64]:
    """(B, 2) top and left of squares of `size` px within `stored` px, uniform.

    Raises ValueError when the crops are stored smaller than the network's input.
    """
    if size > stored:
        raise ValueError(
            f"crops are stored at {stored} px, the network's input is {size} px; crops.size must not be smaller"
        )
    return rng.integers(stored - size + 1, size=(count, 2))


def random_colours(rng: np.random.Generator, count: int, strength: float) -> NDArray[np.float32]:
    """(B, 3) factors of brightness, contrast and saturation, uniform in 1 +- strength."""
    return rng.uniform(1 - strength, 1 + strength, size=(count, 3)).astype(np.float32)


def jitter_and_normalize(images: Tensor, colours: Tensor) -> Tensor:
    """Change brightness, contrast, saturation in this order, clip, remove ImageNet's mean and deviation.

    The three are linear in the pixels, so they are one 3x3 matrix and one offset per image;
    unlike a chain of torchvision operations, values are clipped only once, at the end.

    Args:
        images: (B, H, W, 3) uint8 RGB.
        colours: (B, 3) factors of `random_colours`; ones change nothing.

    Returns:
        (B, 3, H, W) float32.
    """
    batch, height, width, _ = images.shape
    # Inside autocast as well: these pixels are what a prediction is compared with.
    with torch.autocast(images.device.type, enabled=False):
        pixels = images.permute(0, 3, 1, 2).reshape(batch, 3, -1).float().div_(255)
        grey = pixels.new_tensor(GREY)
        brightness, contrast, saturation = colours.to(pixels).unbind(1)
        mean_grey = brightness * (pixels.mean(dim=2) @ grey)
        identity, to_grey = torch.eye(3, device=pixels.device), grey.expand(3, 3)
        saturate = saturation[:, None, None] * identity + (1 - saturation)[:, None, None] * to_grey
        matrix = (brightness * contrast)[:, None, None] * saturate
        # Saturation keeps greys, so contrast's grey offset passes through it unchanged.
        offset = ((1 - contrast) * mean_grey)[:, None, None].expand(-1, 3, 1)
        if images.is_cuda:  # fused with what is around it; a product of matrices three wide is slow on GPUs
            pixels = (offset + (matrix[..., None] * pixels[:, None]).sum(2)).clamp(0, 1)
        else:
            pixels = torch.baddbmm(offset, matrix, pixels).clamp_(0, 1)
        mean, deviation = (pixels.new_tensor(values).view(1, 3, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        return pixels.sub_(mean).div_(deviation).view(batch, 3, height, width)


def human_patches(silhouettes: NDArray[np.bool_], patch: int) -> NDArray[np.bool_]:
    """(B, S, S) silhouettes -> (B, N): patches, in raster order, of which any pixel shows the person."""
    batch, size, _ = silhouettes.shape
    grid = size // patch
    # Rows first: those lie together in memory.
    rows = silhouettes.reshape(batch, grid, patch, size).any(axis=2)
    return np.asarray(rows.reshape(batch, grid * grid, patch).any(axis=2))
