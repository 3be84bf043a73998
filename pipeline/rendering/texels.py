"""Where on the body each texel of a texture lies: what clothes are cut and printed by.

A pattern evaluated at 3D points of the unposed body runs on across the seams of the
texture; one drawn in texture space would not.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from pipeline.bodies.anatomy import REGIONS, SMPL_JOINT_NAMES

if TYPE_CHECKING:
    from pipeline.bodies.model import BodyModel

Array = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Texels:
    """The M texels of an S x S texture that lie on the unposed body (y up, facing +z, left at +x)."""

    position: Array
    """(M, 3) metres."""
    normal: Array
    """(M, 3) unit vectors."""
    region: NDArray[np.uint8]
    """(M,) index into pipeline.bodies.anatomy.REGIONS."""
    limb: Array
    """(M,) along a limb: 0 at shoulder or hip, 1 elbow or knee, 2 wrist or ankle, 3 its end; 0 on trunk and head."""
    metres_down: Array
    """(M,) along the limb from its root, or down from the neck: what runs round sleeves as round the trunk."""
    around: Array
    """(M,) angle about the axis of the trunk or limb, -pi..pi, 0 at the front (for arms: on top)."""
    joints: Array
    """(24, 3) SMPL joints of the unposed body, metres."""
    index: NDArray[np.int64]
    """(S, S) which of the M texels to copy: itself on the body, the nearest one in the gaps between the charts."""

    def within(self, *regions: str) -> NDArray[np.bool_]:
        """(M,) texels in any of the named regions; `left_` and `right_` may be left off."""
        wanted = [name in regions or name.split("_", 1)[-1] in regions for name in REGIONS]
        return np.array(wanted)[self.region]

    def joint(self, name: str) -> Array:
        return self.joints[SMPL_JOINT_NAMES.index(name)]

    def spread(self, values: NDArray) -> NDArray:
        """(M, ...) values on the body -> (S, S, ...) texture, gaps filled with the nearest value."""
        return values[self.index]


_CACHE: weakref.WeakKeyDictionary[BodyModel, dict[int, Texels]] = weakref.WeakKeyDictionary()


def texels_of(body: BodyModel, side: int) -> Texels:
    """The texels of a `side` x `side` texture of this body; computed once per body and side.

    Raises ValueError when the body has no texture coordinates or no surface regions.
    """
    if body.uv is None or body.face_regions is None:
        raise ValueError(
            "this body has no texture coordinates or surface regions, so no clothes can be cut for it; "
            "use the open body (`python -m pipeline.bodies`)"
        )
    sizes = _CACHE.setdefault(body, {})
    if side not in sizes:
        sizes[side] = _locate(body, side)
    return sizes[side]


def _locate(body: BodyModel, side: int) -> Texels:
    assert body.uv is not None and body.face_regions is not None  # texels_of checked
    vertices = np.asarray(body.template_vertices, np.float64)
    joints = np.asarray(body.joint_regressor, np.float64) @ vertices
    corners = np.asarray(body.uv.uv, np.float64)[body.uv.faces_uv] * [side, -side] + [0, side]
    face, weights, flat = rasterise(corners, side)
    position = np.einsum("mk,mkc->mc", weights, vertices[body.faces[face]])
    normal = normals_at(vertices, body.faces, face, weights)
    region = np.asarray(body.face_regions)[face]

    index = nearest_texel(flat, side)
    limb, down, around = _body_coordinates(position, region, joints)

    def single(values: Array) -> NDArray[np.float32]:
        # Painting waits for memory: half of it, half the time.
        return values.astype(np.float32)

    return Texels(
        single(position), single(normal), region, single(limb), single(down), single(around), single(joints), index
    )


def rasterise(corners: Array, side: int) -> tuple[NDArray[np.int64], Array, NDArray[np.int64]]:
    """Faces (M,), barycentric weights (M, 3) and flat texel indices (M,) of all texel centres inside a face.

    corners: (F, 3, 2) texel coordinates, x right and y down. Overlaps go to the last face.
    """
    low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, side).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1) - 0.5) + 1, 0, side).astype(np.int64)
    extent = np.maximum(high - low, 0)
    count = extent.prod(axis=1)
    face = np.repeat(np.arange(len(corners)), count)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    x = low[face, 0] + offset % np.maximum(extent[face, 0], 1)
    y = low[face, 1] + offset // np.maximum(extent[face, 0], 1)
    a, b, c = (corners[face, corner] for corner in range(3))
    centre = np.stack([x, y], axis=1) + 0.5

    def twice_area(p: Array, q: Array, r: Array) -> Array:
        return (q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0])

    whole = twice_area(a, b, c)
    safe = np.where(np.abs(whole) < 1e-12, np.inf, whole)
    weights = np.stack([twice_area(centre, b, c), twice_area(a, centre, c), twice_area(a, b, centre)], axis=1)
    weights /= safe[:, None]
    inside = (weights >= -1e-9).all(axis=1) & np.isfinite(safe)
    flat = (y * side + x)[inside]
    order = {int(texel): i for i, texel in enumerate(flat)}
    kept = np.fromiter(order.values(), np.int64, len(order))
    return face[inside][kept], weights[inside][kept], flat[kept]


def normals_at(vertices: Array, faces: NDArray[np.int64], face: NDArray[np.int64], weights: Array) -> Array:
    """(M, 3) smooth unit normals of points given by their face (M,) and barycentric weights (M, 3)."""
    triangle = vertices[faces]
    face_normal = np.cross(triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0])
    vertex_normal = np.zeros_like(vertices)
    for corner in range(3):
        for axis in range(3):
            vertex_normal[:, axis] += np.bincount(faces[:, corner], face_normal[:, axis], len(vertices))
    normal = np.einsum("mk,mkc->mc", weights, vertex_normal[faces[face]])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return normal


def nearest_texel(flat: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """(side, side) which of the texels at the flat indices (M,) is nearest: itself, where there is one."""
    own = np.full(side * side, -1)
    own[flat] = np.arange(len(flat))
    nearest = distance_transform_edt((own < 0).reshape(side, side), return_distances=False, return_indices=True)
    return own.reshape(side, side)[tuple(nearest)]


def _body_coordinates(position: Array, region: NDArray[np.uint8], joints: Array) -> tuple[Array, Array, Array]:
    names = [REGIONS[i] for i in range(len(REGIONS))]
    neck, pelvis = joints[SMPL_JOINT_NAMES.index("neck")], joints[SMPL_JOINT_NAMES.index("pelvis")]
    limb = np.zeros(len(position))
    down = neck[1] - position[:, 1]
    around = np.arctan2(position[:, 0] - pelvis[0], position[:, 2] - pelvis[2])
    for side in ("left", "right"):
        for parts, chain in (
            (("upper_arm", "forearm", "hand"), ("shoulder", "elbow", "wrist")),
            (("thigh", "shin", "foot"), ("hip", "knee", "ankle")),
        ):
            mask = np.isin(region, [names.index(f"{side}_{part}") for part in parts])
            if not mask.any():
                continue
            points = position[mask]
            a, b, c = (joints[SMPL_JOINT_NAMES.index(f"{side}_{joint}")] for joint in chain)
            first, second = np.linalg.norm(b - a), np.linalg.norm(c - b)
            axis = (c - a) / np.linalg.norm(c - a)
            along = (points - a) @ axis
            end = float(along.max())
            limb[mask] = np.interp(along, np.array([0.0, first, first + second, end]), [0.0, 1.0, 2.0, 3.0])
            from_axis = points - a - along[:, None] * axis
            if parts[0] == "thigh":
                # Measured on from the neck, so that a dress keeps its stripes below the hips.
                around[mask] = np.arctan2(from_axis[:, 0], from_axis[:, 2])
            else:
                down[mask] = along
                around[mask] = np.arctan2(from_axis[:, 2], from_axis[:, 1])
    return limb, down, around
