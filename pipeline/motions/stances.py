"""Postures that several activities pass through, and the type of an activity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.motions.posture import posture

Array = NDArray[np.float64]
Keys = list[tuple[float, Array]]
"""(seconds since the last key, posture) of an activity."""

STAND = posture()
HANDS_ON_HIPS = posture(both_raise=45, both_forward=-15, both_elbow=95, both_arm_twist=35)
ARMS_CROSSED = posture(both_raise=35, both_forward=70, left_elbow=105, right_elbow=115, both_arm_twist=10)
SEATED = posture(
    both_thigh=90, both_knee=92, both_spread=8, both_raise=28, both_forward=50, both_elbow=60, pitch=-4, bend=12
)
CROUCH = posture(
    both_thigh=112, both_knee=132, both_spread=14, bend=30, both_raise=50, both_forward=75, both_elbow=40, pitch=14
)
SQUAT = posture(
    both_thigh=92,
    both_knee=104,
    both_spread=16,
    both_thigh_turn=14,
    pitch=22,
    bend=12,
    both_raise=85,
    both_forward=80,
    both_elbow=8,
)
KNEEL = posture(
    left_thigh=82,
    left_knee=88,
    right_thigh=-4,
    right_knee=92,
    right_foot=115,
    both_raise=25,
    both_forward=55,
    both_elbow=50,
)
LUNGE = posture(left_thigh=72, left_knee=82, right_thigh=-22, right_knee=28, right_foot=40, pitch=4)
OVERHEAD = posture(both_raise=165, both_forward=30, both_elbow=12)
T_ARMS = posture(both_raise=88, both_elbow=5)
PLANK = posture(pitch=82, both_raise=88, both_forward=88, both_elbow=4, both_thigh=-4, both_foot=62, nod=-25)
PUSH_DOWN = posture(PLANK, both_elbow=92, both_raise=62, both_forward=55)
ON_BACK = posture(pitch=-86, both_thigh=55, both_knee=95, both_raise=25, both_elbow=30, both_spread=5)
