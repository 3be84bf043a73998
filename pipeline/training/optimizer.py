"""AdamW with the two habits of ViT training: no decay on vectors, smaller steps for early layers;
Muon for networks that have few steps to learn in; the learning rate of every step; and a running average of
the weights (CroCo-Human is silent on all; recipes of CroCo and MAE for AdamW, Jordan et al. 2024 for Muon)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import run_spec

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

    Parameters with fewer than two axes (biases, norms) are not decayed; tokens have more, and are. With
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
        decay = 0.0 if value.ndim < 2 else weight_decay
        groups.setdefault((scale, decay), []).append(value)
    listed = [
        {"params": values, "lr": lr * scale, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), values in groups.items()
    ]
    return torch.optim.AdamW(listed, lr=lr, betas=betas, fused=True)


def build(
    spec: run_spec.AdamW | run_spec.Muon, module: nn.Module, encoder_prefix: str | None = None
) -> torch.optim.Optimizer:
    """The optimiser that the params file describes, over the parameters that ask for gradients."""
    if isinstance(spec, run_spec.Muon):
        return Muon(module, lr=spec.lr)
    return adamw(module, **spec.model_dump(exclude={"name"}), encoder_prefix=encoder_prefix)


class Muon(torch.optim.Optimizer):
    """Kernels take steps of equal size in all directions of their momentum, vectors those of Adam.

    A kernel (outputs, inputs, ...) counts as a matrix of `outputs` rows. Its momentum is replaced by
    about the nearest orthogonal matrix, so that the spectral norm of a step is about `lr`; about
    `lr` * sqrt(outputs / inputs) where there are more outputs than inputs. Biases and norms
    learn at `lr` * `vector_scale` by Adam's rule. `torch.optim.Muon` takes plain matrices only.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """

    def __init__(self, module: nn.Module, *, lr: float, momentum: float = 0.95, vector_scale: float = 0.5) -> None:
        learning = [value for value in module.parameters() if value.requires_grad]
        groups = [
            {"params": [value for value in learning if value.ndim >= 2], "lr_scale": 1.0, "matrices": True},
            {"params": [value for value in learning if value.ndim < 2], "lr_scale": vector_scale, "matrices": False},
        ]
        groups = [group | {"lr": lr * group["lr_scale"]} for group in groups if group["params"]]  # type: ignore[operator]
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step along the gradients that lie on the parameters; `closure` may make them first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            values = [value for value in group["params"] if value.grad is not None]
            if group["matrices"]:
                self._step_matrices(values, group["lr"], group["momentum"])
            else:
                self._step_vectors(values, group["lr"], group["momentum"])
        return loss

    def _step_matrices(self, values: list[Tensor], lr: float, momentum: float) -> None:
        """Kernels of one shape go together: products of a few small matrices leave processors waiting."""
        gradients, means = _gradients(values), self._kept(values, "mean")
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        of_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for value, ahead in zip(values, torch._foreach_lerp(gradients, means, momentum), strict=True):
            matrix = ahead.flatten(1)
            of_shape.setdefault((matrix.shape[0], matrix.shape[1]), []).append((value, matrix))
        for (rows, columns), kernels in of_shape.items():
            moves = orthogonal(torch.stack([matrix for _, matrix in kernels]))
            for (value, _), move in zip(kernels, moves, strict=True):
                value.sub_(move.view_as(value), alpha=lr * max(1.0, rows / columns) ** 0.5)

    def _step_vectors(
        self, values: list[Tensor], lr: float, momentum: float, second: float = 0.999, eps: float = 1e-8
    ) -> None:
        if not values:
            return
        gradients, means, squares = _gradients(values), self._kept(values, "mean"), self._kept(values, "square")
        for value in values:
            self.state[value]["step"] = self.state[value].get("step", 0) + 1
        counts = [self.state[value]["step"] for value in values]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        scales = torch._foreach_div(squares, [1 - second**count for count in counts])
        torch._foreach_sqrt_(scales)
        torch._foreach_add_(scales, eps)
        torch._foreach_addcdiv_(values, means, scales, [-lr / (1 - momentum**count) for count in counts])

    def _kept(self, values: list[Tensor], name: str) -> list[Tensor]:
        """The state of this name of each parameter, zero at first."""
        for value in values:
            if name not in self.state[value]:
                self.state[value][name] = torch.zeros_like(value)
        return [self.state[value][name] for value in values]


def _gradients(values: list[Tensor]) -> list[Tensor]:
    return [value.grad for value in values if value.grad is not None]


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """About the orthogonal factors of matrices (..., R, C): their singular values are brought near 1, within a third.

    Newton-Schulz iteration with Jordan's coefficients, which rise fast from small values rather than settle at 1:
    polynomials that settle sooner raise the small ones less, and networks then learn more slowly.
    Each step multiplies a matrix X by a polynomial of X X^T, so it is enough to follow the small square matrix
    and to multiply X once: half the work where one side is much longer.
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        return orthogonal(matrices.mT, steps).mT
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    square = x @ x.mT
    identity = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    factor = identity
    for number in range(steps):
        step = 3.4445 * identity - 4.7750 * square + 2.0315 * square @ square
        factor = step @ factor if number else step
        if number < steps - 1:
            square = step @ step @ square
    return factor @ x


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
    """Linear rise to `peak` over `warmup_steps`, then half a cosine that would reach zero at `zero_at`.

    With `zero_at` beyond `steps` a run stops on the way: CroCo's own training does at half of the cosine's length.
    """

    peak: float
    steps: int
    warmup_steps: int
    zero_at: int | None = None
    """None = at `steps`."""

    def __post_init__(self) -> None:
        if self.zero_at is not None and self.zero_at < self.steps:
            raise ValueError(f"the learning rate would be zero at {self.zero_at}, before the end at {self.steps} steps")
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(f"warmup_steps must be at least 0 and below steps ({self.steps}), not {self.warmup_steps}")

    def lr(self, step: int) -> float:
        """Learning rate of step 0, 1, ..., steps - 1."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / ((self.zero_at or self.steps) - self.warmup_steps)
        return self.peak * 0.5 * (1 + math.cos(math.pi * done))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of every group, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


class Average:
    """Exponential moving average of a module's parameters (EMA): steadier than the last ones, for one more copy.

    The average before step k = 1, 2, ... is kept at min(`decay`, k / (k + 9)), so that the weights of the start do not
    stay in that of a short run.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._values: list[Tensor] = list(module.parameters())
        self._decay = decay
        self._means = [value.detach().clone() for value in self._values]

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Take in the weights after step 0, 1, ..."""
        kept = min(self._decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(self._means, self._values, 1 - kept)

    @torch.no_grad()
    def give(self) -> None:
        """Replace the module's weights by their averages."""
        torch._foreach_copy_(self._values, self._means)

    @contextmanager
    def given(self) -> Iterator[None]:
        """For a while the module has its averages, and then its own weights again."""
        own = [value.detach().clone() for value in self._values]
        self.give()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._values, own)

    def state(self) -> list[Tensor]:
        return self._means

    @torch.no_grad()
    def restore(self, state: list[Tensor]) -> None:
        torch._foreach_copy_(self._means, state)
