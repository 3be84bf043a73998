"""The process a flow runs in: known to the server as long as it lives, and not longer.

A flow that is killed outright can not report its end, so the server would show it as running
for ever. Every run leaves a note of its process; the next run reads the notes and marks runs
whose process is gone as crashed. Notes, not the server's own list: another machine's runs
on a shared server are none of our business.
"""

from __future__ import annotations

import fcntl
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psutil

from flows import local_server
from pipeline.process import die_with_parent, plain

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

MENDABLE = (ValueError, OSError)
"""What the user of a command can mend: told in one line. Anything else is a mistake of ours and keeps its traceback."""


def in_one_line(record: logging.LogRecord) -> bool:
    """Filter of Prefect's loggers, which print and store the traceback of whatever ends a flow or a task."""
    if record.exc_info and isinstance(record.exc_info[1], MENDABLE):
        record.exc_info = None
    return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(in_one_line)

TAGS = "PIPELINE_TAGS"
"""Comma-separated tags for the runs below this process; `reproduce` sets it for its stages."""


@contextmanager
def command() -> Iterator[None]:
    """Around the flow call of a command line: server up, orphans swept, runs tagged.

    What the user of the command can mend ends it with one line, Ctrl-C with status 130 and without a word.
    """
    import prefect
    from prefect.exceptions import ParameterTypeError
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    die_with_parent()
    # What is loaded by now stays; looking through it for garbage would take half a second at the exit.
    gc.freeze()
    try:
        with server_in_use():
            local_server.up()
            sweep()
            stage = os.environ.get("DVC_STAGE")
            tags = [tag for tag in os.environ.get(TAGS, "").split(",") if tag] + ([f"stage-{stage}"] if stage else [])
            # No heartbeats: at its end a run would wait for a second of them to pass, and nobody listens; the
            # notes of `remember` tell of runs whose process is gone. No environment variable says "none".
            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), prefect.tags(*tags):
                yield
    except (*MENDABLE, local_server.ServerError, ParameterTypeError) as error:
        sys.exit(f"error: {plain(error)}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


@contextmanager
def server_in_use() -> Iterator[None]:
    """As long as one process is inside, `stop_idle_server` leaves the server alone."""
    with _usage_lock() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def stop_idle_server() -> bool:
    """Stop the local server unless a flow or `flows.serve` uses it; True when it was stopped."""
    with _usage_lock() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return local_server.down()


def remember(flow: Flow[..., Any], run: FlowRun, state: State[Any]) -> None:
    """`on_running` hook: note which process carries this run."""
    folder = _notes()
    folder.mkdir(parents=True, exist_ok=True)
    process = psutil.Process()
    local_server.note(folder / f"{run.id}.json", {"pid": process.pid, "started": process.create_time()})


def forget(flow: Flow[..., Any], run: FlowRun, state: State[Any]) -> None:
    """Hook of every way to end: the note is no longer needed."""
    (_notes() / f"{run.id}.json").unlink(missing_ok=True)


HOOKS: dict[str, Any] = {
    "on_running": [remember],
    "on_completion": [forget],
    "on_failure": [forget],
    "on_cancellation": [forget],
    "on_crashed": [forget],
}
"""For `@flow(**HOOKS)`."""


def sweep() -> list[str]:
    """Mark runs whose process is gone as crashed; returns their names."""
    notes = [note for note in _notes().glob("*.json") if not _lives(note)]
    if not notes:
        return []
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    swept = []
    with get_client(sync_client=True) as client:
        for note in notes:
            try:
                run = client.read_flow_run(UUID(note.stem))
                if run.state is not None and not run.state.is_final():
                    client.set_flow_run_state(run.id, Crashed(message="its process is gone"), force=True)
                    swept.append(run.name)
            except ObjectNotFound:
                pass  # the server's database was deleted since
            note.unlink(missing_ok=True)
    return swept


@contextmanager
def _usage_lock() -> Iterator[Any]:
    local_server.HOME.mkdir(parents=True, exist_ok=True)
    with (local_server.HOME / "users.lock").open("w") as lock:
        yield lock


def _notes() -> Path:
    return local_server.HOME / "processes"


def _lives(note: Path) -> bool:
    try:
        content = json.loads(note.read_text())
        return abs(psutil.Process(content["pid"]).create_time() - content["started"]) < 1.0
    except psutil.NoSuchProcess:
        return False
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return not note.exists()  # removed meanwhile: nothing to sweep; damaged: sweep
