"""A long process as a good child: it dies with the command that started it, and stops between two steps.
And a good parent: several commands side by side that stop when it is told to. What its user can mend ends it
with a line that says so.

`dvc repro` may be killed while a stage runs. An orphaned stage would go on and overwrite what
a later run has written, so every training stage asks for a signal at its parent's death.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies (Linux; elsewhere nothing)."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        logger.warning("no signal at the parent's death: %s", os.strerror(ctypes.get_errno()))
    elif os.getppid() != parent:  # it died before the request
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def plain_errors(command: str) -> Iterator[None]:
    """Around a command: input that can not be used, or what the system refuses, ends it with one line."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise SystemExit(f"{command}: {plain(error)}") from error


def plain(error: Exception) -> str:
    """What an error says, and what to do where the system's own words leave that out."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error}. Make room and run the same command again: what is finished is kept."
    return str(error)


class StopRequest:
    """Turns SIGTERM and SIGINT into a wish to stop, to be asked for between two steps.

    Use as a context manager; `code` is None, or what a process ended by that signal
    exits with (143, 130). A second signal acts as if nothing had been installed.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.code: int | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.code = 128 + number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(commands: Sequence[Sequence[str]], at_once: int) -> None:
    """Run commands, `at_once` of them at a time, to their end.

    When one fails, or this process gets SIGTERM or Ctrl-C, those that run get SIGTERM and their end is waited for.

    Raises SystemExit: with the status of the command that failed, or with 143 or 130 after a signal.
    """
    waiting, running = list(commands), dict[int, subprocess.Popen[bytes]]()
    with StopRequest() as stop:
        while (waiting or running) and stop.code is None:
            for place in range(at_once):
                if waiting and place not in running:
                    running[place] = _start(waiting.pop(0), place)
            time.sleep(0.05)
            ended = {place: status for place in running if (status := running[place].poll()) is not None}
            for place, status in ended.items():
                del running[place]
                stop.code = stop.code or status or None
    for process in running.values():
        process.terminate()
    for process in running.values():
        process.wait()
    if stop.code is not None:
        raise SystemExit(stop.code)


def _start(command: Sequence[str], place: int) -> subprocess.Popen[bytes]:
    # On a terminal each has a line of its own for its progress bar (read by tqdm).
    lines = {"TQDM_POSITION": str(place)} if sys.stderr.isatty() else {}
    # A session of its own: Ctrl-C comes to it through us, once; a second signal would end it in mid-step.
    return subprocess.Popen(command, env={**os.environ, **lines}, start_new_session=True)
