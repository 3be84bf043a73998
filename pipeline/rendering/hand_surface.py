"""What is drawn of an arm: the hand model's skin, continued by a forearm that ends in a sleeve.

A hand in MANO's format is open at the wrist; a camera that looks there would see into it. Zero
pose as MANO's: palm down, fingers along -x, the forearm along +x. Metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.bodies.anatomy import MANO_TIP_NAMES
from pipeline.bodies.fingers import FINGERS, finger_axes
from pipeline.rendering.texels import nearest_texel, normals_at, rasterise

if TYPE_CHECKING:
    from pipeline.bodies.model import BodyModel, UvMap

Array = NDArray[np.floating]

TO_ELBOW = np.array([1.0, 0.0, 0.0])
"""Where the forearm of the unposed hand points."""
MAX_WRIST = np.radians(60.0)
"""A wrist bends no further."""
LENGTH = 0.42
"""From the wrist to the end of the sleeve: out of the picture, most often."""
BARE_RINGS, SLEEVE_RINGS = 6, 4
SLEEVE_WIDTH = 1.16
"""Of the sleeve over the arm in it."""
# Width of a forearm over that of its wrist, by metres from the wrist.
_WIDTH_AT, _WIDTH = (0.0, 0.05, 0.15, 0.25, 0.5), (1.0, 1.04, 1.3, 1.5, 1.6)
# By which metre from the open edge the wrist has bent all it does, and the edge has become an even ring.
_BENT = 0.06
# The texture: the hand's charts in the lower left square, the arm unrolled in a strip at the right.
_HAND_SIDE, _ARM_LEFT, _ARM_RIGHT = 0.76, 0.79, 0.99


@dataclass(frozen=True, eq=False)
class HandTexels:
    """The M texels of an S x S texture that lie on the unposed right hand and its arm."""

    position: Array
    """(M, 3) metres."""
    normal: Array
    """(M, 3) unit vectors."""
    along_arm: Array
    """(M,) 0 at the wrist, 1 where the sleeve begins, 2 at its end; negative on the hand."""
    index: NDArray[np.int64]
    """(S, S) which of the M texels to copy."""


class HandSurface:
    """Faces and texture coordinates of hand and arm, and where its vertices are: V of the hand, then the arm's.

    Raises ValueError when the hand has no texture coordinates, or not one open edge.
    """

    def __init__(self, hand: BodyModel) -> None:
        if hand.uv is None or hand.tip_vertices is None:
            raise ValueError("this hand has no texture coordinates; use the open hand (`python -m pipeline.bodies`)")
        self.hand = hand
        self.joints = np.asarray(hand.joint_regressor @ hand.template_vertices, np.float64)
        """(16, 3) of the unposed mean hand."""
        self.tips = {name: hand.template_vertices[v] for name, v in zip(MANO_TIP_NAMES, hand.tip_vertices, strict=True)}
        """(3,) of each of FINGERS."""
        self.axes = dict(zip(FINGERS, finger_axes(self.joints), strict=True))
        self._loop = _open_edge(hand.faces)
        rings = 1 + BARE_RINGS + SLEEVE_RINGS
        size, count = len(self._loop), hand.num_vertices
        ring = np.concatenate([self._loop, count + np.arange((rings - 1) * size)]).reshape(rings, size)
        end = count + (rings - 1) * size
        walls = [_wall(ring[k], ring[k + 1]) for k in range(rings - 1)]
        cap = np.stack([np.roll(ring[-1], -1), ring[-1], np.full(size, end)], axis=1)
        self.faces = np.concatenate([hand.faces, *walls, cap])
        self.num_vertices = end + 1
        self.uv: UvMap | None = self._unroll(rings, size)
        self._texels: dict[int, HandTexels] = {}

    def _unroll(self, rings: int, size: int) -> UvMap:
        """The hand's own charts made as large as there is room, the arm as a strip."""
        from pipeline.bodies.model import UvMap

        assert self.hand.uv is not None
        own = self.hand.uv.uv - self.hand.uv.uv.min(axis=0)
        own = own * (_HAND_SIDE / own.max())
        first = len(own)
        u, v = np.meshgrid(np.linspace(_ARM_LEFT, _ARM_RIGHT, size + 1), np.linspace(0.01, 0.98, rings))
        strip = np.stack([u.ravel(), v.ravel()], axis=1)
        place = first + np.arange(rings * (size + 1)).reshape(rings, size + 1)
        walls = []
        for k in range(rings - 1):
            a, b = place[k, :-1], place[k, 1:]
            a1, b1 = place[k + 1, :-1], place[k + 1, 1:]
            walls.append(np.stack([np.stack([b, a, a1], axis=1), np.stack([b, a1, b1], axis=1)], axis=1).reshape(-1, 3))
        end = first + len(strip)
        cap = np.stack([place[-1, 1:], place[-1, :-1], np.full(size, end)], axis=1)
        uv = np.concatenate([own, strip, [[(_ARM_LEFT + _ARM_RIGHT) / 2, 0.99]]])
        faces_uv = np.concatenate([self.hand.uv.faces_uv, *walls, cap])
        return UvMap(uv.astype(np.float32), faces_uv.astype(np.int32))

    def vertices(self, hand: Array, turn: Array, to_elbow: Array, cuff: float) -> NDArray[np.float32]:
        """(V', 3) of hand and arm.

        Args:
            hand: (V, 3) posed vertices of the right hand.
            turn: (3, 3) the rotation its root is posed by.
            to_elbow: (3,) where the forearm points; brought closer where a wrist can not bend so far.
            cuff: metres from the wrist to where the sleeve begins.
        """
        loop = np.asarray(hand, np.float64)[self._loop]
        start, straight = loop.mean(axis=0), turn @ TO_ELBOW
        from_axis = loop - start
        along = from_axis @ straight
        bend = _bend(straight, to_elbow)
        bare = np.linspace(0.0, cuff, BARE_RINGS + 1)[1:]
        sleeve = np.linspace(cuff, LENGTH, SLEEVE_RINGS)
        centre, at = start, 0.0
        rings: list[Array] = []
        for metres in (*bare, *sleeve):
            middle = Rotation.from_rotvec(bend * min(1.0, (at + metres) / 2 / _BENT))
            centre = centre + (metres - at) * middle.apply(straight)
            at = metres
            even = from_axis - np.outer(along * min(1.0, metres / _BENT), straight)
            width = np.interp(metres, _WIDTH_AT, _WIDTH) * (SLEEVE_WIDTH if len(rings) >= len(bare) else 1.0)
            rings.append(centre + width * Rotation.from_rotvec(bend * min(1.0, metres / _BENT)).apply(even))
        return np.concatenate([hand, *rings, centre[None]]).astype(np.float32)

    def texels(self, side: int) -> HandTexels:
        """The texels of a `side` x `side` texture of the unposed hand and a bare arm; computed once per side."""
        if side not in self._texels:
            self._texels[side] = self._locate(side)
        return self._texels[side]

    def _locate(self, side: int) -> HandTexels:
        assert self.uv is not None
        hand = np.asarray(self.hand.template_vertices, np.float64)
        vertices = self.vertices(hand, np.eye(3), TO_ELBOW, LENGTH / 2).astype(np.float64)
        corners = np.asarray(self.uv.uv, np.float64)[self.uv.faces_uv] * [side, -side] + [0, side]
        face, weights, flat = rasterise(corners, side)
        rings = np.concatenate([np.linspace(0, 1, BARE_RINGS + 1)[1:], np.linspace(1, 2, SLEEVE_RINGS)])
        along = np.concatenate([np.full(len(hand), -1.0), np.repeat(rings, len(self._loop)), [2.0]])
        along[self._loop] = 0.0
        on_hand = face < len(self.hand.faces)
        return HandTexels(
            position=np.einsum("mk,mkc->mc", weights, vertices[self.faces[face]]),
            normal=normals_at(vertices, self.faces, face, weights),
            along_arm=np.where(on_hand, -1.0, (weights * along[self.faces[face]]).sum(axis=1)),
            index=nearest_texel(flat, side),
        )


def _open_edge(faces: NDArray[np.integer]) -> NDArray[np.int64]:
    """Vertices along the one open edge, in the direction of the faces beside it."""
    directed = {(int(a), int(b)) for face in faces for a, b in zip(face, np.roll(face, -1), strict=True)}
    following = {a: b for a, b in sorted(directed) if (b, a) not in directed}
    if not following:
        raise ValueError("this hand has no open edge at the wrist")
    loop = [min(following)]
    while (vertex := following[loop[-1]]) != loop[0]:
        loop.append(vertex)
    if len(loop) != len(following):
        raise ValueError("this hand is open at more places than the wrist")
    return np.array(loop)


def _wall(lower: NDArray[np.int64], upper: NDArray[np.int64]) -> NDArray[np.int64]:
    """(2 L, 3) faces between two rings of L vertices, turned as the faces beyond the lower ring."""
    after, above = np.roll(lower, -1), np.roll(upper, -1)
    return np.stack([np.stack([after, lower, upper], axis=1), np.stack([after, upper, above], axis=1)], axis=1).reshape(
        -1, 3
    )


def _bend(straight: Array, wanted: Array) -> Array:
    """(3,) rotation vector that carries one direction towards another, as far as a wrist bends."""
    axis = np.cross(straight, wanted)
    length = float(np.linalg.norm(axis))
    if length < 1e-9:
        return np.zeros(3)
    angle = np.arctan2(length, float(straight @ wanted))
    return axis / length * min(angle, MAX_WRIST)
