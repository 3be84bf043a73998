"""A posture as anatomical angles with joint limits, and its conversion to SMPL's axis-angle pose.

Motions are drawn and blended in these angles, because limits and left-right mirroring are
plain there; SMPL's rotation vectors come out at the end.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.bodies.anatomy import SMPL_JOINT_NAMES

Array = NDArray[np.float64]

_TRUNK: dict[str, tuple[float, float]] = {
    "pitch": (-100, 100), "roll": (-100, 100), "yaw": (-1e9, 1e9),
    "bend": (-30, 75), "lean": (-35, 35), "twist": (-45, 45),
    "nod": (-40, 40), "tilt": (-30, 30), "turn": (-60, 60),
}  # fmt: skip
_LIMBS: dict[str, tuple[float, float]] = {
    "raise": (8, 170), "forward": (-85, 130), "arm_twist": (-70, 70), "elbow": (0, 145),
    "pronation": (-80, 80), "wrist": (-50, 50),
    "thigh": (-30, 120), "spread": (-15, 50), "thigh_turn": (-25, 40), "knee": (0, 140), "foot": (-60, 130),
}  # fmt: skip
LIMITS: dict[str, tuple[float, float]] = _TRUNK | {
    f"{side}_{angle}": limits for side in ("left", "right") for angle, limits in _LIMBS.items()
}
"""Angle -> (lowest, highest), degrees. Zero everywhere is not the T pose but arms down.

pitch, roll, yaw: the whole body forwards, to its left, turning left. bend, lean, twist: the
trunk likewise; nod, tilt, turn: the head. raise: upper arm from hanging (0) over level (90)
to overhead; forward: where the raised arm points, from sideways (0) to straight ahead (90);
thigh: forwards; spread: sideways; thigh_turn: knee outwards; foot: slope of the sole, toes
down, so that a foot left at 0 stands level whatever the leg does.
"""
ANKLE_LIMITS = (-30.0, 45.0)
"""The sole is level only as far as the ankle bends: toes up, toes down, degrees."""

ANGLES = tuple(LIMITS)
_LOW, _HIGH = np.array(list(LIMITS.values()), float).T
_REST = {"left_raise": 12.0, "right_raise": 12.0, "left_elbow": 12.0, "right_elbow": 12.0}
_MIRROR_SIGN = np.array(
    [-1.0 if angle in ("roll", "yaw", "lean", "twist", "tilt", "turn") else 1.0 for angle in ANGLES]
)
_MIRROR = [
    ANGLES.index({"left": "right", "right": "left"}.get(side, side) + (f"_{rest}" if rest else ""))
    for side, _, rest in (angle.partition("_") for angle in ANGLES)
]


def posture(base: Array | None = None, /, **degrees: float) -> Array:
    """(A,) angles in degrees, in the order of ANGLES: `base` (default: standing at ease) with some replaced.

    `both_x=` sets left_x and right_x. Raises ValueError for an unknown angle.
    """
    values = np.array([_REST.get(angle, 0.0) for angle in ANGLES]) if base is None else base.copy()
    for name, value in degrees.items():
        targets = [f"{side}_{name[5:]}" for side in ("left", "right")] if name.startswith("both_") else [name]
        for target in targets:
            if target not in LIMITS:
                raise ValueError(f"unknown angle {target!r}; known: {', '.join(ANGLES)}")
            values[ANGLES.index(target)] = value
    return values


def limited(angles: Array) -> Array:
    """(..., A) angles moved inside the joint limits."""
    return np.clip(angles, _LOW, _HIGH)


def mirrored(angles: Array) -> Array:
    """(..., A) angles of the mirrored person."""
    return (angles * _MIRROR_SIGN)[..., _MIRROR]


def to_smpl(angles: Array) -> Array:
    """(T, A) degrees -> (T, 72) axis-angle in radians, y up, facing +z at yaw 0."""
    angle = dict(zip(ANGLES, np.radians(limited(np.asarray(angles, float))).T, strict=True))
    rotations = {"pelvis": _turn("y", angle["yaw"]) * _turn("x", angle["pitch"]) * _turn("z", -angle["roll"])}
    for joint, share in (("spine1", 0.4), ("spine2", 0.35), ("spine3", 0.25)):
        rotations[joint] = _trunk(share, angle["bend"], angle["lean"], angle["twist"])
    for joint, share in (("neck", 0.4), ("head", 0.6)):
        rotations[joint] = _trunk(share, angle["nod"], angle["tilt"], angle["turn"])
    for side, sign in (("left", 1.0), ("right", -1.0)):
        limb = {name: angle[f"{side}_{name}"] for name in _LIMBS}
        ankle = limb["foot"] - (angle["pitch"] - limb["thigh"] + limb["knee"])
        limb["ankle"] = np.clip(ankle, *np.radians(ANKLE_LIMITS))
        rotations |= {f"{side}_{joint}": rotation for joint, rotation in _limb(limb, sign).items()}
    vectors = np.zeros((len(angles), 24, 3))
    for joint, rotation in rotations.items():
        vectors[:, SMPL_JOINT_NAMES.index(joint)] = rotation.as_rotvec()
    return vectors.reshape(len(angles), 72)


def _limb(angle: Mapping[str, Array], sign: float) -> dict[str, Rotation]:
    """Arm and leg of one side; `sign` mirrors turns about y and z for the right side."""
    # Above the shoulder the collarbone rises with the arm, as in a real shoulder.
    above = np.maximum(angle["raise"] - np.pi / 2, 0.0)
    shoulder = (
        _turn("y", -sign * angle["forward"])
        * _turn("z", sign * (angle["raise"] - np.pi / 2 - 0.35 * above))
        * _turn("x", angle["arm_twist"])
    )
    # Half of the forearm's twist is made at the wrist, so that the skin winds gently.
    half_twist = _turn("x", angle["pronation"] / 2)
    return {
        "collar": _turn("z", sign * 0.35 * above),
        "shoulder": shoulder,
        "elbow": _turn("y", -sign * angle["elbow"]) * half_twist,
        "wrist": half_twist * _turn("z", sign * angle["wrist"]),
        "hip": _turn("x", -angle["thigh"])
        * _turn("z", sign * angle["spread"])
        * _turn("y", sign * angle["thigh_turn"]),
        "knee": _turn("x", angle["knee"]),
        "ankle": _turn("x", angle["ankle"]),
    }


def _trunk(share: float, bend: Array, lean: Array, twist: Array) -> Rotation:
    return _turn("y", share * twist) * _turn("z", -share * lean) * _turn("x", share * bend)


def _turn(axis: str, angle: Array) -> Rotation:
    return Rotation.from_euler(axis, np.asarray(angle)[:, None])
