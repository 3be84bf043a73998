"""On a GPU the same is trained as on a processor, and in bfloat16 the same as in float32 but for rounding."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models import checkpoints
from pipeline.layout import PROJECT, Layout
from pipeline.loading.pairs import Masking, PairPool
from pipeline.reporting.metric_table import read_history
from pipeline.training.completion import Completing
from pipeline.training.keypoints import CompletionWithKeypoints, new_head, predict
from pipeline.training.loop import train
from pipeline.training.optimizer import WarmupCosine, build
from pipeline.training.precision import Precision, effective, full_float32
from pipeline.training.pretrain import completion_pictures, fusible, initial_model, learning, pair_sources, validate
from pipeline.weights import import_weights
from tests.pipeline.toy_world import small_params, write_pool

GPU = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
)
STEPS = 12
MASKING = Masking("human", 0.75, "max_n", 1, patch=8, bucket=8)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory):
    layout = Layout("test", tmp_path_factory.mktemp("project"))
    write_pool(layout, "synthetic", 24)
    only = {f"pretrain__{name}__datasets": {"synthetic": 1.0} for name in ("croco_body", "mae_body")}
    params, _ = small_params(layout.root, **only)
    for name in ("random", "random_mae"):
        import_weights(name, layout, params.import_weights[name])
    return layout, params


class Killed(Exception):
    """As a signal would end it, but without leaving the process."""


def pool_of(project, heldout: float) -> PairPool:
    layout, params = project
    run = params.pretrain["croco_body"]
    return PairPool(pair_sources(run, layout), run.kinds, heldout=heldout, size=64, masking=MASKING, jitter=0.4, seed=0)


def losses(
    project,
    scratch: Path,
    device: str,
    precision: Precision = "fp32",
    fused: bool = False,
    killed_after: int | None = None,
    name: str = "croco_body",
) -> list[float]:
    """Of every step of a short pre-training."""

    def watch(done: int) -> None:
        if done == killed_after:
            raise Killed

    layout, params = project
    run = params.pretrain[name]
    model = initial_model(name, params, layout).to(device)
    how = Completing(16, True, torch.device(device))
    network, task = learning(model, run, pool_of(project, heldout=0.0), MASKING, None, how)
    history = train(
        network,
        task,
        build(run.optimizer, network),
        WarmupCosine(run.optimizer.lr, STEPS, 2),
        seed=0,
        precision=precision,
        scratch=scratch,
        checkpoint_every=3,
        title=device,
        watch=watch,
        fuse=fusible(network, task) if fused else [],
    )
    return [line["loss"] for line in read_history(history)]


@pytest.mark.parametrize("name", ["croco_body", "mae_body"])
@pytest.mark.parametrize("device", [GPU])
def test_losses_are_those_of_a_processor(project, tmp_path: Path, device: str, name: str) -> None:
    assert losses(project, tmp_path / "there", device, name=name) == pytest.approx(
        losses(project, tmp_path / "cpu", "cpu", name=name), rel=1e-3
    )


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_losses_in_bfloat16_are_those_of_float32_but_for_rounding(project, tmp_path: Path, device: str) -> None:
    if effective("bf16", torch.device(device)) != "bf16":
        pytest.skip("this processor has no bfloat16 instructions")
    rounded, exact = losses(project, tmp_path / "bf16", device, "bf16"), losses(project, tmp_path / "fp32", device)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["croco_body", "mae_body"])
@pytest.mark.parametrize("device", [GPU])
def test_fused_parts_have_the_losses_of_plain_ones_but_for_rounding(
    project, tmp_path: Path, device: str, name: str
) -> None:
    fused = losses(project, tmp_path / "fused", device, "bf16", fused=True, name=name)
    assert fused == pytest.approx(losses(project, tmp_path / "plain", device, "bf16", name=name), rel=0.02)


@pytest.mark.parametrize("device", [GPU])
def test_a_killed_run_goes_on_with_the_losses_it_would_have_had(project, tmp_path: Path, device: str) -> None:
    with pytest.raises(Killed):
        losses(project, tmp_path / "killed", device, killed_after=8)
    assert losses(project, tmp_path / "killed", device) == pytest.approx(
        losses(project, tmp_path / "whole", device), rel=1e-3
    )


@pytest.mark.parametrize("device", [GPU])
def test_validation_finds_and_draws_what_it_does_on_a_processor(project, device: str) -> None:
    layout, params = project
    pool, run = pool_of(project, heldout=0.3), params.pretrain["croco_body"]
    found = []
    for place in (device, "cpu"):
        model = checkpoints.load_croco(layout.checkpoint("random"))
        network = CompletionWithKeypoints(model, new_head(model, 0)).to(place)
        with full_float32():
            values, _ = validate(model, pool, run)
            drawn = completion_pictures(model, pool, run)
            heatmaps = predict(network, pool.batch(0, 8).target)
        found.append(({name: value.value for name, value in values.items()}, drawn, heatmaps))
    (values, drawn, heatmaps), (known, pictures, logits) = found
    assert values == pytest.approx(known, rel=1e-3)
    for name, (picture, caption) in drawn.items():
        assert caption == pictures[name][1]
        np.testing.assert_allclose(picture.astype(int), pictures[name][0].astype(int), atol=2)
    torch.testing.assert_close(heatmaps, logits, atol=1e-3, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_command_trains_on_every_gpu_of_the_machine(tmp_path: Path) -> None:
    layout, run = Layout("test", tmp_path), {"steps": STEPS, "warmup_steps": 2, "checkpoint_every": 3}
    run |= {"batch": 4 * torch.cuda.device_count(), "heldout": 0.2, "datasets": {"synthetic": 1.0}}
    write_pool(layout, "synthetic", 24)
    params, path = small_params(tmp_path, **{f"pretrain__croco_body__{key}": value for key, value in run.items()})
    import_weights("random", layout, params.import_weights["random"])
    for package in ("models", "pipeline"):  # the command works where its code lies
        shutil.copytree(PROJECT / package, tmp_path / package)
    command = [sys.executable, "-m", "pipeline.training.pretrain", "--params", str(path), "--run", "croco_body"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("croco_body: 12 steps done") == 1
    assert layout.metrics("pretrain", "croco_body").exists()
