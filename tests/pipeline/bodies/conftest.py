"""A body for the tests of this room that need no person: a tiny one of random numbers."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.bodies.anatomy import MANO_PARENTS, SMPL_PARENTS


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
