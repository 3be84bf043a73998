"""The spherical-harmonic light is SURREAL's, turned into a y-up world."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rendering.light import C4, DARKEST, irradiance, random_light, studio_light


@given(seed=st.integers(0, 2**32))
def test_random_lights_have_surreals_ranges(seed: int) -> None:
    light = random_light(np.random.default_rng(seed))
    assert light.shape == (9,)
    assert 0.5 <= light[0] <= 1.4
    assert -0.7 <= light[1] <= 0.0
    assert (np.abs(light[2:]) <= 0.7).all()


@given(seed=st.integers(0, 2**32))
def test_studio_light_is_bright_all_around(seed: int) -> None:
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(200, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    assert irradiance(normals, studio_light(rng)).min() > 0.25


def test_the_polynomial_is_that_of_the_recipe() -> None:
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(50, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    light = np.abs(random_light(rng))
    x, y, z = normals[:, 0], -normals[:, 1], -normals[:, 2]
    expected = (
        0.429043 * light[8] * (x**2 - y**2) + 0.743125 * light[6] * z**2 + 0.886227 * light[0] - 0.247708 * light[6]
        + 2 * 0.429043 * (light[4] * x * y + light[7] * x * z + light[5] * y * z)
        + 2 * 0.511664 * (light[3] * x + light[1] * y + light[2] * z)
    )  # fmt: skip
    np.testing.assert_allclose(irradiance(normals, light), np.maximum(expected, DARKEST), atol=1e-5)


def test_ambient_light_falls_on_all_normals_alike() -> None:
    light = np.zeros(9)
    light[0] = 1.0
    np.testing.assert_allclose(irradiance(np.eye(3), light), C4, rtol=1e-6)


def test_the_second_coefficient_lights_from_above_when_negative() -> None:
    light = np.array([1.0, -0.5, 0, 0, 0, 0, 0, 0, 0])
    up, down = irradiance(np.array([[0, 1.0, 0], [0, -1.0, 0]]), light)
    assert up > down


def test_a_light_of_other_than_nine_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got shape \(4,\)"):
        irradiance(np.eye(3), np.zeros(4))
