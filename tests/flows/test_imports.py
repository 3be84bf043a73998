"""What a stage loads before it works: `dvc repro` starts some thirty of them, and torch takes seconds each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "statement",
    [
        "from flows import render; from pipeline import datasets; datasets.names()",
        "from flows import index",
        "from flows import pair",
    ],
)
def test_a_stage_that_computes_with_no_tensor_loads_no_torch(statement: str) -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", f"{statement}; import sys; print('torch' in sys.modules)"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stdout.strip() == "False"


def test_what_prefect_keeps_stays_in_the_project(tmp_path: Path) -> None:
    of_prefect = [name for name in os.environ if name.startswith("PREFECT")]
    environment = {key: value for key, value in os.environ.items() if key not in of_prefect} | {"HOME": str(tmp_path)}
    shown = subprocess.run(
        [sys.executable, "-c", "from flows import index; import prefect.settings as s; print(s.PREFECT_HOME.value())"],
        cwd=PROJECT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.strip() == str(PROJECT / ".prefect")
    assert not (tmp_path / ".prefect").exists()


def test_the_body_model_is_there_for_whoever_asks() -> None:
    from pipeline import bodies
    from pipeline.bodies.model import BodyModel

    assert bodies.BodyModel is BodyModel
    with pytest.raises(AttributeError, match="no attribute 'nobody'"):
        _ = bodies.nobody
