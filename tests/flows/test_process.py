"""Notes on which process carries a run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest

from flows import local_server, process


def test_a_note_is_whole_whenever_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "HOME", tmp_path)
    arguments: Any = (None, SimpleNamespace(id="run"), None)
    process.remember(*arguments)
    read, enough = [], Event()

    def look() -> None:
        while not enough.is_set():
            read.append((tmp_path / "processes/run.json").read_text())

    reader = Thread(target=look)
    reader.start()
    for _ in range(300):
        process.remember(*arguments)
    enough.set()
    reader.join()
    assert {json.loads(note)["pid"] for note in read if note} == {os.getpid()}
    assert "" not in read
    process.forget(*arguments)
    assert not list((tmp_path / "processes").iterdir())
