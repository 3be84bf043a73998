"""Stages of `dvc repro` that leave cores free run side by side; DVC by itself runs one stage at a time.

Such a stage says `meta: {cores: 1}` or `meta: {cores: half}` in dvc.yaml, and gets as many, or all while it is the only
one. All others have the machine for themselves. A stage runs in a copy of DVC's process, which is to DVC as if somebody
had started another `dvc repro`: its locks see to it that two of them on different stages do not meet.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import psutil
from dvc.exceptions import ReproductionError
from dvc.log import logger as dvc_logger
from networkx import ancestors

from pipeline.process import die_with_parent

if TYPE_CHECKING:
    from dvc.stage import Stage
    from networkx import DiGraph

    Reproduce = Callable[..., list[Stage]]

logger = dvc_logger.getChild("dvc.side_by_side")

_OTHER_WAYS = ("dry", "interactive", "force_downstream", "allow_missing", "pull")
"""Options of `dvc repro` for which it goes through the stages one after the other as ever."""


def side_by_side(one_by_one: Reproduce) -> Reproduce:
    """DVC's function that goes through the stages of a `dvc repro`, but several of few cores at the same time."""

    def reproduce(stages: list[Stage], graph: DiGraph | None = None, **options: Any) -> list[Stage]:
        cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        plain = options.get("on_error", "fail") == "fail" and not any(options.get(name) for name in _OTHER_WAYS)
        if graph is None or len(cores) < 2 or not plain or all(_share(stage, len(cores)) is None for stage in stages):
            return one_by_one(stages, graph=graph, **options)
        return _Run(stages, graph, cores, one_by_one, options).to_the_end()

    return reproduce


def _share(stage: Stage, cores: int) -> int | None:
    """How many of the cores a stage gets; None = it has the machine for itself."""
    return {1: 1, "half": cores // 2}.get((getattr(stage, "meta", None) or {}).get("cores"))


def _give(process: BaseProcess | psutil.Process, cores: list[int]) -> None:
    """Let a process, its threads and what it has started use these cores; what begins meanwhile inherits them."""
    with suppress(psutil.NoSuchProcess):
        there = psutil.Process(process.pid)
        for thread in there.threads():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, cores)
        for child in there.children():
            _give(child, cores)


def leave_to_the_original(lock: Any) -> None:
    """In the copy of a process that holds a lock of DVC's: from here on the copy does not, and the original still does.

    Unlocking would end it for both, since their descriptors are of one open file.
    """
    lock._lock._fp.close()
    lock._lock = None


class _Run:
    """Stages that wait and stages that run; DVC's lock on the repository is held but for the waiting."""

    def __init__(
        self,
        stages: Sequence[Stage],
        graph: DiGraph,
        cores: Sequence[int],
        one_by_one: Reproduce,
        options: dict[str, Any],
    ) -> None:
        # First what most others wait for: what nobody waits for fills the cores at the end.
        self._waiting = sorted(stages, key=lambda stage: -len(ancestors(graph, stage)))
        self._graph, self._idle = graph, list(cores)
        self._shares = {stage: _share(stage, len(cores)) for stage in stages}
        self._one_by_one, self._options = one_by_one, options
        self._running: dict[BaseProcess, tuple[Stage, list[int], int]] = {}
        self._ran: list[Stage] = []
        self._failed: list[Stage] = []
        self._repo = stages[0].repo

    def to_the_end(self) -> list[Stage]:
        """The stages that ran. Raises ReproductionError when one failed, after the end of those beside it."""
        while self._waiting or self._running:
            stage = self._next()
            if stage is None:
                self._wait_for_one()
            elif (share := self._shares[stage]) is None:
                self._ran += self._one_by_one([stage], graph=self._graph, **self._options)
                self._waiting.remove(stage)
            else:
                if self._options.get("force") or stage.changed():
                    self._start(stage, share)
                else:
                    logger.info("Stage '%s' didn't change, skipping", stage.addressing)
                self._waiting.remove(stage)
            if self._failed and not self._running:
                names = ", ".join(f"'{stage.addressing}'" for stage in self._failed)
                raise ReproductionError(f"failed to reproduce {names}")
        return self._ran

    def _next(self) -> Stage | None:
        """What can start now: beside others what the idle cores are enough for, on the idle machine what needs all."""
        if self._failed:
            return None
        unfinished = {*self._waiting, *(stage for stage, _, _ in self._running.values())}
        ready = [stage for stage in self._waiting if unfinished.isdisjoint(self._graph.successors(stage))]
        large = [stage for stage in ready if self._shares[stage] is None]
        if large and not self._running:
            return large[0]
        return next((stage for stage in ready if (self._shares[stage] or sys.maxsize) <= len(self._idle)), None)

    def _start(self, stage: Stage, share: int) -> None:
        # A copy must not go on with the database connections of the original.
        self._repo._reset()
        cores, self._idle = self._idle[:share], self._idle[share:]
        lines = {line for _, _, line in self._running.values()}
        line = next(line for line in itertools.count() if line not in lines)
        process = multiprocessing.get_context("fork").Process(target=self._work, args=(stage, line))
        process.start()
        _give(process, cores)  # it waits for the lock of the repository
        self._running[process] = stage, cores, line

    def _work(self, stage: Stage, line: int) -> None:
        """In the copy. On a terminal its progress bars have a line of their own, so many below the first."""
        die_with_parent()
        if sys.stderr.isatty():
            os.environ["TQDM_POSITION"] = str(line)
        leave_to_the_original(self._repo.lock)
        try:
            with self._repo.lock:
                self._one_by_one([stage], graph=self._graph, **self._options)
        except Exception:  # shown as DVC shows what ends it
            logger.exception("")
            sys.exit(1)

    def _wait_for_one(self) -> None:
        if len(self._running) == 1 and self._idle:
            # Whatever could begin beside it has begun: the idle cores are of no use to anybody else before its end.
            ((process, (_, cores, _)),) = self._running.items()
            cores += self._idle
            self._idle = []
            _give(process, cores)
        with self._unlocked():
            wait([process.sentinel for process in self._running])
        for process in [process for process in self._running if not process.is_alive()]:
            stage, cores, _ = self._running.pop(process)
            self._idle += cores
            (self._failed if process.exitcode else self._ran).append(stage)

    @contextmanager
    def _unlocked(self) -> Iterator[None]:
        self._repo._reset()
        self._repo.lock.unlock()
        # As in DVC while a command runs: Ctrl-C goes to the command, whose end is waited for.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, handler)
            self._repo.lock.lock()
