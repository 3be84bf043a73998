"""What a training step costs a CPU, and what makes it fast, each against its alternative in turns;
`pytest -n 0 -s tests/benchmarks/test_training_speed.py` prints the figures."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models import catalog
from models.blocks import attend
from pipeline.crops import encode_jpeg
from pipeline.process import num_cores
from pipeline.training.completion import Completing, CrossCompletion
from pipeline.training.optimizer import Muon, adamw, orthogonal
from pipeline.training.precision import Precision, arithmetic, effective
from tests.benchmarks.photo_pool import SIDE, photo_pool

ROUNDS = 7
CPU = torch.device("cpu")


def ratio(ours: Callable[[], object], other: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Time of `ours` over that of `other`: the median of rounds, so that a busy moment does not decide."""
    ratios = []
    for _ in range(rounds + 1):
        times = []
        for work in (ours, other):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    return median(ratios[1:])


def cpu_seconds(works: dict[str, Callable[[], object]], rounds: int = 2) -> dict[str, float]:
    """Processor time of each work, the least of rounds in turns: the first one warms up."""
    least = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            least[name] = min(least[name], time.process_time() - start)
    return least


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_attention_by_plain_products_is_no_slower_than_the_fused_kernel(one_thread: None) -> None:
    generator = torch.Generator().manual_seed(0)
    # What a step of scale mini attends over: 32 references of 64 patches, 3 heads of 32 channels.
    kind = torch.bfloat16 if effective("bf16", CPU) == "bf16" else torch.float32
    inputs = [torch.randn(32, 3, 64, 32, generator=generator).to(kind).requires_grad_() for _ in range(3)]

    def step(attention: Callable[..., torch.Tensor]) -> None:
        for _ in range(10):
            attention(*inputs).sum().backward()

    found = ratio(partial(step, attend), partial(step, F.scaled_dot_product_attention))
    print(f"\nattention, forward and backward, {kind}: {found:.2f} of the time of torch's fused kernel")
    assert found < 1.2


@pytest.mark.slow
def test_kernels_of_one_shape_are_made_orthogonal_together(one_thread: None) -> None:
    kernels = torch.randn(10, 64, 64, generator=torch.Generator().manual_seed(0))

    def together() -> None:
        for _ in range(20):
            orthogonal(kernels)

    def one_by_one() -> None:
        for _ in range(20):
            for kernel in kernels:
                orthogonal(kernel)

    found = ratio(together, one_by_one)
    print(f"\nten kernels at a time: {found:.2f} of the time of one by one")
    assert found < 1.1


@pytest.mark.slow
@pytest.mark.skipif(num_cores() < 2, reason="needs two cores")
def test_runs_side_by_side_on_a_thread_each_take_less_time_than_one_after_the_other_on_all() -> None:
    # `spawn`: a thread pool of this process must not be copied.
    with ProcessPoolExecutor(num_cores(), multiprocessing.get_context("spawn")) as pool:

        def after_each_other() -> None:
            for _ in range(num_cores()):
                pool.submit(train, num_cores()).result()

        def beside_each_other() -> None:
            list(pool.map(train, [1] * num_cores()))

        found = ratio(beside_each_other, after_each_other, rounds=3)
    print(f"\n{num_cores()} runs side by side: {found:.2f} of the time of one after the other")
    assert found < 1.1


def train(threads: int, steps: int = 2) -> None:
    """Steps of fine-tuning's size: 16 images through the encoder of scale mini, and back."""
    torch.set_num_threads(threads)
    model = catalog.create("croco_mini_patch8_64")
    optimizer = Muon(model, lr=0.01)
    images = torch.randn(16, 3, 64, 64)
    for _ in range(steps):
        with arithmetic(effective("bf16", CPU), CPU):
            loss = model.encode(images).float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.slow
def test_a_step_in_bfloat16_takes_two_thirds_of_the_processor_time_and_its_pairs_a_fiftieth(
    one_thread: None, tmp_path: Path
) -> None:
    """CroCo's ViT-B and small decoder at 224 px, 4 pairs, AdamW; processor time, which waiting for a core is none of.

    Decoding is left out of drawing, masking and collating: other cores do it, and crops are read once where they fit.
    """
    batch, num_crops, num_drawn = 4, 32, 16
    noise = np.random.default_rng(0).integers(256, size=(num_crops, SIDE, SIDE, 3), dtype=np.uint8)
    pool = photo_pool(tmp_path, [encode_jpeg(image) for image in noise], num_crops)
    model = catalog.create("croco_base_patch16_224")
    task = CrossCompletion(model, pool, Completing(batch, True, CPU))
    optimizer = adamw(model, lr=1e-4, weight_decay=0.05)
    drawn = task.batch(0)

    def collate() -> None:
        for number in range(num_drawn):
            task.batch(number)

    def step(precision: Precision) -> None:
        with arithmetic(precision, CPU):
            loss = task.losses(drawn)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    of_runs = effective("bf16", CPU)
    works = {"pairs": collate, "fp32": partial(step, "fp32"), of_runs: partial(step, of_runs)}
    seconds = cpu_seconds(works)
    pairs = seconds["pairs"] / num_drawn / seconds[of_runs]
    print(f"\na step of {batch} pairs: {seconds['fp32']:.2f} s of a processor in float32", end="")
    if of_runs == "bf16":
        found = seconds["bf16"] / seconds["fp32"]
        print(f", {seconds['bf16']:.2f} s in bfloat16, {found:.2f} of that", end="")
        assert found <= 0.65
    print(f"; drawing, masking and collating them takes {pairs:.2%} of it")
    assert pairs < 0.02
