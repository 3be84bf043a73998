"""Pairs of views of static scenes in which nobody is: what CroCo, the initialisation of the paper, is trained on.

Paper section 4.2 starts from the released weights of CroCo, which stand in the row "CroCo" of Figure 3(a), too.
Where these do not fit a network, a run on such pairs takes their place. The layout is that of the pairs that
naver/croco renders with Habitat-Sim (`habitat_release`); in that repository one reads

- datasets/pairs_dataset.py: the images of a pair are `<number>_1.jpeg` and `<number>_2.jpeg` of one folder, at any
  depth; folders of validation scenes are left out (there, all whose path contains the letters "val");
- datasets/habitat_sim/generate_multiview_images.py: numbers have eight digits; `metadata.json` beside the images has,
  in `multiviews` by number, positions and orientations of the cameras and how much of their images is seen by both;
  images are 256 px with a horizontal field of view of 60 degrees; depth maps and camera files are optional there,
  so that neither is read here;
- datasets/habitat_sim/multiview_habitat_sim_generator.py: orientations are quaternions (w, x, y, z) of a camera whose
  y is up and that looks along -z, the principal point is the middle of the image; of the views of a place a second
  one is taken from some steps away, towards the mean of what the first one sees, both 1.2 to 1.8 m above the floor
  with a little pan, tilt and roll, where at least half of either image is seen by the other;
- datasets/habitat_sim/paths.py: folders are `hm3d/<split>/<scene>/<name>`, `gibson/...`, `scannet/...` and so on;
- datasets/habitat_sim/README.MD: the scenes of hm3d/val and hm3d/minival are kept for validation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.datasets.base import Dataset, chunk, chunks, folders, image_size
from pipeline.datasets.quarantine import Quarantine
from pipeline.datasets.source import Expected, Source, SourceFile
from pipeline.datasets.world import World, generator, write_jpeg
from pipeline.records import FrameRecord
from pipeline.rendering.cameras import Camera, direction, look_at
from pipeline.rendering.rooms import Room, random_room
from pipeline.rendering.solids import Seen

Array = NDArray[np.floating]

IMAGE = re.compile(r"(\d+)_([12])\.jpeg")
VALIDATION = {"val", "minival"}
FLIP = np.diag([1.0, -1.0, -1.0])
"""From the axes of Habitat's cameras (y up, looking along -z) to those of OpenCV, and back."""
FIELD_OF_VIEW = 60.0
"""Degrees, horizontal."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Stand-in: rooms, pairs in each of them; pixels of an image's side."""

    rooms: int
    pairs: int
    side: int


class Habitat(Dataset):
    """Two records per pair, its number as frame index and `1` or `2` as camera; world in metres, y up.

    Nobody is there, so the box is the whole image, and the subject is the scene.
    """

    name = "habitat"
    standin_sizes = Sizes
    standin_shows = "rooms"
    source = Source(
        homepage="https://github.com/naver/croco",
        licence="scenes keep their own terms (HM3D, ScanNet, Replica, ReplicaCAD, Habitat's test scenes)",
        access="form",
        how=(
            "Get the scenes and CroCo's list of camera places, render the pairs as datasets/habitat_sim/README.MD of "
            "naver/croco says, and put the folder it writes here as habitat_release."
        ),
        files=(SourceFile(name="multiview_habitat_metadata.tar.gz"),),
        layout=(
            Expected(patterns=("**/metadata.json",), meaning="where the cameras of a scene's pairs stood"),
            Expected(patterns=("**/*_1.jpeg",), meaning="first images of pairs"),
        ),
    )

    def _read(self, root: Path, quarantine: Quarantine) -> Iterator[FrameRecord]:
        for folder in folders(root):
            scene = folder.relative_to(root)
            if VALIDATION.isdisjoint(scene.parts) and any(folder.glob("*_[12].jpeg")):
                yield from self._read_scene(root, folder, quarantine)

    def _read_scene(self, root: Path, folder: Path, quarantine: Quarantine) -> Iterator[FrameRecord]:
        scene = folder.relative_to(root).as_posix()
        metadata: dict[str, Any] = {"multiviews": {}}
        try:
            metadata = _read_metadata(folder / "metadata.json")
        except ValueError as error:
            quarantine.add(f"{scene}/metadata.json", f"no cameras: {error}", records=0)
        for path in sorted(folder.iterdir()):
            if not (found := IMAGE.fullmatch(path.name)):
                continue
            number, view = found.groups()
            try:
                width, height = image_size(path)
                camera = None
                if places := metadata["multiviews"].get(number):
                    camera = _camera(places, int(view) - 1, metadata["hfov"], (height, width))
                yield FrameRecord(
                    dataset=self.name,
                    split="train",
                    sequence=scene,
                    subject="scene",
                    camera=view,
                    frame_index=int(number),
                    image=f"{scene}/{path.name}",
                    width=width,
                    height=height,
                    box=(0.0, 0.0, float(width), float(height)),
                    camera_K=camera.K if camera else None,
                    camera_R=camera.R if camera else None,
                    camera_t=camera.t if camera else None,
                )
            except (KeyError, TypeError, ValueError, IndexError) as error:
                reason = f"no {error.args[0]} of its camera" if isinstance(error, KeyError) else f"{error}"
                quarantine.add(f"{scene}/{path.name}", reason)

    def shards(self, sizes: Sizes) -> list[str]:
        return chunks(sizes.rooms, CHUNK)

    def write_shard(self, shard: str, folder: Path, world: World, seed: int, sizes: Sizes) -> None:
        for number in chunk(shard, sizes.rooms, CHUNK):
            rng = generator(seed, self.name, number)
            room, places = _scene(rng, sizes)
            home = folder / f"habitat_release/hm3d/train/{number:05d}-room/room.basis"
            multiviews = {}
            for pair, views in enumerate(places):
                multiviews[f"{pair:08d}"] = _as_json(views)
                for view, camera in enumerate(views.cameras, start=1):
                    write_jpeg(home / f"{pair:08d}_{view}.jpeg", room.photograph(camera, (sizes.side, sizes.side)))
            metadata = {
                "scene_dataset_config_file": "",
                "scene": f"hm3d/train/{number:05d}-room/room.basis.glb",
                "navmesh": "",
                "views_count": 2,
                "size": sizes.pairs,
                "generate_depth": False,
                "resolution": [sizes.side, sizes.side],
                "hfov": FIELD_OF_VIEW,
                "multiviews": multiviews,
            }
            (home / "metadata.json").write_text(json.dumps(metadata))


CHUNK = 10
HEIGHT = (1.2, 1.8)
"""Of cameras above the floor, metres."""
PAN, TILT, ROLL = (-3.0, 3.0), (-28.0, 2.0), (-5.0, 5.0)
"""Degrees. Rooms are smaller than the scanned scenes, so cameras rather look down than up."""
BASELINE = 12.0
"""Degrees between the two directions of view, and between those to what the first image shows: two sides of it."""
FURNISHED = 0.25
"""Share of the first image that shows furniture, at least."""
SHARED = 0.5
"""Share of either image that the other one sees too, at least."""
OPEN = 1.4
"""Metres to the median of what the first image shows, at least: not a wall in front of one's nose."""
COARSE = 16
"""Side, in rays, of the images by which cameras are chosen."""


@dataclass(frozen=True, eq=False)
class Views:
    """Two cameras, and which share of the image of each the other one sees, too."""

    cameras: tuple[Camera, Camera]
    shared: tuple[float, float]


def _scene(rng: np.random.Generator, sizes: Sizes) -> tuple[Room, list[Views]]:
    """A room and the places of its pairs."""
    while True:
        room = random_room(rng)
        # One that is too full for two views is not shown.
        with suppress(LookupError):
            return room, [two_views(rng, room, sizes.side) for _ in range(sizes.pairs)]


def two_views(rng: np.random.Generator, room: Room, side: int) -> Views:
    """Two views of one part of a room from different sides. LookupError when there are none to be found."""
    for _ in range(200):
        tilt = np.radians(rng.uniform(*TILT))
        eye = _place(rng, room)
        first = _aim(rng, eye, eye + direction(rng.uniform(0, 2 * np.pi), tilt), side)
        seen = _coarse(room, first)
        if np.median(seen.depth) < OPEN or room.is_furniture(seen).mean() < FURNISHED:
            continue
        points = seen.points.reshape(-1, 3)
        shown = points.mean(axis=0)
        for _ in range(10):
            second = _aim(rng, _place(rng, room), shown, side)
            if min(_angle(first.R[2], second.R[2]), _angle(shown - eye, shown - second.centre)) < BASELINE:
                continue
            if (there := share_seen(room, points, second, side)) < SHARED:
                continue
            back = share_seen(room, _coarse(room, second).points.reshape(-1, 3), first, side)
            if back >= SHARED:
                return Views((first, second), (there, back))
    raise LookupError(f"no two views of a room of {room.size.round(1)} m show the same part of it")


def _angle(one: Array, other: Array) -> float:
    """Degrees."""
    cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def share_seen(room: Room, points: Array, camera: Camera, side: int) -> float:
    """Share of points (M, 3) on surfaces that lie in the square image of a camera and are not hidden from it."""
    pixels = camera.project(points)
    inside = np.flatnonzero(((pixels >= 0) & (pixels < side)).all(axis=1))
    return float(room.clear(points[inside], camera.centre).sum() / len(points))


def _place(rng: np.random.Generator, room: Room) -> Array:
    """(3,) where nothing stands."""
    for _ in range(1000):
        x, z = rng.uniform(-0.5, 0.5, 2) * room.size[[0, 2]]
        if room.is_free(np.array([x, z])):
            return np.array([x, rng.uniform(*HEIGHT), z])
    raise LookupError(f"a room of {room.size.round(1)} m is so full that nobody can stand in it")


def _aim(rng: np.random.Generator, eye: Array, target: Array, side: int) -> Camera:
    """A camera that looks about there."""
    focal = side / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2))
    turn = Rotation.from_rotvec([0.0, np.radians(rng.uniform(*PAN)), 0.0])
    return look_at(eye, eye + turn.apply(target - eye), (side, side), focal, np.radians(rng.uniform(*ROLL)))


def _coarse(room: Room, camera: Camera) -> Seen:
    """What a camera sees, evenly over its image."""
    fewer = np.diag([COARSE / (2 * camera.K[0, 2]), COARSE / (2 * camera.K[1, 2]), 1.0])
    return room.look(Camera(fewer @ camera.K, camera.R, camera.t), (COARSE, COARSE))


def _as_json(views: Views) -> dict[str, Any]:
    """An entry of `multiviews`."""
    turns = [Rotation.from_matrix(camera.R.T @ FLIP).as_quat(scalar_first=True) for camera in views.cameras]
    return {
        "positions": [camera.centre.tolist() for camera in views.cameras],
        "orientations": [turn.tolist() for turn in turns],
        "covisibility_ratios": [1.0, min(views.shared)],
        "valid_fractions": [1.0, 1.0],
        "pairwise_visibility_ratios": [[1.0, views.shared[0]], [views.shared[1], 1.0]],
    }


def _read_metadata(path: Path) -> dict[str, Any]:
    """`hfov` and `multiviews` of a scene; ValueError when they are not there."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError("the file is missing") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"not readable as JSON ({type(error).__name__})") from error
    if not isinstance(content, dict) or not isinstance(content.get("multiviews"), dict) or "hfov" not in content:
        raise ValueError("not the metadata of a scene")
    return content


def _camera(places: dict[str, Any], view: int, field_of_view: float, size_hw: tuple[int, int]) -> Camera:
    """The camera of a view; ValueError, KeyError or IndexError when its entry is damaged."""
    height, width = size_hw
    focal = width / 2 / np.tan(np.radians(float(field_of_view) / 2))
    R = (Rotation.from_quat(places["orientations"][view], scalar_first=True).as_matrix() @ FLIP).T
    centre = np.asarray(places["positions"][view], np.float64).reshape(3)
    return Camera(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]), R, -R @ centre)


DATASET = Habitat()
