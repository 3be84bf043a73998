"""A long process as a good child: it dies with the command that started it, and stops between two steps.

`dvc repro` may be killed while a stage runs. An orphaned stage would go on and overwrite what
a later run has written, so every training stage asks for a signal at its parent's death.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
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
