"""AIST Dance DB with AIST++ annotations: nine synchronised videos per dance -> records.

Paper section 3.2 (cross-view and cross-pose pairs) and its keypoint ablation.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import frames
from pipeline.datasets.base import JOINT_MARGIN, Dataset, box_around
from pipeline.datasets.quarantine import Quarantine
from pipeline.datasets.source import Expected, Source, SourceFile
from pipeline.datasets.world import World, generator
from pipeline.pickles import load_arrays
from pipeline.records import FrameRecord
from pipeline.rendering.cameras import Camera, ring
from pipeline.rendering.light import studio_light
from pipeline.rendering.scene import Person

FPS = 60.0
MAX_FPS_OFF = 1.0
"""A video that differs by more is another copy: its frames are not those annotated. 59.94 per second are 60."""
CAMERAS = tuple(f"c{number:02d}" for number in range(1, 10))
CM = 0.01
MIN_KEYPOINTS = 6
MIN_SCORE = 0.15
"""Keypoints of a lower score are guesses: AIST++ leaves them out of its 3D joints, and we out of boxes
(google/aistplusplus_api, processing/run_estimate_keypoints.py)."""
UNSYNCHRONISED = ("gBR_sBM_cAll_d04_mBR0_ch01", "c05")
"""Sequence and camera of the one video that does not show the instants of the others (same file)."""
ANNOTATIONS = "aist_plusplus_final"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Stand-in: dances; filmed instants of each, every `stride`-th of 60 Hz; how many of the nine cameras; pixels."""

    sequences: int
    instants: int
    stride: int
    cameras: int
    width: int
    height: int


@dataclass(frozen=True)
class Dance:
    """AIST++ annotations of one sequence; world y-up, metres."""

    keypoints_2d: NDArray[np.float64]
    """(9, N, 17, 3) px, score; 0 where not detected."""
    joints_3d: NDArray[np.float64]
    """(N, 17, 3) metres."""
    poses: NDArray[np.float64] | None
    """(N, 72) axis-angle, when the sequence has body fits."""
    cameras: dict[str, tuple[NDArray, NDArray, NDArray]]
    """K, R, t by camera name."""


class Aist(Dataset):
    """One record per video frame with a detected person.

    Lens distortion is left out of the cameras. AIST++ scales its body to the dancer, which
    SMPL parameters can not say: pose is given, `transl` is absent.
    """

    name = "aist"
    standin_sizes = Sizes
    source = Source(
        homepage="https://google.github.io/aistplusplus_dataset",
        licence="videos: terms of use at aistdancedb.ongaaccel.jp; annotations: see the homepage",
        access="form",
        how=(
            "Accept the terms of the AIST Dance DB, download videos into videos/, each from "
            "https://aistdancedb.ongaaccel.jp/v1.0.0/video/10M/<name>.mp4 (names: "
            "https://storage.googleapis.com/aist_plusplus_public/20121228/video_list.txt); "
            "download fullset.zip with a Google account and unpack it here."
        ),
        files=(
            # Without an address: fetched by itself, the list would be taken for the real data.
            SourceFile(name="video_list.txt"),
            SourceFile(name="videos/<name>.mp4"),
            SourceFile(name="fullset.zip", unpack_to="."),
        ),
        layout=(
            Expected(patterns=("videos/*.mp4",), meaning="videos"),
            Expected(patterns=(f"{ANNOTATIONS}/keypoints2d/*.pkl",), meaning="2D keypoints"),
            Expected(patterns=(f"{ANNOTATIONS}/cameras/mapping.txt",), meaning="which cameras filmed a sequence"),
        ),
    )

    def _read(self, root: Path, quarantine: Quarantine) -> Iterator[FrameRecord]:
        annotations = root / ANNOTATIONS
        settings = _read_mapping(annotations / "cameras/mapping.txt")
        ignored = _read_names(annotations / "ignore_list.txt")
        held_out = {split: _read_names(annotations / f"splits/pose_{split}.txt") for split in ("val", "test")}
        known: set[Path] = set()
        for path in sorted((annotations / "keypoints2d").glob("*.pkl")):
            sequence, file = path.stem, path.relative_to(root).as_posix()
            videos = {camera: root / "videos" / f"{sequence.replace('cAll', camera)}.mp4" for camera in CAMERAS}
            known.update(videos.values())
            if sequence in ignored:
                quarantine.add(file, "on the ignore list of AIST++")
                continue
            here = {camera: video for camera, video in videos.items() if video.is_file()}
            if len(here) < len(CAMERAS):
                quarantine.add(file, "videos that are not here", len(CAMERAS) - len(here))
            if not here:
                continue
            lost = 1  # unless the annotations are read: these say how many records
            try:
                points = _read_keypoints_2d(path)
                lost = sum(int(_seen(points[CAMERAS.index(camera)]).sum()) for camera in here)
                dance = _read_dance(annotations, sequence, points, settings)
            except ValueError as error:
                quarantine.add(file, str(error), lost)
                continue
            split = next((name for name, sequences in held_out.items() if sequence in sequences), "train")
            for camera, video in here.items():
                yield from self._read_video(root, video, camera, sequence, split, dance, quarantine)
        for video in sorted(set((root / "videos").glob("*.mp4")) - known):
            quarantine.add(video.relative_to(root).as_posix(), "a video without annotations of AIST++")

    def _read_video(
        self, root: Path, video: Path, camera: str, sequence: str, split: str, dance: Dance, quarantine: Quarantine
    ) -> Iterator[FrameRecord]:
        file = video.relative_to(root).as_posix()
        points = dance.keypoints_2d[CAMERAS.index(camera)]
        seen = _seen(points)
        if (sequence, camera) == UNSYNCHRONISED:
            quarantine.add(file, "not synchronised with the other cameras", int(seen.sum()))
            return
        try:
            info = frames.video_info(video)
            if abs(info.fps - FPS) > MAX_FPS_OFF:
                found = f"{info.fps:.4g} frames per second, its annotations {FPS:.4g}"
                raise ValueError(f"the video has {found}; get the original, as SOURCE.md says")
        except ValueError as error:
            quarantine.add(file, str(error).replace(f"{video}: ", ""), int(seen.sum()))
            return
        count = min(info.frames, len(points))
        if (difference := abs(info.frames - len(points))) > 0:
            quarantine.add(file, "frames beyond the shorter of video and annotation", difference)
        K, R, t = dance.cameras.get(camera, (None, None, None))
        if unseen := int((~seen[:count]).sum()):
            quarantine.add(file, "frames without a detected person", unseen)
        for frame in map(int, np.flatnonzero(seen[:count])):
            confident = _confident(points[frame])
            try:
                yield FrameRecord(
                    dataset=self.name,
                    split=split,
                    sequence=sequence,
                    subject=_dancer(sequence),
                    camera=camera,
                    frame_index=frame,
                    image=file,
                    video_frame=frame,
                    width=info.width,
                    height=info.height,
                    box=box_around(points[frame, confident, :2], JOINT_MARGIN),
                    time_s=frame / FPS,
                    keypoints_2d=points[frame],
                    keypoint_set="coco17",
                    camera_K=K,
                    camera_R=R,
                    camera_t=t,
                    body_model=None if dance.poses is None else "smpl",
                    gender=None if dance.poses is None else "male",
                    global_orient=None if dance.poses is None else dance.poses[frame, :3],
                    body_pose=None if dance.poses is None else dance.poses[frame, 3:],
                    betas=None if dance.poses is None else np.zeros(10),
                    joints_3d=dance.joints_3d[frame],
                )
            except ValueError as error:
                quarantine.add(f"{file}#frame {frame}", str(error))

    def shards(self, sizes: Sizes) -> list[str]:
        return [f"gSI_sBM_cAll_d{number:02d}_mSI0_ch01" for number in range(1, sizes.sequences + 1)]

    def write_shard(self, shard: str, folder: Path, world: World, seed: int, sizes: Sizes) -> None:
        """One dance.

        Only every `stride`-th frame is rendered; until the next one the picture stands still
        and the annotation says that nobody was detected. So a small stand-in holds many
        different poses at their true times.
        """
        number = int(_dancer(shard)[1:])
        rng = generator(seed, self.name, number)
        motions = world.motions(False, "dance")
        motion = motions[generator(seed, self.name).permutation(len(motions))[number % len(motions)]]
        clip = world.clip(rng, motion, sizes.instants * sizes.stride, FPS, on_the_spot=True)
        body = world.pose(clip.poses, np.zeros_like(clip.trans), np.zeros(10))
        # AIST++ knows dancers by the scale of one mean body.
        scale = rng.uniform(0.93, 1.05)
        trans = clip.trans + np.array([0.0, 0.1, 0.0])
        joints, coco = scale * body.joints + trans[:, None], scale * body.coco + trans[:, None]
        filmed = np.arange(0, len(body), sizes.stride)
        vertices = scale * body.vertices[filmed] + trans[filmed, None]
        size_hw = (sizes.height, sizes.width)
        cameras = ring(rng, vertices[:, ::10].reshape(-1, 3), size_hw, len(CAMERAS), fill=0.95)
        look, light = world.look(rng, sizes.width, sizes.height), studio_light(rng)
        points = np.full((len(CAMERAS), len(body), 17, 3), np.nan, np.float32)
        walls = [world.wall(rng, sizes.width, sizes.height) for _ in range(sizes.cameras)]
        images: list[list[NDArray[np.uint8]]] = [[] for _ in walls]
        for row, frame in enumerate(filmed):
            person = Person(vertices[row], joints[frame], look)
            for index, wall in enumerate(walls):
                images[index].append(world.photograph(person, cameras[index], light, wall).image)
                points[index, frame] = np.column_stack([cameras[index].project(coco[frame]), np.ones(17)])
        for camera, taken in zip(CAMERAS, images, strict=False):
            _write_video(folder / f"videos/{shard.replace('cAll', camera)}.mp4", taken, sizes.stride, len(body))
        _write_annotations(
            folder / ANNOTATIONS,
            shard,
            cameras,
            size_hw,
            {
                "keypoints2d": {"keypoints2d": points, "det_scores": np.isfinite(points[:, :, 0, 0]).astype(np.float32),
                                "timestamps": np.arange(len(body)) * (1e6 / FPS)},
                "keypoints3d": {"keypoints3d": coco / CM, "keypoints3d_optim": coco / CM},
                "motions": {"smpl_poses": body.poses, "smpl_scaling": np.array([scale / CM]),
                            "smpl_trans": trans / CM, "smpl_loss": 0.0},
            },
        )  # fmt: skip

    def finish(self, root: Path, sizes: Sizes) -> None:
        annotations, sequences = root / ANNOTATIONS, self.shards(sizes)
        (annotations / "cameras/mapping.txt").write_text("".join(f"{name} {_setting(name)}\n" for name in sequences))
        (annotations / "ignore_list.txt").write_text("")
        (annotations / "splits").mkdir(exist_ok=True)
        for split, names in {"train": sequences, "val": [], "test": []}.items():
            (annotations / f"splits/pose_{split}.txt").write_text("".join(f"{name}\n" for name in names))


def _setting(sequence: str) -> str:
    return f"setting_{_dancer(sequence)}"


def _write_video(path: Path, images: list[NDArray[np.uint8]], stride: int, num_frames: int) -> None:
    """MPEG-4 at 60 Hz, each image (H, W, 3) RGB standing still for `stride` frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (width, height))
    if not writer.isOpened():
        raise RuntimeError(f"{path}: OpenCV has no encoder for MPEG-4")
    for frame in range(num_frames):
        writer.write(cv2.cvtColor(images[frame // stride], cv2.COLOR_RGB2BGR))
    writer.release()


def _write_annotations(
    root: Path, sequence: str, cameras: list[Camera], size_hw: tuple[int, int], pickles: dict[str, dict[str, object]]
) -> None:
    for kind, content in pickles.items():
        path = root / kind / f"{sequence}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(content, protocol=2))
    setting = [
        {
            "name": name,
            "size": [size_hw[1], size_hw[0]],
            "matrix": camera.K.tolist(),
            "rotation": cv2.Rodrigues(camera.R)[0].ravel().tolist(),
            "translation": (camera.t / CM).tolist(),
            "distortions": [0.0] * 5,
        }
        for name, camera in zip(CAMERAS, cameras, strict=True)
    ]
    (root / "cameras").mkdir(parents=True, exist_ok=True)
    (root / "cameras" / f"{_setting(sequence)}.json").write_text(json.dumps(setting))


def _dancer(sequence: str) -> str:
    """`d27` of `gWA_sFM_cAll_d27_mWA2_ch21`."""
    return next((token for token in sequence.split("_") if token[0] == "d" and token[1:].isdigit()), "0")


def _read_keypoints_2d(path: Path) -> NDArray[np.float64]:
    """(9, N, 17, 3) px, score; 0 where not detected. ValueError naming what is wrong."""
    points = _array(path, "keypoints2d")
    if points.ndim != 4 or points.shape != (len(CAMERAS), points.shape[1], 17, 3):
        raise ValueError(f"2D keypoints of shape {points.shape}, expected (9, N, 17, 3)")
    detected = np.isfinite(points).all(axis=3, keepdims=True)
    points = np.where(detected, points, 0.0)
    points[..., 2] = points[..., 2].clip(0.0, 1.0)
    return points


def _seen(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) in which frames of one camera, keypoints (N, 17, 3), a person is detected."""
    return np.asarray(_confident(points).sum(axis=1) >= MIN_KEYPOINTS)


def _confident(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which keypoints (..., 3) say where the person is."""
    return np.asarray(points[..., 2] >= MIN_SCORE)


def _read_dance(annotations: Path, sequence: str, points: NDArray[np.float64], settings: dict[str, str]) -> Dance:
    """A sequence with its 2D keypoints; the rest is read, centimetres to metres. ValueError naming what is wrong."""
    joints = _array(annotations / f"keypoints3d/{sequence}.pkl", "keypoints3d_optim")
    motion = annotations / f"motions/{sequence}.pkl"
    poses = _array(motion, "smpl_poses") if motion.is_file() else None
    num_frames = points.shape[1]
    if joints.shape != (num_frames, 17, 3):
        raise ValueError("the 3D keypoints are not 17 for every frame of the 2D keypoints")
    if poses is not None:
        if poses.size != num_frames * 72:
            raise ValueError("the poses in motions are not one of 72 numbers for every frame of the 2D keypoints")
        poses = poses.reshape(num_frames, 72)
    if sequence not in settings:
        raise ValueError("cameras/mapping.txt does not name the sequence")
    return Dance(points, joints * CM, poses, read_cameras(annotations / f"cameras/{settings[sequence]}.json"))


def _array(path: Path, key: str) -> NDArray[np.float64]:
    """ValueError naming the folder of a file that can not be used: its own name is the sequence's."""
    kind = path.parent.name
    try:
        content = load_arrays(path)
    except OSError as error:
        raise ValueError(f"{kind}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), kind)) from error
    if not isinstance(content, dict) or key not in content:
        raise ValueError(f"{kind}: no {key} in it")
    return np.asarray(content[key], dtype=np.float64)


def read_cameras(path: Path) -> dict[str, tuple[NDArray, NDArray, NDArray]]:
    """(K, R, t) by camera name from a setting file: world to camera, metres."""
    try:
        cameras = {}
        for camera in json.loads(path.read_bytes()):
            R, _ = cv2.Rodrigues(np.asarray(camera["rotation"], dtype=np.float64))
            K = np.asarray(camera["matrix"], dtype=np.float64).reshape(3, 3)
            cameras[camera["name"]] = (K, R, np.asarray(camera["translation"], dtype=np.float64) * CM)
        return cameras
    except (OSError, ValueError, KeyError, TypeError, cv2.error) as error:
        raise ValueError(f"{path.name}: not a camera setting of AIST++ ({type(error).__name__}: {error})") from error


def _read_mapping(path: Path) -> dict[str, str]:
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    if any(len(row) != 2 for row in rows):
        raise ValueError(f"{path}: expected two columns, sequence and camera setting")
    return dict(rows)


def _read_names(path: Path) -> set[str]:
    return set(path.read_text().split()) if path.is_file() else set()


DATASET = Aist()
