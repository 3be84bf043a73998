"""The open body, built once for every room of tests that draws or moves people."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.bodies.anny_source import AnnySource
from pipeline.bodies.build_body import build_body
from pipeline.bodies.build_hand import build_hand


@pytest.fixture(scope="session")
def source() -> AnnySource:
    return AnnySource()


@pytest.fixture(scope="session")
def body_arrays(source: AnnySource) -> dict[str, np.ndarray]:
    """Of few people. Never one that `dvc repro` has made: tests say the same before and after it."""
    return build_body(source, source.sample_adults(60, np.random.default_rng(0)))


@pytest.fixture(scope="session")
def hand_arrays(source: AnnySource) -> dict[str, np.ndarray]:
    """The hand of the same few people."""
    rng = np.random.default_rng(0)
    return build_hand(source, source.sample_adults(60, rng), rng)
