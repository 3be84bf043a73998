"""Starting, awaiting and comparing the programs of toy_runs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pipeline.layout import PROJECT
from tests.pipeline.training import toy_runs


class Program:
    """A run of toy_runs in a process of its own, with a variable or more added to its environment.

    The processes are copies of one that has loaded torch and the training once, and done nothing else: loading takes
    each several times as long as its run.
    """

    _template = multiprocessing.get_context("forkserver")
    _template.set_forkserver_preload(["tests.pipeline.training.toy_runs", "pipeline.training.pretrain"])

    def __init__(self, *arguments: object, **environment: object) -> None:
        descriptor, name = tempfile.mkstemp(prefix="said-")
        os.close(descriptor)
        self._said = Path(name)
        variables = {name: str(value) for name, value in environment.items()}
        self._process = self._template.Process(target=_run, args=(self._said, variables, *map(str, arguments)))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def runs(self) -> bool:
        return self._process.is_alive()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> tuple[int, str]:
        """Its status, minus the number of the signal that killed it, and what it has said; after its end."""
        self._process.join(120)
        code = self._process.exitcode
        assert code is not None, "it goes on and on"
        said = self._said.read_text()
        self._said.unlink()
        return code, said


def _run(said: Path, environment: dict[str, str], *arguments: str) -> None:
    with said.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= environment
    os.chdir(PROJECT)
    toy_runs.main(*arguments)


def start_team(size: int, *arguments: object) -> list[Program]:
    """The same run `size` times, in the environment that torchrun makes."""
    return start_as_team([arguments] * size)


def start_as_team(runs: Sequence[Sequence[object]]) -> list[Program]:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port = some.getsockname()[1]
    size = len(runs)
    common = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [Program(*arguments, RANK=rank, LOCAL_RANK=rank, **common) for rank, arguments in enumerate(runs)]


def end(team: list[Program]) -> tuple[list[int], list[str]]:
    """Status of each, and what it has said, after its end."""
    codes, said = zip(*(program.end() for program in team), strict=True)
    return list(codes), list(said)


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
