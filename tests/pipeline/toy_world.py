"""A tiny pool of pairs for tests: people are coloured ellipses, recognisable in every picture of them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import run_spec
from pipeline.crops import Crop, CropStore, Square, encode_jpeg, write_crops
from pipeline.layout import PROJECT, Layout
from pipeline.manifests import read_records, write_pairs, write_records, write_table
from pipeline.records import FrameRecord
from pipeline.run_spec import Params
from pipeline.silhouettes import pack, patch_mask

STORED = 80
FRAMES_PER_PERSON = 4


def frame_name(number: int) -> str:
    return f"{number:016x}"


def picture(person: int, frame: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(80, 80, 3) image and (80, 80) silhouette: colour tells the person, place tells the frame."""
    rng = np.random.default_rng([person, frame])
    y, x = np.mgrid[:STORED, :STORED]
    cx, cy = rng.uniform(30, 50, 2)
    silhouette = ((x - cx) / 14) ** 2 + ((y - cy) / 26) ** 2 < 1
    image = rng.integers(0, 60, (STORED, STORED, 3)) + rng.integers(0, 90)
    colours = np.random.default_rng(person).integers(60, 255, (2, 3))
    stripes = np.where(((y - cy) // 8 % 2 == 0)[..., None], colours[0], colours[1])
    return np.where(silhouette[..., None], stripes, image).astype(np.uint8), silhouette


def write_keypoints(layout: Layout, dataset: str, people: int) -> None:
    """Records of the frames of `write_pool`: COCO's 17 keypoints, all at places of their own within the ellipse."""
    records = []
    for person in range(people):
        for frame in range(FRAMES_PER_PERSON):
            centre = np.random.default_rng([person, frame]).uniform(30, 50, 2)  # as `picture` draws it
            angles = np.arange(17) * 2.4
            places = centre + np.sqrt(np.arange(17) / 17)[:, None] * np.column_stack(
                [12 * np.cos(angles), 24 * np.sin(angles)]
            )
            records.append(
                FrameRecord(
                    dataset=dataset, split="train", sequence=f"{person:04d}", subject="0", camera="0",
                    frame_index=frame, image="image.jpg", width=80, height=80, box=(4.0, 4.0, 72.7, 72.7),
                    keypoints_2d=np.column_stack([places, np.ones(17)]), keypoint_set="coco17",
                )
            )  # fmt: skip
    path = layout.records(dataset)
    write_records(records, path)
    table = read_records(path)
    names = [frame_name(number) for number in range(table.num_rows)]
    write_table(table.set_column(0, table.schema.field("frame_id"), [names]), path)


def write_pool(
    layout: Layout,
    dataset: str,
    people: int,
    kinds: tuple[str, ...] = ("view",),
    masks: bool = True,
    pool: str = "body",
    size: int = STORED,
) -> None:
    """Crops (`size` px) and pairs of one dataset: every two neighbouring frames of a person are a pair of each kind."""
    crops, pairs = [], []
    for person in range(people):
        for frame in range(FRAMES_PER_PERSON):
            image, silhouette = picture(person, frame)
            number = person * FRAMES_PER_PERSON + frame
            image, whole = (
                cv2.resize(array.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST)
                for array in (image, silhouette)
            )
            mask = {"silhouette": pack(whole > 0), "silhouette_source": "dataset"} if masks else {}
            crops.append(
                Crop(frame_id=frame_name(number), jpeg=encode_jpeg(image), square=Square(40.0, 40.0, 80.0), **mask)
            )
            if frame == 0:
                continue
            patches = pack(patch_mask(silhouette[8:72, 8:72], 8)) if masks else None
            for kind in kinds:
                pairs.append(
                    {
                        "pair_id": f"{kind}-{dataset}-{number}",
                        "kind": kind,
                        "dataset": dataset,
                        "target_frame_id": frame_name(number),
                        "reference_frame_id": frame_name(number - 1),
                        "target_crop": number,
                        "reference_crop": number - 1,
                        "target_patch_mask": patches,
                        "reference_patch_mask": patches,
                        "num_patches": 64,
                        "dt_seconds": (-1) ** frame * 0.5 * frame if kind == "pose" else None,
                        "baseline_degrees": 30.0 * frame if kind == "view" else None,
                    }
                )
    write_crops(layout.crops(pool, dataset), crops, size)
    write_pairs(pairs, layout.pairs(pool, dataset), CropStore(layout.crops(pool, dataset)).frames)


def small_params(tmp: Path, base: Path = PROJECT / "params.yaml", **changes: object) -> tuple[Params, Path]:
    """`base` with a scale of its own, no snapshots, and sections changed; and the file of it.

    `changes` maps dotted keys, with `__` for the dot, to values.
    """
    content = run_spec.load(base).model_dump(mode="json") | {"scale": "test"}
    content["figure_4"] = {"runs": [], "steps": []}
    for run in content["pretrain"].values():
        run["snapshots"] = []
    for key, value in changes.items():
        *path, last = key.split("__")
        section = content
        for name in path:
            section = section[name]
        section[last] = value
    path = tmp / "params.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return run_spec.load(path), path
