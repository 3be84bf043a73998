"""Where a patch lies, as numbers a transformer can use: fixed sine-cosine tables (CroCo v1, MAE),
2D rotary embedding (CroCo v2) and the resampling of tables to another grid.
Conventions of naver/croco: tokens in raster order, grid sizes as (rows, columns)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sine_cosine_2d(width: int, grid: tuple[int, int], class_token: bool = False) -> Tensor:
    """Fixed 2D sine-cosine position table (MAE and CroCo v1, temperature 10000).

    The first half of the channels encodes the column of the patch, the second half its row; each
    half is all sines, then all cosines.

    Args:
        width: channels; a multiple of four.
        grid: (rows, columns).
        class_token: prepend one row of zeros, as MAE does.

    Returns:
        (N, width) float32, N = rows * columns (+ 1).

    Raises:
        ValueError: `width` is no multiple of four.
    """
    if width % 4:
        raise ValueError(f"a 2D sine-cosine table needs a width divisible by 4, not {width}")
    rows, columns = grid
    # float64 until the end: upstream computes the table in numpy's default precision.
    rate = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))

    def encode(index: Tensor) -> Tensor:
        phase = index.reshape(-1, 1) * rate
        return torch.cat([phase.sin(), phase.cos()], dim=1)

    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(columns, dtype=torch.float64),
        indexing="ij",
    )
    table = torch.cat([encode(column), encode(row)], dim=1)
    if class_token:
        table = torch.cat([table.new_zeros(1, width), table])
    return table.float()


def interpolate_positions(table: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Resample a position table to another grid (bicubic, corners not aligned, as naver/croco).

    Args:
        table: (..., extra + rows * columns, C); rows before the grid (a class token) are kept.
        grid: (rows, columns) the table was made for.
        new_grid: (rows, columns) wanted.

    Raises:
        ValueError: the table has fewer rows than `grid` has patches.
    """
    extra = table.shape[-2] - grid[0] * grid[1]
    if extra < 0:
        raise ValueError(
            f"position table has {table.shape[-2]} rows, a {grid[0]}x{grid[1]} grid needs {grid[0] * grid[1]}"
        )
    if grid == new_grid:
        return table
    kept, patches = table.split([extra, grid[0] * grid[1]], dim=-2)
    leading, width = patches.shape[:-2], patches.shape[-1]
    image = patches.reshape(-1, *grid, width).permute(0, 3, 1, 2)
    image = F.interpolate(image.float(), size=new_grid, mode="bicubic", align_corners=False)
    patches = image.flatten(2).transpose(1, 2).reshape(*leading, -1, width)
    return torch.cat([kept, patches.to(table.dtype)], dim=-2)


def square_grid(num_patches: int) -> tuple[int, int]:
    """(side, side) of a square grid of `num_patches`; checkpoints store no grid shape.

    Raises:
        ValueError: `num_patches` is no square number.
    """
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        raise ValueError(f"{num_patches} patch positions are no square grid")
    return side, side


def rotary_table(head_width: int, grid: tuple[int, int], base: float) -> Tensor:
    """Cosines and sines of the 2D rotary embedding, for all patches of a grid.

    In each head the first half of the channels turns with the row of the patch, the second half
    with its column, by `index * base ** (-2 i / (head_width / 2))`.

    Returns:
        (2, N, head_width) float32: cosine, sine; to be given to `rotate`.

    Raises:
        ValueError: `head_width` is no multiple of four.
    """
    if head_width % 4:
        raise ValueError(f"2D rotary positions need a head width divisible by 4, not {head_width}")
    half = head_width // 2
    rate = base ** (-torch.arange(0, half, 2, dtype=torch.float32) / half)
    row, column = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float32),
        torch.arange(grid[1], dtype=torch.float32),
        indexing="ij",
    )
    angles = [index.reshape(-1, 1) * rate for index in (row, column)]
    angle = torch.cat([angles[0], angles[0], angles[1], angles[1]], dim=1)
    return torch.stack([angle.cos(), angle.sin()])


def rotate(heads: Tensor, rotary: Tensor) -> Tensor:
    """Turn queries or keys by their positions.

    Args:
        heads: (B, heads, L, D).
        rotary: (2, L, D) for the same positions in all rows, or (2, B, 1, L, D).
    """
    cosine, sine = rotary.to(heads.dtype)
    a, b, c, d = heads.chunk(4, dim=-1)
    return heads * cosine + torch.cat([-b, a, -d, c], dim=-1) * sine
