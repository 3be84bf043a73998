"""The open world that stand-ins are filmed in: bodies, motions, clothes, light and backgrounds.

A `World` is opened once per process; every draw takes the generator of its item, so that
what an item shows depends on its number alone (paper section 3.2, synthetic data).
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from pipeline import bodies, frames
from pipeline.datasets.hands import Hands
from pipeline.motions import Motion, read_folder, sample_frames, split_by_subject
from pipeline.rendering import clothes
from pipeline.rendering.cameras import Camera
from pipeline.rendering.clothes import Look
from pipeline.rendering.light import irradiance, random_light, studio_light
from pipeline.rendering.renderer import Renderer
from pipeline.rendering.scene import Person, Rendering, SceneView

if TYPE_CHECKING:
    from pipeline.bodies import BodyModel

log = logging.getLogger(__name__)

Array = NDArray[np.floating]
Pixels = NDArray[np.uint8]
DARK, DARK_SHARE = 0.15, 0.15
"""Light is drawn again when more than that share of all directions gets less brightness than that."""
_DIRECTIONS = np.stack(np.meshgrid(*[np.linspace(-1, 1, 6)] * 3), axis=-1).reshape(-1, 3)
_DIRECTIONS /= np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True)
FRONTAL = np.radians(50.0)
"""Deviation of a photographer's place from right in front of the person."""
POSE_GAP_S = 0.5
"""Poses drawn from one motion are at least so far apart."""
POSE_BATCH = 32
"""Bodies computed at once; with more, their intermediate results no longer fit into a processor's cache."""


@dataclass(frozen=True, eq=False)
class Posed:
    """T instants of one body: SMPL parameters and what follows from them; world y-up, metres."""

    poses: Array
    """(T, 72) axis-angle, the first three turn the whole body."""
    transl: Array
    """(T, 3), smplx convention."""
    betas: Array
    """(10,)"""
    rest_pelvis: NDArray[np.float64]
    """(3,) pelvis of the unposed body, the point it turns about."""
    vertices: NDArray[np.float32]
    """(T, V, 3)"""
    joints: Array
    """(T, 24, 3)"""
    coco: NDArray[np.float64]
    """(T, 17, 3) COCO keypoints."""

    def __len__(self) -> int:
        return len(self.poses)

    def photographed_from(self, rng: np.random.Generator) -> float:
        """Azimuth of a camera that takes a picture of the first instant: more often of the face than of the back."""
        facing = Rotation.from_rotvec(self.poses[0, :3]).apply([0.0, 0.0, 1.0])
        return float(np.arctan2(facing[0], facing[2]) + rng.normal(0, FRONTAL))

    def turned(self, rotation: Array) -> tuple[Array, Array]:
        """(poses, transl) of the same bodies in a world turned by `rotation` (3, 3) about the origin.

        SMPL turns about its pelvis, not the origin: rotating the root and the translation
        alone would move the body.
        """
        poses = self.poses.copy()
        poses[:, :3] = (Rotation.from_matrix(rotation) * Rotation.from_rotvec(poses[:, :3])).as_rotvec()
        return poses, (self.transl + self.rest_pelvis) @ rotation.T - self.rest_pelvis


class World:
    """What a stand-in is made of.

    Args:
        body: body model file with texture coordinates (`data/<scale>/bodies`).
        hand: hand model file with texture coordinates, beside it.
        motions: folder of AMASS-format motions.
        photographs: gives the backgrounds, images without people, when one is first needed.
    """

    def __init__(self, body: Path, hand: Path, motions: Path, photographs: Callable[[], Sequence[Path]]) -> None:
        self._body_path, self._motions_path, self._find_photographs = body, motions, photographs
        self.hands = Hands(hand)
        self._decoded = lru_cache(maxsize=256)(frames.read_image)
        self._damaged: set[Path] = set()

    @cached_property
    def body(self) -> BodyModel:
        return bodies.load(self._body_path)

    @cached_property
    def _motions(self) -> dict[str, list[Motion]]:
        pelvis = self.pose(np.zeros((1, 72)), np.zeros((1, 3)), np.zeros(10)).rest_pelvis
        splits = split_by_subject(list(read_folder(self._motions_path)))
        if not splits["train"] or not splits["test"]:
            raise ValueError(
                f"{self._motions_path}: needs motions of two people or more; `python -m pipeline.motions` makes them"
            )
        return {split: [motion.y_up(pelvis) for motion in motions] for split, motions in splits.items()}

    @cached_property
    def _photographs(self) -> Sequence[Path]:
        found = self._find_photographs()
        if not found:
            raise ValueError("no photographs without people to put behind the rendered ones")
        return found

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.body)

    def motions(self, held_out: bool, kind: str | None = None) -> list[Motion]:
        """Motions with y up; those of held-out people share no person with the others.

        `kind` narrows to one folder of motions (`dance`, `sport`), where there is one so named.
        """
        motions = self._motions["test" if held_out else "train"]
        return [motion for motion in motions if motion.name.split("/")[0] == kind] or motions

    def moments(
        self,
        rng: np.random.Generator,
        count: int,
        numbers: Iterable[int],
        kind: str | None = None,
        instants: int = 1,
    ) -> list[Motion]:
        """Those with the given numbers of `count` moments, of different motions or at different times of one.

        Each is a motion of `instants` frames half a second apart (`fps` 2), turned about the
        vertical at random and standing above the origin at its first frame. While the motions suffice, no two
        share a frame. No held-out person; `kind` as in `motions`. ValueError when a motion is too short for one.
        """
        motions = self.motions(held_out=False, kind=kind)
        steps = [round(POSE_GAP_S * motion.fps) for motion in motions]
        # The frames that leave room for the instants after them.
        openings = []
        for motion, step in zip(motions, steps, strict=True):
            room = len(motion) - step * (instants - 1)
            if room < 1:
                raise self._too_short(motion, f"{instants} instants every {POSE_GAP_S:g} s")
            openings.append(replace(motion, poses=motion.poses[:room], trans=motion.trans[:room]))
        starts = sample_frames(openings, rng, count, instants * POSE_GAP_S)
        angles = rng.uniform(0, 2 * np.pi, count)
        wanted = []
        for number in numbers:
            index, start = starts[number]
            rows = start + steps[index] * np.arange(instants)
            wanted.append(_turned(_cut(motions[index], rows, 1 / POSE_GAP_S), angles[number]))
        return wanted

    def clip(self, rng: np.random.Generator, motion: Motion, num_frames: int, fps: float, on_the_spot: bool) -> Motion:
        """A random stretch of a motion at `fps` (nearest frames). ValueError when the motion is shorter.

        `on_the_spot` takes slow travel out, so that a fixed camera can stand close.
        """
        if num_frames > int(len(motion) * fps / motion.fps):
            raise self._too_short(motion, f"{num_frames} frames at {fps:g} Hz")
        length = max(1, round(num_frames * motion.fps / fps))
        start = int(rng.integers(len(motion) - length + 1))
        rows = np.minimum(start + np.round(np.arange(num_frames) * motion.fps / fps).astype(int), len(motion) - 1)
        clip = _turned(_cut(motion, rows, fps), rng.uniform(0, 2 * np.pi))
        if not on_the_spot:
            return clip
        trans = clip.trans.copy()
        trans[:, [0, 2]] -= gaussian_filter1d(trans[:, [0, 2]], 0.5 * fps, axis=0, mode="nearest")
        return replace(clip, trans=trans)

    def _too_short(self, motion: Motion, wanted: str) -> ValueError:
        return ValueError(
            f"{self._motions_path / motion.name}: lasts {len(motion) / motion.fps:g} s, too short for {wanted}; in the "
            "params file ask for fewer (datasets.<name>.standin) or for longer motions (motions.seconds)"
        )

    def betas(self, rng: np.random.Generator) -> Array:
        """(10,) shape of a random adult."""
        return np.asarray(self.body.sample_betas(rng, 1)[0], dtype=np.float64)

    def look(self, rng: np.random.Generator, width: int, height: int) -> Look:
        """Skin, hair and clothes of a random person, painted as finely as an image of width x height pixels shows."""
        return clothes.random_look(rng, self.body, min(256, 64 * -(-max(width, height) // 64)))

    def light(self, rng: np.random.Generator) -> Array:
        """(9,) SURREAL's light, drawn again while it leaves a good part of the person black."""
        while True:
            light = random_light(rng)
            if np.quantile(irradiance(_DIRECTIONS, light), DARK_SHARE) > DARK:
                return light

    def daylight(self, rng: np.random.Generator) -> Array:
        """(9,) light of an ordinary photograph: half SURREAL's, half a studio's."""
        return (random_light(rng) + studio_light(rng)) / 2

    def pose(self, poses: Array, transl: Array, betas: Array) -> Posed:
        """Bodies of T poses (T, 72) with translations (T, 3) metres and one shape (10,)."""
        return self.pose_all([poses], [transl], [betas])[0]

    def pose_moments(self, moments: Sequence[Motion], rngs: Sequence[np.random.Generator]) -> list[Posed]:
        """Each moment by a random adult of its own."""
        poses, trans = [moment.poses for moment in moments], [moment.trans for moment in moments]
        return self.pose_all(poses, trans, [self.betas(rng) for rng in rngs])

    def pose_all(self, poses: Sequence[Array], transl: Sequence[Array], betas: Sequence[Array]) -> list[Posed]:
        """As `pose`, for many people at once: a body alone takes five times as long as one of thirty."""
        import torch  # loads in seconds; who only reads a data set does without

        lengths = [len(rows) for rows in poses]
        pose, shape = np.concatenate(poses), np.repeat(betas, lengths, axis=0)
        inputs = (shape, pose[:, 3:], pose[:, :3], np.concatenate(transl))
        parts = []
        with torch.no_grad():
            for batch in zip(*[torch.from_numpy(rows).float().split(POSE_BATCH) for rows in inputs], strict=True):
                out = self.body(*batch)
                parts.append((out.vertices, out.joints, self.body.coco17(out.vertices)))
        vertices, joints, coco = (
            np.split(torch.cat(part).numpy(), np.cumsum(lengths)[:-1]) for part in zip(*parts, strict=True)
        )
        return [
            Posed(
                poses=poses[i],
                transl=transl[i],
                betas=betas[i],
                # The pelvis is what a pose turns about: only the translation moves it.
                rest_pelvis=joints[i][0, 0] - transl[i][0],
                vertices=vertices[i],
                joints=joints[i].astype(np.float64),
                coco=coco[i].astype(np.float64),
            )
            for i in range(len(poses))
        ]

    def background(self, rng: np.random.Generator, width: int, height: int) -> Pixels:
        """(height, width, 3) RGB: a random crop, at random mirrored, of a random photograph without people."""
        image = self._photograph(int(rng.integers(len(self._photographs))))
        part = rng.uniform(0.6, 1.0) * min(image.shape[1] / width, image.shape[0] / height)
        columns, rows = max(1, int(part * width)), max(1, int(part * height))
        x, y = rng.integers(image.shape[1] - columns + 1), rng.integers(image.shape[0] - rows + 1)
        image = image[y : y + rows, x : x + columns]
        image = image[:, ::-1] if rng.random() < 0.5 else image
        smooth = cv2.INTER_AREA if part > 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, (width, height), interpolation=smooth), np.uint8)

    def _photograph(self, number: int) -> Pixels:
        """(H, W, 3) RGB: the photograph of that number, in place of a damaged one the next that is not."""
        for place in range(number, number + len(self._photographs)):
            path = self._photographs[place % len(self._photographs)]
            if path in self._damaged:
                continue
            try:
                return self._decoded(path)
            except frames.FrameError as error:
                self._damaged.add(path)
                log.warning("%s; the next photograph takes its place", error)
        raise ValueError(f"none of the {len(self._photographs)} photographs to put behind people can be read")

    def wall(self, rng: np.random.Generator, width: int, height: int) -> Pixels:
        """(height, width, 3) RGB: wall and floor of a capture studio, nearly grey, unevenly lit."""
        wall = rng.uniform(90, 215) * rng.uniform(0.95, 1.05, 3)
        floor = wall * rng.uniform(0.6, 0.95)
        rows = np.arange(height)[:, None, None] / height
        share = np.clip((rows - rng.uniform(0.68, 0.82)) / 0.04, 0, 1)
        uneven = cv2.resize(rng.uniform(0.88, 1.12, (3, 4)), (width, height), interpolation=cv2.INTER_CUBIC)
        picture = (wall * (1 - share) + floor * share) * uneven[..., None] + rng.normal(0, 1.5, (height, width, 3))
        return np.clip(picture, 0, 255).astype(np.uint8)

    def visible(self, points: Array, camera: Camera, rendering: Rendering, tolerance: float) -> NDArray[np.bool_]:
        """(N,) whether world points lie in the image and not deeper than `tolerance` metres under the surface."""
        pixels = np.floor(camera.project(points)).astype(int)
        height, width = rendering.depth.shape
        inside = np.all((pixels >= 0) & (pixels < [width, height]), axis=1)
        x, y = np.where(inside[:, None], pixels, 0).T
        surface = rendering.depth[y, x]
        return inside & ((surface == 0) | (camera.to_camera(points)[:, 2] < surface + tolerance))

    def photograph(self, person: Person, camera: Camera, light: Array, background: Pixels) -> Rendering:
        """One view of one person; see `pipeline.rendering.renderer`."""
        return self._renderer.render(SceneView((person,), camera, light, background))


def _cut(motion: Motion, rows: NDArray[np.integer], fps: float) -> Motion:
    """The rows of a motion, moved so that the first stands above the origin."""
    trans = motion.trans[rows] - motion.trans[rows[0]] * [1.0, 0.0, 1.0]
    return replace(motion, poses=motion.poses[rows], trans=trans, fps=fps)


def _turned(motion: Motion, angle: float) -> Motion:
    """The motion turned about the vertical through the origin, radians.

    Pelvis and axis are less than 3 cm apart, so turning the translation alone is near enough
    where the place is drawn at random anyway.
    """
    turn = Rotation.from_rotvec([0.0, angle, 0.0])
    poses = motion.poses.copy()
    poses[:, :3] = (turn * Rotation.from_rotvec(poses[:, :3])).as_rotvec()
    return replace(motion, poses=poses, trans=turn.apply(motion.trans))


def person_box(rendering: Rendering) -> tuple[float, float, float, float]:
    """Box around the silhouette, pixels; RuntimeError when nobody is seen."""
    if rendering.box is None:
        raise RuntimeError("nobody is in the rendering, though its camera was chosen to see the whole body")
    return rendering.box


def generator(seed: int, dataset: str, *item: int) -> np.random.Generator:
    """The generator of one item of one stand-in.

    Independent of all others, but for zeros at the end of `item`, which make no difference: `generator(seed, name)`
    draws what that of item 0 draws.
    """
    return np.random.default_rng([seed, zlib.crc32(dataset.encode()), *item])


def write_jpeg(path: Path, image: Pixels, quality: int = 92) -> None:
    """Write (H, W, 3) RGB, making folders as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, ".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])


def write_png(path: Path, values: NDArray[np.uint8]) -> None:
    """Write (H, W) labels as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, ".png", values, [])


def _write(path: Path, suffix: str, pixels: Pixels, options: list[int]) -> None:
    encoded, data = cv2.imencode(suffix, pixels, options)
    if not encoded:
        raise RuntimeError(f"{path}: OpenCV could not encode {pixels.shape} as {suffix}")
    path.write_bytes(data.tobytes())
