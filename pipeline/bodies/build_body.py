"""The open body in SMPL's own format, made from Anny: what consumers get without a licence.

Random adults are brought into the T pose, their principal components become the ten
betas, Anny's bones are merged into SMPL's 24 joints, and regressors for the evaluation
joints (paper section 4.1) are fitted on the same people.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipeline.bodies.anatomy import (
    COCO17_NAMES,
    EXTRA_VERTEX_NAMES,
    H36M17_NAMES,
    REGIONS,
    SMPL_JOINT_NAMES,
    SMPL_PARENTS,
)
from pipeline.bodies.anny_source import AnnySource, RestShapes, pose_by_bones
from pipeline.bodies.fitting import fit_keypoints, fit_skeleton, principal_shapes
from pipeline.bodies.rig import JOINT_BONES, joint_of_bone, merge, region_of_bone
from pipeline.bodies.simplify import simplify
from pipeline.bodies.tpose import to_t_pose

Array = NDArray[np.float64]

NUM_BETAS = 10
# About SMPL's own resolution; Anny's 13k vertices would go mostly into fingers, toes and face.
NUM_VERTICES = 6500
# Where SMPL's template has its pelvis, metres: AMASS translations then mean the same.
PELVIS = np.array([0.0, -0.223, 0.028])

# Rest pose of a standing person, axis-angle in radians: where a regressor starts from.
STANDING = {
    "left_shoulder": (0.0, 0.0, -1.15),
    "right_shoulder": (0.0, 0.0, 1.15),
    "left_elbow": (0.0, -0.25, 0.0),
    "right_elbow": (0.0, 0.25, 0.0),
}


def t_posed(source: AnnySource, shapes: RestShapes) -> tuple[Array, Array]:
    """(N, V, 3) vertices and (N, 24, 3) SMPL joints in the T pose, all pelvises at PELVIS."""
    bones = [source.bone(JOINT_BONES[name]) for name in SMPL_JOINT_NAMES]
    vertices, joints = np.empty_like(shapes.vertices), np.empty((len(shapes), 24, 3))
    for index in range(len(shapes)):
        motion = to_t_pose(source, shapes.heads[index])
        heads = motion.heads(shapes.heads[index])
        shift = PELVIS - heads[0]
        vertices[index] = shift + pose_by_bones(
            shapes.vertices[index], source.weights, motion.rotations, motion.offsets
        )
        joints[index] = heads[bones] + shift
    return vertices, joints


def build_body(source: AnnySource, shapes: RestShapes) -> dict[str, NDArray]:
    """Arrays of the SMPL-format file, fitted on `shapes`."""
    vertices, joints = t_posed(source, shapes)
    mesh = simplify(vertices.mean(axis=0), source.faces, source.faces_uv, NUM_VERTICES)
    kept, faces = np.unique(mesh.faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    uv_kept, faces_uv = np.unique(mesh.faces_uv, return_inverse=True)
    coco = np.einsum("kv,nvc->nkc", source.keypoint_regressor(COCO17_NAMES), vertices)
    feet = source.keypoint_regressor(
        tuple(f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel"))
    )
    feet_points = (feet @ vertices.mean(axis=0))[None]
    tips = _finger_tips(source, vertices.mean(axis=0))
    vertices, source_weights = vertices[:, kept], source.weights[kept]

    space = principal_shapes(vertices, NUM_BETAS)
    joint_regressor = fit_skeleton(vertices, joints)
    coco_regressor = fit_keypoints(vertices, coco)
    region = _regions(space.mean, faces, source_weights, source.bones, coco.mean(axis=0))
    surface_points = np.concatenate([coco.mean(axis=0)[[0, 2, 1, 4, 3]], feet_points[0], tips])
    return {
        "v_template": space.mean.astype(np.float32),
        "f": faces.astype(np.int32),
        "shapedirs": space.components.astype(np.float32),
        "posedirs": np.zeros((len(kept), 3, 207), np.float32),
        "J_regressor": joint_regressor.astype(np.float32),
        "weights": merge(source_weights, joint_of_bone(source.bones), 24).astype(np.float32),
        "kintree_table": np.array([SMPL_PARENTS, range(24)], np.int64),
        "vertex_ids": _nearest(space.mean, surface_points).astype(np.int32),
        "uv": source.uv[uv_kept].astype(np.float32),
        "faces_uv": faces_uv.reshape(-1, 3).astype(np.int32),
        "face_regions": region.astype(np.uint8),
        "coco17_regressor": coco_regressor.astype(np.float32),
        "h36m_regressor": _h36m(vertices, joints, coco_regressor).astype(np.float32),
        "mean_pose": _standing_pose(),
        "anny_vertices": kept.astype(np.int32),
        "shape_samples": space.coefficients.astype(np.float32),
        "shape_is_male": shapes.is_male,
    }


def _h36m(vertices: Array, joints: Array, coco_regressor: Array) -> Array:
    """(17, V): limbs and trunk from the skeleton, jaw from the face, head top from the crown."""
    crown = np.zeros(vertices.shape[1])
    crown[np.argsort(-vertices.mean(axis=0)[:, 1], kind="stable")[:10]] = 0.1
    skeleton = fit_keypoints(vertices, joints)
    rows = []
    for name in H36M17_NAMES:
        if name == "head_top":
            rows.append(crown)
        elif name == "jaw":
            rows.append(coco_regressor[COCO17_NAMES.index("nose")])
        else:
            rows.append(skeleton[SMPL_JOINT_NAMES.index({"spine": "spine2"}.get(name, name))])
    return np.array(rows)


def _finger_tips(source: AnnySource, template: Array) -> Array:
    """(10, 3): thumb to little finger, left hand first."""
    tips = []
    for side in ("L", "R"):
        wrist_weight = source.weights[:, [source.bone(f"wrist.{side}")]].toarray()[:, 0]
        wrist = np.average(template, axis=0, weights=wrist_weight)
        for finger in range(1, 6):
            # The tip is the vertex farthest from the wrist that moves with the last finger bone.
            weight = source.weights[:, [source.bone(f"finger{finger}-3.{side}")]].toarray()[:, 0]
            own = np.flatnonzero(weight > 0.5)
            tips.append(template[own[np.argmax(np.linalg.norm(template[own] - wrist, axis=1))]])
    return np.array(tips)


def _nearest(template: Array, points: Array) -> NDArray[np.int64]:
    if len(points) != len(EXTRA_VERTEX_NAMES):
        raise ValueError(f"expected {len(EXTRA_VERTEX_NAMES)} surface points, got {len(points)}")
    return np.linalg.norm(template[None] - points[:, None], axis=2).argmin(axis=1)


def _regions(
    template: Array, faces: NDArray, weights: sparse.csr_array, bones: list[str], coco: Array
) -> NDArray[np.int64]:
    """(F,) index into REGIONS: by the bones that move a face, hair from face by the hairline."""
    by_vertex = merge(weights, region_of_bone(bones), len(REGIONS))
    region = by_vertex[faces].sum(axis=1).argmax(axis=1)
    centre = template[faces].mean(axis=1)
    eyes, ears = coco[1:3].mean(axis=0), coco[3:5].mean(axis=0)
    # The hairline falls from the forehead over the ears to the nape; the outer ear has no hair.
    height = np.interp(
        centre[:, 2],
        [ears[2] - 0.06, ears[2] - 0.02, ears[2] + 0.02, eyes[2]],
        [ears[1] - 0.06, ears[1] - 0.02, ears[1] + 0.04, eyes[1] + 0.055],
    )
    is_ear = (np.abs(centre[:, 0]) > 0.93 * abs(coco[3, 0])) & (np.abs(centre[:, 1] - ears[1]) < 0.035)
    is_hair = (region == REGIONS.index("face")) & (centre[:, 1] > height) & ~is_ear
    region[is_hair] = REGIONS.index("hair")
    return region


def _standing_pose() -> NDArray[np.float32]:
    pose = np.zeros((24, 3), np.float32)
    for joint, rotation in STANDING.items():
        pose[SMPL_JOINT_NAMES.index(joint)] = rotation
    return pose.reshape(72)
