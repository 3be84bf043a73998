"""Bodies for the tests of this room: the open one built from few people, and a tiny one of random numbers."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.bodies.anatomy import MANO_PARENTS, SMPL_PARENTS
from pipeline.bodies.anny_source import AnnySource
from pipeline.bodies.build_body import build_body


@pytest.fixture(scope="session")
def source() -> AnnySource:
    return AnnySource()


@pytest.fixture(scope="session")
def body_arrays(source: AnnySource) -> dict[str, np.ndarray]:
    return build_body(source, source.sample_adults(60, np.random.default_rng(0)))


@pytest.fixture
def tiny_smpl() -> dict[str, np.ndarray]:
    return tiny(SMPL_PARENTS, vertices=60)


@pytest.fixture
def tiny_mano() -> dict[str, np.ndarray]:
    return tiny(MANO_PARENTS, vertices=40) | {"hands_components": np.eye(45), "hands_mean": np.full(45, 0.1)}


def tiny(parents: tuple[int, ...], vertices: int) -> dict[str, np.ndarray]:
    """A valid model of random numbers with the dtypes of an official file."""
    rng = np.random.default_rng(7)
    joints = len(parents)
    weights = rng.random((vertices, joints)) ** 4
    regressor = rng.random((joints, vertices))
    table = np.array([parents, range(joints)]).astype(np.uint32)
    return {
        "v_template": rng.normal(size=(vertices, 3)),
        "f": rng.integers(0, vertices, (30, 3)).astype(np.uint32),
        "shapedirs": rng.normal(size=(vertices, 3, 10)),
        "posedirs": 0.01 * rng.normal(size=(vertices, 3, 9 * (joints - 1))),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "kintree_table": table,
    }
