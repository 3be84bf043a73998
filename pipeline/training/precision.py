"""Arithmetic of a training step: float32, or bfloat16 products where the hardware gains by them; parts of a network
made faster by torch's compiler."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import nn

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]


def choose_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def effective(precision: Precision, device: torch.device) -> Precision:
    """`precision`, or fp32 where the processor or GPU would only emulate bfloat16 (several times slower)."""
    if precision == "fp32":
        return precision
    if device.type == "cuda":
        name, has_it = "GPU", torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        name, has_it = "processor", torch.cpu._is_avx512_bf16_supported()
    if has_it:
        return precision
    logger.warning("this %s has no bfloat16 instructions: computing in float32 instead", name)
    return "fp32"


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Inside, float32 means float32 on GPUs, too: torch's own default rounds the inputs of convolutions, and only
    theirs, to 10 bits (TF32). Who wants speed asks for bfloat16."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


@contextlib.contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Forward passes inside compute in `precision`; parameters and optimiser stay float32."""
    if precision == "fp32":
        yield
        return
    with torch.autocast(device.type, torch.bfloat16):
        yield


class Fusible(nn.Module):
    """A function as a module, as which `compiled` can be given it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *arguments: Any) -> Any:
        return self._function(*arguments)


@contextlib.contextmanager
def compiled(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, what these modules do between their products is fused by torch's compiler; on a machine where that does
    not work, such as one without a C compiler, they stay as they are, and the log says so.

    Modules of one class and size share their code. Each length of sequence is compiled for itself, and torch gives
    up after eight: see `bucket` of `models.masking.human_mask`.
    """
    devices = {value.device for part in parts for value in part.parameters()}
    if not all(map(_compiler_works, devices)):
        parts = ()
    for part in parts:
        part.forward = torch.compile(part.forward, dynamic=False)
    try:
        # In a team each part would be cut where DistributedDataParallel cuts its packets of gradients: more kernels, to
        # send the gradients of a small part hardly sooner.
        with torch._dynamo.config.patch(optimize_ddp=False) if parts else contextlib.nullcontext():
            yield
    finally:
        for part in parts:
            del part.forward


def _compiler_works(device: torch.device) -> bool:
    try:
        torch.compile(torch.nn.functional.gelu, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # whatever torch's tools, and theirs, raise
        reason = str(error).strip().splitlines()[:1]
        logger.warning(
            "torch's compiler does not work here, so nothing is fused and training is slower; it needs a C compiler "
            "and, for GPUs, Python's headers (Debian: gcc g++ python3-dev): %s",
            *(reason or [type(error).__name__]),
        )
        return False
    return True
