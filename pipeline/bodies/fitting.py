"""Linear pieces of an SMPL-format model fitted to many example people: shape components and regressors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ShapeSpace:
    """mean (V, 3), components (V, 3, K) scaled so that the coefficients have unit variance, coefficients (N, K)."""

    mean: Array
    components: Array
    coefficients: Array

    def project(self, vertices: Array) -> Array:
        """(N, K) least-squares coefficients of (N, V, 3) vertices."""
        flat = (vertices - self.mean).reshape(len(vertices), -1)
        basis = self.components.reshape(-1, self.components.shape[2])
        return np.asarray(np.linalg.solve(basis.T @ basis, basis.T @ flat.T).T, np.float64)

    def reconstruct(self, coefficients: Array) -> Array:
        """(N, V, 3) vertices of (N, K) coefficients."""
        return np.asarray(self.mean + np.einsum("nk,vck->nvc", coefficients, self.components))


def principal_shapes(vertices: Array, count: int) -> ShapeSpace:
    """The `count` principal components of (N, V, 3) vertices, through the N x N Gram matrix.

    A component's sign is free; it is chosen so that a positive coefficient makes the person larger.
    """
    mean = vertices.mean(axis=0)
    flat = (vertices - mean).reshape(len(vertices), -1)
    _, vectors = np.linalg.eigh(flat @ flat.T)
    directions = flat.T @ vectors[:, ::-1][:, :count]
    directions /= np.linalg.norm(directions, axis=0)
    growth = (mean - mean.mean(axis=0)).reshape(-1) @ directions
    directions *= np.where(growth < 0, -1.0, 1.0)
    coefficients = flat @ directions
    spread = coefficients.std(axis=0)
    return ShapeSpace(mean, (directions * spread).reshape(*mean.shape, count), coefficients / spread)


def fit_skeleton(vertices: Array, joints: Array, evenness: float = 1e-3) -> Array:
    """(J, V) rows that sum to one and give `joints` (N, J, 3) from `vertices` (N, V, 3) of the zero pose.

    Weights may be negative: Anny's bones move with the shape in ways that no average of
    surface points follows, and a skeleton regressor only ever sees shapes in the zero pose.
    `evenness` (metres per unit of weight) pulls the weights towards equal ones.
    """
    mean = vertices.mean(axis=0)
    regressor = np.zeros((joints.shape[1], vertices.shape[1]))
    for index, joint in enumerate(joints.mean(axis=0)):
        around = _surrounding(mean, joint, directions=300, cone_degrees=9.0)
        matrix, goal = _equations(vertices[:, around], joints[:, index], evenness)
        row = np.linalg.solve(matrix.T @ matrix, matrix.T @ goal)
        regressor[index, around] = row / row.sum()
    return regressor


def fit_keypoints(vertices: Array, points: Array, evenness: float = 1e-2, reach: float = 3.0) -> Array:
    """(K, V) non-negative rows that sum to one and give `points` (N, K, 3) from `vertices` (N, V, 3).

    Averages of the vertices close around a point (at most `reach` times as far as the
    nearest one) keep to its joint when the body is posed, so these rows may be applied to
    posed meshes.
    """
    mean = vertices.mean(axis=0)
    regressor = np.zeros((points.shape[1], vertices.shape[1]))
    for index, point in enumerate(points.mean(axis=0)):
        around = _surrounding(mean, point, directions=80, cone_degrees=12.0)
        distance = np.linalg.norm(mean[around] - point, axis=1)
        around = around[distance <= reach * distance.min()]
        row, _ = nnls(*_equations(vertices[:, around], points[:, index], evenness))
        regressor[index, around] = row / row.sum()
    return regressor


def _equations(vertices: Array, points: Array, evenness: float) -> tuple[Array, Array]:
    """Least squares for one row: hit the points, stay near equal weights, sum to one."""
    count, scale = vertices.shape[1], np.sqrt(len(vertices))
    coordinates = vertices.transpose(0, 2, 1).reshape(-1, count)
    matrix = np.vstack([coordinates, scale * evenness * np.eye(count), 10 * scale * np.ones((1, count))])
    goal = np.concatenate([points.reshape(-1), np.full(count, scale * evenness / count), [10 * scale]])
    return matrix, goal


def _surrounding(vertices: Array, point: Array, directions: int, cone_degrees: float) -> NDArray[np.int64]:
    """Indices of the nearest vertex in each of many directions from `point`, each listed once."""
    offset = vertices - point
    distance = np.linalg.norm(offset, axis=1)
    unit = offset / np.maximum(distance, 1e-9)[:, None]
    # Fibonacci sphere: directions spread evenly.
    step = np.arange(directions) + 0.5
    height, angle = 1 - 2 * step / directions, np.pi * (1 + 5**0.5) * step
    ring = np.sqrt(1 - height**2)
    sphere = np.stack([ring * np.cos(angle), height, ring * np.sin(angle)], axis=1)
    inside = unit @ sphere.T > np.cos(np.radians(cone_degrees))
    nearest = np.where(inside, distance[:, None], np.inf).argmin(axis=0)
    return np.unique(nearest[inside.any(axis=0)])
