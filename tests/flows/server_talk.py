"""Asking a Prefect server over its REST interface, as its page does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RETRIED = {408, 429, 502, 503}
"""What Prefect's own clients ask again after."""
ANSWER_S = 90.0
"""The server waits up to 60 seconds for its database before it answers."""


def ask(address: str, content: dict[str, Any] | None = None, patience_s: float = 60.0) -> Any:
    """GET, or POST with content; as patient with a busy server as Prefect's own clients are.

    SQLite refuses a transaction that has read before another one wrote, without waiting, and the server
    passes that on as 503: nothing was done, ask again. Raises HTTPError for any other status, and
    for these once `patience_s` are over.
    """
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address, data=data, headers={"Content-Type": "application/json"})
    end = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in RETRIED or time.monotonic() > end:
                raise
            time.sleep(float(error.headers.get("Retry-After", 0.2)))


def until(condition: Callable[[], Any], seconds: float) -> Any:
    """What `condition` returns as soon as that is true; the limit is for what hangs, not for what is slow."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"did not happen in {seconds} s")
        time.sleep(0.2)
    return found


def heed_interrupts() -> None:
    """For a new process: whoever runs the tests in the background of a script has Ctrl-C ignored, and that is
    handed down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def serving(project: Path, environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m flows.serve` in a project, its output in `log`; ended as by Ctrl-C."""
    with log.open("w") as out:
        serve = subprocess.Popen(
            [sys.executable, "-m", "flows.serve"],
            cwd=project,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=heed_interrupts,
        )
    try:
        yield serve
    finally:
        serve.send_signal(signal.SIGINT)
        try:
            serve.wait(180)
        finally:
            serve.kill()


def deployments(api: str) -> dict[str, Any]:
    """What can be started, by name."""
    return {item["name"]: item for item in ask(f"{api}/deployments/filter", {})}


def ended(api: str, run: str) -> Any:
    """A flow run once it has ended, in whichever way."""

    def final() -> Any:
        found = ask(f"{api}/flow_runs/{run}")
        return found if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    return until(final, 600)
