"""A real Prefect server with a home of its own, on a port that is free; its database is made once for all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sharing import made_once

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database as Prefect makes it for a new home, in a dozen seconds."""

    def make(file: Path) -> None:
        home = tmp_path_factory.mktemp("new-prefect-home")
        environment = {**os.environ, "PREFECT_HOME": str(home)}
        upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(upgrade, env=environment, check=True, stdout=subprocess.DEVNULL)
        shutil.copy(home / "prefect.db", file)

    return made_once(tmp_path_factory, "prefect.db", make)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[dict[str, str]]:
    """Environment for processes that are to use the server; it is stopped at the end."""
    home = tmp_path_factory.mktemp("prefect")
    shutil.copy(database, home / "prefect.db")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "DVC", "PIPELINE"))}
    environment = {**kept, "PREFECT_HOME": str(home)}
    subprocess.run([sys.executable, "-m", "flows.local_server", "up"], cwd=PROJECT, env=environment, check=True)
    try:
        yield environment
    finally:
        subprocess.run([sys.executable, "-m", "flows.local_server", "down"], cwd=PROJECT, env=environment, check=True)
