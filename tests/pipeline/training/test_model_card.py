"""The card of a checkpoint: whose images it was made from, those behind people included."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import catalog
from pipeline import run_spec
from pipeline.layout import PROJECT, Layout
from pipeline.training.model_card import pretrained_card


@pytest.mark.parametrize(
    ("run", "images"),
    [
        ("croco_body_view", "aist, coco"),
        ("study_looks_changed", "synthetic_looks, coco"),
        ("croco_hand", "interhand"),
        ("croco", "habitat"),
    ],
)
def test_photographs_behind_people_are_among_the_images_whose_terms_are_told(
    run: str, images: str, tmp_path: Path
) -> None:
    params = run_spec.load(PROJECT / "params.yaml")
    spec = params.pretrain[run]
    card = pretrained_card(
        run,
        params,
        Layout(params.scale, tmp_path),
        catalog.create(spec.network, seed=0),
        pairs={f"{dataset}/view": 3 for dataset in spec.datasets},
        facts={},
    )
    assert f"\n- {images}: stood in for" in card
