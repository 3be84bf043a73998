"""A real Prefect server with a home of its own, on a port that is free."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment for processes that are to use the server; it is stopped at the end."""
    home = tmp_path_factory.mktemp("prefect")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "DVC", "PIPELINE"))}
    environment = {**kept, "PREFECT_HOME": str(home)}
    subprocess.run([sys.executable, "-m", "flows.local_server", "up"], cwd=PROJECT, env=environment, check=True)
    try:
        yield environment
    finally:
        subprocess.run([sys.executable, "-m", "flows.local_server", "down"], cwd=PROJECT, env=environment, check=True)
