"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.process import num_cores

PROJECT = Path(__file__).resolve().parents[1]
MOST_AT_ONCE = 4
"""Each process takes 2 GB, 4 while it trains a ViT-B, and the rest is over before the end-to-end tests are."""

# The cores are busy with one process each, here and in whatever these start.
os.environ |= {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "1"}
# DVC reports home from any repository that does not forbid it, as those that tests make do not.
os.environ["DVC_NO_ANALYTICS"] = "1"


def pytest_xdist_auto_num_workers() -> int:
    """Processes that share the tests, one more than cores as many of the tests wait; `-n 0` runs all in this one."""
    return min(num_cores() + 1, MOST_AT_ONCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest comes first; the other processes see to all others meanwhile."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material kept beside the checkout, not part of the project; skips where it is absent."""
    folder = PROJECT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the reference material beside the checkout is absent")
    return folder
