"""The small project, run once for all tests that look at what came out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import small_project


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project after its first `make repro`. Tests leave its files as they found them."""
    project = small_project.make_project(tmp_path_factory.mktemp("project"))
    try:
        small_project.run(project, "flows.reproduce")
        yield project
    finally:
        small_project.run(project, "flows.local_server", "down", check=False)
