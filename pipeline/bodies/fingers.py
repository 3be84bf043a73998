"""Axes that the joints of a hand turn about: what finger poses are drawn and blended in.

Zero pose as MANO's: a flat hand, palm down, fingers along -x.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.bodies.anatomy import MANO_JOINT_NAMES

Array = NDArray[np.float64]

FINGERS = tuple(name[:-1] for name in MANO_JOINT_NAMES[1::3])
"""Index, middle, pinky, ring, thumb: the order of MANO's joints, three of each after the wrist."""


def finger_axes(joints: Array) -> Array:
    """(5, 2, 3) unit axes of each of FINGERS, from the joints (16, 3) of the flat hand.

    About the first a finger bends, about the second it moves sideways. The palm faces down; the
    thumb closes across it, towards the little finger.
    """
    axes = np.empty((len(FINGERS), 2, 3))
    for finger, name in enumerate(FINGERS):
        joint = 1 + 3 * finger
        along = joints[joint + 2] - joints[joint]
        along = along / np.linalg.norm(along)
        inward = np.array([-0.3, -0.7, -0.65]) if name == "thumb" else np.array([0.0, -1.0, 0.0])
        bend = np.cross(along, inward)
        axes[finger, 0] = bend / np.linalg.norm(bend)
        axes[finger, 1] = np.cross(axes[finger, 0], along)
    return axes
