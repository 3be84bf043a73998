"""A stick figure in SMPL's format: enough of a body to set motions on the ground, built in no time."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.bodies.anatomy import SMPL_PARENTS
from pipeline.bodies.model import BodyModel

# Roughly SMPL's joints, metres.
_JOINTS = np.array(
    [[0, -0.223, 0.028], [0.06, -0.31, 0], [-0.06, -0.31, 0], [0, -0.1, 0], [0.1, -0.7, 0], [-0.1, -0.7, 0],
     [0, 0.03, 0], [0.1, -1.1, -0.03], [-0.1, -1.1, -0.03], [0, 0.09, 0], [0.12, -1.16, 0.09], [-0.12, -1.16, 0.09],
     [0, 0.3, 0], [0.08, 0.2, 0], [-0.08, 0.2, 0], [0, 0.38, 0.05], [0.17, 0.23, 0], [-0.17, 0.23, 0],
     [0.43, 0.22, 0], [-0.43, 0.22, 0], [0.68, 0.22, 0], [-0.68, 0.22, 0], [0.77, 0.21, 0], [-0.77, 0.21, 0]]
)  # fmt: skip


@pytest.fixture(scope="session")
def stick_figure() -> BodyModel:
    """Eight vertices around every joint, moving with it."""
    corners = 0.03 * np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
    vertices = (_JOINTS[:, None] + corners).reshape(-1, 3)
    owner = np.repeat(np.arange(24), 8)
    weights = np.eye(24)[owner]
    return BodyModel(
        {
            "v_template": vertices,
            "f": np.arange(len(vertices)).reshape(-1, 3),
            "shapedirs": np.zeros((len(vertices), 3, 10)),
            "posedirs": np.zeros((len(vertices), 3, 207)),
            "J_regressor": weights.T / 8,
            "weights": weights,
            "kintree_table": np.array([SMPL_PARENTS, range(24)]),
        },
        "smpl",
    )
