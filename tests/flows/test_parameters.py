"""Mistakes in params.yaml or in the name of a scale are told in one line, by whatever command reads them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.pair import pair
from flows.parse import parse
from pipeline.layout import PROJECT


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code, beside a params.yaml with a value that can not be."""
    project = tmp_path_factory.mktemp("project")
    results = shutil.ignore_patterns("metrics", "histories", "out")
    for folder in ("flows", "models", "pipeline", "reports", "scales"):
        shutil.copytree(PROJECT / folder, project / folder, ignore=results)
    for file in ("params.yaml", "scales/gpu/params.yaml"):
        content = yaml.safe_load((PROJECT / file).read_text())
        content["body_mesh"]["batch"] = "many"
        (project / file).write_text(yaml.safe_dump(content))
    return project


def said(project: Path, *command: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "DVC", "PIPELINE"))}
    done = subprocess.run([sys.executable, "-m", *command], cwd=project, env=kept, capture_output=True, text=True)
    assert done.returncode == 1
    return done.stdout + done.stderr


@pytest.mark.parametrize("command", [["flows.reproduce"], ["flows.doctor"], ["flows.doctor", "--scale", "gpu"]])
def test_a_wrong_value_is_named(mistaken: Path, command: list[str]) -> None:
    output = said(mistaken, *command)
    assert "params.yaml" in output and "body_mesh.batch: " in output
    assert "Traceback" not in output


@pytest.mark.parametrize("given", [("3dpw", "my_videos"), (None, None)])
@pytest.mark.parametrize("flow", [parse, pair])
def test_a_data_set_and_own_videos_are_not_taken_together(flow: Any, given: tuple[str | None, str | None]) -> None:
    with pytest.raises(ValueError, match="either a dataset or a folder of videos"):
        flow.fn(*given)


def test_a_scale_that_is_not_there_is_named() -> None:
    output = said(PROJECT, "flows.doctor", "--scale", "nope")
    assert "scales/nope/params.yaml: no such params file" in output
    assert "Traceback" not in output
