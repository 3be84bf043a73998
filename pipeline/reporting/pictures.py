"""What the stages left behind -> picture galleries: people, silhouettes, pairs, completions, meshes.

A gallery is drawn from the files of one scale and never fails the report: what is absent is
said in its place. Examples are drawn by the report's seed, so the same files give the same tiles.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from pipeline.crops import CropsError, CropStore
from pipeline.frames import FrameError, read_image
from pipeline.layout import Layout
from pipeline.manifests import ManifestError, read_pairs, read_records
from pipeline.reporting.repeats import first_alike
from pipeline.run_spec import Params, Pretrain
from pipeline.silhouettes import unpack

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

INSTANT = ["sequence", "frame_index", "subject"]
"""What one person at one instant is known by, whichever camera sees it."""
HEIGHT = 240
"""Side of a drawn crop in pixels; small crops are enlarged to it."""
PERSON = (255, 122, 26)
"""Colour of outlines and patch grids."""


@dataclass(frozen=True)
class Tile:
    """One picture and what is written below it."""

    jpeg: bytes
    width: int
    height: int
    caption: str


@dataclass
class Gallery:
    id: str
    title: str
    text: str
    tiles: list[Tile] = field(default_factory=list)
    at_once: int | None = None
    """How many of them are seen without unfolding the rest; None = all."""
    columns: int | None = None
    """Tiles in a row where there is room for them; None = as many as fit."""
    absent: list[str] = field(default_factory=list)
    """What could not be shown, and why."""


def galleries(layout: Layout, params: Params) -> list[Gallery]:
    """Every gallery in the order of the pipeline."""
    return [
        _people(layout, params),
        _silhouettes(layout, params),
        _pairs(layout, params),
        _parsing(layout, params),
        _completions(layout, params),
        _keypoints(layout, params),
        _meshes(layout, params),
    ]


def _people(layout: Layout, params: Params) -> Gallery:
    gallery = Gallery(
        "people", "People seen by several cameras", "Rendered scenes: in a row, one instant from each of its cameras."
    )
    for name, spec in params.datasets.items():
        if spec.pool not in ("body", "looks") or spec.silhouettes != "dataset":
            continue
        try:
            records = read_records(layout.records(name), [*INSTANT, "camera", "image"])
            instants = records.group_by(INSTANT).aggregate([("camera", "count_distinct")])
            several = instants.filter(pc.greater(instants["camera_count_distinct"], 1)).select(INSTANT)
            several = several.sort_by([(key, "ascending") for key in INSTANT])  # they come in any order
            for number in _choose(range(several.num_rows), _count(params, 0.5), params.report.seed):
                (instant,) = several.slice(number, 1).to_pylist()
                is_it = reduce(pc.and_, (pc.equal(records[key], value) for key, value in instant.items()))
                views = records.filter(is_it).to_pylist()
                images = [_fit(read_image(layout.source(name) / view["image"])) for view in views[:6]]
                cameras = ", ".join(view["camera"] for view in views[:6])
                gallery.tiles.append(_tile(_row(images), f"{name}, {views[0]['sequence']}: cameras {cameras}"))
        except (ManifestError, FrameError, OSError) as error:
            gallery.absent.append(_why(layout, name, error))
    return gallery


def _silhouettes(layout: Layout, params: Params) -> Gallery:
    gallery = Gallery(
        "silhouettes", "Silhouettes on crops",
        "What says which patches are human: the outline comes from the dataset, or from the trained parser (PGN).",
    )  # fmt: skip
    for name, spec in params.datasets.items():
        if spec.pool != "body" or spec.silhouettes == "none":
            continue
        try:
            store = CropStore(layout.crops(spec.pool, name))
            for row in _choose(range(len(store)), _count(params, 0.75), params.report.seed):
                mask = store.silhouette(row)
                image = _enlarge(store.image(row))
                if mask is None:
                    caption = f"{name}: no silhouette"
                else:
                    image = _outline(image, mask)
                    caption = f"{name}: from {store.silhouette_source(row)}, {mask.mean():.0%} of the crop"
                gallery.tiles.append(_tile(image, caption))
        except (CropsError, OSError) as error:
            gallery.absent.append(_why(layout, name, error))
    return gallery


def _pairs(layout: Layout, params: Params) -> Gallery:
    gallery = Gallery(
        "pairs", "Mined pairs",
        "Left the target with the patches that show the person, right its reference. "
        "Cross-view pairs show one instant from two cameras, cross-pose pairs one person at two instants.",
    )  # fmt: skip
    for name, spec in params.datasets.items():
        if not spec.pairs or spec.pool == "backgrounds":
            continue
        try:
            pairs = read_pairs(layout.pairs(spec.pool, name))
            store = CropStore(layout.crops(spec.pool, name))
            for kind in spec.pairs:
                of_kind = pairs.filter(pc.equal(pairs["kind"], kind))
                if not of_kind.num_rows:
                    gallery.absent.append(f"{name}: no pairs of kind {kind} were found")
                for number in _choose(range(of_kind.num_rows), _count(params, 0.5), params.report.seed):
                    (row,) = of_kind.slice(number, 1).to_pylist()
                    gallery.tiles.append(_tile(_pair(store, row, params), _pair_caption(row)))
        except (CropsError, ManifestError, OSError) as error:
            gallery.absent.append(_why(layout, name, error))
    return gallery


def _pair(store: CropStore, row: dict[str, Any], params: Params) -> Pixels:
    # Masks are of the middle of a crop: that is what the network sees of it.
    images = []
    for side in ("target", "reference"):
        image = _middle(store.image(row[f"{side}_crop"]), params.pairs.input_size)
        image = _enlarge(image)
        packed = row[f"{side}_patch_mask"]
        if side == "target" and packed is not None:
            image = _patches(image, unpack(packed, row["num_patches"]))
        images.append(image)
    return _row(images)


def _pair_caption(row: dict[str, Any]) -> str:
    if row["kind"] == "pose":
        return f"{row['dataset']}, cross-pose: {row['dt_seconds']:+.2f} s apart"
    angle = row["baseline_degrees"]
    return f"{row['dataset']}, cross-view: " + ("cameras unknown" if angle is None else f"{angle:.0f}° apart")


def _completions(layout: Layout, params: Params) -> Gallery:
    gallery = Gallery(
        "completions", "Completions",
        "Pairs held out from training. From left to right: the target, what the network sees of it, its prediction "
        "and, for cross-view and cross-pose completion, the reference. The row below has a black reference: what its "
        "prediction lacks came from the reference.",
    )  # fmt: skip
    for run, spec in _one_of_each(params).items():
        if spec.method != "keypoints" and run not in params.study:
            _add_pretrained(gallery, layout, params, run, ("completion_*", "training_*"))
        if run in params.finetune.body_mesh.headline:
            gallery.at_once = len(gallery.tiles)
    return gallery


def _keypoints(layout: Layout, params: Params) -> Gallery:
    gallery = Gallery(
        "keypoints", "Supervised 2D keypoints",
        "Images held out from training. From left to right: the image, the true heat-maps, the predicted ones, and "
        "the highest pixel of each prediction (blue) with the true keypoint (green).",
    )  # fmt: skip
    for run, spec in _one_of_each(params).items():
        if spec.learns_keypoints:
            _add_pretrained(gallery, layout, params, run, ("keypoints_*",))
    return gallery


def _one_of_each(params: Params) -> dict[str, Pretrain]:
    """Without those that differ from another in their seed alone: their pictures look alike."""
    return {run: params.pretrain[run] for run, first in first_alike(params).items() if run == first}


def _add_pretrained(gallery: Gallery, layout: Layout, params: Params, run: str, files: Sequence[str]) -> None:
    _add_drawn(gallery, layout, layout.pictures("pretrain", run), run, params.command(run), files)


def _parsing(layout: Layout, params: Params) -> Gallery:
    gallery = Gallery(
        "parser",
        "Human parsing on people it never saw",
        "Held-out renders: the image, the true body parts, and the parts that the small PGN finds.",
    )
    _add_drawn(gallery, layout, layout.pictures("parser", "pgn"), "pgn", params.command())
    return gallery


def _meshes(layout: Layout, params: Params) -> Gallery:
    gallery = Gallery(
        "meshes",
        "Recovered body meshes",
        "Test images, the mesh recovered from each, and the same mesh seen from the person's side.",
    )
    seed = params.body_mesh.seeds[0]
    for init in params.finetune.body_mesh.headline:
        folder, title = layout.pictures("body_mesh", f"{init}/{seed}"), f"from {init}, seed {seed}"
        _add_drawn(gallery, layout, folder, title, params.command())
    # The same test image from every initialisation stands in one row.
    gallery.tiles.sort(key=lambda tile: tile.caption.rpartition(": ")[2])
    gallery.columns = len({tile.caption.rpartition(": ")[0] for tile in gallery.tiles}) or None
    return gallery


def _add_drawn(
    gallery: Gallery,
    layout: Layout,
    folder: Path,
    title: str,
    command: str,
    files: Sequence[str] = ("*",),
) -> None:
    """Pictures a stage drew itself; `captions.json` beside them maps file name to text."""
    paths = sorted(path for names in files for path in folder.glob(names) if path.suffix in (".png", ".jpg"))
    if not paths:
        gallery.absent.append(f"{title}: no pictures in {_shown(layout, folder)} yet; `{command}` draws them")
        return
    try:
        captions = json.loads((folder / "captions.json").read_text())
    except (OSError, ValueError):
        captions = {}
    for path in paths:
        try:
            gallery.tiles.append(_tile(read_image(path), f"{title}: {captions.get(path.name, path.stem)}"))
        except FrameError as error:
            gallery.absent.append(_why(layout, title, error))


def _why(layout: Layout, name: str, error: Exception) -> str:
    """The reason without the folder of this machine."""
    return f"{name}: {error}".replace(f"{layout.root}/", "")


def _shown(layout: Layout, path: str | Path) -> str:
    return str(path).replace(f"{layout.root}/", "")


def _count(params: Params, share: float) -> int:
    return max(1, round(params.report.num_examples * share))


def _choose(items: Sequence[Any], count: int, seed: int) -> list[Any]:
    """`count` different items, spread over the whole sequence: one drawn from each of `count` equal parts."""
    count = min(count, len(items))
    rng = np.random.default_rng(seed)
    edges = np.linspace(0, len(items), count + 1).astype(int)
    return [items[int(rng.integers(low, high))] for low, high in pairwise(edges)]


def _middle(image: Pixels, size: int) -> Pixels:
    start = (image.shape[0] - size) // 2
    return image[start : start + size, start : start + size]


def _enlarge(image: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((HEIGHT, HEIGHT), Image.Resampling.LANCZOS))


def _fit(image: Pixels) -> Pixels:
    width = max(1, round(image.shape[1] * HEIGHT / image.shape[0]))
    return np.asarray(Image.fromarray(image).resize((width, HEIGHT), Image.Resampling.LANCZOS))


def _outline(image: Pixels, mask: Mask) -> Pixels:
    large = cv2.resize(mask.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    contours, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    shaded = np.where(large[..., None] > 0, image, image // 2).astype(np.uint8)
    cv2.drawContours(shaded, contours, -1, PERSON, 2, cv2.LINE_AA)
    return shaded


def _patches(image: Pixels, human: Mask) -> Pixels:
    grid = round(np.sqrt(human.size))
    step = image.shape[0] / grid
    drawn = image.copy()
    for number, is_human in enumerate(human):
        y, x = divmod(number, grid)
        top, left, bottom, right = (round(edge * step) for edge in (y, x, y + 1, x + 1))
        if is_human:
            cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), PERSON, 1)
        else:
            drawn[top:bottom, left:right] //= 2
    return drawn


def _row(images: Sequence[Pixels], gap: int = 4) -> Pixels:
    """Pictures of one height side by side on white."""
    between = np.full((images[0].shape[0], gap, 3), 255, np.uint8)
    parts = [part for image in images for part in (between, image)]
    return np.concatenate(parts[1:], axis=1)


def _tile(image: Pixels, caption: str) -> Tile:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=88, subsampling=0, optimize=True)
    return Tile(out.getvalue(), image.shape[1], image.shape[0], caption)
