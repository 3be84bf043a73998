"""InterHand2.6M, release v1.0 at 5 fps: hands before many synchronised cameras -> records; pairs of both kinds.

The one source of CroCo-Hand (paper section 3.1: cross-view and cross-pose pairs in equal number).
What the paper leaves open, and what is done here:

- Splits: `train` alone is read. Nothing is evaluated on InterHand2.6M (section 4), and val and test would
  add nine images to every ten that are never trained on.
- Single and interacting hands are both taken, since no choice is stated; each hand is a record of its own. The
  images of the tasks (FreiHAND, HaGRID) show one hand, and a box around two that are far apart shows neither well.
- The box surrounds the projected joints; the release's own surrounds both hands. No silhouettes: the release has
  none and the paper parses humans only, so hands are masked uniformly.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import frames
from pipeline.datasets.base import Dataset, box_around, project
from pipeline.datasets.hand_studio import StudioCamera, beside, rig
from pipeline.datasets.hands import PosedHand, Side
from pipeline.datasets.keypoints import HAND21_FROM_INTERHAND
from pipeline.datasets.quarantine import Quarantine
from pipeline.datasets.source import Expected, Source, SourceFile
from pipeline.datasets.world import World, generator, write_jpeg
from pipeline.records import FrameRecord
from pipeline.rendering.light import studio_light

Array = NDArray[np.floating]

SPLIT = "train"
FPS = 5.0
MM = 0.001
SIDES: dict[str, tuple[Side, ...]] = {"right": ("right",), "left": ("left",), "interacting": ("right", "left")}
ROWS = {"right": slice(0, 21), "left": slice(21, 42)}
MIN_JOINTS = 16
"""Of a hand's 21; the release calls two hands valid with more than 30 of 42."""
BLACK = 12
"""An image is black when no 8 x 8 pixels of it are brighter on average: the studio is dark, a hand is not."""
MARGIN = 0.05
"""Joints and fingertips lie inside the skin: their box, widened by this share of its longer side on each side, is about
the hand's (measured on rendered hands: 1.08 times as long, 1.01 to 1.16 for eight of ten)."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Stand-in: people, recordings of each, instants of those, cameras of the rig; pixels of an image's longer side."""

    captures: int
    sequences: int
    frames: int
    cameras: int
    side: int


@dataclass(frozen=True)
class _Capture:
    """One recording day: K, R, t by camera name (metres), joints and MANO parameters by frame number."""

    cameras: dict[str, tuple[Array, Array, Array]]
    joints: dict[str, dict[str, Any]]
    fits: dict[str, dict[str, Any]]
    seconds_per_number: float | None
    """Frames are numbered by recordings of 90 or of 30 Hz; None when no two are there to tell."""


class InterHand(Dataset):
    """One record per annotated hand and image, in the dataset's world (mm to metres).

    The four annotation files of the split are read whole, as the official code does: for the real ones some
    gigabytes. Poses count from MANO's mean pose; those of left hands are of a left model whose shape
    directions have the corrected sign.
    """

    name = "interhand"
    standin_sizes = Sizes
    standin_shows = "hands"
    source = Source(
        homepage="https://mks0601.github.io/InterHand2.6M/",
        licence="CC BY-NC 4.0",
        access="anonymous",
        how=(
            "Download the 44 parts of the 5 fps images (v1.0), unpack them here as one archive "
            "(`cat *.tar.part* | tar x`), the annotations beside them, and delete the parts."
        ),
        files=(
            # One tar in 44 parts, which only together are an archive.
            SourceFile(name="InterHand2.6M.images.5.fps.v1.0.tar.partaa to partbr", megabytes=81718),
            SourceFile(name="InterHand2.6M.annotations.5.fps.zip", unpack_to="."),
        ),
        layout=tuple(
            Expected(patterns=(pattern, f"*/{pattern}"), meaning=meaning)
            for pattern, meaning in (
                (f"annotations/{SPLIT}/InterHand2.6M_{SPLIT}_data.json", "images and boxes"),
                (f"annotations/{SPLIT}/InterHand2.6M_{SPLIT}_camera.json", "cameras"),
                (f"annotations/{SPLIT}/InterHand2.6M_{SPLIT}_joint_3d.json", "joints"),
                (f"images/{SPLIT}/Capture*/*/cam*/image*.jpg", "images"),
            )
        ),
    )

    def _read(self, root: Path, quarantine: Quarantine) -> Iterator[FrameRecord]:
        data = _read_json(_find(root, "data"), {"images": list, "annotations": list})
        cameras, joints = (_read_json(_find(root, kind), {}) for kind in ("camera", "joint_3d"))
        fits = _read_fits(root, quarantine)
        seconds = _seconds_per_number(data["images"])
        captures = {}
        for name, calibration in cameras.items():
            try:
                captures[name] = _Capture(
                    _cameras(calibration), joints.get(name, {}), fits.get(name, {}), seconds.get(name)
                )
            except (KeyError, TypeError, ValueError) as error:
                file = _find(root, "camera").relative_to(root).as_posix()
                quarantine.add(file, f"Capture{name}: not the cameras of a capture ({_reason(error)})", records=0)
        [folder, *_] = [*root.glob(f"images/{SPLIT}"), *root.glob(f"*/images/{SPLIT}")]
        annotations = {item.get("image_id"): item for item in data["annotations"]}
        for item in data["images"]:
            file = f"{folder.relative_to(root).as_posix()}/{item.get('file_name')}"
            try:
                annotation, capture = annotations.get(item["id"]), captures.get(str(item["capture"]))
                if annotation is None:
                    raise ValueError("no annotation")
                if capture is None or item["camera"] not in capture.cameras:
                    raise ValueError("the camera has no calibration")
                sides = SIDES[annotation["hand_type"]]
                _check_image(root / file)
            except (KeyError, TypeError, ValueError) as error:
                quarantine.add(file, _reason(error))
                continue
            for side in sides:
                try:
                    yield self._read_hand(file, item, annotation, capture, side)
                except (KeyError, TypeError, ValueError, IndexError) as error:
                    quarantine.add(file, f"{side} hand: {_reason(error)}")

    def _read_hand(
        self, file: str, item: dict[str, Any], annotation: dict[str, Any], capture: _Capture, side: Side
    ) -> FrameRecord:
        number = item["frame_idx"]
        instant = capture.joints.get(str(number))
        if instant is None:
            raise ValueError("no joints of that instant")
        order, rows = list(HAND21_FROM_INTERHAND), ROWS[side]
        world = MM * np.asarray(instant["world_coord"], np.float64).reshape(42, 3)[rows][order]
        # Joints that are not annotated lie at a made-up place.
        known = np.asarray(instant["joint_valid"], bool).reshape(42)[rows][order]
        seen = known & np.asarray(annotation["joint_valid"], bool).reshape(42)[rows][order]
        if seen.sum() < MIN_JOINTS:
            raise ValueError("too few joints are annotated in the image")
        K, R, t = capture.cameras[item["camera"]]
        points = np.zeros((21, 3))
        points[known, :2] = project(world[known], K, R, t)
        points[seen, 2] = 1.0
        fit = (capture.fits.get(str(number)) or {}).get(side)
        pose = None if fit is None else np.asarray(fit["pose"], np.float64).reshape(48)
        return FrameRecord(
            dataset=self.name,
            split=SPLIT,
            sequence=f"Capture{item['capture']}/{item['seq_name']}",
            subject=f"{item['subject']}-{side}",
            camera=item["camera"],
            frame_index=number,
            image=file,
            width=item["width"],
            height=item["height"],
            box=box_around(points[known, :2], MARGIN),
            time_s=None if capture.seconds_per_number is None else number * capture.seconds_per_number,
            keypoints_2d=np.where(seen[:, None], points, 0.0),
            keypoint_set="hand21",
            camera_K=K,
            camera_R=R,
            camera_t=t,
            body_model=None if fit is None else f"mano_{side}",
            gender=None if fit is None else "neutral",
            global_orient=None if pose is None else pose[:3],
            body_pose=None if pose is None else pose[3:],
            betas=None if fit is None else np.asarray(fit["shape"], np.float64),
            transl=None if fit is None else np.asarray(fit["trans"], np.float64),
            joints_3d=world if known.all() else None,
        )

    def shards(self, sizes: Sizes) -> list[str]:
        return [f"Capture{number}" for number in range(sizes.captures)]

    def write_shard(self, shard: str, folder: Path, world: World, seed: int, sizes: Sizes) -> None:
        """One person: recordings of the right hand, the left and both in turn, each camera's image of every instant.

        As in the release an image here and there is black, one camera has a single image of a
        recording, some joints are not annotated and some hands have no MANO fit.
        """
        capture = int(shard.removeprefix("Capture"))
        rng = generator(seed, self.name, capture)
        betas, cuff = world.hands.betas(rng), rng.uniform(*CUFF)
        look, light = world.hands.look(rng, sizes.side, sizes.side), 0.8 * studio_light(rng)
        cameras = rig(rng, sizes.cameras, sizes.side)
        part: dict[str, Any] = {"images": [], "annotations": [], "camera": _as_json(cameras), "joint_3d": {}, FITS: {}}
        for sequence in range(sizes.sequences):
            kind = KINDS[sequence % len(KINDS)]
            name = f"{sequence:04d}_{kind}_gestures"
            hands = tuple(
                world.hands.perform(rng, np.arange(sizes.frames) / FPS, betas, cuff, side)
                for side in SIDES[HAND_TYPES[kind]]
            )
            hands = beside(*hands) if len(hands) == 2 else hands
            first = 1000 + sequence * STEP * (sizes.frames + 10)
            for instant in range(sizes.frames):
                number = first + STEP * instant
                annotated = {hand.side: rng.random(21) > UNSEEN for hand in hands}
                part["joint_3d"][str(number)] = _joints(hands, instant, annotated, kind, name)
                part[FITS][str(number)] = _fits(rng, world, hands, instant)
                for index, view in enumerate(cameras):
                    if sequence == sizes.sequences - 1 and index == 0 and instant:
                        continue
                    rendering = world.hands.photograph(hands, instant, look, view.camera, light, view.background)
                    picture = view.develop(rng, rendering.image)
                    if sequence == 0 and index == sizes.cameras - 1 and instant == sizes.frames // 2:
                        picture = np.zeros_like(picture)
                    file = f"{shard}/{name}/cam{view.name}/image{number}.jpg"
                    write_jpeg(folder / f"images/{SPLIT}/{file}", picture)
                    height, width = view.size_hw
                    part["images"].append(
                        {"file_name": file, "width": width, "height": height, "capture": capture, "subject": capture,
                         "seq_name": name, "camera": view.name, "frame_idx": number}
                    )  # fmt: skip
                    part["annotations"].append(_annotate(hands, instant, annotated, view, kind))
        (folder / _part(shard)).write_text(json.dumps(part))

    def finish(self, root: Path, sizes: Sizes) -> None:
        data: dict[str, list[Any]] = {"images": [], "annotations": []}
        by_capture: dict[str, dict[str, Any]] = {"camera": {}, "joint_3d": {}, FITS: {}}
        for capture, shard in enumerate(self.shards(sizes)):
            part = json.loads((root / _part(shard)).read_bytes())
            (root / _part(shard)).unlink()
            for image, annotation in zip(part["images"], part["annotations"], strict=True):
                number = len(data["images"])
                data["images"].append({"id": number, **image})
                data["annotations"].append({"id": number, "image_id": number, **annotation})
            for kind, content in by_capture.items():
                content[str(capture)] = part[kind]
        folder = root / f"annotations/{SPLIT}"
        folder.mkdir(parents=True)
        for kind, content in {"data": data, **by_capture}.items():
            (folder / f"InterHand2.6M_{SPLIT}_{kind}.json").write_text(json.dumps(content))


FITS = "MANO_NeuralAnnot"
KINDS = ("rt", "lt", "dh")
"""Recordings of the right hand, the left hand and both, as the release abbreviates them."""
HAND_TYPES = {"rt": "right", "lt": "left", "dh": "interacting"}
STEP = 18
"""Between the numbers of two frames: 90 Hz thinned out to 5."""
UNSEEN = 0.01
"""Share of joints that are not annotated."""
UNFITTED = 0.05
"""Share of hands without MANO parameters."""
CUFF = (0.06, 0.3)
"""Metres from the wrist to the sleeve."""
# The world of a capture as the release has it: axes of a camera in front, the hands a metre before it.
TURN, SHIFT = np.diag([1.0, -1.0, -1.0]), np.array([0.0, 0.0, 1.05])

Annotated = Mapping[Side, NDArray[np.bool_]]
"""(21,) by hand: which joints the release gives."""


def _part(shard: str) -> str:
    return f"part-{shard}.json"


def _to_world(points: Array) -> Array:
    """(..., 3) of our world in the world of the capture, metres."""
    return points @ TURN.T + SHIFT


def _as_json(cameras: list[StudioCamera]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {"campos": {}, "camrot": {}, "focal": {}, "princpt": {}}
    for view in cameras:
        found["campos"][view.name] = (_to_world(view.camera.centre) / MM).tolist()
        found["camrot"][view.name] = (view.camera.R @ TURN.T).tolist()
        found["focal"][view.name] = view.camera.K[[0, 1], [0, 1]].tolist()
        found["princpt"][view.name] = view.camera.K[:2, 2].tolist()
    return found


def _both(values: Mapping[Side, NDArray], missing: object) -> NDArray:
    """(42, ...) from the 21 of each hand in our order; a hand that is not there gets `missing`."""
    both = np.repeat(np.asarray(missing)[None], 42, axis=0)
    for side, own in values.items():
        both[ROWS[side]][list(HAND21_FROM_INTERHAND)] = own
    return both


def _joints(hands: tuple[PosedHand, ...], instant: int, annotated: Annotated, kind: str, name: str) -> dict[str, Any]:
    places = {
        hand.side: np.where(annotated[hand.side][:, None], _to_world(hand.joints[instant]) / MM, 1.0) for hand in hands
    }
    return {
        "world_coord": _both(places, np.ones(3)).tolist(),
        "joint_valid": _both(annotated, False)[:, None].tolist(),
        "hand_type": HAND_TYPES[kind],
        "hand_type_valid": True,
        "seq": name,
    }


def _fits(rng: np.random.Generator, world: World, hands: tuple[PosedHand, ...], instant: int) -> dict[str, Any]:
    found: dict[str, Any] = {"right": None, "left": None}
    for hand in hands:
        if rng.random() < UNFITTED:
            continue
        orient, transl = hand.turned(TURN)
        relative = hand.hand_pose[instant] - world.hands.mean_pose(hand.side)
        found[hand.side] = {
            "pose": [*orient[instant].tolist(), *relative.tolist()],
            "shape": hand.betas.tolist(),
            "trans": (transl[instant] + SHIFT).tolist(),
        }
    return found


def _annotate(
    hands: tuple[PosedHand, ...], instant: int, annotated: Annotated, view: StudioCamera, kind: str
) -> dict[str, Any]:
    """The annotation of one image but for its numbers."""
    points = {hand.side: view.camera.project(hand.joints[instant]) for hand in hands}
    inside = {
        side: annotated[side] & ((xy >= 0) & (xy < view.size_hw[::-1])).all(axis=1) for side, xy in points.items()
    }
    return {
        "bbox": list(box_around(np.concatenate([xy[annotated[side]] for side, xy in points.items()]))),
        "joint_valid": _both(inside, False)[:, None].astype(int).tolist(),
        "hand_type": HAND_TYPES[kind],
        "hand_type_valid": 1,
    }


def _find(root: Path, kind: str) -> Path:
    """An annotation file, which may lie a folder deeper; the path where it should be when there is none."""
    name = f"annotations/{SPLIT}/InterHand2.6M_{SPLIT}_{kind}.json"
    return next((path for path in (root / name, *sorted(root.glob(f"*/{name}"))) if path.is_file()), root / name)


def _read_json(path: Path, keys: dict[str, type]) -> dict[str, Any]:
    """An object that has these keys of these types; ValueError naming the file."""
    try:
        content = json.loads(path.read_bytes(), object_hook=_packed)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); unpack the annotations again") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in keys.items()):
        raise ValueError(f"{path}: not an annotation file of InterHand2.6M v1.0")
    return content


def _packed(item: dict[str, Any]) -> dict[str, Any]:
    """An entry with its 42 single-element lists as one array: a twentieth of the memory, and there are a million."""
    # What is damaged stays as it is, for the entry's own reader to name.
    with suppress(TypeError, ValueError):
        if "joint_valid" in item:
            item["joint_valid"] = np.array(item["joint_valid"], bool)
    return item


def _read_fits(root: Path, quarantine: Quarantine) -> dict[str, Any]:
    """MANO parameters by capture and frame; none when their file is absent or damaged: pairs do not need it."""
    path = _find(root, FITS)
    if not path.is_file():
        return {}
    try:
        return _read_json(path, {})
    except ValueError as error:
        quarantine.add(
            path.relative_to(root).as_posix(), f"no MANO parameters: {error}".replace(str(path), path.name), 0
        )
        return {}


def _cameras(calibration: dict[str, dict[str, Any]]) -> dict[str, tuple[Array, Array, Array]]:
    """(K, R, t) by camera name: world to camera, metres. The file gives the centre C in millimetres: t = -R C."""
    found: dict[str, tuple[Array, Array, Array]] = {}
    for name, centre in calibration["campos"].items():
        R = np.asarray(calibration["camrot"][name], np.float64).reshape(3, 3)
        K = np.eye(3)
        K[[0, 1], [0, 1]] = calibration["focal"][name]
        K[:2, 2] = calibration["princpt"][name]
        found[name] = (K, R, -R @ (MM * np.asarray(centre, np.float64)))
    return found


def _seconds_per_number(images: list[dict[str, Any]]) -> dict[str, float]:
    """By capture: the most frequent step between neighbouring frame numbers of a recording is a fifth of a second."""
    numbers = defaultdict(set)
    for item in images:
        if {"capture", "seq_name", "frame_idx"} <= item.keys():
            numbers[str(item["capture"]), item["seq_name"]].add(item["frame_idx"])
    steps: dict[str, Counter[int]] = defaultdict(Counter)
    for (capture, _), found in numbers.items():
        steps[capture].update(after - before for before, after in pairwise(sorted(found)))
    return {capture: 1 / (FPS * counts.most_common(1)[0][0]) for capture, counts in steps.items() if counts}


def _check_image(path: Path) -> None:
    """ValueError when the image is missing, damaged or black: the release has some that are."""
    if not path.is_file():
        raise ValueError("the image is missing")
    try:
        coarse = frames.read_coarse(path)
    except frames.FrameError as error:
        raise ValueError("not a readable image") from error
    if coarse.max() <= BLACK:
        raise ValueError("the image is black")


def _reason(error: Exception) -> str:
    return f"no {error.args[0]} in its entry" if isinstance(error, KeyError) else str(error)


DATASET = InterHand()
