"""Penn Action: short sport videos as frame folders with 13 joints -> records; cross-pose pairs.

Paper section 3.2 (2,326 videos of 15 actions).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from pipeline.datasets import keypoints
from pipeline.datasets.base import Dataset, image_size
from pipeline.datasets.quarantine import Quarantine
from pipeline.datasets.source import Expected, Source, SourceFile
from pipeline.datasets.world import World, generator, person_box, write_jpeg
from pipeline.records import FrameRecord
from pipeline.rendering.cameras import framed
from pipeline.rendering.scene import Person

FPS = 30.0
STANDIN_FPS = 7.5
"""Frames per second of motion in the stand-in: slow for a video, but each frame is another pose."""
JOINT_DEPTH = 0.15
"""A joint so many metres under the visible surface is hidden by another part of the body."""
SPLITS = {1: "train", -1: "test"}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Stand-in: videos, every fourth of the test split; frames of each; pixels."""

    videos: int
    frames: int
    width: int
    height: int


class PennAction(Dataset):
    """One record per frame. Frames have no time stamps, so `time_s` counts 30 per second.

    Joints that are not visible get confidence 0: the release stores them near pixel (1, 1).
    """

    name = "penn_action"
    standin_sizes = Sizes
    source = Source(
        homepage="https://dreamdragon.github.io/PennAction",
        licence="research use; see the README in the archive",
        access="anonymous",
        how="Download the archive (by hand from the box page, should the address below not answer) and unpack it here.",
        files=(
            SourceFile(
                name="Penn_Action.tar.gz",
                url="https://www.cis.upenn.edu/~kostas/Penn_Action.tar.gz",
                unpack_to=".",
                megabytes=3235,
            ),
        ),
        layout=(
            Expected(patterns=("Penn_Action/labels/*.mat", "labels/*.mat"), meaning="joints and boxes of a video"),
            Expected(patterns=("Penn_Action/frames/*/*.jpg", "frames/*/*.jpg"), meaning="frames of a video"),
        ),
    )

    def _read(self, root: Path, quarantine: Quarantine) -> Iterator[FrameRecord]:
        base = root / "Penn_Action" if (root / "Penn_Action").is_dir() else root
        labels = sorted((base / "labels").glob("*.mat"))
        for path in labels:
            yield from self._read_video(root, base, path, quarantine)
        known = {path.stem for path in labels}
        for folder in sorted((base / "frames").glob("*/")):
            if folder.name not in known:
                count = len(list(folder.glob("[0-9]*.jpg")))
                quarantine.add(folder.relative_to(root).as_posix(), "frames without a label file", count)

    def _read_video(self, root: Path, base: Path, path: Path, quarantine: Quarantine) -> Iterator[FrameRecord]:
        file = path.relative_to(root).as_posix()
        frames = base / "frames" / path.stem
        try:
            labels = _read_labels(path)
        except ValueError as error:
            quarantine.add(file, str(error))
            return
        images = [f"{frame + 1:06d}.jpg" for frame in range(len(labels["x"]))]
        if extra := {entry.name for entry in frames.glob("[0-9]*.jpg")} - set(images):
            quarantine.add(file, "images without labels", len(extra))
        for frame, name in enumerate(images):
            image = (frames / name).relative_to(root).as_posix()
            # A few videos have one row of boxes less than frames; the last box stays valid.
            x0, y0, x1, y1 = labels["bbox"][min(frame, len(labels["bbox"]) - 1)]
            visible = labels["visibility"][frame] > 0
            points = np.stack([labels["x"][frame], labels["y"][frame]], axis=1)
            try:
                # The labels' own `dimensions` can be off by a pixel; the image is what gets cropped.
                width, height = image_size(root / image)
                yield FrameRecord(
                    dataset=self.name,
                    split=SPLITS[labels["train"]],
                    sequence=path.stem,
                    subject="0",
                    camera="0",
                    frame_index=frame,
                    image=image,
                    width=width,
                    height=height,
                    box=(float(x0), float(y0), float(x1 - x0), float(y1 - y0)),
                    time_s=frame / FPS,
                    keypoints_2d=np.concatenate([np.where(visible[:, None], points, 0.0), visible[:, None]], axis=1),
                    keypoint_set="penn13",
                    label=labels["action"],
                )
            except ValueError as error:
                quarantine.add(image, str(error))

    def shards(self, sizes: Sizes) -> list[str]:
        return [f"{number:04d}" for number in range(1, sizes.videos + 1)]

    def write_shard(self, shard: str, folder: Path, world: World, seed: int, sizes: Sizes) -> None:
        rng = generator(seed, self.name, int(shard))
        held_out = int(shard) % 4 == 0
        motions = world.motions(held_out, "sport")
        order = generator(seed, self.name, 0, held_out).permutation(len(motions))
        motion = motions[order[int(shard) % len(motions)]]
        clip = world.clip(rng, motion, sizes.frames, STANDIN_FPS, on_the_spot=True)
        body = world.pose(clip.poses, clip.trans, world.betas(rng))
        size_hw = (sizes.height, sizes.width)
        everywhere = body.vertices[:, ::10].reshape(-1, 3).astype(np.float64)
        camera = framed(everywhere, body.photographed_from(rng), np.deg2rad(rng.uniform(0, 15)), 0.9, size_hw)
        look, light = world.look(rng, sizes.width, sizes.height), world.daylight(rng)
        background = world.background(rng, sizes.width, sizes.height)
        joints = keypoints.penn13(body.coco)
        pixels, visible = np.ones((len(body), 13, 2)), np.zeros((len(body), 13), np.uint8)
        boxes = np.zeros((len(body), 4))
        for frame in range(len(body)):
            person = Person(body.vertices[frame], body.joints[frame], look)
            rendering = world.photograph(person, camera, light, background)
            write_jpeg(folder / f"Penn_Action/frames/{shard}/{frame + 1:06d}.jpg", rendering.image)
            seen = world.visible(joints[frame], camera, rendering, JOINT_DEPTH)
            visible[frame] = seen
            pixels[frame, seen] = camera.project(joints[frame, seen])
            x, y, width, height = person_box(rendering)
            boxes[frame] = x, y, x + width, y + height
        path = folder / f"Penn_Action/labels/{shard}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = {
            "action": motion.name.rpartition("/")[2].rstrip("_0123456789"),
            "pose": "unknown",
            "x": pixels[:, :, 0],
            "y": pixels[:, :, 1],
            "visibility": visible,
            "train": -1 if held_out else 1,
            "bbox": boxes,
            "dimensions": np.array([[sizes.height, sizes.width, len(body)]], np.uint16),
            "nframes": len(body),
        }
        scipy.io.savemat(path, labels)
        # SciPy stamps the time into the first 116 bytes of text; the same inputs must give the same file.
        content = path.read_bytes()
        path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + content[116:])


def _read_labels(path: Path) -> dict[str, Any]:
    """Arrays of one label file, scalars unwrapped; ValueError when it is damaged or incomplete."""
    try:
        content = scipy.io.loadmat(path)
        arrays = ("x", "y", "visibility", "bbox")
        labels: dict[str, Any] = {key: np.asarray(content[key], dtype=np.float64) for key in arrays}
        labels["train"] = int(np.ravel(content["train"])[0])
        labels["action"] = str(np.ravel(content["action"])[0])
    except KeyError as error:
        raise ValueError(f"no {error.args[0]} in it") from None
    except Exception as error:  # scipy raises many unrelated types on a damaged file
        raise ValueError(f"not a readable MATLAB file ({type(error).__name__})") from error
    if labels["train"] not in SPLITS:
        raise ValueError(f"train is {labels['train']}, expected 1 or -1")
    shape = labels["x"].shape
    alike = all(labels[key].shape == shape for key in ("y", "visibility"))
    if shape[1:] != (13,) or not alike or not len(labels["bbox"]):
        raise ValueError(f"joints of shape {shape}, expected (frames, 13) with as many boxes")
    return labels


DATASET = PennAction()
