"""Batches of completion: what MAE makes of the pairs that CroCo is trained on."""

from __future__ import annotations

from pathlib import Path

import torch

from models import catalog
from models.mae import MAE
from pipeline.layout import Layout
from pipeline.loading.pairs import Masking, PairPool, Source
from pipeline.training.completion import Completing, SingleCompletion
from pipeline.training.team import Share
from tests.pipeline.toy_world import write_pool


def test_mae_masks_each_image_of_a_pair_on_its_own_and_in_parts_as_in_the_whole(tmp_path: Path) -> None:
    layout = Layout("test", tmp_path)
    write_pool(layout, "synthetic", 4)
    source = Source("synthetic", layout.pairs("body", "synthetic"), layout.crops("body", "synthetic"), 1.0)
    masking = Masking("uniform", 0.75, "max_n", min_human=8, patch=8)
    pool = PairPool([source], {"view": 1.0}, heldout=0.0, size=64, masking=masking, jitter=0.4, seed=0)
    model = catalog.create("mae_mini_patch8_64")
    assert isinstance(model, MAE)
    task = SingleCompletion(model, pool, Completing(8, True, torch.device("cpu")), masking, seed=0)
    _, hidden, _ = task.batch(0)
    assert hidden.shape == (16, 64) and (hidden.sum(dim=1) == 48).all()
    assert len({*map(tuple, hidden.tolist()), *map(tuple, task.batch(1)[1].tolist())}) == 32
    parts = [task.batch(0, Share(index, 2))[1].chunk(2) for index in range(2)]
    assert torch.equal(torch.cat([torch.cat(part) for part in zip(*parts, strict=True)]), hidden)
