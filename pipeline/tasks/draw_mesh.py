"""A mesh over a picture, shaded, painted back to front: small pictures without a renderer."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SKIN = np.array([205.0, 190.0, 170.0])
_FINE = 4  # OpenCV draws in fractions 2^-4 of a pixel


def paint(
    image: NDArray[np.uint8], points: NDArray, depth: NDArray, normals: NDArray, faces: NDArray
) -> NDArray[np.uint8]:
    """Paint triangles over a copy of an RGB image.

    points (V, 2) px; depth (V,) larger = farther; normals (F, 3) in camera axes; faces (F, 3).
    Faces that look away from the camera are left out.
    """
    drawn = np.ascontiguousarray(image.copy())
    front = np.flatnonzero(normals[:, 2] < 0)
    order = front[np.argsort(-depth[faces[front]].mean(axis=1), kind="stable")]
    light = np.clip(-normals @ np.array([0.3, 0.5, 0.81]) * [1.0], 0, 1)
    corners = np.round(points[faces] * 2**_FINE).astype(np.int32)
    for face in order:
        colour = SKIN * (0.35 + 0.65 * light[face])
        cv2.fillConvexPoly(drawn, corners[face], colour.tolist(), cv2.LINE_AA, _FINE)
    return drawn


def face_normals(vertices: NDArray, faces: NDArray) -> NDArray:
    """(F, 3) unit normals of a mesh whose faces are counter-clockwise seen from outside.

    OpenCV axes are right-handed like the body's own, so a face seen from the camera has negative z.
    """
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)


def mesh_row(
    image: NDArray[np.uint8], vertices: NDArray, camera: NDArray, faces: NDArray, height: int
) -> NDArray[np.uint8]:
    """The picture, the mesh over it, and the mesh from the person's side: (height, 3 * height, 3).

    image: (S, S, 3) RGB crop; vertices: (V, 3) metres, camera axes; camera: (scale, x, y) as in
    `IterativeRegressor`, image = scale * (X + x, Y + y) on [-1, 1].
    """
    large = cv2.resize(image, (height, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    scale, shift = float(camera[0]), camera[1:]
    over = paint(
        large, _pixels(scale * (vertices[:, :2] + shift), height), vertices[:, 2], face_normals(vertices, faces), faces
    )
    # Seen along +x: a quarter turn about the vertical axis through the mesh's middle.
    turned = vertices - vertices.mean(axis=0)
    turned = np.stack([-turned[:, 2], turned[:, 1], turned[:, 0]], axis=1)
    size = 0.9 / max(np.abs(turned[:, :2]).max(), 1e-6)
    blank = np.full_like(large, 255)
    side = paint(blank, _pixels(size * turned[:, :2], height), turned[:, 2], face_normals(turned, faces), faces)
    return np.concatenate([large, over, side], axis=1)


def _pixels(points: NDArray, size: int) -> NDArray:
    return (points + 1) * size / 2 - 0.5
