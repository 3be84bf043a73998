"""Measures the open body on people it was not built from: shape, skeleton and skinning against Anny itself."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial.transform import Rotation

from pipeline.bodies.anatomy import SMPL_PARENTS
from pipeline.bodies.anny_source import AnnySource, RestShapes, pose_by_bones
from pipeline.bodies.build_body import t_posed
from pipeline.bodies.fitting import ShapeSpace
from pipeline.bodies.model import BodyModel
from pipeline.bodies.rig import joint_of_bone
from pipeline.bodies.tpose import to_t_pose

Array = NDArray[np.float64]

# Spread of the random test poses per joint, radians: SMPL's order, wide at the limbs.
POSE_SPREAD = np.array(
    [0.3, 0.4, 0.4, 0.15, 0.4, 0.4, 0.15, 0.2, 0.2, 0.15, 0.1, 0.1, 0.15, 0.1, 0.1, 0.2]
    + [0.5] * 4 + [0.25] * 2 + [0.1] * 2
)  # fmt: skip


def measure(
    source: AnnySource, body: BodyModel, arrays: dict[str, NDArray], people: RestShapes, rng: np.random.Generator
) -> dict[str, float]:
    """Errors in millimetres over unseen `people`, means over vertices or joints and people.

    shape: 10 betas against the person's own T-posed mesh. joints: the regressed skeleton
    against Anny's bones. posed: random poses, the body's own skinning against Anny's with
    the same bone rotations, both with the person's exact shape. posed_with_betas: the same
    with the shape of the 10 betas, as consumers see it.
    """
    vertices, joints = t_posed(source, people)
    vertices = vertices[:, arrays["anny_vertices"]]
    space = ShapeSpace(arrays["v_template"].astype(float), arrays["shapedirs"].astype(float), arrays["shape_samples"])
    betas = space.project(vertices)
    shape = _distance(space.reconstruct(betas), vertices)
    skeleton = np.einsum("jv,nvc->njc", arrays["J_regressor"], space.reconstruct(betas))

    weights = sparse.csr_array(arrays["weights"].astype(float))
    posed, posed_with_betas = [], []
    for index in range(len(people)):
        pose = rng.normal(0, POSE_SPREAD[:, None], (24, 3))
        rotations, offsets = skeleton_motion(joints[index], pose)
        truth = posed_by_anny(source, people.vertices[index], people.heads[index], joints[index], rotations, offsets)
        truth = truth[arrays["anny_vertices"]]
        own = pose_by_bones(vertices[index], weights, rotations, offsets)
        posed.append(_distance(own, truth))
        inputs = torch.from_numpy(pose.reshape(1, 72)).float()
        with torch.no_grad():
            output = body(torch.from_numpy(betas[index : index + 1]).float(), inputs[:, 3:], inputs[:, :3])
        posed_with_betas.append(_distance(output.vertices[0].double().numpy(), truth))
    joint_error = _distance(skeleton, joints)
    return {
        "vertices": body.num_vertices,
        "faces": len(body.faces),
        "people": len(people),
        "shape_mean_mm": float(shape.mean()),
        "shape_worst_person_mm": float(shape.mean(axis=1).max()),
        "joints_mean_mm": float(joint_error.mean()),
        "joints_worst_mm": float(joint_error.max()),
        "posed_mean_mm": float(np.mean(posed)),
        "posed_p99_mm": float(np.percentile(posed, 99)),
        "posed_with_betas_mean_mm": float(np.mean(posed_with_betas)),
    }


def skeleton_motion(joints: Array, pose: Array) -> tuple[Array, Array]:
    """Global motion x -> R x + t of each SMPL joint, from rest joints (24, 3) and axis-angle (24, 3)."""
    local = Rotation.from_rotvec(pose).as_matrix()
    rotations, offsets = np.empty((24, 3, 3)), np.empty((24, 3))
    for joint, parent in enumerate(SMPL_PARENTS):
        rotations[joint] = local[joint] if parent < 0 else rotations[parent] @ local[joint]
        place = joints[joint] if parent < 0 else rotations[parent] @ joints[joint] + offsets[parent]
        offsets[joint] = place - rotations[joint] @ joints[joint]
    return rotations, offsets


def posed_by_anny(
    source: AnnySource, rest_vertices: Array, rest_heads: Array, joints: Array, rotations: Array, offsets: Array
) -> Array:
    """(V, 3) Anny's own skinning of one person, every Anny bone moved along with its SMPL joint."""
    to_t = to_t_pose(source, rest_heads)
    shift = joints[0] - to_t.heads(rest_heads)[0]
    joint = joint_of_bone(source.bones)
    bone_rotations = rotations[joint] @ to_t.rotations
    bone_offsets = np.einsum("bij,bj->bi", rotations[joint], to_t.offsets + shift) + offsets[joint]
    return source.skin(rest_vertices, rest_heads, bone_rotations, bone_offsets)


def _distance(first: Array, second: Array) -> Array:
    return np.linalg.norm(first - second, axis=-1) * 1000
