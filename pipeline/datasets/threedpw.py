"""3DPW: moving-camera videos with SMPL bodies -> records; cross-pose pairs and the mesh test set.

Paper sections 3.2 (train split, cross-pose) and 4.1 (test split, body mesh recovery).
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets import keypoints
from pipeline.datasets.base import JOINT_MARGIN, Dataset, box_around, image_size
from pipeline.datasets.quarantine import Quarantine
from pipeline.datasets.source import Expected, Source, SourceFile
from pipeline.datasets.world import World, generator, write_jpeg
from pipeline.pickles import load_arrays
from pipeline.records import FrameRecord, matches
from pipeline.rendering.cameras import hand_held
from pipeline.rendering.scene import Person

FPS = 30.0
MIN_KEYPOINTS = 6
"""The release itself zeroes poses2d with fewer confident joints; we hold to the same number."""
SPLITS = {"train": "train", "validation": "val", "test": "test"}
GENDERS = {"m": "male", "f": "female", "n": "neutral"}
_OF_CAMERA: dict[str, tuple[int | None, ...]] = {"cam_poses": (None, 4, 4), "cam_intrinsics": (3, 3)}
_OF_ACTORS: dict[str, tuple[int | None, ...]] = {
    "poses": (None, 72), "betas": (None,), "trans": (None, 3), "poses2d": (None, 3, 18), "jointPositions": (None, 72),
    "campose_valid": (None,),
}  # fmt: skip
"""Of a sequence file, by key: the shape of an array, or of each actor's in a list; None = any length."""
_OF_FRAMES = ("cam_poses", "poses", "trans", "poses2d", "jointPositions", "campose_valid")
"""Have one row per frame."""
URL = "https://virtualhumans.mpi-inf.mpg.de/3DPW"
FILL = 0.42
"""Share of the frame's height that the stand-in's person takes on average: its square fits into the frame's width."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Stand-in: sequences per split; `frames` filmed instants of each, every `stride`-th of 30 Hz; pixels."""

    train_sequences: int
    val_sequences: int
    test_sequences: int
    frames: int
    stride: int
    width: int
    height: int


class ThreeDPW(Dataset):
    """One record per actor and 30 Hz frame with a valid camera pose and 2D keypoints.

    World frame of the recording, metres; body parameters are gendered SMPL in that frame.
    The box is the extent of the confident 2D keypoints in the image, widened to that of the
    person: the evaluation protocol of the 3DPW test set crops by keypoints too, but those end at
    eyes and ankles, and the boxes of the training set (COCO-Part-EFT) hold heads and feet.
    """

    name = "3dpw"
    standin_sizes = Sizes
    source = Source(
        homepage=URL,
        licence="non-commercial; downloading accepts the licence on the homepage",
        access="anonymous",
        how="Download both archives and unpack them here; the __MACOSX folders can go.",
        files=(
            SourceFile(name="imageFiles.zip", url=f"{URL}/imageFiles.zip", unpack_to=".", megabytes=4611),
            SourceFile(name="sequenceFiles.zip", url=f"{URL}/sequenceFiles.zip", unpack_to=".", megabytes=277),
        ),
        layout=(
            Expected(patterns=("imageFiles/*/image_*.jpg",), meaning="frames of a sequence"),
            Expected(
                patterns=tuple(f"sequenceFiles/{split}/*.pkl" for split in SPLITS),
                meaning="bodies and cameras of a sequence",
            ),
        ),
    )

    def _read(self, root: Path, quarantine: Quarantine) -> Iterator[FrameRecord]:
        for folder, split in SPLITS.items():
            for path in sorted((root / "sequenceFiles" / folder).glob("*.pkl")):
                yield from self._read_sequence(root, path, split, quarantine)

    def _read_sequence(self, root: Path, path: Path, split: str, quarantine: Quarantine) -> Iterator[FrameRecord]:
        file = path.relative_to(root).as_posix()
        try:
            content = load_arrays(path)
            num_actors = _num_actors(content)
        except ValueError as error:
            quarantine.add(file, str(error).replace(f"{path}: ", ""))
            return
        for actor in range(num_actors):
            try:
                yield from self._read_actor(root, content, actor, path.stem, split, file, quarantine)
            except ValueError as error:
                quarantine.add(f"{file}#actor {actor}", str(error))

    def _read_actor(
        self, root: Path, content: Any, actor: int, sequence: str, split: str, file: str, quarantine: Quarantine
    ) -> Iterator[FrameRecord]:
        found = {key: _array(content[key], key, shape) for key, shape in _OF_CAMERA.items()}
        found |= {key: _array(content[key][actor], key, shape) for key, shape in _OF_ACTORS.items()}
        if (gender := GENDERS.get(str(content["genders"][actor]))) is None:
            raise ValueError(f"the gender is {content['genders'][actor]!r}, expected one of {', '.join(GENDERS)}")
        lengths = {len(found[key]) for key in _OF_FRAMES}
        num_frames = min(lengths)
        if beyond := max(lengths) - num_frames:
            quarantine.add(f"{file}#actor {actor}", "frames beyond the shortest of its arrays", beyond)
        poses, trans, cameras = found["poses"], found["trans"], found["cam_poses"]
        points = found["poses2d"][:num_frames].transpose(0, 2, 1)
        valid = found["campose_valid"][:num_frames].astype(bool)
        usable = valid & ((points[:, :, 2] > 0).sum(axis=1) >= MIN_KEYPOINTS)
        if dropped := int((~usable).sum()):
            quarantine.add(f"{file}#actor {actor}", "no valid camera pose or too few 2D keypoints", dropped)
        for frame in np.flatnonzero(usable):
            image = f"imageFiles/{sequence}/image_{frame:05d}.jpg"
            try:
                width, height = image_size(root / image)
                confident = _confident(points[frame], width, height)
                if confident.sum() < MIN_KEYPOINTS:
                    raise ValueError("too few 2D keypoints in the image")
                yield FrameRecord(
                    dataset=self.name,
                    split=split,
                    sequence=sequence,
                    subject=str(actor),
                    camera="0",
                    frame_index=int(frame),
                    image=image,
                    width=width,
                    height=height,
                    box=box_around(points[frame, confident, :2], JOINT_MARGIN),
                    time_s=frame / FPS,
                    keypoints_2d=np.where(confident[:, None], points[frame], 0.0),
                    keypoint_set="openpose18",
                    camera_K=found["cam_intrinsics"],
                    camera_R=cameras[frame, :3, :3],
                    camera_t=cameras[frame, :3, 3],
                    body_model="smpl",
                    gender=gender,
                    global_orient=poses[frame, :3],
                    body_pose=poses[frame, 3:],
                    betas=found["betas"][:10],
                    transl=trans[frame],
                    joints_3d=found["jointPositions"][frame].reshape(-1, 3),
                )
            except ValueError as error:
                quarantine.add(f"{image}#actor {actor}", str(error))

    def shards(self, sizes: Sizes) -> list[str]:
        counts = {"train": sizes.train_sequences, "validation": sizes.val_sequences, "test": sizes.test_sequences}
        return [f"{folder}_{number:02d}" for folder, count in counts.items() for number in range(count)]

    def write_shard(self, shard: str, folder: Path, world: World, seed: int, sizes: Sizes) -> None:
        """One sequence with one actor.

        Of the 30 Hz frames only every `stride`-th is filmed: those between carry no valid
        camera pose, as the release marks frames it could not align, and have no image. So a
        small stand-in still holds many different poses at their true times.
        """
        split, number = shard.split("_")
        held_out = split == "test"
        rng = generator(seed, self.name, *shard.encode())
        motions = world.motions(held_out, "everyday")
        order = generator(seed, self.name, held_out).permutation(len(motions))
        motion = motions[order[int(number) % len(motions)]]
        clip = world.clip(rng, motion, sizes.frames * sizes.stride, FPS, on_the_spot=False)
        body = world.pose(clip.poses, clip.trans, world.betas(rng))
        low, high = (outline(body.vertices[:, ::10], axis=1) for outline in (np.min, np.max))
        middle, extent = (low + high) / 2, float((high - low).max())
        size_hw = (sizes.height, sizes.width)
        azimuth = body.photographed_from(rng)
        cameras = hand_held(rng, middle, extent, size_hw, FPS, azimuth, fill=FILL * sizes.height / min(size_hw))
        look, light = world.look(rng, sizes.width, sizes.height), world.daylight(rng)
        background = world.background(rng, sizes.width, sizes.height)
        filmed = np.arange(0, len(body), sizes.stride)
        points = np.zeros((len(body), 3, 18))
        for frame in filmed:
            person = Person(body.vertices[frame], body.joints[frame], look)
            rendering = world.photograph(person, cameras[frame], light, background)
            write_jpeg(folder / f"imageFiles/{shard}/image_{frame:05d}.jpg", rendering.image)
            found = keypoints.openpose18(np.column_stack([cameras[frame].project(body.coco[frame]), np.ones(17)]))
            inside = np.all((found[:, :2] >= 0) & (found[:, :2] < [sizes.width, sizes.height]), axis=1)
            points[frame] = np.where(inside[:, None], found, 0.0).T
        extrinsics = np.tile(np.eye(4), (len(body), 1, 1))
        extrinsics[:, :3, :3] = [camera.R for camera in cameras]
        extrinsics[:, :3, 3] = [camera.t for camera in cameras]
        content = {
            "sequence": shard,
            "poses": [body.poses],
            "betas": [body.betas],
            "trans": [body.transl],
            # The open body has one neutral shape space.
            "genders": ["n"],
            "poses2d": [points],
            "jointPositions": [body.joints.reshape(len(body), 72)],
            "cam_poses": extrinsics,
            "campose_valid": [np.isin(np.arange(len(body)), filmed).astype(np.int64)],
            "cam_intrinsics": cameras[0].K,
            "img_frame_ids": 2 * np.arange(len(body)),
        }
        path = folder / f"sequenceFiles/{split}/{shard}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(content, protocol=2))


def _confident(points: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    """(18,) which keypoints (18, 3) are detected, and in the image.

    The release holds detections far outside it, which would stretch the box (jfzhang95/PoseAug, issue 23).
    """
    inside = np.all((points[:, :2] >= 0) & (points[:, :2] < [width, height]), axis=1)
    return np.asarray(inside & (points[:, 2] > 0))


def _num_actors(content: object) -> int:
    """ValueError that says what a sequence file lacks."""
    if not isinstance(content, dict):
        raise ValueError("not a dict")
    if missing := [key for key in (*_OF_ACTORS, "genders", *_OF_CAMERA) if key not in content]:
        raise ValueError(f"no {', '.join(missing)} in it")
    lists = {key: content[key] for key in (*_OF_ACTORS, "genders")}
    counts = {len(value) if isinstance(value, list | tuple | np.ndarray) else None for value in lists.values()}
    if len(counts) != 1 or (count := counts.pop()) is None:
        raise ValueError(f"not lists with one entry per actor: {', '.join(lists)}")
    return count


def _array(value: object, key: str, expected: tuple[int | None, ...]) -> NDArray[np.float64]:
    """ValueError naming the key of what is no array of numbers of the expected shape."""
    try:
        array = np.asarray(value, np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{key} is no array of numbers") from error
    if not matches(array.shape, expected):
        shape = ", ".join("any" if length is None else str(length) for length in expected)
        raise ValueError(f"{key} is of shape {array.shape}, expected ({shape})")
    return array


DATASET = ThreeDPW()
