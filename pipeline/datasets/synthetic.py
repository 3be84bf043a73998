"""Synthetic scenes: one person filmed by several cameras at once -> cross-view pairs.

SURREAL-style renderings as in paper section 3.2: the whole body in view, random shape,
pose, clothes, light and viewpoints, photographs as backgrounds. The layout is our own:

    images/<scene>/<camera>_<instant>.jpg   photographs
    parts/<scene>/<camera>_<instant>.png    CIHP class of each pixel, 0 = background
    annotations/<shard>.npz                 cameras and bodies of the shard's scenes
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.base import Dataset, chunk, chunks, project
from pipeline.datasets.quarantine import Quarantine
from pipeline.datasets.source import Expected, Source
from pipeline.datasets.world import World, generator, person_box, write_jpeg, write_png
from pipeline.records import FrameRecord
from pipeline.rendering.cameras import sample_around
from pipeline.rendering.clothes import Look
from pipeline.rendering.scene import Person

CHUNK = 25
FILL = (0.6, 0.95)
"""Share of the frame that the person's box takes."""

# S scenes, C cameras, I instants.
ANNOTATION_SHAPES = {
    "scene": "S", "time_s": "SI", "camera_K": "SC33", "camera_R": "SC33", "camera_t": "SC3", "box": "SIC4",
    "betas": "S*", "global_orient": "SI3", "body_pose": "SI*", "transl": "SI3", "joints_3d": "SI*3", "size": "2",
}  # fmt: skip
"""Arrays of an annotation file: world y-up, metres, radians, pixels; `size` is (width, height)."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many scenes, cameras around each, instants half a second apart; pixels of an image."""

    scenes: int
    cameras: int
    instants: int
    width: int
    height: int


class Synthetic(Dataset):
    """One record per scene, instant and camera, with the exact silhouette and 24 SMPL joints."""

    name = "synthetic"
    standin_sizes = Sizes
    source = Source(
        homepage="README.md",
        licence="made by this project",
        access="generated",
        how="`python -m pipeline.datasets standin --dataset synthetic` renders it.",
        files=(),
        layout=(
            Expected(patterns=("annotations/*.npz",), meaning="cameras and bodies"),
            Expected(patterns=("images/*/*.jpg",), meaning="rendered images"),
        ),
    )

    def _read(self, root: Path, quarantine: Quarantine) -> Iterator[FrameRecord]:
        for path in sorted((root / "annotations").glob("*.npz")):
            try:
                content = _read_annotations(path)
            except ValueError as error:
                quarantine.add(path.relative_to(root).as_posix(), str(error))
                continue
            for scene in range(len(content["scene"])):
                yield from self._read_scene(root, content, scene, quarantine)

    def _read_scene(
        self, root: Path, content: dict[str, NDArray], scene: int, quarantine: Quarantine
    ) -> Iterator[FrameRecord]:
        name = str(content["scene"][scene])
        width, height = content["size"].tolist()
        for instant, camera in np.ndindex(content["box"].shape[1:3]):
            stem = f"{name}/{_view(camera, instant)}"
            if not (root / f"images/{stem}.jpg").is_file():
                quarantine.add(f"images/{stem}.jpg", "the image is missing")
                continue
            K, R, t = (content[f"camera_{part}"][scene, camera] for part in "KRt")
            joints = content["joints_3d"][scene, instant]
            try:
                yield FrameRecord(
                    dataset=self.name,
                    split="train",
                    sequence=name,
                    subject="0",
                    camera=f"c{camera}",
                    frame_index=instant,
                    image=f"images/{stem}.jpg",
                    width=width,
                    height=height,
                    box=tuple(content["box"][scene, instant, camera].tolist()),
                    time_s=float(content["time_s"][scene, instant]),
                    silhouette=f"parts/{stem}.png" if (root / f"parts/{stem}.png").is_file() else None,
                    keypoints_2d=np.column_stack([project(joints, K, R, t), np.ones(len(joints))]),
                    keypoint_set="smpl24",
                    camera_K=K,
                    camera_R=R,
                    camera_t=t,
                    body_model="smpl",
                    gender="neutral",
                    global_orient=content["global_orient"][scene, instant],
                    body_pose=content["body_pose"][scene, instant],
                    betas=content["betas"][scene],
                    transl=content["transl"][scene, instant],
                    joints_3d=joints,
                )
            except ValueError as error:
                quarantine.add(f"images/{stem}.jpg", str(error))

    def shards(self, sizes: Sizes) -> list[str]:
        return chunks(sizes.scenes, CHUNK)

    def looks(self, look: Look, world: World, rng: np.random.Generator, sizes: Sizes) -> list[Look]:
        """What each camera sees the person of a scene wear, where `look` was drawn for it; `rng` draws nothing else."""
        return [look] * sizes.cameras

    def write_shard(self, shard: str, folder: Path, world: World, seed: int, sizes: Sizes) -> None:
        # All moments are drawn together, so that no two scenes show the same one.
        numbers = chunk(shard, sizes.scenes, CHUNK)
        moments = world.moments(generator(seed, Synthetic.name), sizes.scenes, numbers, instants=sizes.instants)
        rngs = [generator(seed, Synthetic.name, number) for number in numbers]
        bodies = world.pose_moments(moments, rngs)
        scenes = []
        for number, rng, motion, body in zip(numbers, rngs, moments, bodies, strict=True):
            name = f"s{number:06d}"
            look, light = world.look(rng, sizes.width, sizes.height), world.light(rng)
            everywhere = body.vertices.reshape(-1, 3).astype(np.float64)
            cameras = sample_around(rng, everywhere, (sizes.height, sizes.width), sizes.cameras, fill=FILL)
            boxes = np.zeros((sizes.instants, sizes.cameras, 4))
            views = [world.background(rng, sizes.width, sizes.height) for _ in cameras]
            looks = self.looks(look, world, generator(seed, self.name, number, 1), sizes)
            for instant in range(sizes.instants):
                for index, camera in enumerate(cameras):
                    person = Person(body.vertices[instant], body.joints[instant], looks[index])
                    rendering = world.photograph(person, camera, light, views[index])
                    boxes[instant, index] = person_box(rendering)
                    write_jpeg(folder / f"images/{name}/{_view(index, instant)}.jpg", rendering.image)
                    write_png(folder / f"parts/{name}/{_view(index, instant)}.png", rendering.parts)
            scenes.append(
                {
                    "scene": name,
                    "time_s": np.arange(sizes.instants) / motion.fps,
                    "camera_K": [camera.K for camera in cameras],
                    "camera_R": [camera.R for camera in cameras],
                    "camera_t": [camera.t for camera in cameras],
                    "box": boxes,
                    "betas": body.betas,
                    "global_orient": body.poses[:, :3],
                    "body_pose": body.poses[:, 3:],
                    "transl": body.transl,
                    "joints_3d": body.joints,
                }
            )
        path = folder / f"annotations/{shard}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        columns: dict[str, Any] = {key: np.array([scene[key] for scene in scenes]) for key in scenes[0]}
        np.savez_compressed(path, **columns, size=np.array([sizes.width, sizes.height]))


def _view(camera: int, instant: int) -> str:
    return f"c{camera}_{instant:03d}"


def _read_annotations(path: Path) -> dict[str, NDArray]:
    """Arrays of one file; ValueError when it is damaged or incomplete."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {key: archive[key] for key in ANNOTATION_SHAPES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise ValueError(f"not a readable annotation file ({type(error).__name__}: {error})") from error
    lengths: dict[str, int] = {}
    for key, letters in ANNOTATION_SHAPES.items():
        shape = content[key].shape
        named = [(letter, length) for letter, length in zip(letters, shape, strict=False) if letter != "*"]
        fits = all(length == (int(a) if a.isdigit() else lengths.setdefault(a, length)) for a, length in named)
        if len(shape) != len(letters) or not fits:
            raise ValueError(f"{key} has shape {shape}, expected {'x'.join(letters)}")
    return content


DATASET = Synthetic()
