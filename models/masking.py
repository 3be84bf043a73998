"""Which patches of the target image are hidden from the encoder: human-centric masking
(CroCo-Human Sec. 3.1) and the uniform masking it is compared with (Table 1d).
In every mask True = hidden, and every row of a batch hides the same number of patches."""

import math
from typing import Literal

import torch
from torch import Tensor


def uniform_mask(batch: int, num_patches: int, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide `floor(ratio * num_patches)` patches per row, all equally likely.

    The hidden count is floored, as in naver/croco (MAE floors the visible count instead).

    Returns:
        (batch, num_patches) bool, True = hidden, on the generator's device (default CPU).

    Raises:
        ValueError: `ratio` hides no patch or every patch.
    """
    _check_ratio(ratio)
    num_hidden = math.floor(ratio * num_patches)
    if num_hidden == 0:
        raise ValueError(f"masking ratio {ratio} of {num_patches} patches hides nothing")
    device = generator.device if generator is not None else None
    noise = torch.rand(batch, num_patches, generator=generator, device=device)
    hidden = torch.zeros(noise.shape, dtype=torch.bool, device=noise.device)
    return hidden.scatter_(1, noise.argsort(dim=1, stable=True)[:, :num_hidden], True)


def human_mask(
    human: Tensor,
    ratio: float,
    generator: torch.Generator | None = None,
    visible_length: Literal["max_n", "max_nh"] = "max_n",
    bucket: int = 1,
    min_human: int = 1,
) -> Tensor:
    """Hide `floor(ratio * N_H)` of the N_H human patches and enough background patches.

    All rows keep the same number L of visible patches, so that they can be batched: in each row the
    n = N_H - floor(ratio * N_H) human patches that stay, then background patches drawn uniformly.
    A row with fewer than `min_human` human patches, or so few that none would be hidden (no person,
    or no silhouette: give an all-False row), falls back to uniform masking of the whole image.

    The paper states L as the maximum of N_H over the batch, which is undefined for large persons
    (N_H > N / (1 + ratio) leaves too little background). Both readings are offered:

    * "max_n": L is the largest n of the batch. Always feasible; cost like MAE or CroCo. Default.
    * "max_nh": L is the largest N_H, as printed, but at most what every row can show while hiding
      its share of human patches. Rows masked uniformly have no say in L and show L patches too.

    Args:
        human: (B, N) bool, True = the patch shows a part of the person.
        ratio: share of human patches to hide, in (0, 1); the paper uses 0.75.
        generator: source of randomness; any device.
        visible_length: reading of the visible length, see above.
        bucket: round L up to a multiple of this (fewer distinct shapes), within what is feasible.
        min_human: below this many human patches a silhouette is not trusted.

    Returns:
        (B, N) bool on the device of `human`, True = hidden.

    Raises:
        ValueError: wrong shape or type of `human`, `ratio` outside (0, 1), an unknown reading, or
            `ratio` so small that uniform masking of the whole image hides nothing.
    """
    _check_ratio(ratio)
    if human.ndim != 2 or human.dtype != torch.bool or 0 in human.shape:
        raise ValueError(f"human must be a non-empty (B, N) bool tensor, not {tuple(human.shape)} {human.dtype}")
    if visible_length not in ("max_n", "max_nh"):
        raise ValueError(f"visible_length must be 'max_n' or 'max_nh', not {visible_length!r}")
    if bucket < 1:
        raise ValueError(f"bucket must be at least 1, not {bucket}")
    num_patches = human.shape[1]
    if math.floor(ratio * num_patches) == 0:
        raise ValueError(f"masking ratio {ratio} of {num_patches} patches hides nothing")

    count = human.sum(dim=1)
    # float64, so that the floor agrees with Python's own int(ratio * n)
    too_few = (count < min_human) | (torch.floor(count.double() * ratio) < 1)
    candidates = human | too_few[:, None]
    count = candidates.sum(dim=1)
    num_hidden_human = torch.floor(count.double() * ratio).long()
    num_kept = count - num_hidden_human

    length = int(num_kept.max())
    most = num_patches - int(num_hidden_human.max())
    if visible_length == "max_nh" and not bool(too_few.all()):
        length = int(count[~too_few].max())
        most = num_patches - int(num_hidden_human[~too_few].max())
    length = min(math.ceil(length / bucket) * bucket, most)

    noise = torch.rand(human.shape, generator=generator, device=generator.device if generator is not None else None).to(
        human.device
    )
    order = noise.masked_fill(~candidates, 2.0).argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(num_patches, device=human.device).expand_as(order))
    kept = candidates & (rank < num_kept[:, None])
    # Human patches that stay, then background at random, then human patches to hide, which `most`
    # keeps out of reach. Rows masked uniformly have only noise.
    person = ~too_few[:, None]
    priority = noise.masked_fill(kept & person, -1.0).masked_fill(human & ~kept & person, 2.0)
    visible = priority.argsort(dim=1, stable=True)[:, :length]
    return torch.ones_like(human).scatter_(1, visible, False)


def _check_ratio(ratio: float) -> None:
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"masking ratio must lie strictly between 0 and 1, not {ratio}")
