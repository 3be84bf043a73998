"""Square crops of persons: their geometry, and the file that training reads pixels from.

A crops file is an Arrow IPC file: one row per person with the JPEG of the crop, the packed
silhouette and the square it was cut from. It is memory-mapped, any row is reached without
reading another, and opening it costs the same at a thousand and at a million rows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

VERSION = "2.0"
JPEG_QUALITY = 95
BATCH_ROWS = 128
"""Rows per record batch: the batch of row r is r // BATCH_ROWS."""
MAX_SAMPLED = 2**14
"""Samples along a side, at most: 0.8 GB of colours. OpenCV takes no image of twice as many."""
SILHOUETTE_SOURCES = ("dataset", "pgn")
_FRAMES_BYTES = 16

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class CropsError(ValueError):
    """A file is not the crops file it should be; the message names file and remedy."""


@dataclass(frozen=True)
class Square:
    """Centre and side of a square in pixels of the original image.

    Coordinates are continuous: the pixel in column j covers [j, j + 1), so the image of width w
    spans [0, w] and the centre of its first pixel lies at 0.5. The square may leave the image.
    """

    cx: float
    cy: float
    side: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.cx, self.cy, self.side]).all() and self.side > 0):
            raise ValueError(f"a square needs a finite centre and a positive side, got {self}")

    @classmethod
    def around(cls, box: tuple[float, float, float, float], scale: float) -> Square:
        """The square about the centre of a box (x, y, width, height), `scale` times its longer side."""
        x, y, width, height = box
        return cls(x + width / 2, y + height / 2, scale * max(width, height))

    def to_crop(self, points: NDArray[np.floating], size: int) -> NDArray[np.float64]:
        """(..., 2) points of the image, px, as px of the crop resized to `size`."""
        return (np.asarray(points, np.float64) - self._corner) * (size / self.side)

    def to_image(self, points: NDArray[np.floating], size: int) -> NDArray[np.float64]:
        """Inverse of `to_crop`."""
        return np.asarray(points, np.float64) * (self.side / size) + self._corner

    @property
    def _corner(self) -> NDArray[np.float64]:
        return np.array([self.cx, self.cy]) - self.side / 2


def crop(image: Pixels, square: Square, size: int) -> Pixels:
    """Cut a square out of an image (H, W, 3) and resize it to (size, size, 3); outside is black.

    Shrinking is anti-aliased: sampled at the density of the source, as far as MAX_SAMPLED allows, then
    averaged over areas.
    """
    over = max(1, int(np.ceil(min(square.side, MAX_SAMPLED) / size)))
    fine = _warp(image, square, size * over, cv2.INTER_LINEAR)
    if over > 1:
        fine = np.asarray(cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    return fine


def crop_mask(mask: Mask, square: Square, size: int) -> Mask:
    """Cut the same square out of a mask (H, W) -> (size, size); nearest pixel, outside is False."""
    return _warp(mask.astype(np.uint8), square, size, cv2.INTER_NEAREST).astype(bool)


def _warp(image: Pixels, square: Square, size: int, interpolation: int) -> Pixels:
    # OpenCV counts pixel centres at whole numbers, hence the halves.
    step = square.side / size
    x, y = square.cx - square.side / 2, square.cy - square.side / 2
    from_crop = np.array([[step, 0, x + step / 2 - 0.5], [0, step, y + step / 2 - 0.5]])
    flags = interpolation | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, from_crop, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(warped, np.uint8)


@dataclass(frozen=True, kw_only=True)
class Crop:
    """One row of a crops file."""

    frame_id: str
    """16 hex digits, as in the records manifest."""
    jpeg: bytes
    square: Square
    silhouette: bytes | None = None
    """size * size bits, row by row, high bit first (numpy.packbits); None = unknown."""
    silhouette_source: str | None = None
    """`dataset` or `pgn`; None exactly when `silhouette` is."""


def encode_jpeg(image: Pixels) -> bytes:
    """JPEG of an RGB crop at the quality of the crops file, colour at full resolution."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return encoded.tobytes()


def _schema(size: int) -> pa.Schema:
    def field(name: str, kind: pa.DataType, meaning: str, unit: str = "", nullable: bool = False) -> pa.Field:
        return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning, "unit": unit})

    return pa.schema(
        [
            field("frame_id", pa.string(), "record the crop shows"),
            field("image", pa.binary(), "JPEG of the crop, RGB, size x size"),
            field("silhouette", pa.binary(), "person mask, size * size packed bits, row by row", nullable=True),
            field("silhouette_source", pa.string(), "dataset or pgn", nullable=True),
            field("cx", pa.float64(), "centre of the square in the original image", "px"),
            field("cy", pa.float64(), "centre of the square in the original image", "px"),
            field("side", pa.float64(), "side of the square in the original image", "px"),
        ],
        metadata={"table": "crops", "version": VERSION, "size": str(size), "batch_rows": str(BATCH_ROWS)},
    )


def write_crops(path: Path, crops: Iterable[Crop], size: int) -> int:
    """Write crops in the order given, aside and renamed into place; returns how many.

    Raises ValueError for a row that breaks the rules of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    schema, count = _schema(size), 0
    try:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            frames = hashlib.blake2b(digest_size=_FRAMES_BYTES)
            for batch in _batches(crops, size):
                for row in batch:
                    frames.update(row["frame_id"].encode())
                # Of all rows so far: the last batch has that of the file, which no writer knows before.
                so_far = {"frames": frames.hexdigest()}
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema), custom_metadata=so_far)
                count += len(batch)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return count


def _batches(crops: Iterable[Crop], size: int) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for item in crops:
        _check(item, size)
        row = {name: getattr(item, name) for name in ("frame_id", "silhouette", "silhouette_source")}
        rows.append(row | {"image": item.jpeg, "cx": item.square.cx, "cy": item.square.cy, "side": item.square.side})
        if len(rows) == BATCH_ROWS:
            yield rows
            rows = []
    if rows:
        yield rows


def _check(item: Crop, size: int) -> None:
    if len(item.frame_id) != 16 or not item.frame_id.isascii():
        raise ValueError(f"frame_id must be 16 hex digits, got {item.frame_id!r}")
    if (item.silhouette is None) != (item.silhouette_source is None):
        raise ValueError(f"{item.frame_id}: a silhouette and its source come together or not at all")
    if item.silhouette_source not in (None, *SILHOUETTE_SOURCES):
        raise ValueError(f"{item.frame_id}: silhouette_source {item.silhouette_source!r} not in {SILHOUETTE_SOURCES}")
    if item.silhouette is not None and len(item.silhouette) != (size * size + 7) // 8:
        raise ValueError(f"{item.frame_id}: silhouette has {len(item.silhouette)} bytes, not {size}x{size} bits")


class CropStore:
    """Rows of a crops file by number, memory-mapped.

    Opening reads the file's footer only. May be pickled (into worker processes): it
    travels as its path. Raises CropsError when the file is missing, cut short or of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise CropsError(f"{self.path}: no such crops file; `dvc repro` or `make tables` makes it")
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
        except (pa.ArrowException, OSError) as error:
            # Arrow's own OSErrors are of what it reads; the system's, with a number, are not the file's fault.
            if isinstance(error, OSError) and error.errno:
                raise
            raise CropsError(
                f"{self.path}: not an Arrow file or cut short ({error}); delete it and run `dvc repro`"
            ) from error
        found = {key.decode(): value.decode() for key, value in (self._reader.schema.metadata or {}).items()}
        if found.get("table") != "crops":
            raise CropsError(f"{self.path}: not a crops file of this project")
        if found["version"].split(".")[0] != VERSION.split(".")[0]:
            raise CropsError(
                f"{self.path}: crops file version {found['version']}, this code reads {VERSION}; "
                "make it again with `dvc repro`"
            )
        self.size = int(found["size"])
        """Side of a crop, px."""
        self._batch_rows = int(found["batch_rows"])
        batches = self._reader.num_record_batches
        self._length = 0
        if batches:
            self._length = (batches - 1) * self._batch_rows + self._reader.get_batch(batches - 1).num_rows
        self._batch: tuple[int, pa.RecordBatch] | None = None
        self._index: tuple[NDArray[np.bytes_], NDArray[np.intp]] | None = None

    def __reduce__(self) -> tuple[type[CropStore], tuple[Path]]:
        return CropStore, (self.path,)

    def __len__(self) -> int:
        return self._length

    @property
    def frames(self) -> str:
        """Hash of the frame ids row by row: what speaks of rows by number keeps it. Read without reading the column."""
        batches = self._reader.num_record_batches
        if not batches:
            return hashlib.blake2b(digest_size=_FRAMES_BYTES).hexdigest()
        return self._reader.get_batch_with_custom_metadata(batches - 1).custom_metadata[b"frames"].decode()

    def _cell(self, column: str, row: int) -> Any:
        if not 0 <= row < self._length:
            raise IndexError(f"{self.path}: row {row} of {self._length}")
        batch, offset = divmod(row, self._batch_rows)
        if self._batch is None or self._batch[0] != batch:
            self._batch = (batch, self._reader.get_batch(batch))
        return self._batch[1].column(column)[offset].as_py()

    def frame_id(self, row: int) -> str:
        return self._cell("frame_id", row)

    def jpeg(self, row: int) -> bytes:
        return self._cell("image", row)

    def image(self, row: int) -> Pixels:
        """(size, size, 3) uint8 RGB."""
        jpeg = self.jpeg(row)
        # OpenCV raises an error of its own where there is nothing at all.
        decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB) if jpeg else None
        if decoded is None or decoded.shape[:2] != (self.size, self.size):
            raise CropsError(
                f"{self.path}: the image of row {row}, frame {self.frame_id(row)}, is damaged: it is no JPEG of "
                f"{self.size} x {self.size} px; delete the file and run `dvc repro`"
            )
        return np.asarray(decoded, np.uint8)

    def silhouette(self, row: int) -> Mask | None:
        """(size, size) bool, True = person; None = not known (which is not the same as nobody)."""
        packed = self._cell("silhouette", row)
        if packed is None:
            return None
        if len(packed) != (self.size * self.size + 7) // 8:
            raise CropsError(
                f"{self.path}: the silhouette of row {row}, frame {self.frame_id(row)}, has {len(packed)} bytes, not "
                f"{self.size} x {self.size} bits; delete the file and run `dvc repro`"
            )
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=self.size * self.size)
        return bits.reshape(self.size, self.size).astype(bool)

    def silhouette_source(self, row: int) -> str | None:
        return self._cell("silhouette_source", row)

    def square(self, row: int) -> Square:
        return Square(self._cell("cx", row), self._cell("cy", row), self._cell("side", row))

    def squares(self) -> NDArray[np.float64]:
        """(len(self), 3) centre x, y and side of every row's square in the original image, px."""
        batches = [self._reader.get_batch(i) for i in range(self._reader.num_record_batches)]
        columns = [[batch.column(name).to_numpy() for batch in batches] for name in ("cx", "cy", "side")]
        return np.stack([np.concatenate([np.zeros(0), *column]) for column in columns], axis=1)

    def crop(self, row: int) -> Crop:
        """The whole row, still encoded."""
        return Crop(
            frame_id=self.frame_id(row),
            jpeg=self.jpeg(row),
            square=self.square(row),
            silhouette=self._cell("silhouette", row),
            silhouette_source=self.silhouette_source(row),
        )

    def row(self, frame_id: str) -> int:
        """Row of a record; KeyError when it has no crop (its image was quarantined)."""
        row = self.rows([frame_id])[0]
        if row < 0:
            raise KeyError(f"{self.path}: no crop of frame {frame_id}")
        return int(row)

    def frame_ids(self) -> NDArray[np.bytes_]:
        """(len(self),) the record that each row shows, as bytes."""
        columns = [self._reader.get_batch(i).column("frame_id") for i in range(self._reader.num_record_batches)]
        return np.array(pa.chunked_array(columns, pa.string()).cast(pa.binary()).to_numpy(), "S16")

    def rows(self, frame_ids: Iterable[str]) -> NDArray[np.int64]:
        """Rows of many records at once, -1 where a record has no crop."""
        if self._index is None:  # built on first use: opening stays independent of size
            names = self.frame_ids()
            order = np.argsort(names, kind="stable")
            self._index = (names[order], order)
        names, order = self._index
        wanted = np.array([name.encode() for name in frame_ids], "S16")
        if not self._length:
            return np.full(len(wanted), -1, np.int64)
        place = np.minimum(np.searchsorted(names, wanted), self._length - 1)
        return np.where(names[place] == wanted, order[place], -1).astype(np.int64)
