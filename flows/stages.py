"""`dvc repro` as a child process: one at a time per checkout, its output line by line.

Shell (`make repro`) and UI (`flows.reproduce`) come through here, so that the second of two
waits for the first and says so. What a stage writes is written by DVC's command for it and by
nothing else: a flow of a tracked stage that is started from the UI runs its stage.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from flows.parameters import ROOT_PARAMS
from pipeline.layout import PROJECT
from pipeline.process import PARENT, PATIENCE_S, StopRequest

RUNNING = re.compile(r"Running stage '([^']+)'")
"""In the line that DVC prints before it runs a stage."""
_LINES = (
    (RUNNING, "ran"),
    (re.compile(r"Stage '([^']+)' didn't change"), "up to date"),
    (re.compile(r"Stage '([^']+)' is cached"), "from the cache"),
    (re.compile(r"failed to reproduce '([^']+)'"), "failed"),
)

# -P: the folder of the command, which Python would look into first, shadows no package.
_DVC = [sys.executable, "-P", str(Path(__file__).with_name("dvc_command.py"))]

Say = Callable[[str], None]


class ReproError(RuntimeError):
    """`dvc repro` did not end well; its last lines are in the message."""


def dvc_file(params_file: str, tables: bool = False) -> str:
    """The dvc.yaml that reads a params file, as seen from the project root."""
    folder = Path(params_file).parent / "tables" if tables else Path(params_file).parent
    return (folder / "dvc.yaml").as_posix()


def find(which: Sequence[str], params_file: str, kinds: tuple[str, ...] = ("",)) -> list[str]:
    """What `dvc repro` calls stages of a scale, in whichever of its two graphs each is.

    Args:
        which: stages: one (`pretrain@croco_body`), or all of a kind (`pretrain`).
        kinds: how the names of those begin that may be meant.

    Raises ValueError naming the one that is in neither graph, and what there is.
    """
    known = _stages(params_file, kinds)
    for stage in which:
        if stage not in known:
            files = f"{dvc_file(params_file)} and {dvc_file(params_file, tables=True)}"
            raise ValueError(
                f"{stage!r} is not among the stages of {files} that can be named here: "
                f"{', '.join(name for name in known if '@' not in name)}, each whole or, where there are several of a "
                "kind, one of it, such as pretrain@croco_body"
            )
    return [known[stage] for stage in which]


def _stages(params_file: str, kinds: tuple[str, ...]) -> dict[str, str]:
    """Each stage of both graphs, and all of a kind, -> what `dvc repro` calls it. Raises ReproError."""
    from dvc.dvcfile import ProjectFile
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    names: dict[str, str] = {}
    try:
        with Repo(str(PROJECT)) as repo:
            for file in (dvc_file(params_file, tables) for tables in (False, True)):
                before = "" if file == "dvc.yaml" else f"{file}:"
                # Names alone: `dvc stage list` puts all together that the stages say, in more than ten times as long.
                for stage in ProjectFile(repo, str(PROJECT / file)).resolver.get_keys():
                    if stage.startswith(kinds):
                        kind = stage.partition("@")[0]
                        names |= {kind: before + kind, stage: before + stage}
    except DvcException as error:
        raise ReproError(f"DVC can not tell the stages: {error}") from error
    return names


def started_from_ui() -> bool:
    """True in a run of a deployment, false in the command of a DVC stage or in a test."""
    if "DVC_STAGE" in os.environ:
        return False
    from prefect.runtime import deployment

    return deployment.id is not None


def run(stage: str, params_file: str = ROOT_PARAMS) -> dict[str, str]:
    """Bring one stage and what it depends on up to date, logging in the flow run."""
    from prefect import get_run_logger

    return repro(find([stage], params_file), get_run_logger().info)


def run_data(step: str, dataset: str, params_file: str = ROOT_PARAMS) -> dict[str, str]:
    """The same for `standin`, `index`, `parse` or `pair` of a dataset, whose stage may be one of the further tables."""
    from prefect import get_run_logger

    for stage, target in _stages(params_file, (step,)).items():
        if stage.partition("@")[2] == dataset:
            return repro([target], get_run_logger().info)
    raise ValueError(f"no stage of {dvc_file(params_file)} is the step {step!r} of {dataset!r}")


def repro(arguments: list[str], say: Say | None = None, tags: tuple[str, ...] = ()) -> dict[str, str]:
    """Run `dvc repro` with `arguments`; returns stage -> what became of it.

    `say` gets every line of output; without it the output goes to the terminal as it is, and
    nothing is returned. Cancelling takes DVC and its stage down, which saves its state first; so does this process's
    death. Raises ReproError.
    """
    tell = say or (lambda line: print(line, file=sys.stderr))
    with one_at_a_time(tell):
        return dvc(["repro", *arguments], say, tags)


def dvc(arguments: list[str], say: Say | None, tags: tuple[str, ...] = ()) -> dict[str, str]:
    command = [*_DVC, *arguments]
    if say is None:
        if status := _in_terminal(command, _environment(tags)):
            raise ReproError(f"`dvc {' '.join(arguments)}` ended with status {status}")
        return {}
    stages: dict[str, str] = {}
    child = subprocess.Popen(
        command,
        cwd=PROJECT,
        env=_environment(tags),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
        start_new_session=True,
    )
    last: list[str] = []

    def tell_all() -> None:
        nonlocal last
        for line in child.stdout or ():
            # A progress bar overwrites its line; only its last state is worth a line here.
            if not (text := line.rstrip().rsplit("\r", 1)[-1]):
                continue
            say(text)
            last = [*last[-9:], text]
            for pattern, fate in _LINES:
                if found := pattern.search(text):
                    stages[found[1]] = fate

    try:
        tell_all()
        status = child.wait()
    except BaseException:  # cancelled: the whole group goes, not DVC alone
        os.killpg(child.pid, signal.SIGTERM)
        # DVC ends at once, a stage once its state is saved: until then it holds the other end, and the next run waits.
        impatience = threading.Timer(PATIENCE_S, os.killpg, (child.pid, signal.SIGKILL))
        impatience.start()
        try:
            tell_all()
            child.wait()
        finally:
            impatience.cancel()
        raise
    if status:
        raise ReproError(f"`dvc {' '.join(arguments)}` ended with status {status}:\n" + "\n".join(last))
    return stages


def _in_terminal(command: list[str], environment: dict[str, str]) -> int:
    """Run DVC with this process's terminal; its status. After SIGTERM or Ctrl-C SystemExit, once all that ran has
    saved its state and ended: the next run must not meet it."""
    with StopRequest() as stop:
        child = subprocess.Popen(command, cwd=PROJECT, env=environment)
        family: list[psutil.Process] = []
        while child.poll() is None and stop.code is None:
            # Who is told together with all the others may find DVC gone, and by then nobody knows whose child is whose.
            family = _family(child.pid) or family
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.5)
        if stop.code == 128 + signal.SIGTERM:  # a terminal's Ctrl-C has gone to all of them, this perhaps to one alone
            print("told to stop: waiting until what runs has saved its state ...", file=sys.stderr, flush=True)
            family = _family(child.pid) or family
            child.terminate()
            _, left = psutil.wait_procs(family, PATIENCE_S)
            for process in left:
                process.kill()
        status = child.wait()
    if stop.code is not None:
        raise SystemExit(stop.code)
    return status


def _family(pid: int) -> list[psutil.Process]:
    """A process's descendants; none when it has ended by itself."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _environment(tags: tuple[str, ...]) -> dict[str, str]:
    from flows.process import TAGS

    # A stage's flow is a run of its own, not the run of the deployment that started DVC.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT__")}
    kept = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(PROJECT), TAGS: ",".join(tags)}
    return {**environment, **kept, PARENT: str(os.getpid())}


@contextmanager
def one_at_a_time(say: Say) -> Iterator[None]:
    """Hold the pipeline of this checkout; says whom it waits for."""
    path = PROJECT / ".dvc" / "tmp" / "pipeline.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            say(f"waiting for the pipeline run of {lock.read().strip() or 'another process'} to end ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, started {time.strftime('%H:%M:%S')}")
        lock.flush()
        yield
