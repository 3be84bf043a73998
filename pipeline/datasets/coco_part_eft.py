"""COCO-Part-EFT: SMPL fits to COCO photographs -> records for fine-tuning body mesh recovery.

Paper section 4.1 (28k images, people with all limbs annotated); fits of the EFT project.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.datasets import keypoints
from pipeline.datasets.base import Dataset, chunk, chunks, image_size
from pipeline.datasets.quarantine import Quarantine
from pipeline.datasets.source import Expected, Source, SourceFile
from pipeline.datasets.world import Posed, World, generator, person_box, write_jpeg
from pipeline.records import FrameRecord
from pipeline.rendering.cameras import Camera, sample_around
from pipeline.rendering.scene import Person, Rendering

ANNOTATIONS = "COCO2014-Part-ver01.json"
CROP = 224
"""Side in pixels of the crop that EFT's camera refers to."""
FOCAL = 50_000.0
"""Focal length in pixels of that crop by which its orthographic camera is written as a
perspective one; the body is then some 500 m away and its depth shifts no joint by 0.1 px."""
BOX_MARGIN = 1.2
"""EFT's square is a crop: so much larger than the person's box."""

CHUNK = 40
FILL = (0.45, 0.8)
"""Share of the frame that the stand-in's person takes."""
PORTRAITS = 0.4
"""Share of the stand-in's photographs that stand upright."""
SKIN_DEPTH = 0.05
"""A face point so many metres under the visible surface is hidden."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Stand-in: number of photographs, one person on each; pixels of those that lie."""

    images: int
    width: int
    height: int


class CocoPartEft(Dataset):
    """One record per fitted person. World frame = camera frame of the crop (OpenCV axes).

    `camera_K`, `camera_R` = I and `camera_t` reproduce the fit's weak-perspective projection
    in pixels of the whole image. Keypoints are 49 in SPIN's order (25 OpenPose, 24 annotated).
    """

    name = "coco_part_eft"
    standin_sizes = Sizes
    source = Source(
        homepage="https://github.com/facebookresearch/eft",
        licence="fits CC BY-NC 4.0; photographs keep their Flickr licences",
        access="anonymous",
        how=(
            "Put the json here and the photographs into train2014; where data/raw/coco holds COCO 2017 "
            "(the same photographs under other names), they are found there."
        ),
        files=(
            SourceFile(name=ANNOTATIONS, url=f"https://dl.fbaipublicfiles.com/eft/eft_fit_ver01/{ANNOTATIONS}"),
            SourceFile(
                name="train2014.zip",
                url="http://images.cocodataset.org/zips/train2014.zip",
                unpack_to=".",
                megabytes=13000,
                md5="0da8cfa0e090c266b78f30e2d2874f1a",
            ),
        ),
        layout=(
            Expected(patterns=(ANNOTATIONS,), meaning="body fits"),
            Expected(
                patterns=("train2014/*.jpg", "train2017/*.jpg", "../coco/train2014/*.jpg", "../coco/train2017/*.jpg"),
                meaning="photographs",
            ),
        ),
    )

    def _read(self, root: Path, quarantine: Quarantine) -> Iterator[FrameRecord]:
        path = root / ANNOTATIONS
        try:
            samples = json.loads(path.read_bytes())["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a json file of EFT fits ({type(error).__name__}: {error})") from error
        for index, sample in enumerate(samples):
            try:
                yield self._read_sample(root, index, sample)
            except (ValueError, KeyError, TypeError) as error:
                reason = f"no {error.args[0]} in it" if isinstance(error, KeyError) else str(error)
                name = sample.get("imageName", "") if isinstance(sample, dict) else ""
                quarantine.add(f"{ANNOTATIONS}#{index} {name}".strip(), reason)

    def _read_sample(self, root: Path, index: int, sample: dict) -> FrameRecord:
        image = find_photograph(root, Path(sample["imageName"]).name)
        width, height = image_size(root / image)
        side = 200.0 * sample["bbox_scale"]
        x, y = sample["bbox_center"]
        K, t = perspective(np.asarray(sample["parm_cam"], dtype=np.float64), (x, y), side)
        matrices = np.asarray(sample["parm_pose"], dtype=np.float64).reshape(24, 3, 3)
        if (np.linalg.det(matrices) < 0.5).any():
            raise ValueError("parm_pose holds matrices that are no rotations")
        pose = Rotation.from_matrix(matrices).as_rotvec()
        points = sample.get("gt_keypoint_2d")
        box = side / BOX_MARGIN
        return FrameRecord(
            dataset=self.name,
            split="train",
            sequence=Path(image).stem,
            subject=f"{index:05d}",
            camera="0",
            frame_index=0,
            image=image,
            width=width,
            height=height,
            box=(x - box / 2, y - box / 2, box, box),
            keypoints_2d=None if points is None else np.asarray(points, dtype=np.float64).reshape(49, 3),
            keypoint_set=None if points is None else "spin49",
            camera_K=K,
            camera_R=np.eye(3),
            camera_t=t,
            body_model="smpl",
            gender="neutral",
            global_orient=pose[0],
            body_pose=pose[1:].ravel(),
            betas=np.asarray(sample["parm_shape"], dtype=np.float64)[:10],
        )

    def shards(self, sizes: Sizes) -> list[str]:
        return chunks(sizes.images, CHUNK)

    def write_shard(self, shard: str, folder: Path, world: World, seed: int, sizes: Sizes) -> None:
        # Photographs of COCO are of everyday scenes. All poses are drawn together, so that no two photographs show
        # the same moment as long as there are others.
        numbers = chunk(shard, sizes.images, CHUNK)
        moments = world.moments(generator(seed, self.name), sizes.images, numbers, "everyday")
        rngs = [generator(seed, self.name, number) for number in numbers]
        bodies = world.pose_moments(moments, rngs)
        samples = []
        for number, rng, body in zip(numbers, rngs, bodies, strict=True):
            upright = rng.random() < PORTRAITS
            height, width = (sizes.width, sizes.height) if upright else (sizes.height, sizes.width)
            outline = body.vertices[0].astype(np.float64)
            [camera] = sample_around(rng, outline, (height, width), 1, FILL, (-10, 25), azimuth=body.photographed_from)
            person = Person(body.vertices[0], body.joints[0], world.look(rng, width, height))
            rendering = world.photograph(person, camera, world.daylight(rng), world.background(rng, width, height))
            name = f"COCO_train2014_{FIRST_ID + number:012d}.jpg"
            write_jpeg(folder / "train2014" / name, rendering.image)
            samples.append({**_fit(body, camera, rendering, world), "imageName": name, "annotId": FIRST_ID + number})
        (folder / _part(shard)).write_text(json.dumps(samples))

    def finish(self, root: Path, sizes: Sizes) -> None:
        parts = [root / _part(shard) for shard in self.shards(sizes)]
        samples = [sample for part in parts for sample in json.loads(part.read_bytes())]
        (root / ANNOTATIONS).write_text(json.dumps({"ver": 0.1, "data": samples}))
        for part in parts:
            part.unlink()


FIRST_ID = 1_000_001
"""COCO ids of the stand-in's photographs count from here, beyond those of the background stand-in."""


def _part(shard: str) -> str:
    return f"part-{shard}.json"


def _fit(body: Posed, camera: Camera, rendering: Rendering, world: World) -> dict[str, object]:
    """The EFT sample of a rendering: exact pose and shape, best weak-perspective camera."""
    x, y, width, height = person_box(rendering)
    side = BOX_MARGIN * max(width, height)
    corner = np.array([x + width / 2, y + height / 2]) - side / 2
    poses, _ = body.turned(camera.R)
    # EFT's body has no translation: its joints in camera axes.
    model = (body.joints[0] - body.transl[0] - body.rest_pelvis) @ camera.R.T + body.rest_pelvis
    target = (rendering.joints_2d - corner) / (side / 2) - 1
    centred, wanted = model[:, :2] - model[:, :2].mean(axis=0), target - target.mean(axis=0)
    scale = (centred * wanted).sum() / (centred**2).sum()
    shift = target.mean(axis=0) - scale * model[:, :2].mean(axis=0)
    valid = np.ones(17)
    valid[:5] = world.visible(body.coco[0, :5], camera, rendering, SKIN_DEPTH)
    annotated = np.column_stack([camera.project(body.coco[0]), valid])
    points = keypoints.spin49(annotated)
    points[~(points[:, 2] > 0)] = 0.0
    return {
        "parm_pose": Rotation.from_rotvec(poses[0].reshape(24, 3)).as_matrix().tolist(),
        "parm_shape": body.betas.tolist(),
        "parm_cam": [float(scale), *shift.tolist()],
        "bbox_center": [x + width / 2, y + height / 2],
        "bbox_scale": side / 200.0,
        "gt_keypoint_2d": points.tolist(),
        "joint_validity_openpose18": (keypoints.openpose18(annotated)[:, 2] == 1).tolist(),
        "smpltype": "smpl",
    }


def perspective(camera: np.ndarray, centre: tuple[float, float], side: float) -> tuple[np.ndarray, np.ndarray]:
    """EFT's weak-perspective camera (s, tx, ty) of a square crop as (K, t) of the whole image.

    The fit projects to `(s * xy + txy + 1) * side / 2` from the crop's corner, in pixels.
    """
    scale, tx, ty = camera
    if scale <= 0:
        raise ValueError(f"parm_cam has scale {scale}")
    focal = FOCAL * side / CROP
    K = np.array([[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]])
    return K, np.array([tx / scale, ty / scale, 2.0 * FOCAL / (CROP * scale)])


def find_photograph(root: Path, name: str) -> str:
    """Path, relative to `root`, of a COCO 2014 photograph, also where only COCO 2017 is there."""
    number = Path(name).stem.rsplit("_", 1)[-1]
    for folder in ("", "../coco/"):
        for candidate in (f"train2014/{name}", f"train2017/{number}.jpg", f"val2017/{number}.jpg"):
            if (root / folder / candidate).is_file():
                return folder + candidate
    raise ValueError("the photograph is missing")


DATASET = CocoPartEft()
