"""How far a task is, as an artifact of its run."""

from __future__ import annotations

import re
import time
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

MIN_INTERVAL_S = 1.0


class Progress:
    """Called with (done, total) by whatever works; writes once per percent and second at most, and at the end."""

    def __init__(self, key: str, description: str) -> None:
        self._artifact = cast(
            UUID, create_progress_artifact(progress=0.0, key=artifact_key(key), description=description)
        )
        self._shown = 0
        self._written = time.monotonic()

    def __call__(self, done: int, total: int | None) -> None:
        if not total or (percent := 100 * done // total) <= self._shown:
            return
        now = time.monotonic()
        if percent >= 100 or now >= self._written + MIN_INTERVAL_S:
            self._shown, self._written = percent, now
            update_progress_artifact(artifact_id=self._artifact, progress=float(percent))

    def finish(self) -> None:
        self(1, 1)


def artifact_key(name: str) -> str:
    """A name as Prefect wants keys: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
