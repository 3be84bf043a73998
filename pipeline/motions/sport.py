"""Sport activities, among them those of Penn Action."""

from __future__ import annotations

from pipeline.motions.posture import mirrored, posture
from pipeline.motions.stances import LUNGE, ON_BACK, OVERHEAD, PLANK, PUSH_DOWN, SQUAT, STAND, T_ARMS, Keys

_TENNIS_READY = posture(
    both_thigh=22, both_knee=34, both_spread=14, bend=14, both_raise=30, both_forward=60, both_elbow=75
)
_BAT_READY = posture(
    both_thigh=20,
    both_knee=30,
    both_spread=16,
    bend=12,
    twist=-30,
    turn=50,
    left_raise=70,
    left_forward=115,
    left_elbow=60,
    right_raise=70,
    right_forward=20,
    right_elbow=115,
)
_GOLF_ADDRESS = posture(
    both_thigh=32, both_knee=22, both_spread=14, pitch=24, bend=18, both_raise=42, both_forward=88, both_elbow=6, nod=12
)
SPORT: dict[str, Keys] = {
    "squat": [(0.5, STAND), (1.0, SQUAT), (0.9, posture(both_raise=60, both_forward=85))] * 2,
    "jumping_jacks": [(0.45, STAND), (0.45, posture(OVERHEAD, both_forward=0, both_spread=26))] * 5,
    "pushup": [(0.9, PLANK), (0.8, PUSH_DOWN)] * 3,
    "situp": [
        (0.9, ON_BACK),
        (0.9, posture(ON_BACK, pitch=-35, bend=60, both_thigh=100, both_raise=60, both_forward=85)),
    ]
    * 3,
    "lunge": [(0.7, STAND), (0.9, LUNGE), (0.8, STAND), (0.9, mirrored(LUNGE))],
    "tennis_forehand": [
        (0.7, _TENNIS_READY),
        (
            0.5,
            posture(
                _TENNIS_READY,
                twist=-42,
                yaw=-35,
                right_raise=75,
                right_forward=-30,
                right_elbow=35,
                left_raise=60,
                left_forward=80,
            ),
        ),
        (0.35, posture(_TENNIS_READY, twist=10, yaw=10, right_raise=78, right_forward=70, right_elbow=15)),
        (
            0.4,
            posture(_TENNIS_READY, twist=42, yaw=25, right_raise=95, right_forward=125, right_elbow=100, left_raise=35),
        ),
    ],
    "tennis_serve": [
        (0.7, posture(both_raise=35, both_forward=75, both_elbow=50, yaw=-40)),
        (
            0.6,
            posture(
                left_raise=155,
                left_forward=70,
                right_raise=80,
                right_forward=-35,
                right_elbow=110,
                both_knee=30,
                both_thigh=14,
                nod=-25,
                bend=-12,
                yaw=-40,
            ),
        ),
        (
            0.35,
            posture(
                right_raise=165,
                right_forward=60,
                right_elbow=10,
                both_foot=20,
                left_raise=40,
                left_forward=60,
                left_elbow=80,
                nod=-10,
            ),
        ),
        (
            0.4,
            posture(
                right_raise=40,
                right_forward=110,
                right_elbow=30,
                bend=32,
                twist=30,
                left_thigh=30,
                left_knee=25,
                right_thigh=-15,
            ),
        ),
    ],
    "golf_swing": [
        (0.8, _GOLF_ADDRESS),
        (
            0.9,
            posture(
                _GOLF_ADDRESS,
                twist=-45,
                yaw=-25,
                left_raise=85,
                left_forward=125,
                left_elbow=8,
                right_raise=75,
                right_forward=40,
                right_elbow=95,
            ),
        ),
        (0.35, posture(_GOLF_ADDRESS, twist=8)),
        (
            0.45,
            posture(
                pitch=4,
                twist=45,
                yaw=45,
                left_raise=80,
                left_forward=40,
                left_elbow=100,
                right_raise=95,
                right_forward=125,
                right_elbow=30,
                right_knee=35,
                right_foot=55,
            ),
        ),
    ],
    "baseball_swing": [
        (0.8, _BAT_READY),
        (0.4, posture(_BAT_READY, left_thigh=38, left_knee=20, twist=-40)),
        (0.3, posture(both_spread=20, left_thigh=16, twist=15, yaw=30, both_raise=65, both_forward=75, both_elbow=20)),
        (
            0.45,
            posture(
                both_spread=20,
                twist=45,
                yaw=60,
                both_raise=80,
                left_forward=20,
                left_elbow=90,
                right_forward=125,
                right_elbow=70,
                right_knee=35,
                right_foot=50,
            ),
        ),
    ],
    "baseball_pitch": [
        (0.7, posture(both_raise=35, both_forward=70, both_elbow=110)),
        (
            0.6,
            posture(left_thigh=95, left_knee=100, both_raise=45, both_forward=70, both_elbow=115, twist=-25, yaw=-60),
        ),
        (
            0.45,
            posture(
                left_thigh=45,
                left_knee=20,
                right_knee=25,
                right_raise=95,
                right_forward=-35,
                right_elbow=95,
                left_raise=85,
                left_forward=40,
                yaw=-40,
            ),
        ),
        (
            0.3,
            posture(
                left_thigh=60,
                left_knee=55,
                right_thigh=-20,
                right_raise=105,
                right_forward=60,
                right_elbow=30,
                bend=30,
                pitch=18,
                twist=25,
            ),
        ),
        (
            0.45,
            posture(
                left_thigh=60,
                left_knee=45,
                right_thigh=-10,
                right_knee=40,
                right_raise=45,
                right_forward=120,
                bend=45,
                pitch=25,
                twist=35,
            ),
        ),
    ],
    "bowl": [
        (0.7, posture(both_raise=30, both_forward=80, both_elbow=85, bend=10)),
        (
            0.6,
            posture(
                right_raise=55,
                right_forward=-45,
                right_elbow=4,
                bend=20,
                pitch=10,
                left_thigh=25,
                left_knee=20,
                left_raise=50,
            ),
        ),
        (
            0.5,
            posture(
                left_thigh=80,
                left_knee=85,
                right_thigh=-18,
                right_knee=40,
                right_foot=90,
                right_raise=40,
                right_forward=88,
                right_elbow=5,
                pitch=26,
                bend=20,
                left_raise=65,
            ),
        ),
        (
            0.6,
            posture(
                left_thigh=70,
                left_knee=75,
                right_thigh=-18,
                right_knee=40,
                right_foot=90,
                right_raise=115,
                right_forward=88,
                right_elbow=40,
                pitch=18,
                left_raise=60,
            ),
        ),
    ],
    "kick": [
        (0.6, STAND),
        (0.4, posture(right_thigh=-24, right_knee=95, right_foot=100, left_raise=65, pitch=8, twist=-15)),
        (
            0.3,
            posture(
                right_thigh=70,
                right_knee=10,
                right_foot=-40,
                left_raise=50,
                left_forward=70,
                right_raise=60,
                right_forward=-30,
                pitch=-10,
                bend=15,
            ),
        ),
        (0.6, STAND),
    ],
    "throw": [
        (0.6, STAND),
        (
            0.5,
            posture(
                right_raise=100,
                right_forward=-40,
                right_elbow=100,
                twist=-35,
                left_raise=70,
                left_forward=60,
                right_knee=20,
            ),
        ),
        (
            0.35,
            posture(
                right_raise=110,
                right_forward=80,
                right_elbow=15,
                twist=30,
                bend=15,
                left_thigh=30,
                left_knee=20,
                right_thigh=-15,
            ),
        ),
        (0.6, STAND),
    ],
    "clean_and_jerk": [
        (0.7, posture(SQUAT, both_raise=45, both_forward=80, both_elbow=4, pitch=30)),
        (0.6, posture(both_thigh=40, both_knee=55, both_raise=45, both_forward=60, both_elbow=130)),
        (0.5, posture(both_raise=50, both_forward=70, both_elbow=140)),
        (0.5, posture(OVERHEAD, left_thigh=45, left_knee=50, right_thigh=-15, right_knee=25)),
        (0.8, OVERHEAD),
    ],
    "jump_rope": [
        (0.22, posture(both_raise=25, both_elbow=60, both_knee=22, both_thigh=10)),
        (0.22, posture(both_raise=28, both_elbow=65, both_foot=36, both_knee=4)),
    ]
    * 8,
    "pullup": [
        (0.9, posture(OVERHEAD, both_forward=15, both_knee=30, both_elbow=4)),
        (0.9, posture(both_raise=85, both_forward=5, both_elbow=135, both_knee=40, both_arm_twist=-65, nod=-15)),
    ]
    * 3,
    "bench_press": [
        (
            0.8,
            posture(
                pitch=-88, both_thigh=30, both_knee=88, both_spread=14, both_raise=75, both_forward=60, both_elbow=100
            ),
        ),
        (
            0.8,
            posture(
                pitch=-88, both_thigh=30, both_knee=88, both_spread=14, both_raise=88, both_forward=88, both_elbow=4
            ),
        ),
    ]
    * 3,
    "strum_guitar": [
        (
            0.3,
            posture(
                left_raise=35,
                left_forward=45,
                left_elbow=85,
                left_pronation=50,
                right_raise=30,
                right_forward=15,
                right_elbow=e,
                nod=12,
                twist=4,
            ),
        )
        for e in (95, 75)
    ]
    * 8,
    "boxing": [
        (
            0.5,
            posture(
                both_raise=35,
                both_forward=50,
                both_elbow=130,
                left_thigh=20,
                left_knee=25,
                right_thigh=-8,
                right_knee=20,
                bend=10,
            ),
        ),
        (
            0.25,
            posture(
                left_raise=85,
                left_forward=88,
                left_elbow=5,
                right_raise=35,
                right_forward=50,
                right_elbow=130,
                left_thigh=25,
                left_knee=25,
                twist=-25,
            ),
        ),
        (0.3, posture(both_raise=35, both_forward=50, both_elbow=130, left_thigh=20, left_knee=25, bend=14)),
        (
            0.25,
            posture(
                right_raise=88,
                right_forward=92,
                right_elbow=5,
                left_raise=35,
                left_forward=50,
                left_elbow=130,
                left_thigh=25,
                left_knee=25,
                twist=35,
            ),
        ),
    ],
    "yoga": [
        (1.2, posture(OVERHEAD, bend=-14, nod=-20)),
        (1.4, posture(pitch=70, bend=45, both_thigh=75, both_knee=4, both_raise=115, both_forward=85)),
        (1.3, posture(LUNGE, both_raise=88, yaw=0, left_spread=10)),
        (1.3, posture(LUNGE, both_raise=160, both_forward=20)),
        (1.4, posture(T_ARMS, right_thigh=60, right_spread=45, right_thigh_turn=38, right_knee=135)),
    ],
}
