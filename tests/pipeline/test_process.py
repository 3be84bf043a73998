"""Several commands side by side: how many at a time, and how they end."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.layout import PROJECT
from pipeline.process import StopRequest, memory, plain_errors, side_by_side, workers


def work(folder: Path, number: int, seconds: float, beside: int = 0) -> None:
    """Leaves a file when it begins and one when it ends by itself, which it does not before `beside` have begun."""
    (folder / f"began-{number}").touch()
    end = time.monotonic() + 60
    while len(names(folder, "began")) < beside and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(seconds)
    (folder / f"ended-{number}").touch()


def fail() -> None:
    raise SystemExit(3)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def deaf(folder: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "began-deaf").touch()
    time.sleep(60)


def fail_beside(folder: Path) -> None:
    while not names(folder, "began"):
        time.sleep(0.01)
    raise SystemExit(3)


def tidy(folder: Path, number: int) -> None:
    """Ends well when it is told to stop, once there is a file that lets it."""

    def stop(*_: object) -> None:
        end = time.monotonic() + 60
        while not (folder / "let-end").exists() and time.monotonic() < end:
            time.sleep(0.01)
        (folder / f"ended-{number}").touch()
        sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    (folder / f"began-{number}").touch()
    time.sleep(60)


def describe(folder: Path, number: int) -> None:
    """Says what a worker is, and works on until it is told to end."""
    facts = {"pid": os.getpid(), "loaded": "wave" in sys.modules, "threads": os.environ["OMP_NUM_THREADS"]}
    aside = folder / f"aside-{number}"
    aside.write_text(json.dumps(facts))
    aside.replace(folder / f"began-{number}")
    time.sleep(60)


def names(folder: Path, what: str) -> set[str]:
    return {path.name for path in folder.glob(f"{what}-*")}


def test_all_run_and_no_more_at_once_than_asked_for(tmp_path: Path) -> None:
    side_by_side([partial(work, tmp_path, number, 0.3, beside=2) for number in range(3)], at_once=lambda: 2)
    began = sorted(path.stat().st_mtime for path in tmp_path.glob("began-*"))
    ended = sorted(path.stat().st_mtime for path in tmp_path.glob("ended-*"))
    assert began[1] < ended[0] <= began[2]
    assert len(ended) == 3


def test_more_run_at_once_as_soon_as_they_may(tmp_path: Path) -> None:
    """None of them ends before all have begun, and at first there is room for one."""
    jobs = [partial(work, tmp_path, number, 0.0, beside=3) for number in range(3)]
    began = time.monotonic()
    side_by_side(jobs, at_once=lambda: 3 if names(tmp_path, "began") else 1)
    assert time.monotonic() - began < 30
    assert len(names(tmp_path, "ended")) == 3


def test_after_one_that_fails_no_other_begins_and_those_that_run_are_ended(tmp_path: Path) -> None:
    slow, never = (partial(work, tmp_path, number, 60) for number in range(2))
    began = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        side_by_side([slow, fail, never], at_once=lambda: 2)
    assert caught.value.code == 3
    assert time.monotonic() - began < 30
    assert "began-1" not in names(tmp_path, "began")
    assert names(tmp_path, "ended") == set()


def test_one_that_is_killed_is_spoken_of_and_ends_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    slow = partial(work, tmp_path, 0, 60)
    with pytest.raises(SystemExit) as caught:
        side_by_side([slow, killed], at_once=lambda: 2)
    assert caught.value.code == 128 + signal.SIGKILL
    assert "ended by SIGKILL; if nobody sent it, the kernel did for want of memory" in caplog.text
    assert "The same command goes on" in caplog.text
    assert caplog.text.count("was ended by") == 1  # not of the one that was told to stop
    assert names(tmp_path, "ended") == set()


def signalled(folder: Path, *numbers: signal.Signals) -> subprocess.Popen[bytes]:
    """A program with two tidy jobs, which has got these signals, one shortly after the other."""
    parent = subprocess.Popen([sys.executable, "-m", "tests.pipeline.test_process", str(folder)], cwd=PROJECT)
    while len(names(folder, "began")) < 2:
        assert parent.poll() is None
        time.sleep(0.02)
    for number in numbers:
        parent.send_signal(number)
        time.sleep(0.1)
    return parent


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,)])
def test_a_signal_is_handed_on_and_waited_for(tmp_path: Path, numbers: tuple[signal.Signals, ...]) -> None:
    parent = signalled(tmp_path, *numbers)
    assert parent.poll() is None
    (tmp_path / "let-end").touch()
    assert parent.wait(30) == 128 + numbers[0]
    assert names(tmp_path, "ended") == {"ended-0", "ended-1"}


def test_who_presses_ctrl_c_twice_waits_for_nobody(tmp_path: Path) -> None:
    assert signalled(tmp_path, signal.SIGINT, signal.SIGINT).wait(30) == -signal.SIGINT
    assert names(tmp_path, "ended") == set()


def test_jobs_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-m", "tests.pipeline.test_process", str(tmp_path)], cwd=PROJECT)
    while len(names(tmp_path, "began")) < 2:
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    (tmp_path / "let-end").touch()
    end = time.monotonic() + 30
    while names(tmp_path, "ended") != {"ended-0", "ended-1"}:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["afresh", "late"])
def test_jobs_that_are_still_starting_when_their_parent_is_killed_never_begin(tmp_path: Path, how: str) -> None:
    parent = subprocess.Popen([sys.executable, "-m", "tests.pipeline.test_process", str(tmp_path), how], cwd=PROJECT)
    expected = 3 if how == "afresh" else 2  # one more keeps multiprocessing's books
    children: list[psutil.Process] = []
    while len(children) < expected:
        assert parent.poll() is None
        children = psutil.Process(parent.pid).children()
    kill(parent, children)
    assert names(tmp_path, "began") == set()


def test_workers_find_loaded_what_takes_long_and_end_with_the_process_that_is_killed(tmp_path: Path) -> None:
    mine = [sys.executable, "-m", "tests.pipeline.test_process", str(tmp_path), "workers"]
    environment = os.environ | {"OMP_NUM_THREADS": "3"}
    said = tmp_path / "said"
    with said.open("wb") as out:
        parent = subprocess.Popen(mine, cwd=PROJECT, env=environment, stderr=out)
    while len(names(tmp_path, "began")) < 2:
        assert parent.poll() is None
        time.sleep(0.02)
    found = [json.loads((tmp_path / f"began-{number}").read_text()) for number in range(2)]
    assert [one["threads"] for one in found] == ["1", "1"]
    assert all(one["loaded"] for one in found) == (sys.platform == "linux")
    started = psutil.Process(parent.pid).children(recursive=True)
    assert {one["pid"] for one in found} <= {process.pid for process in started}
    assert said.read_text() == ""
    kill(parent, started)


def kill(parent: subprocess.Popen[bytes], started: list[psutil.Process]) -> None:
    """And wait for the end of those it has started."""
    parent.kill()
    parent.wait()
    end = time.monotonic() + 30
    while any(runs(process) for process in started):
        assert time.monotonic() < end
        time.sleep(0.02)


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def be_late() -> None:
    """Copies of this process get to their job when it is dead, each later than the one before."""
    parent, copies = os.getpid(), 0

    def count() -> None:
        nonlocal copies
        copies += 1

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(0.01)
        time.sleep(copies)

    os.register_at_fork(before=count, after_in_child=wait)


def test_a_signal_that_comes_while_its_handler_is_being_installed_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    install, stop = signal.signal, StopRequest()
    coming = [signal.SIGINT]

    def just_before_a_signal(number: signal.Signals, handler: Any) -> Any:
        before = install(number, handler)
        if number in coming:
            coming.remove(number)
            signal.raise_signal(number)
        return before

    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", just_before_a_signal)
        with stop:
            pass
    assert stop.code == 128 + signal.SIGINT


def test_a_terminal_that_goes_asks_for_a_stop_unless_that_is_ignored() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, code in ((signal.SIG_DFL, 129), (signal.SIG_IGN, None)):
            signal.signal(signal.SIGHUP, handler)
            with StopRequest() as stop:
                signal.raise_signal(signal.SIGHUP)
            assert stop.code == code
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_user_can_mend_ends_a_command_with_one_line_that_says_how() -> None:
    with pytest.raises(SystemExit, match=r"^motions: bad file$"), plain_errors("motions"):
        raise ValueError("bad file")
    with (
        pytest.raises(SystemExit, match=r"motions: .*No space left.*Make room and run the same command again"),
        plain_errors("motions"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(SystemExit) as interrupted, plain_errors("motions"):
        raise KeyboardInterrupt
    assert interrupted.value.code == 130
    with pytest.raises(KeyError), plain_errors("motions"):  # a mistake of ours keeps its traceback
        raise KeyError("x")


@pytest.mark.parametrize("limit, expected", [("1048576\n", 1 << 20), ("max\n", None), (None, None)])
def test_memory_is_that_of_the_machine_or_of_its_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, expected: int | None
) -> None:
    monkeypatch.setattr("pipeline.process._MEMORY_OF_CONTAINER", tmp_path / "memory.max")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    assert memory() == (expected or psutil.virtual_memory().total)


if __name__ == "__main__":
    # Ctrl-C is ignored in what a script starts in its background, and that is handed down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "late" in sys.argv:
        be_late()
    if "workers" in sys.argv:
        with workers(2, ["wave"]) as pool:  # which nothing else here loads
            list(pool.map(partial(describe, Path(sys.argv[1])), range(2)))
    side_by_side([partial(tidy, Path(sys.argv[1]), number) for number in range(2)], lambda: 2, "afresh" not in sys.argv)


def test_who_does_not_stop_when_told_to_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.process.PATIENCE_S", 0.3)
    began = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        side_by_side([partial(deaf, tmp_path), partial(fail_beside, tmp_path)], at_once=lambda: 2)
    assert caught.value.code == 3
    assert time.monotonic() - began < 30
