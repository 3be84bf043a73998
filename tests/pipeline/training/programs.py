"""Starting, awaiting and comparing the programs of toy_runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.layout import PROJECT


def start(*arguments: object, **environment: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.pipeline.training.toy_runs", *map(str, arguments)]
    settings = os.environ | {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in environment.items()}
    return subprocess.Popen(
        command, cwd=PROJECT, env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def start_team(size: int, *arguments: object) -> list[subprocess.Popen[str]]:
    """The same command `size` times, in the environment that torchrun makes."""
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port = some.getsockname()[1]
    common = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(*arguments, RANK=rank, LOCAL_RANK=rank, **common) for rank in range(size)]


def end(team: list[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    """Status and error output of each, after its end."""
    errors = [process.communicate(timeout=120)[1] for process in team]
    return [process.returncode for process in team], errors


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)


def states(scratch: Path) -> list[Path]:
    return sorted(scratch.glob("step-*.pt"))


def last_step(scratch: Path) -> int:
    """The step of the newest state, 0 before the first."""
    return max((int(path.name.split("-")[1].split(".")[0]) for path in states(scratch)), default=0)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def loss_curve(scratch: Path) -> list[float]:
    return [float(line.split(",")[2]) for line in (scratch / "history.csv").read_text().splitlines()[1:]]
