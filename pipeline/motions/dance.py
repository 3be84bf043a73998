"""Dance activities, in the styles of the AIST dance database."""

from __future__ import annotations

from pipeline.motions.posture import mirrored, posture
from pipeline.motions.stances import ARMS_CROSSED, CROUCH, KNEEL, LUNGE, OVERHEAD, T_ARMS, Keys

_STEP = posture(left_thigh=30, left_knee=45, left_spread=12, both_raise=60, both_elbow=70, both_forward=20)
_GROOVE = posture(both_thigh=22, both_knee=38, bend=14, both_raise=45, both_forward=35, both_elbow=95)
DANCE: dict[str, Keys] = {
    "step_touch": [
        (0.5, _STEP),
        (0.5, posture(both_raise=30, both_elbow=40)),
        (0.5, mirrored(_STEP)),
        (0.5, posture(both_raise=30, both_elbow=40)),
    ],
    "hip_hop": [
        (0.45, _GROOVE),
        (0.45, posture(_GROOVE, left_raise=100, left_forward=40, left_elbow=60, lean=15, twist=20)),
        (0.45, posture(both_knee=10, both_raise=20, nod=15)),
        (0.45, posture(_GROOVE, right_raise=100, right_forward=40, right_elbow=60, lean=-15, twist=-20)),
    ],
    "house": [
        (0.3, posture(left_thigh=50, left_knee=70, bend=10, both_raise=40, both_elbow=80, yaw=20)),
        (0.3, posture(right_spread=24, left_thigh=10, left_knee=20, both_raise=60, both_elbow=40)),
        (0.3, posture(right_thigh=50, right_knee=70, bend=10, both_raise=40, both_elbow=80, yaw=-20)),
        (0.3, posture(left_spread=24, both_raise=60, both_elbow=40)),
    ],
    "locking": [
        (0.5, posture(T_ARMS, both_elbow=90, both_arm_twist=-65)),
        (0.35, posture(right_raise=95, right_forward=85, both_thigh=15, both_knee=28, turn=-15)),
        (0.4, posture(both_raise=45, both_forward=-10, both_elbow=100, left_thigh=45, left_knee=60)),
        (0.4, posture(left_raise=130, left_elbow=10, right_raise=35, right_elbow=85, lean=-14)),
    ],
    "waacking": [
        (0.4, posture(both_raise=120, both_elbow=130, both_arm_twist=-30)),
        (0.3, posture(T_ARMS, lean=8)),
        (0.4, posture(left_raise=150, left_elbow=110, right_raise=85, twist=20)),
        (0.3, posture(right_raise=150, right_elbow=110, left_raise=85, twist=-20)),
        (0.4, posture(both_raise=60, both_forward=-30, left_thigh=25, left_knee=40, tilt=15)),
    ],
    "ballet": [
        (0.9, posture(both_raise=55, both_forward=65, both_elbow=45, both_thigh_turn=30)),
        (0.9, posture(T_ARMS, both_thigh=30, both_knee=52, both_spread=24, both_thigh_turn=36)),
        (0.9, posture(OVERHEAD, both_elbow=40, both_foot=28, both_thigh_turn=30)),
        (
            1.0,
            posture(
                left_raise=140, left_forward=50, right_raise=85, right_thigh=-24, right_knee=4, right_foot=80, pitch=18
            ),
        ),
        (0.9, posture(T_ARMS, left_spread=46, left_foot=30, lean=-10)),
    ],
    "jazz": [
        (0.6, posture(left_raise=150, right_raise=80, right_spread=30, lean=-18)),
        (0.6, posture(both_raise=50, both_forward=60, both_elbow=100, bend=30, both_thigh=30, both_knee=45)),
        (0.6, posture(OVERHEAD, left_thigh=85, left_knee=100, left_foot=50)),
        (0.7, posture(both_raise=95, both_elbow=15, twist=40, left_thigh=20, left_knee=25, right_thigh=-15)),
    ],
    "spin": [
        (0.5, posture(T_ARMS, yaw=0)),
        (0.35, posture(ARMS_CROSSED, left_thigh=40, left_knee=80, yaw=120)),
        (0.35, posture(ARMS_CROSSED, left_thigh=40, left_knee=80, yaw=240)),
        (0.5, posture(T_ARMS, left_spread=15, right_spread=15, yaw=360)),
        (0.6, posture(OVERHEAD, yaw=360)),
    ],
    "salsa": [
        (
            0.4,
            posture(
                both_elbow=85,
                both_raise=25,
                both_forward=20,
                left_thigh=28,
                left_knee=22,
                right_thigh=-10,
                lean=8,
                twist=-12,
            ),
        ),
        (0.4, posture(both_elbow=85, both_raise=25, left_knee=20, lean=-6)),
        (
            0.4,
            posture(
                both_elbow=85,
                both_raise=25,
                both_forward=20,
                right_thigh=28,
                right_knee=22,
                left_thigh=-10,
                lean=-8,
                twist=12,
            ),
        ),
        (0.4, posture(both_elbow=75, both_raise=32, right_knee=20, lean=6)),
    ],
    "floor": [
        (0.6, posture(CROUCH, left_raise=80, left_forward=-20)),
        (0.6, posture(LUNGE, left_thigh=95, left_knee=110, right_raise=120, bend=15)),
        (0.6, posture(CROUCH, both_raise=40, twist=30, yaw=60)),
        (0.7, posture(KNEEL, both_raise=100, both_forward=30, nod=-25)),
        (0.6, posture(_GROOVE, yaw=0)),
    ],
}
