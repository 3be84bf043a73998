"""Batches of completion: what MAE makes of the pairs that CroCo is trained on."""

from __future__ import annotations

import pytest
import torch

from models import catalog
from models.completion import PatchWeights
from models.mae import MAE
from pipeline.layout import Layout
from pipeline.loading.pairs import Masking, PairPool, Source
from pipeline.training.completion import Completing, CrossCompletion, SingleCompletion
from pipeline.training.team import WHOLE, Share
from tests.pipeline.toy_world import write_pool

MASKING = Masking("uniform", 0.75, "max_n", min_human=8, patch=8)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> PairPool:
    layout = Layout("test", tmp_path_factory.mktemp("project"))
    write_pool(layout, "synthetic", 4)
    source = Source("synthetic", layout.pairs("body", "synthetic"), layout.crops("body", "synthetic"), 1.0)
    return PairPool([source], {"view": 1.0}, heldout=0.0, size=64, masking=MASKING, jitter=0.4, seed=0)


def test_mae_masks_each_image_of_a_pair_on_its_own_and_in_parts_as_in_the_whole(pool: PairPool) -> None:
    model = catalog.create("mae_mini_patch8_64")
    assert isinstance(model, MAE)
    task = SingleCompletion(model, pool, Completing(8, True, torch.device("cpu")), MASKING, seed=0)
    _, hidden, _ = task.batch(0)
    assert hidden.shape == (16, 64) and (hidden.sum(dim=1) == 48).all()
    assert len({*map(tuple, hidden.tolist()), *map(tuple, task.batch(1)[1].tolist())}) == 32
    parts = [task.batch(0, Share(index, 2))[1].chunk(2) for index in range(2)]
    assert torch.equal(torch.cat([torch.cat(part) for part in zip(*parts, strict=True)]), hidden)


@pytest.mark.parametrize("weights", [PatchWeights(background=0.25), PatchWeights(visible=1.0)])
@pytest.mark.parametrize("name", ["croco_mini_patch8_64", "mae_mini_patch8_64"])
def test_weights_of_patches_are_in_the_loss_and_its_mean_over_shares_is_that_of_the_whole(
    pool: PairPool, name: str, weights: PatchWeights
) -> None:
    model = catalog.create(name)

    def losses(weights: PatchWeights | None, share: Share = WHOLE) -> dict[str, float]:
        how = Completing(8, False, torch.device("cpu"), weights=weights)
        task = (
            SingleCompletion(model, pool, how, MASKING, seed=0)
            if isinstance(model, MAE)
            else CrossCompletion(model, pool, how)
        )
        return {key: value.item() for key, value in task.losses(task.batch(0, share)).items()}

    whole, plain = losses(weights), losses(None)
    halves = [losses(weights, Share(index, 2))["loss"] for index in range(2)]
    assert sum(halves) / 2 == pytest.approx(whole["loss"], rel=1e-5)
    if weights.visible or name.startswith("croco"):
        assert whole["loss"] != pytest.approx(plain["loss"], rel=1e-3)
    assert whole | {"loss": 0} == plain | {"loss": 0}, "the two parts stay what they are"
