"""Spherical-harmonic light: nine coefficients -> brightness of a surface normal.

The light of SURREAL, whose recipe the synthetic pairs follow (paper section 3.2): second
order, emission only, no cast shadows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Irradiance polynomial of Ramamoorthi and Hanrahan (2001).
C1, C2, C3, C4, C5 = 0.429043, 0.511664, 0.743125, 0.886227, 0.247708

# SURREAL stops at 0 and has people who are black all over; ours keep a trace of their clothes.
DARKEST = 0.15


def random_light(rng: np.random.Generator) -> NDArray[np.float32]:
    """Nine coefficients as SURREAL draws them, order L00, L1-1, L10, L11, L2-2, L2-1, L20, L21, L22.

    All uniform in [-0.7, 0.7], except the ambient first, [0.5, 1.4], and the second, [-0.7, 0],
    which keeps the light above the person.
    """
    light = rng.uniform(-0.7, 0.7, 9)
    light[0] = rng.uniform(0.5, 1.4)
    light[1] = rng.uniform(-0.7, 0.0)
    return light.astype(np.float32)


def studio_light(rng: np.random.Generator) -> NDArray[np.float32]:
    """Nine coefficients of the even light of a capture studio (HUMBI, AIST): mostly ambient, a little from above."""
    light = rng.uniform(-0.15, 0.15, 9)
    light[0] = rng.uniform(0.85, 1.1)
    light[1] = rng.uniform(-0.3, -0.15)
    return light.astype(np.float32)


def irradiance(normals: NDArray[np.floating], light: NDArray[np.floating]) -> NDArray[np.float32]:
    """Brightness, at least DARKEST, that multiplies the albedo.

    normals: (..., 3) unit vectors in a y-up world; light: (9,). Raises ValueError when
    `light` has another shape. SURREAL's world has y down (its camera matrix says so), hence
    the turn of the normals about x.
    """
    light = np.asarray(light, dtype=np.float32)
    if light.shape != (9,):
        raise ValueError(f"a light has 9 spherical-harmonic coefficients, got shape {light.shape}")
    x, y, z = normals[..., 0], -normals[..., 1], -normals[..., 2]
    brightness = C4 * light[0] + 2 * C2 * (light[3] * x + light[1] * y + light[2] * z)
    brightness = brightness + C1 * light[8] * (x * x - y * y) + light[6] * (C3 * z * z - C5)
    brightness = brightness + 2 * C1 * (light[4] * x * y + light[7] * x * z + light[5] * y * z)
    return np.maximum(brightness, DARKEST).astype(np.float32)
