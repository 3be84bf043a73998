"""HUMBI, body session: stills from many synchronised cameras -> records; cross-view pairs.

Paper section 3.2 (over 300 subjects; silhouettes by the human parser).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets import keypoints
from pipeline.datasets.base import JOINT_MARGIN, Box, Dataset, box_around, image_size, overlaps, project
from pipeline.datasets.quarantine import Quarantine
from pipeline.datasets.source import Expected, Source, SourceFile
from pipeline.datasets.world import World, generator, write_jpeg
from pipeline.records import FrameRecord
from pipeline.rendering.cameras import Camera, ring
from pipeline.rendering.light import studio_light
from pipeline.rendering.scene import Person

HEADER_LINES = 3
UPSIDE_DOWN = np.diag([1.0, -1.0, -1.0])
"""Half a turn about x: our y-up world to HUMBI's, whose up is -y."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Stand-in: subjects, instants of each, cameras around them; pixels of an image."""

    subjects: int
    instants: int
    cameras: int
    width: int
    height: int


class Humbi(Dataset):
    """One record per instant and calibrated camera. World in metres, up is -y.

    The box surrounds the reconstructed mesh. The release scales the body before it moves it
    (`scale * SMPL + translation`), which SMPL's own `transl` can not say, so that is absent.
    """

    name = "humbi"
    standin_sizes = Sizes
    source = Source(
        homepage="https://humbi-data.net",
        licence="terms are shown at registration",
        access="form",
        how="Register, download the body bundles (images, reconstruction) and unpack them here: subject_<n>/body/...",
        files=(SourceFile(name="subj*.zip", unpack_to="."),),
        layout=(
            Expected(patterns=("subject_*/body/intrinsic.txt", "*/subject_*/body/intrinsic.txt"), meaning="cameras"),
            Expected(
                patterns=("subject_*/body/0*/image/*.jpg", "*/subject_*/body/0*/image/*.jpg"),
                meaning="images of an instant",
            ),
        ),
    )

    def _read(self, root: Path, quarantine: Quarantine) -> Iterator[FrameRecord]:
        taken: dict[str, str] = {}
        for body in [*sorted(root.glob("subject_*/body")), *sorted(root.glob("*/subject_*/body"))]:
            file, subject = body.relative_to(root).as_posix(), body.parent.name
            try:
                if subject in taken:
                    raise ValueError(f"the subject lies in {taken[subject]}, too, and is read from there")
                cameras = read_cameras(body)
            except ValueError as error:
                quarantine.add(file, str(error), len(list(body.glob("*/image/image*.jpg"))))
                continue
            taken[subject] = body.parents[1].name
            for instant in sorted(entry for entry in body.iterdir() if entry.name.isdigit()):
                yield from self._read_instant(root, instant, cameras, quarantine)

    def _read_instant(
        self, root: Path, instant: Path, cameras: dict[int, tuple[NDArray, NDArray, NDArray]], quarantine: Quarantine
    ) -> Iterator[FrameRecord]:
        file = instant.relative_to(root).as_posix()
        subject = instant.parents[1].name
        images = sorted((instant / "image").glob("image*.jpg"))
        try:
            joints = _read_numbers(instant / "reconstruction/keypoints.txt").reshape(25, 3)
            outline, margin = joints, JOINT_MARGIN
            if (instant / "reconstruction/smpl_vertex.txt").is_file():
                outline, margin = _read_numbers(instant / "reconstruction/smpl_vertex.txt").reshape(-1, 3), 0.0
            if not np.isfinite(outline).all():
                raise ValueError("NaN or infinity in what the box is made from")
            parameters = None
            if (instant / "reconstruction/smpl_parameter.txt").is_file():
                parameters = _read_numbers(instant / "reconstruction/smpl_parameter.txt").reshape(86)
        except ValueError as error:
            quarantine.add(file, f"reconstruction: {error}", len(images))
            return
        if not (whole := bool(np.isfinite(joints).all())):
            quarantine.add(file, "keypoints.txt: NaN or infinity among the joints, which are left out", records=0)
        for path in images:
            image = path.relative_to(root).as_posix()
            try:
                camera = int(path.stem.removeprefix("image"))
                if camera not in cameras:
                    raise ValueError("the camera has no calibration")
                K, R, t = cameras[camera]
                width, height = image_size(path)
                box = _clip(box_around(project(outline, K, R, t), margin), width, height)
                yield FrameRecord(
                    dataset=self.name,
                    split="train",
                    sequence=subject,
                    subject=subject,
                    camera=f"{camera:03d}",
                    frame_index=int(instant.name),
                    image=image,
                    width=width,
                    height=height,
                    box=box,
                    camera_K=K,
                    camera_R=R,
                    camera_t=t,
                    body_model=None if parameters is None else "smpl",
                    gender=None if parameters is None else "neutral",
                    global_orient=None if parameters is None else parameters[4:7],
                    body_pose=None if parameters is None else parameters[7:76],
                    betas=None if parameters is None else parameters[76:86],
                    joints_3d=joints if whole else None,
                )
            except ValueError as error:
                quarantine.add(image, str(error))

    def shards(self, sizes: Sizes) -> list[str]:
        return [f"subject_{number}" for number in range(1, sizes.subjects + 1)]

    def write_shard(self, shard: str, folder: Path, world: World, seed: int, sizes: Sizes) -> None:
        number = int(shard.removeprefix("subject_"))
        rng = generator(seed, self.name, number)
        count = sizes.subjects * sizes.instants
        moments = world.moments(generator(seed, self.name), count, range(number - 1, count, sizes.subjects))
        poses = np.concatenate([moment.poses for moment in moments])
        trans = np.concatenate([moment.trans for moment in moments])
        body = world.pose(poses, np.zeros_like(trans), world.betas(rng))
        scale = rng.uniform(0.95, 1.05)
        vertices = scale * body.vertices + trans[:, None]
        joints = scale * body.joints + trans[:, None]
        size_hw = (sizes.height, sizes.width)
        cameras = ring(rng, vertices[:, ::10].reshape(-1, 3), size_hw, sizes.cameras, fill=0.95)
        look, light = world.look(rng, sizes.width, sizes.height), studio_light(rng)
        walls = [world.wall(rng, sizes.width, sizes.height) for _ in cameras]
        # Camera numbers are sparse, as those of the body session.
        numbers = 3 * np.arange(sizes.cameras)
        home = folder / shard / "body"
        _write_cameras(home, numbers, cameras, sizes.instants)
        turned, _ = body.turned(UPSIDE_DOWN)
        turned_trans = (scale * body.rest_pelvis + trans) @ UPSIDE_DOWN.T - scale * body.rest_pelvis
        points = keypoints.body25(body.coco)
        # Toes and heel of BODY_25 by the nearest joints of SMPL: feet and ankles.
        points[:, 19:] = body.joints[:, (10, 10, 7, 11, 11, 8)]
        points = (scale * points + trans[:, None]) @ UPSIDE_DOWN.T
        for index in range(len(body)):
            instant = home / f"{10 * (index + 1):08d}"
            person = Person(vertices[index], joints[index], look)
            for camera, camera_number, wall in zip(cameras, numbers, walls, strict=True):
                rendering = world.photograph(person, camera, light, wall)
                write_jpeg(instant / f"image/image{camera_number:07d}.jpg", rendering.image)
            parameters = np.concatenate([[scale], turned_trans[index], turned[index], body.betas])
            _write_numbers(instant / "reconstruction/keypoints.txt", points[index])
            _write_numbers(instant / "reconstruction/smpl_vertex.txt", vertices[index] @ UPSIDE_DOWN.T)
            _write_numbers(instant / "reconstruction/smpl_parameter.txt", parameters[:, None])


def _write_cameras(body: Path, numbers: NDArray[np.integer], cameras: list[Camera], num_instants: int) -> None:
    header = f"Numcam {len(cameras)}\nnumframes {num_instants}\nnumP 1\n"
    texts = {"intrinsic": header, "extrinsic": header, "project": header}
    for number, camera in zip(numbers, cameras, strict=True):
        R = camera.R @ UPSIDE_DOWN.T
        centre = UPSIDE_DOWN @ camera.centre
        blocks = {
            "intrinsic": camera.K,
            "extrinsic": np.vstack([centre, R]),
            "project": camera.K @ np.column_stack([R, -R @ centre]),
        }
        for name, block in blocks.items():
            texts[name] += f"0 {number}\n{_text(block, '%.12g')}"
    body.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (body / f"{name}.txt").write_text(text)


def _write_numbers(path: Path, values: NDArray[np.floating]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_text(values, "%.6f"))


def _text(values: NDArray[np.floating], form: str) -> str:
    """One line a row; `np.savetxt` takes three times as long."""
    line = " ".join([form] * values.shape[1]) + "\n"
    return line * len(values) % tuple(values.ravel().tolist())


def read_cameras(body: Path) -> dict[int, tuple[NDArray, NDArray, NDArray]]:
    """(K, R, t) by camera number from intrinsic.txt and extrinsic.txt; world to camera, metres.

    extrinsic.txt gives the camera's centre C: t = -R C. Raises ValueError naming the file.
    """
    intrinsics = _read_blocks(body / "intrinsic.txt", rows=3)
    extrinsics = _read_blocks(body / "extrinsic.txt", rows=4)
    cameras = {}
    for number in sorted(intrinsics.keys() & extrinsics.keys()):
        centre, R = extrinsics[number][0], extrinsics[number][1:]
        cameras[number] = (intrinsics[number], R, -R @ centre)
    return cameras


def _read_blocks(path: Path, rows: int) -> dict[int, NDArray]:
    """Blocks of `0 <camera>` and `rows` lines of three numbers, after three header lines."""
    try:
        lines = [line.split() for line in path.read_text().splitlines() if line.strip()][HEADER_LINES:]
        blocks = {}
        for start in range(0, len(lines), rows + 1):
            block = np.array(lines[start + 1 : start + 1 + rows], dtype=np.float64)
            if block.shape != (rows, 3):
                raise ValueError(f"the block of line {start + HEADER_LINES + 1} has shape {block.shape}")
            blocks[int(lines[start][1])] = block
        return blocks
    except (OSError, ValueError, IndexError) as error:
        raise ValueError(f"{path.name}: not a camera file of HUMBI ({error})") from error


def _read_numbers(path: Path) -> NDArray[np.float64]:
    try:
        return np.array(path.read_text().split(), dtype=np.float64)
    except OSError as error:
        raise ValueError(f"{path.name}: {error.strerror}") from error


def _clip(box: Box, width: int, height: int) -> Box:
    """The part of the box inside the image; ValueError when the person is outside it."""
    if not overlaps(box, width, height):
        raise ValueError("the person is outside the image")
    x0, y0 = max(box[0], 0.0), max(box[1], 0.0)
    x1, y1 = min(box[0] + box[2], width), min(box[1] + box[3], height)
    return (x0, y0, x1 - x0, y1 - y0)


DATASET = Humbi()
