"""What changes how a step is computed changes its result by rounding only."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._dynamo.utils import counters

from models import catalog
from models.blocks import DecoderBlock, EncoderBlock
from models.completion import completion_loss
from models.croco import CroCo
from models.masking import human_mask
from pipeline.training.precision import Precision, arithmetic, compiled, effective, full_float32
from pipeline.training.team import Team


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


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.fixture
def model(fresh_compiler: None) -> CroCo:
    network = catalog.create("croco_mini_patch8_64")
    assert isinstance(network, CroCo)
    return network


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a compiler")
def test_a_compiled_block_computes_what_a_plain_one_does() -> None:
    """The encoder's, on one length: a kernel takes seconds to compile, and the decoder has the same ones and more."""
    block = EncoderBlock(32, 2, 4.0)
    tokens = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def computed() -> list[Tensor]:
        found = block(tokens)
        return [found, *torch.autograd.grad(found.square().mean(), [tokens, *block.parameters()])]

    plain = computed()
    with compiled([block]):
        fused = computed()
    # To see whether the compiler works; the block's.
    assert counters["stats"]["unique_graphs"] == 2
    assert any(not torch.equal(one, other) for one, other in zip(fused, plain, strict=True))  # else nothing was fused
    for one, other in zip(fused, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_compiled_blocks_share_their_code(model: CroCo, monkeypatch: pytest.MonkeyPatch) -> None:
    # Which code there is to compile is found out as ever; it is then run as it is.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain = [step(model, 16, seed) for seed in range(3)]
    with compiled([part for part in model.modules() if isinstance(part, (EncoderBlock, DecoderBlock))]):
        found = [step(model, 16, seed) for seed in range(3)]
    # To see whether the compiler works; the encoder's blocks on the visible patches; on all of them; the decoder's.
    assert counters["stats"]["unique_graphs"] == 4
    assert [loss for loss, _ in found] == [loss for loss, _ in plain]
    counters.clear()
    assert step(model, 16, 0)[0] == plain[0][0]
    assert not counters["stats"]


@pytest.mark.usefixtures("fresh_compiler")
def test_a_block_that_a_team_trains_is_compiled_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradients are sent in two packets: the first that torch sends is of one megabyte."""
    graphs = []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    dist.init_process_group("gloo", init_method=(tmp_path / "team").as_uri(), rank=0, world_size=1)
    try:
        block = EncoderBlock(256, 2, 4.0)
        block.register_buffer("table", torch.zeros(4))
        with compiled([block]):
            parallel = Team(0, 2).parallel(block)
            assert not parallel.will_sync_module_buffers()
            parallel(torch.zeros(1, 4, 256)).sum().backward()
    finally:
        dist.destroy_process_group()
    assert len(graphs) == 2  # to see whether the compiler works; the block's


def test_without_a_compiler_nothing_is_fused_and_the_log_says_so(
    model: CroCo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    plain = step(model, 16, 0)[0]
    with compiled([part for part in model.modules() if isinstance(part, (EncoderBlock, DecoderBlock))]):
        assert step(model, 16, 0)[0] == plain
    assert "needs a C compiler" in caplog.text


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
