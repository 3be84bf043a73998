"""Records to crops: one pass over images and videos that cuts every person and finds its silhouette.

Each image is decoded once, each video once and in order, whatever the number of persons in a
frame (paper section 3.2; silhouettes: section 3.1). Work is cut into shards that are written aside, so
that a stopped run goes on where it was, and joined in record order, so that the result does not
depend on how often it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

import pipeline.crops
from pipeline import code
from pipeline.crops import Crop, CropStore, Square, crop, crop_mask, encode_jpeg, write_crops
from pipeline.datasets.quarantine import Entry, Quarantine
from pipeline.frames import FrameError, Pixels, can_jump, read_image, read_mask, stream_video
from pipeline.manifests import read_records
from pipeline.run_spec import fingerprint
from pipeline.silhouettes import Parser, pack, parse_silhouettes

log = logging.getLogger(__name__)

COLUMNS = ["frame_id", "image", "video_frame", "width", "height", "box", "silhouette"]
"""Of the records manifest: what crops are cut by."""
MOST_AGAIN = 1000
"""Frames at the start of a video that is decoded from there which one more shard of it may cost."""
SHARD_RECORDS = 128
"""Records per unit of retry."""
OPEN_SHARDS = 64
"""At a time, while they are joined: records of one shard lie close together in the manifest."""
PARSER_BATCH = 32
MAX_SQUARE = 8
"""Longer sides of the image that the square about a box has at most. Beyond, all of the image would lie in an eighth
of the crop's width, at 224 px in two by two patches: nothing of the person could be made out."""

CODE = (
    "models/pgn.py",
    "models/tensorflow_like.py",
    "pipeline/crops.py",
    "pipeline/frames.py",
    "pipeline/parsing.py",
    "pipeline/silhouettes.py",
)
"""What shards hang on, beside records, images and how they are cut."""

Progress = Callable[[int, int], None]
"""Called with (records done, records in all)."""
Silhouettes = Literal["dataset", "pgn", "none"]


@dataclass(frozen=True)
class Cutting:
    """How crops are cut; all shards of a data set share one."""

    root: Path
    """Folder that image paths of the records start from."""
    size: int
    """Side of a crop, px."""
    scale: float
    """Side of the square over the longer side of the person box."""
    silhouettes: Silhouettes
    parser: Parser | None = None

    def __post_init__(self) -> None:
        if self.silhouettes == "pgn" and self.parser is None:
            raise ValueError("silhouettes are to come from a parser, and none is given: train or convert a PGN first")

    @property
    def fingerprint(self) -> str:
        named = self.parser.fingerprint if self.silhouettes == "pgn" and self.parser else ""
        return fingerprint(pipeline.crops.VERSION, self.size, self.scale, self.silhouettes, named)


@dataclass(frozen=True)
class ParseSummary:
    """What became of the records."""

    records: int
    crops: int
    silhouettes: int
    """Crops whose silhouette is known (it may be empty)."""
    quarantined: int
    """Records without crop; `<dataset>.quarantine.json` beside the crops lists them."""


def quarantine_path(crops: Path) -> Path:
    """Where the list of what could not be used lies: beside the crops file."""
    return crops.with_name(f"{crops.stem}.quarantine.json")


def parse(
    records: pa.Table,
    out: Path,
    scratch: Path,
    cutting: Cutting,
    *,
    shard_records: int = SHARD_RECORDS,
    progress: Progress | None = None,
) -> ParseSummary:
    """Write the crops file of a records table, in the order of the table, and its quarantine list.

    Args:
        records: of `to_cut`.
        out: the crops file to write.
        scratch: folder for finished shards; a later call with the same arguments goes on from there. Removed at the
            end.
        cutting: sizes, folder and source of silhouettes.
        shard_records: records per unit of retry.
        progress: replaces the progress bar.

    Unreadable images, frames and masks do not stop the run: they are listed and counted.
    Raises ValueError when not one record gave a crop (wrong folder, most likely).
    """
    names = records["frame_id"].to_pylist()
    folder = scratch / fingerprint(content_fingerprint(records, cutting), shard_records)
    parts, done = list[Path](), 0
    with tqdm(total=len(names), unit="crop", desc=out.stem, disable=progress is not None) as bar:
        for number, rows in enumerate(plan_shards(records, cutting.root, shard_records)):
            parts.append(folder / f"{number:06d}.arrow")
            parse_shard(records.take(pa.array(rows)), parts[-1], cutting)
            done += len(rows)
            bar.update(len(rows))
            if progress:
                progress(done, len(names))
    summary = merge_shards(names, parts, out, cutting.size)
    shutil.rmtree(scratch, ignore_errors=True)
    return summary


def to_cut(records: Path) -> pa.Table:
    """What crops are cut by of the records manifest at a path, in one piece: to take rows of a table that lies in
    several, all of it is copied. Raises ManifestError."""
    return read_records(records, COLUMNS).combine_chunks()


def content_fingerprint(records: pa.Table, cutting: Cutting) -> str:
    """Hash of all that shards hang on: finished ones are taken up again where nothing of it has changed.

    Of images and masks it takes size and time of change.
    """
    digest = hashlib.blake2b(digest_size=16)
    for batch in records.select(COLUMNS).to_batches(max_chunksize=2**16):
        digest.update(batch.serialize())
    files = [path for name in ("image", "silhouette") for path in records[name].unique().drop_null().to_pylist()]
    for path in files:
        digest.update(f"{path} {_stat(cutting.root / path)}\n".encode())
    return fingerprint(cutting.fingerprint, SHARD_RECORDS, digest.hexdigest(), code.hashes(CODE))


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return (found.st_size, found.st_mtime_ns)


def plan_shards(records: pa.Table, root: Path, shard_records: int = SHARD_RECORDS) -> list[NDArray[np.int64]]:
    """Row numbers of each shard: images whole, videos in rising frame order, about `shard_records` each.

    A long video is cut between frames, so that several workers may share it, but not where that has them decode more
    than `MOST_AGAIN` frames once more.

    Args:
        root: what the names of images and videos are relative to.
    """
    if not records.num_rows:
        return []
    image = records["image"].combine_chunks().dictionary_encode().indices.to_numpy()
    frame = records["video_frame"].combine_chunks().fill_null(-1).to_numpy()
    order = np.lexsort((frame, image))  # numbers of images rise with their first appearance
    new_frame = np.flatnonzero((np.diff(image[order]) != 0) | (np.diff(frame[order]) != 0)) + 1
    jumps = cache(lambda number: _can_jump(root / records["image"][number].as_py()))
    first = np.unique(image, return_index=True)[1]
    cuts = [0]
    for place in new_frame:
        row = order[place]
        far = frame[row] > MOST_AGAIN and image[row] == image[order[place - 1]]
        if place - cuts[-1] >= shard_records and (not far or jumps(int(first[image[row]]))):
            cuts.append(int(place))
    return [order[start:end].astype(np.int64) for start, end in zip(cuts, [*cuts[1:], len(order)], strict=True)]


def _can_jump(path: Path) -> bool:
    try:
        return can_jump(path)
    except FrameError:
        return True  # it is told, and counted, where it is read


def parse_shard(records: pa.Table, out: Path, cutting: Cutting) -> None:
    """Cut the crops of some records into a file of their own; nothing to do when it is there already.

    The file is named last, so a shard that exists is whole, its quarantine list included.
    """
    if out.is_file():
        return
    quarantine = Quarantine()
    crops = list(_with_silhouettes(_cut(records, cutting, quarantine), cutting))
    quarantine.write(quarantine_path(out))
    write_crops(out, crops, cutting.size)


def merge_shards(frame_ids: list[str], shards: list[Path], out: Path, size: int) -> ParseSummary:
    """Join finished shards into one crops file in the order of `frame_ids`, and their quarantine lists.

    A data set may have ten thousand shards, more than a process may hold open.
    """
    quarantine = Quarantine()
    for shard in shards:
        listed = json.loads(quarantine_path(shard).read_text())["entries"]
        quarantine.entries.extend(Entry(**entry) for entry in listed)
    held = [CropStore(shard).frame_ids() for shard in shards]
    names = np.concatenate([np.zeros(0, "S16"), *held])
    if frame_ids and not len(names):
        raise ValueError(f"{out}: none of {len(frame_ids)} records gave a crop: {quarantine.summary()}")
    lengths = np.array([len(part) for part in held], np.int64)
    shard_of = np.repeat(np.arange(len(shards)), lengths)
    row_of = np.arange(len(names)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    order = np.argsort(names, kind="stable")
    wanted = np.array(frame_ids, "S16")
    found = np.searchsorted(names, wanted, sorter=order)
    place = order[np.minimum(found, len(names) - 1)] if len(names) else found
    opened = lru_cache(OPEN_SHARDS)(CropStore)
    silhouettes = 0

    def in_order() -> Iterator[Crop]:
        nonlocal silhouettes
        for at in place[names[place] == wanted]:
            item = opened(shards[shard_of[at]]).crop(int(row_of[at]))
            silhouettes += item.silhouette is not None
            yield item

    count = write_crops(out, in_order(), size)
    quarantine.write(quarantine_path(out))
    if len(quarantine):
        log.warning("%s: %d entries in quarantine: %s", out.name, len(quarantine), quarantine.summary())
    return ParseSummary(len(frame_ids), count, silhouettes, len(frame_ids) - count)


@dataclass(frozen=True)
class _Cut:
    frame_id: str
    image: Pixels
    square: Square
    mask: NDArray[np.bool_] | None


def _cut(records: pa.Table, cutting: Cutting, quarantine: Quarantine) -> Iterator[_Cut]:
    by_image: dict[str, list[dict[str, Any]]] = {}
    for row in records.select(COLUMNS).to_pylist():
        by_image.setdefault(row["image"], []).append(row)
    for name, rows in by_image.items():
        try:
            for pixels, shown in _decode(cutting.root / name, rows, name, quarantine):
                for row in shown:
                    if pixels.shape[:2] != (row["height"], row["width"]):
                        found = f"{pixels.shape[1]}x{pixels.shape[0]}"
                        quarantine.add(name, f"the image is {found}, its record says {row['width']}x{row['height']}")
                        continue
                    if (side := cutting.scale * max(row["box"][2:])) > MAX_SQUARE * max(pixels.shape[:2]):
                        found = f"its square has {side:g} px, the image {pixels.shape[1]}x{pixels.shape[0]}"
                        quarantine.add(name, f"the box is far larger than the image: {found}; correct the box")
                        continue
                    square = Square.around(tuple(row["box"]), cutting.scale)
                    mask = _dataset_mask(row, square, cutting, quarantine) if cutting.silhouettes == "dataset" else None
                    yield _Cut(row["frame_id"], crop(pixels, square, cutting.size), square, mask)
        except FrameError as error:
            quarantine.add(name, _reason(error, cutting.root / name), records=len(rows))


def _decode(
    path: Path, rows: list[dict[str, Any]], name: str, quarantine: Quarantine
) -> Iterator[tuple[Pixels, list[dict[str, Any]]]]:
    """Each decoded image of one file with the records it shows."""
    stills = [row for row in rows if row["video_frame"] is None]
    if stills:
        yield read_image(path), stills
    by_frame: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["video_frame"] is not None:
            by_frame.setdefault(row["video_frame"], []).append(row)
    for index, pixels in stream_video(path, list(by_frame)) if by_frame else ():
        yield pixels, by_frame.pop(index)
    if by_frame:
        lost = sum(map(len, by_frame.values()))
        quarantine.add(name, f"{len(by_frame)} frames do not decode, the first is {min(by_frame)}", records=lost)


def _dataset_mask(
    row: dict[str, Any], square: Square, cutting: Cutting, quarantine: Quarantine
) -> NDArray[np.bool_] | None:
    if row["silhouette"] is None:
        return None
    path = cutting.root / row["silhouette"]
    try:
        mask = read_mask(path)
    except FrameError as error:
        quarantine.add(row["silhouette"], f"silhouette left out: {_reason(error, path)}", records=0)
        return None
    if mask.shape != (row["height"], row["width"]):
        sizes = f"it is {mask.shape[1]}x{mask.shape[0]}, its image {row['width']}x{row['height']}"
        why = f"silhouette left out: {sizes}; bring it to that size, and parse again"
        quarantine.add(row["silhouette"], why, records=0)
        return None
    return crop_mask(mask, square, cutting.size)


def _with_silhouettes(cuts: Iterator[_Cut], cutting: Cutting) -> Iterator[Crop]:
    batch: list[_Cut] = []
    for cut in cuts:
        batch.append(cut)
        if len(batch) == PARSER_BATCH:
            yield from _finish(batch, cutting)
            batch = []
    if batch:
        yield from _finish(batch, cutting)


def _finish(batch: list[_Cut], cutting: Cutting) -> Iterator[Crop]:
    masks: list[NDArray[np.bool_] | None] = [cut.mask for cut in batch]
    if cutting.silhouettes == "pgn" and cutting.parser is not None:
        masks = list(parse_silhouettes(cutting.parser, np.stack([cut.image for cut in batch])))
    for cut, mask in zip(batch, masks, strict=True):
        yield Crop(
            frame_id=cut.frame_id,
            jpeg=encode_jpeg(cut.image),
            square=cut.square,
            silhouette=None if mask is None else pack(mask),
            silhouette_source=None if mask is None else cutting.silhouettes,
        )


def _reason(error: FrameError, path: Path) -> str:
    """The message without the path of this machine: the list names files relative to the dataset."""
    return str(error).replace(f"{path}: ", "").replace(str(path), path.name)
