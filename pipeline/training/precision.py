"""Arithmetic of a training step: float32, or bfloat16 products where the hardware gains by them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Literal

import torch

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]


def choose_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def effective(precision: Precision, device: torch.device) -> Precision:
    """`precision`, or fp32 where the processor would only emulate bfloat16 (several times slower)."""
    if precision == "bf16" and device.type == "cpu" and not torch.cpu._is_avx512_bf16_supported():
        logger.warning("this processor has no bfloat16 instructions: computing in float32 instead")
        return "fp32"
    return precision


@contextlib.contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Forward passes inside compute in `precision`; parameters and optimiser stay float32."""
    if precision == "fp32":
        yield
        return
    with torch.autocast(device.type, torch.bfloat16):
        yield
