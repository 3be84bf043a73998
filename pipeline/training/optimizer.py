"""AdamW with the two habits of ViT training: no decay on vectors, smaller steps for early layers;
and the learning rate of every step (CroCo-Human is silent on both; recipes of CroCo and MAE)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import nn

_BLOCK = re.compile(r"(?:^|\.)(?:enc_blocks|blocks)\.(\d+)\.")


def adamw(
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    encoder_prefix: str | None = None,
    layer_decay: float = 1.0,
) -> torch.optim.AdamW:
    """AdamW over the parameters of a module that ask for gradients.

    Parameters with fewer than two axes (biases, norms) and tokens are not decayed. With
    `layer_decay` < 1 the encoder block i of D, under `encoder_prefix`, learns at
    lr * layer_decay ** (D - i), the patch embedding at layer_decay ** (D + 1), as in BEiT and MAE.
    Each group keeps its factor as `lr_scale` for `set_lr`.
    """
    named = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    depth = 1 + max((_block(name) for name, _ in named), default=-1)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in named:
        scale = 1.0
        if encoder_prefix is not None and name.startswith(encoder_prefix) and layer_decay < 1:
            scale = layer_decay ** (depth - _layer(name, depth))
        is_token = name.endswith(("mask_token", "cls_token"))
        decay = 0.0 if value.ndim < 2 or is_token else weight_decay
        groups.setdefault((scale, decay), []).append(value)
    listed = [
        {"params": values, "lr": lr * scale, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), values in groups.items()
    ]
    return torch.optim.AdamW(listed, lr=lr, betas=betas, fused=True)


def _block(name: str) -> int:
    found = _BLOCK.search(name)
    return int(found.group(1)) if found else -1


def _layer(name: str, depth: int) -> int:
    block = _block(name)
    if block >= 0:
        return block
    # The final norm steps like the head; the patch embedding lies below block 0.
    return depth if "norm" in name else -1


@dataclass(frozen=True)
class WarmupCosine:
    """Linear rise to `peak` over `warmup_steps`, then half a cosine to zero at `steps`."""

    peak: float
    steps: int
    warmup_steps: int

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(f"warmup_steps must be at least 0 and below steps ({self.steps}), not {self.warmup_steps}")

    def lr(self, step: int) -> float:
        """Learning rate of step 0, 1, ..., steps - 1."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        return self.peak * 0.5 * (1 + math.cos(math.pi * done))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of every group, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
