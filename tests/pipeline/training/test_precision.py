"""What changes how a step is computed changes its result by rounding only."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from models import catalog
from models.blocks import DecoderBlock, EncoderBlock
from models.completion import completion_loss
from models.croco import CroCo
from models.masking import human_mask
from pipeline.training.precision import Precision, arithmetic, compiled, effective, full_float32


def step(model: CroCo, bucket: int, seed: int) -> tuple[float, list[Tensor]]:
    """Loss and gradients of a batch in which so and so many patches are visible."""
    generator = torch.Generator().manual_seed(seed)
    target, reference = torch.randn(2, 4, 3, 64, 64, generator=generator)
    human = torch.rand(4, 64, generator=generator) < 0.5
    hidden = human_mask(human, 0.75, generator, bucket=bucket)
    model.zero_grad()
    loss = completion_loss(model(target, reference, hidden).prediction, target, hidden)
    loss.backward()
    return loss.item(), [value.grad.clone() for value in model.parameters() if value.grad is not None]


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a compiler")
def test_compiled_blocks_compute_what_plain_ones_do_and_share_their_code() -> None:
    model = catalog.create("croco_mini_patch8_64")
    assert isinstance(model, CroCo)
    blocks = [part for part in model.modules() if isinstance(part, (EncoderBlock, DecoderBlock))]
    plain = [step(model, 16, seed) for seed in range(3)]
    torch.compiler.reset()
    counters.clear()
    with compiled(blocks):
        found = [step(model, 16, seed) for seed in range(3)]
    # To see whether the compiler works; the encoder's blocks on the visible patches; on all of them; the decoder's.
    assert counters["stats"]["unique_graphs"] == 4
    for (loss, gradients), (same_loss, same_gradients) in zip(plain, found, strict=True):
        assert same_loss == pytest.approx(loss, rel=1e-6)
        for one, other in zip(gradients, same_gradients, strict=True):
            torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-4)
    counters.clear()
    assert step(model, 16, 0)[0] == plain[0][0]
    assert not counters["stats"]


def test_without_a_compiler_nothing_is_fused_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    torch.compiler.reset()
    model = catalog.create("croco_mini_patch8_64")
    assert isinstance(model, CroCo)
    plain = step(model, 16, 0)[0]
    with compiled([part for part in model.modules() if isinstance(part, (EncoderBlock, DecoderBlock))]):
        assert step(model, 16, 0)[0] == plain
    assert "needs a C compiler" in caplog.text
    torch.compiler.reset()


@pytest.mark.parametrize(("precision", "numbers"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_are_of_the_precision_asked_for(precision: Precision, numbers: torch.dtype) -> None:
    layer = torch.nn.Linear(2, 2)
    with arithmetic(precision, torch.device("cpu")):
        assert layer(torch.ones(1, 2)).dtype == numbers


def test_a_float32_run_leaves_no_product_to_shorter_numbers() -> None:
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [setting.allow_tf32 for setting in settings]
    assert any(before)  # torch's default
    with full_float32():
        assert not any(setting.allow_tf32 for setting in settings)
    assert [setting.allow_tf32 for setting in settings] == before


@pytest.mark.parametrize("has_it", [True, False])
def test_a_gpu_without_bfloat16_computes_in_float32_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, has_it: bool
) -> None:
    properties = SimpleNamespace(major=8 if has_it else 7, minor=0)  # an A100, a V100
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.version, "cuda", "12.8")  # what older versions ask for, too
    monkeypatch.setattr(torch.version, "hip", None)
    assert effective("bf16", torch.device("cuda")) == ("bf16" if has_it else "fp32")
    assert ("this GPU has no bfloat16" in caplog.text) != has_it
