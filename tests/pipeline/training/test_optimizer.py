"""Parameter groups and learning rates."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from models import catalog
from models.encoder import encoder_of
from pipeline import run_spec
from pipeline.training.optimizer import Muon, WarmupCosine, adamw, build, orthogonal, set_lr


def test_vectors_are_not_decayed() -> None:
    model = catalog.create("mae_mini_patch8_64")
    optimizer = adamw(model, lr=0.1, weight_decay=0.05)
    names = {id(value): name for name, value in model.named_parameters()}
    decayed = {names[id(v)] for group in optimizer.param_groups if group["weight_decay"] for v in group["params"]}
    assert decayed == {n for n, v in model.named_parameters() if not n.endswith("bias") and "norm" not in n}
    assert decayed >= {"cls_token", "mask_token", "patch_embed.proj.weight"}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)


@pytest.mark.parametrize("network", ["croco_mini_patch8_64", "mae_mini_patch8_64"])
def test_early_layers_learn_more_slowly(network: str) -> None:
    model = nn.Module()
    model.encoder = encoder_of(catalog.create(network))
    model.head = nn.Linear(96, 3)
    optimizer = adamw(model, lr=1.0, weight_decay=0.05, encoder_prefix="encoder.", layer_decay=0.5)
    set_lr(optimizer, 2.0)
    names = {id(value): name for name, value in model.named_parameters()}
    rate = {names[id(v)]: group["lr"] for group in optimizer.param_groups for v in group["params"]}
    blocks = "enc_blocks" if network.startswith("croco") else "blocks"
    assert rate["head.weight"] == 2.0
    assert rate[f"encoder.{blocks}.3.mlp.fc1.weight"] == 1.0
    assert rate[f"encoder.{blocks}.0.norm1.bias"] == 0.125
    assert rate["encoder.patch_embed.proj.weight"] == 0.0625
    assert rate["encoder.enc_norm.weight" if blocks == "enc_blocks" else "encoder.norm.weight"] == 2.0


def test_the_rate_rises_linearly_then_falls_to_nothing() -> None:
    rates = [WarmupCosine(1.0, 100, 10).lr(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_a_run_may_end_on_the_way_down() -> None:
    whole, half = WarmupCosine(1.0, 100, 10), WarmupCosine(1.0, 50, 10, zero_at=100)
    assert [half.lr(step) for step in range(50)] == [whole.lr(step) for step in range(50)]
    assert half.lr(49) > 0.5


def test_a_schedule_that_does_not_fit_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup_steps"):
        WarmupCosine(1.0, 10, 10)
    with pytest.raises(ValueError, match="before the end at 10"):
        WarmupCosine(1.0, 10, 2, zero_at=9)


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8)])
def test_orthogonal_brings_singular_values_near_one_and_keeps_their_directions(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    assert values.min() / values.norm() > 0.005  # smaller ones need more steps
    found = u.T @ orthogonal(matrix) @ v.T
    assert (found.diagonal() - 1).abs().max() < 0.35
    torch.testing.assert_close(found, torch.diag(found.diagonal()), atol=1e-3, rtol=0)


def test_muon_steps_kernels_by_the_spectral_norm_and_vectors_as_adam() -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(6, 4, 3)
    twin = nn.Conv2d(6, 4, 3)
    twin.load_state_dict(module.state_dict())
    muon = Muon(module, lr=0.02, vector_scale=0.5)
    adam = torch.optim.Adam([twin.bias], lr=0.01, betas=(0.95, 0.999))
    before = module.weight.detach().clone()
    for scale in (1.0, 1000.0, 1e-3):  # Muon does not heed the size of a gradient
        x = torch.randn(2, 6, 8, 8)
        module.zero_grad()
        (module(x).square().mean() * scale).backward()
        muon.step()
        if scale == 1.0:
            change = (module.weight.detach() - before).reshape(4, -1)
            assert torch.linalg.svdvals(change / 0.02).numpy() == pytest.approx(1.0, abs=0.35)
        twin.bias.grad = module.bias.grad.clone()
        adam.step()
    torch.testing.assert_close(module.bias, twin.bias)


@pytest.mark.parametrize("shape", [(12, 4), (4, 12), (8, 8)])
def test_muon_steps_matrices_as_torchs_own_does(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(4, *shape, generator=generator)
    steps = []
    for make in (Muon, lambda module, lr: torch.optim.Muon(module.parameters(), lr=lr, weight_decay=0.0)):
        module = nn.Linear(shape[1], shape[0], bias=False)
        module.load_state_dict({"weight": start})
        optimizer = make(module, lr=0.02)
        for gradient in gradients:
            module.weight.grad = gradient.clone()
            optimizer.step()
        steps.append((module.weight.detach() - start) / 0.02)
    torch.testing.assert_close(*steps, atol=0.08, rtol=0)  # torch's multiplies in bfloat16


def test_muon_goes_on_from_a_saved_state_as_if_never_stopped() -> None:
    def steps(module: nn.Module, optimizer: Muon, seeds: range) -> None:
        for seed in seeds:
            x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            module(x).square().mean().backward()
            optimizer.step()

    def fresh() -> tuple[nn.Module, Muon]:
        torch.manual_seed(1)
        module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1))
        return module, Muon(module, lr=0.02)

    whole, optimizer = fresh()
    steps(whole, optimizer, range(6))
    first, optimizer = fresh()
    steps(first, optimizer, range(3))
    state, module_state = optimizer.state_dict(), first.state_dict()
    second, optimizer = fresh()
    second.load_state_dict(module_state)
    optimizer.load_state_dict(state)
    steps(second, optimizer, range(3, 6))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_the_params_file_describes_the_optimizer() -> None:
    module = nn.Sequential(nn.Linear(4, 4))
    assert isinstance(build(run_spec.Muon(name="muon", lr=0.02), module), Muon)
    optimizer = build(run_spec.AdamW(name="adamw", lr=0.1, weight_decay=0.05, betas=(0.9, 0.95)), module)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.9, 0.95)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}
