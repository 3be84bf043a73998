"""Parameter groups and learning rates."""

from __future__ import annotations

from itertools import pairwise

import pytest
from torch import nn

from models import catalog
from models.encoder import encoder_of
from pipeline.training.optimizer import WarmupCosine, adamw, set_lr


def test_vectors_and_tokens_are_not_decayed() -> None:
    model = catalog.create("mae_mini_patch8_64")
    optimizer = adamw(model, lr=0.1, weight_decay=0.05)
    names = {id(value): name for name, value in model.named_parameters()}
    decayed = {names[id(v)] for group in optimizer.param_groups if group["weight_decay"] for v in group["params"]}
    assert decayed == {n for n, v in model.named_parameters() if n.endswith("weight") and "norm" not in n}
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


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup_steps"):
        WarmupCosine(1.0, 10, 10)
