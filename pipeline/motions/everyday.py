"""Everyday activities: walking, talking, reaching, sitting, carrying."""

from __future__ import annotations

from pipeline.motions.posture import mirrored, posture
from pipeline.motions.stances import ARMS_CROSSED, CROUCH, HANDS_ON_HIPS, KNEEL, LUNGE, SEATED, STAND, Array, Keys


def _walk(stride: float, bend: float, swing: float, knee: float, seconds: float, elbow: float = 14) -> Keys:
    """One gait cycle from left heel strike, eight keys; `stride` is the thigh's swing in degrees."""
    strike = posture(
        left_thigh=stride,
        left_knee=4,
        left_foot=-18,
        right_thigh=-0.75 * stride,
        right_knee=12,
        right_foot=40,
        left_raise=12,
        right_raise=12,
        bend=bend,
        pitch=2,
        twist=-7,
        yaw=4,
    )
    load = posture(
        strike,
        left_thigh=0.7 * stride,
        left_knee=16,
        left_foot=0,
        right_thigh=-0.5 * stride,
        right_knee=0.55 * knee,
        right_foot=62,
        twist=-4,
        yaw=2,
    )
    middle = posture(
        load,
        left_thigh=0.1 * stride,
        left_knee=6,
        left_foot=0,
        right_thigh=0.6 * stride,
        right_knee=knee,
        right_foot=42,
        twist=0,
        yaw=0,
    )
    push = posture(
        middle,
        left_thigh=-0.45 * stride,
        left_knee=4,
        left_foot=10,
        right_thigh=1.1 * stride,
        right_knee=0.5 * knee,
        right_foot=0,
        twist=4,
        yaw=-2,
    )
    # The arm swings against the leg of its side.
    keys = []
    for key, phase in ((strike, -1.0), (load, -0.7), (middle, 0.0), (push, 0.7)):
        keys.append(_swing_arms(key, phase, swing, elbow))
    keys += [mirrored(key) for key in keys]
    return [(seconds / 8, key) for key in keys]


def _swing_arms(key: Array, phase: float, swing: float, elbow: float) -> Array:
    """Left arm at `phase` in [-1 (back), 1 (front)], right arm opposite."""
    changed = {}
    for side, at in (("left", phase), ("right", -phase)):
        # A hanging arm moves forward or back by raising it in that direction.
        changed[f"{side}_raise"] = 12 + swing * abs(at)
        forward = 78 if at > 0.1 else (-75 if at < -0.1 else 10)
        changed[f"{side}_forward"] = forward
        # Turned back, so that the elbow keeps bending forwards.
        changed[f"{side}_arm_twist"] = -0.85 * forward
        changed[f"{side}_elbow"] = elbow + 0.6 * swing * (1 + at)
    return posture(key, **changed)


EVERYDAY: dict[str, Keys] = {
    "walk": _walk(stride=24, bend=3, swing=16, knee=58, seconds=1.1) * 6,
    "stroll": _walk(stride=17, bend=5, swing=8, knee=48, seconds=1.4) * 5,
    "jog": _walk(stride=36, bend=10, swing=38, knee=92, seconds=0.75, elbow=72) * 8,
    "stand": [
        (1.0, STAND),
        (1.2, posture(left_spread=4, twist=12, turn=25)),
        (1.2, HANDS_ON_HIPS),
        (1.4, ARMS_CROSSED),
        (1.2, STAND),
    ],
    "talk": [
        (0.6, posture(both_raise=20, both_forward=40, both_elbow=80)),
        (0.5, posture(left_raise=35, left_forward=50, left_elbow=95, right_raise=15, right_elbow=60, turn=20)),
        (0.5, posture(right_raise=50, right_forward=65, right_elbow=75, left_raise=14, nod=8, turn=-15)),
        (0.6, posture(both_raise=40, both_forward=20, both_elbow=70, both_pronation=40, tilt=8)),
    ],
    "wave": [(0.8, STAND)]
    + [
        (0.35, posture(right_raise=110, right_forward=10, right_elbow=e, right_arm_twist=-60, turn=-10))
        for e in (75, 35, 75, 35, 75)
    ],
    "reach_up": [
        (0.8, STAND),
        (1.0, posture(right_raise=150, right_forward=60, right_elbow=8, lean=6, both_foot=12, nod=-20)),
        (0.8, posture(right_raise=120, right_forward=75, right_elbow=35)),
        (0.8, STAND),
    ],
    "reach_side": [
        (0.7, STAND),
        (0.9, posture(left_raise=85, left_forward=15, left_elbow=5, lean=18, left_thigh=10, left_knee=14, turn=35)),
        (0.8, STAND),
    ],
    "pick_up": [
        (0.6, STAND),
        (1.0, CROUCH),
        (0.5, posture(CROUCH, right_raise=40, right_forward=60, right_elbow=15, bend=45)),
        (1.0, posture(both_raise=35, both_forward=75, both_elbow=85)),
    ],
    "stoop": [
        (0.6, STAND),
        (1.0, posture(pitch=42, bend=45, both_thigh=48, both_knee=14, both_raise=92, both_forward=85, nod=15)),
        (1.0, STAND),
    ],
    "sit": [
        (0.5, STAND),
        (1.1, posture(SEATED, pitch=24, bend=20)),
        (0.5, SEATED),
        (1.2, posture(SEATED, right_raise=45, right_forward=70, right_elbow=110, turn=20)),
        (1.0, posture(SEATED, left_thigh=98, left_knee=60, twist=-15)),
        (1.1, STAND),
    ],
    "kneel": [(0.5, STAND), (1.1, KNEEL), (1.0, posture(KNEEL, both_raise=50, both_forward=80, bend=30)), (1.0, STAND)],
    "phone": [
        (0.7, STAND),
        (0.9, posture(right_raise=30, right_forward=45, right_elbow=135, right_arm_twist=-10, tilt=-10)),
        (1.4, posture(right_raise=32, right_forward=40, right_elbow=138, twist=15, turn=30)),
        (0.8, STAND),
    ],
    "carry": [
        (0.14, posture(k, both_raise=30, both_forward=85, both_elbow=85, both_arm_twist=-55))
        for _, k in _walk(20, 0, 0, 50, 1.2)
    ]
    * 5,
    "push": [
        (0.6, LUNGE),
        (0.7, posture(LUNGE, both_raise=85, both_forward=88, both_elbow=85, pitch=12)),
        (0.8, posture(LUNGE, both_raise=85, both_forward=88, both_elbow=10, pitch=22, bend=12)),
    ],
    "drink": [(0.8, STAND), (0.9, posture(right_raise=55, right_forward=55, right_elbow=132, nod=-18)), (0.8, STAND)],
    "look_around": [
        (0.8, posture(turn=50, twist=20)),
        (0.9, posture(turn=-50, twist=-25, nod=10)),
        (0.8, posture(turn=20, nod=-30)),
        (0.7, posture(HANDS_ON_HIPS, nod=25)),
    ],
    "climb": [
        (
            0.5,
            posture(
                left_thigh=75,
                left_knee=88,
                right_raise=140,
                right_forward=70,
                left_raise=60,
                left_forward=80,
                left_elbow=60,
            ),
        ),
        (0.5, posture(left_thigh=20, left_knee=25, both_raise=110, both_forward=75, both_elbow=40)),
        (
            0.5,
            posture(
                right_thigh=75,
                right_knee=88,
                left_raise=140,
                left_forward=70,
                right_raise=60,
                right_forward=80,
                right_elbow=60,
            ),
        ),
        (0.5, posture(right_thigh=20, right_knee=25, both_raise=110, both_forward=75, both_elbow=40)),
    ],
}
