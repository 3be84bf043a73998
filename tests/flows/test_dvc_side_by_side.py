"""`dvc repro` of a real repository: stages of few cores beside each other, all others alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

import psutil
import pytest
from dvc.repo import Repo
from networkx import DiGraph
from zc.lockfile import LockError, LockFile

from flows.dvc_side_by_side import _Run, leave_to_the_original
from pipeline.layout import PROJECT
from tests.flows.dvc_repository import make_repository
from tests.flows.server_talk import heed_interrupts, until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="nothing to run side by side on"
)

GRAPH = """
stages:
  first: {cmd: python work.py first, outs: [first]}
  small:
    foreach: [a, b, c, d]
    do:
      cmd: python work.py ${item} first
      meta: {cores: 1}
      deps: [first]
      outs: ["${item}"]
  half: {cmd: python work.py half first, meta: {cores: half}, deps: [first], outs: [half]}
  large: {cmd: python work.py large first, deps: [first], outs: [large]}
  last: {cmd: python work.py last a b c d half large, deps: [a, b, c, d, half, large], outs: [last]}
"""
# A small stage that finds itself the first waits for another: however slow the machine, two are seen beside each other.
WORK = """
import os, pathlib, sys, time
from pipeline.process import die_with_parent
die_with_parent()
name, *inputs = sys.argv[1:]
text = name + "".join(pathlib.Path(path).read_text() for path in inputs)
start, slow = time.time(), pathlib.Path(f"slow.{name}")
cores = len(os.sched_getaffinity(0))
pathlib.Path(f"line.{name}").write_text(os.environ.get("TQDM_POSITION", "none"))
pathlib.Path(f"aside.{name}").write_text(str(os.getpid()))
os.rename(f"aside.{name}", f"pid.{name}")
others = [pathlib.Path(f"pid.{other}") for other in "abcd" if name in "abcd" and other != name]
while others and not any(other.exists() for other in others) and time.time() < start + 60:
    time.sleep(0.05)
while time.time() < start + 0.5 or slow.exists():
    time.sleep(0.05)
if pathlib.Path(f"fail.{name}").exists():
    sys.exit(3)
pathlib.Path(name).write_text(f"({text})")
with open("times", "a") as file:
    print(name, start, time.time(), cores, file=file)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "work.py").write_text(WORK)
    make_repository(tmp_path)
    return tmp_path


def start(folder: Path, stderr: int = subprocess.STDOUT) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", str(PROJECT / "flows" / "dvc_command.py"), "repro"]
    # As without the environment activated.
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT), "DVC_NO_ANALYTICS": "1"}
    environment["PREFECT_HOME"] = str(folder / ".prefect")
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True,
        start_new_session=True, preexec_fn=heed_interrupts,
    )  # fmt: skip


def repro(folder: Path) -> tuple[int, str]:
    process = start(folder)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def times(folder: Path) -> dict[str, tuple[float, float, int]]:
    lines = (line.split() for line in (folder / "times").read_text().splitlines())
    return {name: (float(begin), float(end), int(cores)) for name, begin, end, cores in lines}


def results(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in ("first", "a", "b", "c", "d", "half", "large", "last")}


def test_small_stages_run_beside_each_other_and_large_ones_alone(repository: Path) -> None:
    status, output = repro(repository)
    assert status == 0, output
    assert results(repository)["last"] == "(last(a(first))(b(first))(c(first))(d(first))(half(first))(large(first)))"
    assert (repository / "line.a").read_text() == "none"  # no terminal
    seen = times(repository)
    small = [seen[name] for name in "abcd"]
    (first, first_end, _), (second, *_) = sorted(small)[:2]
    assert first <= second < first_end
    assert {cores for _, _, cores in sorted(small)[:2]} == {1}
    assert seen["half"][2] >= len(os.sched_getaffinity(0)) // 2
    begin, end, cores = seen["large"]
    assert cores == len(os.sched_getaffinity(0))
    assert all(other_end <= begin or end <= other for name, (other, other_end, _) in seen.items() if name != "large")
    assert seen["last"][0] >= max(end for name, (_, end, _) in seen.items() if name != "last")

    before = (repository / "dvc.lock").read_text()
    status, output = repro(repository)
    assert status == 0
    assert output.count("didn't change, skipping") == 8
    assert "up to date" in output
    assert (repository / "dvc.lock").read_text() == before


def test_the_last_that_runs_gets_the_cores_of_those_that_have_ended(repository: Path) -> None:
    every, slow = os.sched_getaffinity(0), repository / "slow.d"
    slow.touch()
    process = start(repository)
    try:
        until((repository / "pid.d").exists, 60)
        stage = psutil.Process(int((repository / "pid.d").read_text()))
        until(lambda: set(stage.cpu_affinity()) == every, 60)
        assert {*times(repository)} >= {"a", "b", "c", "half"}
    finally:
        slow.unlink()
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output


def test_what_most_others_wait_for_starts_first() -> None:
    class Stage:
        meta, repo = {"cores": "half"}, None

    plain, key, parser, crops = stages = [Stage() for _ in range(4)]
    graph = DiGraph([(parser, key), (crops, parser)])  # from a stage to what it needs
    graph.add_node(plain)
    run = _Run(stages, graph, range(4), lambda *_, **__: [], {})
    assert run._next() is key
    run._waiting.remove(key)
    assert run._next() is parser
    run._waiting.remove(parser)
    assert run._next() is plain


def test_progress_bars_of_stages_beside_each_other_have_a_line_each_on_a_terminal(repository: Path) -> None:
    terminal, inside = os.openpty()
    process = start(repository, stderr=inside)
    os.close(inside)
    Thread(target=lambda: [*iter(lambda: _read(terminal), b"")], daemon=True).start()
    process.communicate(timeout=120)
    assert process.returncode == 0
    lines = {name: (repository / f"line.{name}").read_text() for name in ("a", "b", "c", "d", "half", "large")}
    assert lines.pop("large") == "none"
    seen = times(repository)
    assert set(lines.values()) >= {"0", "1"}
    for name, line in lines.items():
        begin, end, _ = seen[name]
        beside = {lines[other] for other in lines if other != name and seen[other][0] < end and begin < seen[other][1]}
        assert line not in beside


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # its other end is closed
        return b""


def test_the_lock_that_a_copy_leaves_is_still_the_originals(repository: Path) -> None:
    with Repo(repository) as repo, repo.lock:
        copy = multiprocessing.get_context("fork").Process(target=leave_to_the_original, args=(repo.lock,))
        copy.start()
        copy.join(60)
        assert copy.exitcode == 0
        with pytest.raises(LockError):
            LockFile(str(repository / ".dvc" / "tmp" / "lock"))
        assert repo.lock.is_locked


def test_what_runs_beside_a_stage_that_fails_is_kept(repository: Path) -> None:
    (repository / "fail.a").touch()
    status, output = repro(repository)
    assert status != 0
    assert "failed to reproduce 'small@a'" in output
    assert "exited with 3" in output
    assert not (repository / "last").exists()
    done = set(times(repository)) - {"first", "half", "large"}
    assert "b" in done
    assert all(f"small@{name}:" in (repository / "dvc.lock").read_text() for name in done)

    (repository / "fail.a").unlink()
    (repository / "times").unlink()
    status, output = repro(repository)
    assert status == 0, output
    assert {"a", "last"} <= set(times(repository)) <= {"a", "b", "c", "d", "half", "last"} - done


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stages_end_with_the_command_and_run_again(repository: Path, number: signal.Signals) -> None:
    slow = [repository / f"slow.{name}" for name in "ab"]
    for path in slow:
        path.touch()
    process = start(repository)
    until(lambda: (repository / "pid.a").exists() and (repository / "pid.b").exists(), 120)
    workers = [psutil.Process(int((repository / f"pid.{name}").read_text())) for name in "ab"]
    if number == signal.SIGINT:  # as a terminal does
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    until(lambda: not any(worker.is_running() for worker in workers), 60)
    for path in slow:
        path.unlink()
    assert not (repository / "last").exists()

    status, output = repro(repository)
    assert status == 0, output
    assert results(repository)["last"] == "(last(a(first))(b(first))(c(first))(d(first))(half(first))(large(first)))"
