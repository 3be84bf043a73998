"""One small open body, and one dressed person, for the tests of this room."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.bodies.model import BodyModel
from pipeline.rendering.clothes import Look, random_look
from pipeline.rendering.renderer import Person


@pytest.fixture(scope="session")
def body(body_arrays: dict[str, np.ndarray]) -> BodyModel:
    return BodyModel(body_arrays, "smpl")


@pytest.fixture(scope="session")
def look(body: BodyModel) -> Look:
    return random_look(np.random.default_rng(3), body)


@pytest.fixture(scope="session")
def person(body: BodyModel, look: Look) -> Person:
    """Standing at the origin with lowered arms, facing +z."""
    pose = torch.as_tensor(body.mean_pose)[None]
    with torch.no_grad():
        out = body(torch.zeros(1, 10), pose[:, 3:], pose[:, :3])
    return Person(out.vertices[0].numpy(), out.joints[0].numpy(), look)
