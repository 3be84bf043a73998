"""The hands that stand-ins are filmed of: gestures, looks, right hands and, mirrored, left ones.

Part of the open world (`pipeline.datasets.world`); a hand has the format of MANO (paper section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline import bodies
from pipeline.datasets.keypoints import HAND21_FROM_MANO
from pipeline.motions.gestures import gestures, to_mano, turns, wander
from pipeline.rendering.cameras import Camera
from pipeline.rendering.clothes import Look
from pipeline.rendering.hand_skin import random_hand_look
from pipeline.rendering.hand_surface import TO_ELBOW, HandSurface
from pipeline.rendering.renderer import Renderer
from pipeline.rendering.scene import Person, Rendering, SceneView

if TYPE_CHECKING:
    from pipeline.bodies import BodyModel

Array = NDArray[np.floating]
Pixels = NDArray[np.uint8]
Side = Literal["right", "left"]
MIRROR = np.array([-1.0, 1.0, 1.0])
FOREARM_FOLLOWS = 0.4
"""Share of the hand's turns that the forearm makes with it; the wrist makes the rest."""
DRIFT = 0.012
"""Standard deviation of the hand's place along each axis, metres."""


@dataclass(frozen=True, eq=False)
class PosedHand:
    """T instants of one hand with its arm: MANO parameters and what follows from them; world y-up, metres.

    A left hand is the mirror image (x) of a right one; its parameters are those of the mirrored model.
    """

    side: Side
    global_orient: Array
    """(T, 3) axis-angle."""
    hand_pose: Array
    """(T, 45) axis-angle, zero = flat hand."""
    transl: Array
    """(T, 3), smplx convention."""
    betas: Array
    """(10,)"""
    rest_wrist: Array
    """(3,) wrist of the unposed hand, the point it turns about."""
    vertices: NDArray[np.float32]
    """(T, V, 3) of the hand alone."""
    joints: Array
    """(T, 21, 3) in the order of `hand21`."""
    arm: NDArray[np.float32]
    """(T, V', 3) of the hand, then the forearm: what is drawn."""

    def __len__(self) -> int:
        return len(self.transl)

    def shifted(self, by: Array) -> PosedHand:
        """The same moved by (3,) metres."""
        step = np.asarray(by, np.float32)
        return replace(
            self,
            transl=self.transl + by,
            vertices=self.vertices + step,
            joints=self.joints + by,
            arm=self.arm + step,
        )

    def mirrored(self) -> PosedHand:
        """The other hand doing the same, mirrored at x = 0. A rotation vector mirrors with the opposite sign."""
        single = MIRROR.astype(np.float32)
        return replace(
            self,
            side="left" if self.side == "right" else "right",
            global_orient=-self.global_orient * MIRROR,
            hand_pose=-self.hand_pose * np.tile(MIRROR, 15),
            transl=self.transl * MIRROR,
            rest_wrist=self.rest_wrist * MIRROR,
            vertices=self.vertices * single,
            joints=self.joints * MIRROR,
            arm=self.arm * single,
        )

    def turned(self, rotation: Array) -> tuple[Array, Array]:
        """(global_orient, transl) of the same hand in a world turned by `rotation` (3, 3) about the origin."""
        orient = (Rotation.from_matrix(rotation) * Rotation.from_rotvec(self.global_orient)).as_rotvec()
        return orient, (self.transl + self.rest_wrist) @ rotation.T - self.rest_wrist


class Hands:
    """Hands of one model file (`data/<scale>/bodies`), read when one is first asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def model(self) -> BodyModel:
        return bodies.load(self._path, "mano")

    @cached_property
    def surface(self) -> HandSurface:
        return HandSurface(self.model)

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.surface)

    def mean_pose(self, side: Side) -> Array:
        """(45,) axis-angle that MANO's relative poses are counted from."""
        mean = np.asarray(self.model.mean_pose[3:], np.float64)
        return mean if side == "right" else -mean * np.tile(MIRROR, 15)

    def betas(self, rng: np.random.Generator) -> Array:
        """(10,) shape of a random adult's hand."""
        return np.asarray(self.model.sample_betas(rng, 1)[0], dtype=np.float64)

    def look(self, rng: np.random.Generator, width: int, height: int) -> Look:
        """Skin and sleeves of a random person, painted as finely as an image of width x height pixels shows."""
        return random_hand_look(rng, self.surface, min(512, 128 * -(-max(width, height) // 128)))

    def perform(
        self, rng: np.random.Generator, times: NDArray[np.float64], betas: Array, cuff: float, side: Side
    ) -> PosedHand:
        """Random gestures at T rising times (seconds), about the origin, fingers forwards (+z), up or inwards.

        cuff: metres from the wrist to the sleeve.
        """
        inwards, up, forwards = rng.uniform((0.0, -0.2, 0.0), (0.9, 1.0, 1.0))
        fingers = np.array([inwards, up, forwards])
        fingers /= np.linalg.norm(fingers)
        resting = Rotation.align_vectors([fingers], [-TO_ELBOW])[0] * Rotation.from_rotvec(
            rng.uniform(0, 2 * np.pi) * TO_ELBOW
        )
        own = turns(rng, times)
        hand = resting * own
        forearm = (resting * Rotation.from_rotvec(FOREARM_FOLLOWS * own.as_rotvec())).apply(TO_ELBOW)
        pose = to_mano(gestures(rng, times), np.array(list(self.surface.axes.values())))
        posed = self._pose(hand, pose, wander(rng, times, DRIFT), betas, forearm, cuff)
        return posed if side == "right" else posed.mirrored()

    def _pose(self, turn: Rotation, pose: Array, place: Array, betas: Array, forearm: Array, cuff: float) -> PosedHand:
        """Right hands with the root of the middle finger at `place` (T, 3)."""
        import torch  # loads in seconds; who only reads a data set does without

        with torch.no_grad():
            rest = self.model(torch.from_numpy(betas)[None].float(), torch.zeros(1, 45), torch.zeros(1, 3))
            wrist, middle = rest.joints[0, (0, 4)].numpy().astype(np.float64)
            orient = turn.as_rotvec()
            transl = place - turn.apply(middle - wrist) - wrist
            inputs = [torch.from_numpy(rows).float() for rows in (betas[None], pose, orient, transl)]
            out = self.model(*inputs)
        vertices = out.vertices.numpy()
        joints = np.concatenate([out.joints.numpy(), vertices[:, self.model.tip_vertices]], axis=1)
        arm = [
            self.surface.vertices(hand, matrix, direction, cuff)
            for hand, matrix, direction in zip(vertices, turn.as_matrix(), forearm, strict=True)
        ]
        return PosedHand(
            side="right",
            global_orient=orient,
            hand_pose=pose,
            transl=transl,
            betas=betas,
            rest_wrist=wrist,
            vertices=vertices,
            joints=joints[:, HAND21_FROM_MANO].astype(np.float64),
            arm=np.stack(arm),
        )

    def photograph(
        self, hands: tuple[PosedHand, ...], instant: int, look: Look, camera: Camera, light: Array, background: Pixels
    ) -> Rendering:
        """One view of one person's hands; `person` in it counts them from 1."""
        people = tuple(Person(h.arm[instant], h.joints[instant], look, h.side == "left") for h in hands)
        return self._renderer.render(SceneView(people, camera, light, background))
