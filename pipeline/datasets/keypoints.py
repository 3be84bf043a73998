"""2D and 3D keypoint sets of the datasets: taken from COCO's 17 keypoints of a posed body, and those of a hand.

Orders: dataset pages "joint-order cheat sheet". `nan` marks points a set has and COCO lacks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NOSE, L_EYE, R_EYE, L_EAR, R_EAR, L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW, L_WRIST, R_WRIST = range(11)
L_HIP, R_HIP, L_KNEE, R_KNEE, L_ANKLE, R_ANKLE = range(11, 17)

_RIGHT_THEN_LEFT_ARMS = (R_SHOULDER, R_ELBOW, R_WRIST, L_SHOULDER, L_ELBOW, L_WRIST)
_RIGHT_LEG, _LEFT_LEG = (R_HIP, R_KNEE, R_ANKLE), (L_HIP, L_KNEE, L_ANKLE)
_PENN13 = (NOSE, *range(L_SHOULDER, R_ANKLE + 1))
_SPIN_LEGS = (R_ANKLE, R_KNEE, R_HIP, L_HIP, L_KNEE, L_ANKLE)
_SPIN_ARMS = (R_WRIST, R_ELBOW, R_SHOULDER, L_SHOULDER, L_ELBOW, L_WRIST)

HAND21_FROM_MANO = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
"""Gathers `hand21` (wrist, then thumb to little finger, each from its root to the tip) from MANO's 16 joints and its
tips, thumb first. FreiHAND, HanCo and DexYCB have this order."""
HAND21_FROM_INTERHAND = (20, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16)
"""The same from one hand of InterHand2.6M: thumb to little finger, each from its tip to the root, then the wrist."""


def penn13(coco: Array) -> Array:
    """(..., 13, D): head, then left and right shoulder, elbow, wrist, hip, knee, ankle."""
    return coco[..., _PENN13, :]


def openpose18(coco: Array) -> Array:
    """(..., 18, D): nose, neck, right arm, left arm, right leg, left leg, right and left eye, ear."""
    order = (NOSE, NOSE, *_RIGHT_THEN_LEFT_ARMS, *_RIGHT_LEG, *_LEFT_LEG, R_EYE, L_EYE, R_EAR, L_EAR)
    points = coco[..., order, :]
    points[..., 1, :] = _between(coco, L_SHOULDER, R_SHOULDER)
    return points


def body25(coco: Array) -> Array:
    """(..., 25, D): as OpenPose's 18 with the middle of the hips after the arms; feet are nan."""
    eighteen = openpose18(coco)
    hip = _between(coco, L_HIP, R_HIP)[..., None, :]
    feet = np.full((*coco.shape[:-2], 6, coco.shape[-1]), np.nan)
    return np.concatenate([eighteen[..., :8, :], hip, eighteen[..., 8:, :], feet], axis=-2)


def spin49(coco: Array) -> Array:
    """(..., 49, D): 25 OpenPose points, all nan, then SPIN's 24 annotated points.

    Of the 24, COCO annotates the limbs (0-11) and nose, eyes and ears (19-23); the others are nan.
    """
    points = np.full((*coco.shape[:-2], 49, coco.shape[-1]), np.nan)
    points[..., 25:37, :] = coco[..., _SPIN_LEGS + _SPIN_ARMS, :]
    points[..., 44:49, :] = coco[..., (NOSE, L_EYE, R_EYE, L_EAR, R_EAR), :]
    return points


def _between(coco: Array, first: int, second: int) -> Array:
    return (coco[..., first, :] + coco[..., second, :]) / 2
