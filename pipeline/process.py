"""A long process as a good child: it dies with the command that started it, and stops between two steps.
And a good parent: several commands side by side that stop when it is told to. What its user can mend ends it
with a line that says so.

`dvc repro` may be killed while a stage runs. An orphaned stage would go on and overwrite what
a later run has written, so every stage asks for a signal at its parent's death. One that somebody starts
by hand, in the background, outlives the shell.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import psutil

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1

PARENT = "PIPELINE_PARENT"
"""Environment variable by which a process says that a command it starts ends with it: its own number."""
_STARTERS = ("DVC_STAGE", "TORCHELASTIC_RUN_ID", PARENT)
"""Set by DVC, torchrun and ourselves for what they start."""

PATIENCE_S = 300.0
"""Longer than any step takes with the saving of its state."""


def die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies (Linux; elsewhere nothing), if that is DVC,
    torchrun or a process of this project."""
    is_copy = multiprocessing.parent_process() is not None
    if not sys.platform.startswith("linux") or not (is_copy or any(name in os.environ for name in _STARTERS)):
        return
    parent = int(os.environ.pop(PARENT, os.getppid()))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        logger.warning("no signal at the parent's death: %s", os.strerror(ctypes.get_errno()))
    elif os.getppid() != parent:  # it died before the request
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def plain_errors(command: str) -> Iterator[None]:
    """Around a command: input that can not be used, or what the system refuses, ends it with one line; Ctrl-C just
    ends it."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise SystemExit(f"{command}: {plain(error)}") from error
    except KeyboardInterrupt:  # whoever pressed it does not ask where
        raise SystemExit(128 + signal.SIGINT) from None


def plain(error: Exception) -> str:
    """What an error says, and what to do where the system's own words leave that out."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error}. Make room and run the same command again: what is finished is kept."
    return str(error)


class StopRequest:
    """Turns SIGTERM, SIGINT and SIGHUP into a wish to stop, to be asked for between two steps.

    Use as a context manager; `code` is None, or what a process ended by that signal exits with (143, 130, 129). Further
    SIGTERMs are let pass: whoever ends a group of processes sends one to each, and each gets another at its parent's
    death, in the middle of saving. A second Ctrl-C acts as if nothing had been installed. SIGHUP, which a terminal
    sends when it goes, stays ignored where it is (`nohup`).
    """

    def __init__(self) -> None:
        self.code: int | None = None

    def __enter__(self) -> Self:
        # All of it before the first is installed: one may come at once.
        self._before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        if self._before[signal.SIGHUP] == signal.SIG_IGN:
            del self._before[signal.SIGHUP]
        for number in self._before:
            signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.code = self.code or 128 + number
        if number == signal.SIGINT:
            signal.signal(number, self._before[signal.SIGINT])


_sharers = 1


def num_cores() -> int:
    """Processor cores that this process may use, or its part of them; see `share_cores`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _sharers)


def share_cores(processes: int) -> None:
    """From here on this process is one of so many that share the cores equally."""
    global _sharers
    _sharers = processes


_MEMORY_OF_CONTAINER = Path("/sys/fs/cgroup/memory.max")
"""Of Linux's control groups, version 2."""


def memory() -> int:
    """Bytes of memory that this machine has, or its container may use."""
    there = psutil.virtual_memory().total
    try:
        return min(there, int(_MEMORY_OF_CONTAINER.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return there


ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS"), "1")
"""What numerical libraries read when they are loaded, and Mesa at its first OpenGL context."""


def workers(count: int, loaded: Sequence[str]) -> ProcessPoolExecutor:
    """Processes of one core each, which end with this one.

    Neither an OpenGL context nor the threads of this process survive a fork. On Linux they are copies of a process
    that has loaded the modules `loaded` and done nothing else: libraries take longer to load than many a job takes,
    and hundreds of megabytes. The first call of a process says which. Elsewhere each loads what it needs.
    """
    if sys.platform != "linux":
        return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_use_one_core)
    context = multiprocessing.get_context("forkserver")
    # Each process runs the command's module again under another name, unless it is a package's `__main__`: soon done
    # once what it imports is loaded.
    command = getattr(sys.modules["__main__"], "__spec__", None)
    again = [command.name] if command and not command.name.endswith("__main__") else []
    context.set_forkserver_preload([*loaded, *again])
    # Which it then finds loaded, and Python warns of that.
    quiet = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore::RuntimeWarning:runpy"]))
    with _environment(ONE_CORE | {"PYTHONWARNINGS": quiet}):
        forkserver.ensure_running()
    return ProcessPoolExecutor(count, context, initializer=_use_one_core)


def _use_one_core() -> None:
    # The kernel's signal would not come: this process keeps the one it is a copy of alive, and that is its parent.
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    os.environ |= ONE_CORE
    import cv2

    cv2.setNumThreads(1)


def _end_with(starter: BaseProcess) -> None:
    multiprocessing.connection.wait([starter.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ |= changes
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def side_by_side(jobs: Sequence[Callable[[], None]], at_once: Callable[[], int], copied: bool = True) -> None:
    """Run jobs in processes of their own, `at_once()` of them at a time, to their end.

    When one fails, or this process gets SIGTERM or Ctrl-C, those that run get SIGTERM and their end is waited for;
    who does not answer, such as a process that waits on a GPU for one that is gone, is killed after `PATIENCE_S`,
    or at once at a second Ctrl-C.

    Args:
        at_once: asked for again and again: a stage gets the cores of those beside it when they have ended.
        copied: on Linux a process is a copy of this one: what is loaded by now need not be loaded again. False = it
            starts afresh, as everywhere else, and the jobs are pickled: CUDA works in no copy of a process that has
            so much as looked for a GPU.

    Raises SystemExit: with the status of the job that failed, 128 and the number of the signal that ended it, which the
        log says, or with 143 or 130 after a signal to this process.
    """
    start: Any = multiprocessing.get_context("fork" if copied and sys.platform == "linux" else "spawn")
    waiting, running = list(jobs), list[BaseProcess]()
    with StopRequest() as stop:
        try:
            while (waiting or running) and stop.code is None:
                while waiting and len(running) < at_once():
                    process = start.Process(target=_job, args=(waiting.pop(0),))
                    process.start()
                    running.append(process)
                multiprocessing.connection.wait([process.sentinel for process in running], timeout=0.5)
                for process in [process for process in running if not process.is_alive()]:
                    running.remove(process)
                    if process.exitcode and stop.code is None:
                        stop.code = _status(process.exitcode)
            for process in running:
                process.terminate()
            for process in running:
                process.join(PATIENCE_S)
        finally:
            for process in running:
                process.kill()
                process.join()
    if stop.code is not None:
        raise SystemExit(stop.code)


def _status(exit_code: int) -> int:
    """What a shell makes of the end of a process, which is said where a signal was it: nobody else tells."""
    if exit_code > 0:
        return exit_code
    number = -exit_code
    why = "; if nobody sent it, the kernel did for want of memory" if number == signal.SIGKILL else ""
    logger.error(
        "a process was ended by %s%s. The same command goes on from the last state", signal.Signals(number).name, why
    )
    return 128 + number


def _job(job: Callable[[], None]) -> None:
    # A session of its own: Ctrl-C comes through the parent, once.
    os.setsid()
    # A copy has the parent's answer to signals, too.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    die_with_parent()
    parent = multiprocessing.parent_process()
    # It may have died before the request, while this one was starting. Its sentinel does not tell: a copy that was
    # made later holds the other end.
    if parent is not None and os.getppid() == parent.pid:
        job()
