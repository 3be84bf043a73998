"""A tiny body in SMPL's format, and stick figures of it as records and crops of two datasets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from models.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from pipeline.bodies import SMPL_JOINT_NAMES, SMPL_PARENTS
from pipeline.bodies import load as load_body
from pipeline.bodies.anatomy import H36M17_NAMES
from pipeline.crops import Crop, Square, encode_jpeg, write_crops
from pipeline.layout import Layout
from pipeline.manifests import write_records
from pipeline.records import FrameRecord
from pipeline.tasks.skeleton import Skeleton

CORNERS = 6
"""Vertices of each joint's octahedron."""
_SIDE = {"hip": (0.1, -0.24, 0.0), "knee": (0.11, -0.62, 0.0), "ankle": (0.1, -1.03, -0.02), "foot": (0.12, -1.09, 0.1),
         "collar": (0.07, 0.2, 0.0), "shoulder": (0.18, 0.22, 0.0), "elbow": (0.44, 0.22, -0.01),
         "wrist": (0.7, 0.22, 0.0), "hand": (0.78, 0.21, 0.0)}  # fmt: skip
_MIDDLE = {"pelvis": (0.0, -0.15, 0.0), "spine1": (0.0, -0.03, 0.0), "spine2": (0.0, 0.1, 0.0),
           "spine3": (0.0, 0.15, 0.0), "neck": (0.0, 0.3, 0.0), "head": (0.0, 0.4, 0.03)}  # fmt: skip


def rest_joints() -> NDArray[np.float64]:
    rows = []
    for name in SMPL_JOINT_NAMES:
        side, _, part = name.partition("_")
        x, y, z = _SIDE[part] if part in _SIDE else _MIDDLE[name]
        rows.append((-x if side == "right" else x, y, z))
    return np.array(rows)


def write_body(path: Path) -> None:
    """An octahedron at every joint, moved by that joint alone; shapes stretch it along the axes."""
    joints = rest_joints()
    corners = 0.04 * np.concatenate([np.eye(3), -np.eye(3)])
    vertices = (joints[:, None] + corners).reshape(-1, 3)
    count = len(vertices)
    faces = [(a, b, c) for a in (0, 3) for b in (1, 4) for c in (2, 5)]
    faces = [f if (sum(i >= 3 for i in f) % 2 == 0) else (f[0], f[2], f[1]) for f in faces]
    owner = np.repeat(np.arange(24), CORNERS)
    weights = np.eye(24)[owner]
    shapedirs = np.zeros((count, 3, 10))
    for axis in range(3):
        shapedirs[:, axis, axis] = 0.05 * vertices[:, axis]
    regressor = np.eye(24)[:, owner] / CORNERS
    named = {name: i for i, name in enumerate(SMPL_JOINT_NAMES)} | {"spine": 6, "jaw": 15, "head_top": 15}
    np.savez(
        path, v_template=vertices, f=np.concatenate([np.array(faces) + CORNERS * j for j in range(24)]),
        shapedirs=shapedirs, posedirs=np.zeros((count, 3, 207)), J_regressor=regressor, weights=weights,
        kintree_table=np.array([SMPL_PARENTS, range(24)]), h36m_regressor=regressor[[named[n] for n in H36M17_NAMES]],
    )  # fmt: skip


def write_people(layout: Layout, dataset: str, pool: str, split: str, count: int, seed: int, size: int = 80) -> None:
    """Stick figures in random poses before a camera whose axes are not the world's."""
    skeleton = Skeleton(load_body(layout.smpl))
    rng = np.random.default_rng(seed)
    pose = 0.25 * rng.standard_normal((count, 24, 3))
    pose[:, 0] = 0
    pose[:, 0, 1] = rng.uniform(-1, 1, count)
    betas = rng.standard_normal((count, 10)) * 0.5
    transl = rng.uniform(-0.3, 0.3, (count, 3))
    # World y up, camera 4 m in front of the person, looking at it along about -z.
    tilt = axis_angle_to_matrix(torch.tensor([0.2, 0.3, 0.1], dtype=torch.float64)).numpy()
    R, t = tilt @ np.diag([1.0, -1.0, -1.0]), np.array([0.0, 0.0, 4.0])
    K = np.array([[300.0, 0, 120], [0, 300.0, 160], [0, 0, 1]])
    rotations = axis_angle_to_matrix(torch.tensor(pose))
    joints = skeleton.double()(rotations, torch.tensor(betas)).numpy() + transl[:, None]
    in_camera = joints @ R.T + t
    points = in_camera @ K.T
    points = points[..., :2] / points[..., 2:]
    records, crops = [], []
    vectors = matrix_to_axis_angle(rotations).numpy()
    for i in range(count):
        low, high = points[i].min(0), points[i].max(0)
        side = 1.2 * float((high - low).max())
        cx, cy = ((low + high) / 2).tolist()
        record = FrameRecord(
            dataset=dataset, split=split, sequence=f"s{i:04d}", subject="0", camera="0", frame_index=0,
            image=f"{i}.jpg", width=240, height=320, box=(*low.tolist(), *(high - low).tolist()),
            camera_K=K, camera_R=R, camera_t=t, body_model="smpl", gender="neutral",
            global_orient=vectors[i, 0], body_pose=vectors[i, 1:].ravel(), betas=betas[i], transl=transl[i],
        )  # fmt: skip
        records.append(record)
        drawn = draw((points[i] - (cx, cy)) * size / side + size / 2, size, rng)
        crops.append(Crop(frame_id=record.frame_id, jpeg=encode_jpeg(drawn), square=Square(cx, cy, side)))
    write_records(records, layout.records(dataset))
    write_crops(layout.crops(pool, dataset), crops, size)


def draw(points: NDArray, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bones as thick lines, each of its own colour."""
    image = np.full((size, size, 3), int(rng.integers(20, 120)), np.uint8)
    for joint, parent in enumerate(SMPL_PARENTS[1:], start=1):
        colour = ((joint * 37) % 200 + 55, (joint * 91) % 200 + 55, (joint * 53) % 200 + 55)
        a, b = (tuple(round(float(v) * 16) for v in points[k]) for k in (joint, parent))
        cv2.line(image, a, b, colour, 5, cv2.LINE_AA, 4)
    return image
