"""What every room of these tests may use: the open body and hand, built once, and other code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import anny
import numpy as np
import pytest

from pipeline.bodies.anny_source import AnnySource
from pipeline.bodies.build_body import build_body
from pipeline.bodies.build_hand import build_hand
from pipeline.bodies.write import write_npz
from pipeline.layout import PROJECT
from tests.sharing import made_once


@pytest.fixture(scope="session")
def cache_of_anny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Anny is told to keep files in while `source` is built."""
    return tmp_path_factory.mktemp("home") / "anny"


@pytest.fixture(scope="session")
def source(cache_of_anny: Path) -> AnnySource:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anny.paths, "_ANNY_CACHE_DIR", [cache_of_anny])
        return AnnySource()


Arrays = dict[str, np.ndarray]


def built(
    request: pytest.FixtureRequest, name: str, build: Callable[[AnnySource, np.random.Generator], Arrays]
) -> Arrays:
    """Of few people. Never one that `dvc repro` has made: tests say the same before and after it."""

    def make(path: Path) -> None:
        write_npz(path, build(request.getfixturevalue("source"), np.random.default_rng(0)))

    with np.load(made_once(request.getfixturevalue("tmp_path_factory"), f"{name}.npz", make)) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def body_arrays(request: pytest.FixtureRequest) -> Arrays:
    return built(request, "body", lambda source, rng: build_body(source, source.sample_adults(60, rng)))


@pytest.fixture(scope="session")
def hand_arrays(request: pytest.FixtureRequest) -> Arrays:
    """The hand of the same few people."""
    return built(request, "hand", lambda source, rng: build_hand(source, source.sample_adults(60, rng), rng))


@pytest.fixture
def other_code(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a copy of the project's modules in which one is another; returns its folder."""

    def copy(module: str) -> Path:
        project = tmp_path / "other_code"
        for name in ("models", "pipeline"):
            shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        with (project / module).open("a") as file:
            file.write("# another\n")
        return project

    return copy
