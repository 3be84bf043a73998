"""Notes on where a number comes from: the commit, and what computed."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
import torch

from pipeline.training.provenance import git_revision, hardware


def git(folder: Path, *command: str) -> str:
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    return subprocess.run(["git", *who, *command], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("changed", "mark"),
    [
        (None, ""),
        ("reports/metrics/mini/body_mesh/random/0.json", ""),
        ("reports/histories/mini/body_mesh/random/0.csv", ""),
        ("dvc.lock", ""),
        ("scales/gpu/tables/dvc.lock", ""),
        ("models/croco.py", "+"),
        ("params.yaml", "+"),
        ("reports/rows.yaml", "+"),
    ],
)
def test_the_commit_is_marked_where_more_than_results_differs_from_it(
    tmp_path: Path, changed: str | None, mark: str
) -> None:
    assert git_revision(tmp_path) is None
    git(tmp_path, "init", "-q")
    for name in ("models/croco.py", "params.yaml", "reports/rows.yaml", *([changed] if changed else ())):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as it was")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "-q", "-m", "all")
    if changed:
        (tmp_path / changed).write_text("made again")
    assert git_revision(tmp_path) == git(tmp_path, "rev-parse", "HEAD").strip() + mark


def test_hardware_is_the_processor_or_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware().endswith(f", {torch.backends.cpu.get_cpu_capability()}")
    if platform.system() == "Linux":
        assert hardware().split(",")[0] in Path("/proc/cpuinfo").read_text() or platform.machine() in hardware()
    names = ["NVIDIA H200", "NVIDIA H200", "NVIDIA A100"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: names[number])
    assert hardware() == "2 x NVIDIA H200, 1 x NVIDIA A100"
