"""Which Anny bone moves with which SMPL joint, and the body's surface regions by bone.

Anny has 104 bones, the SMPL format 24 joints: twist bones, fingers and toes are merged
into the joint that carries them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipeline.bodies.anatomy import MANO_JOINT_NAMES, REGIONS, SMPL_JOINT_NAMES

# Joint -> Anny bone whose head is the joint's position; {s} stands for L or R.
_CENTRE_JOINTS = {
    "pelvis": "root",
    "spine1": "spine04",
    "spine2": "spine02",
    "spine3": "spine01",
    "neck": "neck01",
    "head": "neck03",
}
_SIDE_JOINTS = {
    "hip": "upperleg01.{s}",
    "knee": "lowerleg01.{s}",
    "ankle": "foot.{s}",
    "foot": "toe3-1.{s}",
    "collar": "clavicle.{s}",
    "shoulder": "upperarm01.{s}",
    "elbow": "lowerarm01.{s}",
    "wrist": "wrist.{s}",
    "hand": "finger3-1.{s}",
}
JOINT_BONES: dict[str, str] = _CENTRE_JOINTS | {
    f"{side}_{joint}": bone.format(s=side[0].upper())
    for side in ("left", "right")
    for joint, bone in _SIDE_JOINTS.items()
}
# Start of a bone's name -> (joint it moves with, surface region); first match wins.
# `side` is replaced by left or right. The thumb turns with the wrist, as in SMPL.
_RULES: tuple[tuple[str, str, str], ...] = (
    ("root", "pelvis", "hips"),
    ("pelvis", "pelvis", "hips"),
    ("spine05", "pelvis", "hips"),
    ("spine04", "spine1", "abdomen"),
    ("spine03", "spine1", "abdomen"),
    ("spine02", "spine2", "chest"),
    ("spine01", "spine3", "chest"),
    ("neck03", "head", "face"),
    ("neck", "neck", "neck"),
    ("head", "head", "face"),
    ("eye", "head", "face"),
    ("clavicle", "side_collar", "chest"),
    ("shoulder", "side_collar", "chest"),
    ("upperarm", "side_shoulder", "side_upper_arm"),
    ("lowerarm", "side_elbow", "side_forearm"),
    ("wrist", "side_wrist", "side_hand"),
    ("metacarpal", "side_wrist", "side_hand"),
    ("finger1", "side_wrist", "side_hand"),
    ("finger", "side_hand", "side_hand"),
    ("upperleg", "side_hip", "side_thigh"),
    ("lowerleg", "side_knee", "side_shin"),
    ("foot", "side_ankle", "side_foot"),
    ("toe", "side_foot", "side_foot"),
)
_MANO_FINGERS = {"thumb": "finger1", "index": "finger2", "middle": "finger3", "ring": "finger4", "pinky": "finger5"}


def joint_of_bone(bones: list[str]) -> NDArray[np.int64]:
    """(B,) index of the SMPL joint that each Anny bone moves with."""
    return np.array([SMPL_JOINT_NAMES.index(_rule(bone)[0]) for bone in bones])


def region_of_bone(bones: list[str]) -> NDArray[np.int64]:
    """(B,) index into REGIONS; hair and face are not told apart here."""
    return np.array([REGIONS.index(_rule(bone)[1]) for bone in bones])


def hand_joint_bones(side: str) -> list[str]:
    """Anny bones at the 16 MANO joints, in MANO's order; side is L or R."""
    fingers = [f"{_MANO_FINGERS[name[:-1]]}-{name[-1]}.{side}" for name in MANO_JOINT_NAMES[1:]]
    return [f"wrist.{side}", *fingers]


def hand_joint_of_bone(bones: list[str], side: str) -> NDArray[np.int64]:
    """(B,) index of the MANO joint each Anny bone moves with; all that is no finger is the wrist."""
    joints = {bone: index for index, bone in enumerate(hand_joint_bones(side))}
    return np.array([joints.get(bone, 0) for bone in bones])


def merge(weights: sparse.csr_array, target: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """(V, count) dense weights: columns of the (V, B) `weights` added up by their target."""
    summed = sparse.csr_array((np.ones(len(target)), (np.arange(len(target)), target)), shape=(len(target), count))
    return (weights @ summed).toarray()


def _rule(bone: str) -> tuple[str, str]:
    side = {"L": "left", "R": "right"}.get(bone.rpartition(".")[2], "")
    for start, joint, region in _RULES:
        if bone.startswith(start):
            return joint.replace("side", side), region.replace("side", side)
    raise ValueError(f"Anny's bone {bone!r} belongs to no joint; pipeline/bodies/rig.py knows the bones of anny 0.6")
