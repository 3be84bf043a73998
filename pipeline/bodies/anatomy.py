"""Names and orders of joints, keypoints and surface regions that every body consumer shares.

Facts of the SMPL and MANO formats and of the evaluation protocol (paper section 4.1,
datasets: SMPL model files, evaluation regressors). Left is the person's left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMPL_JOINT_NAMES = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hand", "right_hand",
)  # fmt: skip
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

MANO_JOINT_NAMES = (
    "wrist", "index1", "index2", "index3", "middle1", "middle2", "middle3", "pinky1", "pinky2", "pinky3",
    "ring1", "ring2", "ring3", "thumb1", "thumb2", "thumb3",
)  # fmt: skip
MANO_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
MANO_TIP_NAMES = ("thumb", "index", "middle", "ring", "pinky")

COCO17_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip

H36M17_NAMES = (
    "pelvis", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "spine",
    "neck", "jaw", "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder",
    "right_elbow", "right_wrist",
)  # fmt: skip
"""Row order of SPIN's `J_regressor_h36m`: left leg before right leg."""

LSP14_NAMES = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist",
    "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
)  # fmt: skip
H36M17_TO_LSP14 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)

EXTRA_VERTEX_NAMES = (
    "nose", "reye", "leye", "rear", "lear", "LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe",
    "RHeel", "lthumb", "lindex", "lmiddle", "lring", "lpinky", "rthumb", "rindex", "rmiddle", "rring",
    "rpinky",
)  # fmt: skip
"""Surface points that smplx appends to the skeleton; each needs one vertex index of the mesh."""

REGIONS = (
    "hair", "face", "neck", "chest", "abdomen", "hips",
    "left_upper_arm", "right_upper_arm", "left_forearm", "right_forearm", "left_hand", "right_hand",
    "left_thigh", "right_thigh", "left_shin", "right_shin", "left_foot", "right_foot",
)  # fmt: skip
"""Surface regions of the open body, in the order of the labels of `BodyModel.face_regions`."""

CIHP_NAMES = (
    "background", "hat", "hair", "glove", "sunglasses", "upper_clothes", "dress", "coat", "socks", "pants",
    "torso_skin", "scarf", "skirt", "face", "left_arm", "right_arm", "left_leg", "right_leg", "left_shoe",
    "right_shoe",
)  # fmt: skip
"""The 20 classes of the Crowd Instance-level Human Parsing labels."""

REGION_TO_CIHP = {
    "hair": "hair", "face": "face", "neck": "torso_skin", "chest": "torso_skin", "abdomen": "torso_skin",
    "hips": "torso_skin", "left_upper_arm": "left_arm", "left_forearm": "left_arm", "left_hand": "left_arm",
    "right_upper_arm": "right_arm", "right_forearm": "right_arm", "right_hand": "right_arm",
    "left_thigh": "left_leg", "left_shin": "left_leg", "left_foot": "left_leg", "right_thigh": "right_leg",
    "right_shin": "right_leg", "right_foot": "right_leg",
}  # fmt: skip
"""What an undressed region is called by a human parser."""


def _mirror_names(names: tuple[str, ...]) -> tuple[int, ...]:
    swap = {"left_": "right_", "right_": "left_"}
    mirrored = [
        next((swap[side] + name[len(side) :] for side in swap if name.startswith(side)), name) for name in names
    ]
    return tuple(names.index(name) for name in mirrored)


SMPL_FLIP = _mirror_names(SMPL_JOINT_NAMES)
COCO17_FLIP = _mirror_names(COCO17_NAMES)
LSP14_FLIP = _mirror_names(LSP14_NAMES)


def flip_pose(pose: NDArray[np.floating]) -> NDArray[np.floating]:
    """Pose of the mirrored person (mirrored at the plane x = 0).

    pose: (..., 72) axis-angle of the 24 SMPL joints, radians. Mirroring swaps left and right
    joints and negates the y and z parts of every rotation vector.
    """
    pose = np.asarray(pose)
    if pose.shape[-1] != 72:
        raise ValueError(f"flip_pose needs 72 numbers per pose (24 joints, axis-angle), got {pose.shape[-1]}")
    joints = pose.reshape(*pose.shape[:-1], 24, 3)[..., list(SMPL_FLIP), :] * np.array([1.0, -1.0, -1.0], pose.dtype)
    return joints.reshape(pose.shape)
