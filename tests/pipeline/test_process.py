"""Several commands side by side: how many at a time, and how they end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.layout import PROJECT
from pipeline.process import plain_errors, side_by_side

SLEEPER = """
import pathlib, sys, time
pathlib.Path(sys.argv[1]).touch()
time.sleep(float(sys.argv[3]))
pathlib.Path(sys.argv[2]).touch()
"""


def commands(folder: Path, count: int, seconds: float = 0.0) -> list[list[str]]:
    """Each leaves a file when it begins and one when it has ended by itself."""
    files = [(str(folder / f"began-{i}"), str(folder / f"ended-{i}")) for i in range(count)]
    return [[sys.executable, "-c", SLEEPER, *each, str(seconds)] for each in files]


def names(folder: Path, what: str) -> set[str]:
    return {path.name for path in folder.glob(f"{what}-*")}


def test_all_run_and_no_more_at_once_than_asked_for(tmp_path: Path) -> None:
    side_by_side(commands(tmp_path, 3, 0.5), at_once=2)
    began = sorted(path.stat().st_mtime for path in tmp_path.glob("began-*"))
    ended = sorted(path.stat().st_mtime for path in tmp_path.glob("ended-*"))
    assert began[1] < ended[0] <= began[2]
    assert len(ended) == 3


def test_after_one_that_fails_no_other_begins_and_those_that_run_are_ended(tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    slow, never = commands(tmp_path, 2, 60)
    began = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        side_by_side([slow, failing, never], at_once=2)
    assert caught.value.code == 3
    assert time.monotonic() - began < 30
    assert "began-1" not in names(tmp_path, "began")
    assert names(tmp_path, "ended") == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_and_waited_for(tmp_path: Path, number: signal.Signals) -> None:
    tidy = (
        "import pathlib, signal, sys, time\n"
        "def stop(*_):\n    time.sleep(0.3); pathlib.Path(sys.argv[2]).touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\npathlib.Path(sys.argv[1]).touch()\ntime.sleep(60)"
    )
    children = [[sys.executable, "-c", tidy, *command[3:]] for command in commands(tmp_path, 2)]
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from pipeline.process import side_by_side; side_by_side({children!r}, 2)",
        ],
        cwd=PROJECT,
        env=os.environ,
    )
    while len(names(tmp_path, "began")) < 2:
        assert parent.poll() is None
        time.sleep(0.02)
    parent.send_signal(number)
    assert parent.wait(30) == 128 + number
    assert names(tmp_path, "ended") == {"ended-0", "ended-1"}


def test_what_a_user_can_mend_ends_a_command_with_one_line_that_says_how() -> None:
    with pytest.raises(SystemExit, match=r"^motions: bad file$"), plain_errors("motions"):
        raise ValueError("bad file")
    with (
        pytest.raises(SystemExit, match=r"motions: .*No space left.*Make room and run the same command again"),
        plain_errors("motions"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(KeyError), plain_errors("motions"):  # a mistake of ours keeps its traceback
        raise KeyError("x")
