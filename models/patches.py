"""Images as sequences of square patches and back, and the image normalisation every encoder here
expects. A patch vector lists its pixels in the order (row, column, channel), as CroCo and MAE do."""

import torch
from torch import Tensor

# ImageNet statistics of RGB in [0, 1]: what CroCo, MAE and timm's ViTs were trained with.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def normalize_images(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32 with ImageNet mean and deviation removed.

    Raises:
        ValueError: not a (B, H, W, 3) uint8 tensor.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"expected (B, H, W, 3) uint8 RGB images, not {tuple(images.shape)} {images.dtype}")
    scale = images.new_tensor(IMAGE_STD, dtype=torch.float32).mul_(255.0).view(3, 1, 1)
    shift = images.new_tensor(IMAGE_MEAN, dtype=torch.float32).mul_(255.0).view(3, 1, 1)
    return (images.permute(0, 3, 1, 2).float() - shift) / scale


def patchify(image: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) -> (B, N, patch_size^2 * C), patches in raster order.

    Raises:
        ValueError: not four axes, or a side is no multiple of the patch size.
    """
    if image.ndim != 4:
        raise ValueError(f"expected images as (B, C, H, W), not {tuple(image.shape)}")
    batch, channels, height, width = image.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"an image of {height}x{width} px does not divide into {patch_size} px patches")
    rows, columns = height // patch_size, width // patch_size
    cut = image.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """(B, N, patch_size^2 * C) -> (B, C, H, W): the inverse of `patchify`.

    Raises:
        ValueError: the number of patches is not that of the grid (rows, columns).
    """
    batch, num_patches, _ = patches.shape
    rows, columns = grid
    if num_patches != rows * columns:
        raise ValueError(f"{num_patches} patches do not fill a grid of {rows}x{columns}")
    cut = patches.reshape(batch, rows, columns, patch_size, patch_size, -1)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * patch_size, columns * patch_size)


def visible_indices(hidden: Tensor, batch: int, num_patches: int) -> Tensor:
    """Raster indices (B, L) int64 of the patches that a mask leaves visible.

    Args:
        hidden: (B, N) bool, True = hidden, the same count in every row.
        batch, num_patches: what B and N must be.

    Raises:
        ValueError: wrong shape or type, rows with different counts, or a row with nothing visible.
    """
    if hidden.dtype != torch.bool or hidden.shape != (batch, num_patches):
        raise ValueError(
            f"hidden must be a bool tensor of shape {(batch, num_patches)} (images, patches), "
            f"not {tuple(hidden.shape)} {hidden.dtype}"
        )
    counts = set((~hidden).sum(dim=1).tolist())
    if len(counts) != 1 or counts == {0}:
        raise ValueError(
            "every row of hidden must leave the same number of patches visible, at least one; "
            f"this batch leaves {sorted(counts)}"
        )
    return hidden.to(torch.uint8).argsort(dim=1, stable=True)[:, : counts.pop()]
