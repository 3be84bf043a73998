"""Records and pairs as Parquet files: schemas with units and a version, checked writing and reading.

A manifest is a table whose schema metadata names what it is (`manifest`), its version
(`version`, "major.minor") and, per field, its unit and meaning; that of pairs also which crops
file their row numbers are of (`frames`, see `pipeline.crops.CropStore.frames`). Reading refuses another
kind of file and another major version; writing checks every rule of `validate` first and
goes to a temporary file that is renamed, so a file that exists is whole.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.records import ARRAY_SHAPES, FIELD_NAMES, SPLITS, FrameRecord

VERSIONS = {"records": "1.0", "pairs": "3.0"}
PAIR_KINDS = ("view", "pose")
SPOOL_BATCH = 4096
"""Records turned into columns at a time, of some 7 kB each; the next come while these are still held."""
ROW_GROUP = 1 << 18
"""Records sorted and written at a time, of some 2 kB each."""


class ManifestError(ValueError):
    """A file is not the manifest it should be; the message names file, rule and rows."""


def _field(name: str, type_: pa.DataType, meaning: str, unit: str = "", nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"meaning": meaning, "unit": unit})


def _schema(kind: str, fields: list[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"manifest": kind, "version": VERSIONS[kind]})


_floats = pa.list_(pa.float64())

RECORDS = _schema(
    "records",
    [
        _field("frame_id", pa.string(), "hash of dataset, split, sequence, camera, frame, subject"),
        _field("dataset", pa.string(), "name of the dataset module"),
        _field("split", pa.string(), "train, val or test"),
        _field("sequence", pa.string(), "recording"),
        _field("subject", pa.string(), "person within the sequence"),
        _field("camera", pa.string(), "camera within the sequence"),
        _field("frame_index", pa.int64(), "instant, shared by synchronised cameras"),
        _field("image", pa.string(), "image or video, relative to the dataset's root"),
        _field("width", pa.int32(), "image width", "px"),
        _field("height", pa.int32(), "image height", "px"),
        _field("box", _floats, "person box x, y, width, height", "px"),
        _field("time_s", pa.float64(), "time in the sequence", "s", nullable=True),
        _field("video_frame", pa.int64(), "frame number inside the video", "", nullable=True),
        _field("silhouette", pa.string(), "mask image of the dataset, relative path", nullable=True),
        _field("keypoints_2d", _floats, "K rows of x, y, confidence", "px, px, 1", nullable=True),
        _field("keypoint_set", pa.string(), "which keypoints", nullable=True),
        _field("camera_K", _floats, "3x3 intrinsics, row by row", "px", nullable=True),
        _field("camera_R", _floats, "3x3 world to camera, row by row, OpenCV axes", nullable=True),
        _field("camera_t", _floats, "world to camera translation", "m", nullable=True),
        _field("body_model", pa.string(), "model of the parameters", nullable=True),
        _field("gender", pa.string(), "neutral, male or female", nullable=True),
        _field("global_orient", _floats, "axis-angle, world frame", "rad", nullable=True),
        _field("body_pose", _floats, "axis-angle of the joints after the root", "rad", nullable=True),
        _field("betas", _floats, "10 shape coefficients", nullable=True),
        _field("transl", _floats, "translation, world frame", "m", nullable=True),
        _field("joints_3d", _floats, "J rows of x, y, z, world frame", "m", nullable=True),
        _field("label", pa.string(), "class label", nullable=True),
    ],
)

PAIRS = _schema(
    "pairs",
    [
        _field("pair_id", pa.string(), "hash of kind, target and reference"),
        _field("kind", pa.string(), "view: same instant, two cameras; pose: same camera, two instants"),
        _field("dataset", pa.string(), "name of the dataset module"),
        _field("target_frame_id", pa.string(), "frame to complete"),
        _field("reference_frame_id", pa.string(), "frame seen whole"),
        _field("target_crop", pa.int64(), "row of the target in the dataset's crops file"),
        _field("reference_crop", pa.int64(), "row of the reference in the dataset's crops file"),
        _field("target_patch_mask", pa.binary(), "human patches of the centre crop, packed bits", nullable=True),
        _field("reference_patch_mask", pa.binary(), "likewise for the reference", "", nullable=True),
        _field("num_patches", pa.int32(), "patches per image of the two masks"),
        _field("dt_seconds", pa.float64(), "reference time minus target time (kind pose)", "s", nullable=True),
        _field("baseline_degrees", pa.float64(), "angle between the views (kind view)", "deg", nullable=True),
        _field("group_rank", pa.float64(), "place in [0, 1) of the group of pairs linked by common frames, by a hash"),
    ],
)

_SCHEMAS = {"records": RECORDS, "pairs": PAIRS}


def write_records(records: Iterable[FrameRecord], path: Path) -> int:
    """Write records sorted by key; returns how many. Raises ManifestError on a duplicate key.

    In memory are some thousands of them at a time and the keys of all: millions may come.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file without a name: whoever is killed while records come, which may take hours, leaves none behind.
    with tempfile.TemporaryFile(dir=path.parent) as spooled:
        _spool(records, spooled)
        spooled.flush()
        content = pa.py_buffer(mmap.mmap(spooled.fileno(), 0, access=mmap.ACCESS_READ))
        unsorted = pa.ipc.open_file(content)
        batches = [unsorted.get_batch(number) for number in range(unsorted.num_record_batches)]
        table = pa.Table.from_batches(batches, unsorted.schema)
        _check(table.drop_columns(_KEY).replace_schema_metadata(RECORDS.metadata), str(path))
        order = pc.sort_indices(table[_KEY]).to_numpy().astype(np.int64)
        pieces = [order[start : start + ROW_GROUP] for start in range(0, max(1, len(order)), ROW_GROUP)]
        _write_aside((_taken(unsorted, rows) for rows in pieces), RECORDS, path)
    return len(order)


_KEY = "key"
"""Column beside those of a record, while they are not sorted."""


def _spool(records: Iterable[FrameRecord], file: IO[bytes]) -> None:
    """Write records as they come, as an Arrow file of batches of `SPOOL_BATCH`."""
    schema = RECORDS.append(pa.field(_KEY, pa.string(), nullable=False))
    with pa.ipc.new_file(file, schema) as out:
        stream = iter(records)
        while some := list(islice(stream, SPOOL_BATCH)):
            columns: dict[str, list[object]] = {name: [] for name in schema.names}
            for record in some:
                columns["frame_id"].append(record.frame_id)
                columns[_KEY].append(record.key)
                for name in FIELD_NAMES:
                    value = getattr(record, name)
                    if value is not None and (name in ARRAY_SHAPES or name == "box"):
                        value = np.asarray(value, dtype=np.float64).ravel()
                    columns[name].append(value)
            arrays = [pa.array(columns[name], schema.field(name).type) for name in schema.names]
            out.write_batch(pa.record_batch(arrays, schema=schema))


def _taken(unsorted: pa.RecordBatchFileReader, rows: NDArray[np.int64]) -> pa.Table:
    """Rows of a spooled file in the order asked for: reads no batch but theirs."""
    numbers, which = np.unique(rows // SPOOL_BATCH, return_inverse=True)
    read = pa.Table.from_batches([unsorted.get_batch(int(number)) for number in numbers], unsorted.schema)
    taken = read.drop_columns(_KEY).take(which * SPOOL_BATCH + rows % SPOOL_BATCH)
    return taken.replace_schema_metadata(RECORDS.metadata).combine_chunks()


def write_pairs(rows: list[dict[str, object]], path: Path, frames: str) -> int:
    """Write pairs (dicts with the fields of `PAIRS` but for `group_rank`, which follows from all); returns how many.

    Args:
        frames: `CropStore.frames` of the crops file that `target_crop` and `reference_crop` are rows of.
    """
    table = pa.Table.from_pylist(rows, schema=PAIRS.remove(PAIRS.get_field_index("group_rank")))
    ranks = group_ranks(table["target_frame_id"], table["reference_frame_id"])
    table = table.append_column(PAIRS.field("group_rank"), pa.array(ranks)).cast(PAIRS)
    write_table(table.replace_schema_metadata({**PAIRS.metadata, b"frames": frames}), path)
    return len(rows)


def frames_of(pairs: pa.Table) -> str:
    """`CropStore.frames` of the crops file that a pairs table was made from."""
    return str(pairs.schema.metadata[b"frames"].decode())


def group_ranks(targets: pa.ChunkedArray, references: pa.ChunkedArray) -> NDArray[np.float64]:
    """(P,) place in [0, 1) of each pair's group: pairs that share a frame, or are linked through others, are one.

    To hold out all pairs below a share holds out about that share of the groups, and no frame of
    theirs stands in any other pair. A group's place is a hash of the smallest of its frame ids, so
    pairs of other frames move none.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(targets)
    if not count:
        return np.zeros(0)
    ends = pa.chunked_array([*targets.chunks, *references.chunks]).combine_chunks().dictionary_encode()
    order = pc.array_sort_indices(ends.dictionary).to_numpy()
    smaller = np.empty(len(order), np.int64)
    smaller[order] = np.arange(len(order))
    places = smaller[ends.indices.to_numpy()]
    links = coo_array((np.ones(count, np.int8), (places[:count], places[count:])), shape=(len(order), len(order)))
    num_groups, group = connected_components(links, directed=False)
    first = np.full(num_groups, len(order))
    np.minimum.at(first, group, np.arange(len(order)))
    names = ends.dictionary.take(pa.array(order[first])).to_pylist()
    return np.array([_unit_hash(name) for name in names])[group[places[:count]]]


def _unit_hash(name: str) -> float:
    # 53 bits: what a float below 1 holds.
    return (int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 11) / 2**53


def write_table(table: pa.Table, path: Path) -> None:
    """Check a manifest table against its rules, then write it aside and rename it into place."""
    _check(table, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_aside([table], table.schema, path)


def _write_aside(tables: Iterable[pa.Table], schema: pa.Schema, path: Path) -> None:
    """One Parquet file of tables of one schema, each of them a row group unless it is very long."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(aside, schema, compression="zstd") as out:
            for table in tables:
                out.write_table(table)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def read_records(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The records manifest at `path`, or some columns of it; ManifestError when it is something else."""
    return _read(Path(path), "records", columns)


def read_pairs(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The pairs manifest at `path`, or some columns of it; ManifestError when it is something else."""
    return _read(Path(path), "pairs", columns)


def validate(path: str | Path) -> str:
    """Check a manifest file against every rule of its kind; returns the kind. ManifestError names what is wrong."""
    table = _read(Path(path))
    _check(table, str(path))
    return _kind(table.schema, str(path))


def to_records(table: pa.Table) -> list[FrameRecord]:
    """Rows of a records table as FrameRecords, arrays in their own shapes again."""
    records = []
    for row in table.to_pylist():
        values = {name: row[name] for name in FIELD_NAMES}
        values["box"] = tuple(values["box"])
        for name, shape in ARRAY_SHAPES.items():
            if values[name] is not None:
                values[name] = np.asarray(values[name]).reshape([-1 if n is None else n for n in shape])
        records.append(FrameRecord(**values))
    return records


def _read(path: Path, kind: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
    """The manifest at `path`, of any kind where none is named."""
    if not path.is_file():
        wanted = kind or "records or pairs"
        raise ManifestError(f"{path}: no such {wanted} manifest; `dvc repro` or `make tables` makes it")
    try:
        schema = pq.read_schema(path)
        found = _kind(schema, str(path))
        if kind is not None and found != kind:
            raise ManifestError(f"{path}: this is a {found} manifest, expected {kind}")
        version = (schema.metadata or {}).get(b"version", b"").decode()
        if version.split(".")[0] != VERSIONS[found].split(".")[0]:
            raise ManifestError(
                f"{path}: manifest version {version or 'unknown'}, this code reads {VERSIONS[found]}; "
                "make it again with `dvc repro`"
            )
        return pq.read_table(path, columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        # Arrow's own OSErrors are of what it reads; the system's, with a number, are not the file's fault.
        if isinstance(error, OSError) and error.errno:
            raise
        raise ManifestError(
            f"{path}: not a Parquet file or damaged ({error}); delete it and run `dvc repro`"
        ) from error


def _kind(schema: pa.Schema, where: str) -> str:
    kind = (schema.metadata or {}).get(b"manifest", b"").decode()
    if kind not in _SCHEMAS:
        raise ManifestError(
            f"{where}: not a manifest of this project (its schema metadata has no known `manifest` name)"
        )
    return kind


def _check(table: pa.Table, where: str) -> None:
    kind = _kind(table.schema, where)
    expected = _SCHEMAS[kind]
    for field in expected:
        if field.name not in table.schema.names:
            raise ManifestError(f"{where}: column {field.name!r} is missing")
        column = table[field.name]
        if column.type != field.type:
            raise ManifestError(f"{where}: column {field.name!r} is {column.type}, expected {field.type}")
        if not field.nullable and column.null_count:
            raise ManifestError(f"{where}: column {field.name!r} has {column.null_count} nulls")
    _check_unique(table, "frame_id" if kind == "records" else "pair_id", where)
    if kind == "records":
        _check_choices(table, "split", SPLITS, where)
    else:
        if b"frames" not in table.schema.metadata:
            raise ManifestError(f"{where}: does not say which crops file its pairs are of")
        _check_choices(table, "kind", PAIR_KINDS, where)
        _check_pairs(table, where)


def _check_unique(table: pa.Table, column: str, where: str) -> None:
    counts = pc.value_counts(table[column].combine_chunks()) if table.num_rows else []
    doubled = [item["values"].as_py() for item in counts if item["counts"].as_py() > 1]
    if doubled:
        raise ManifestError(
            f"{where}: {len(doubled)} values of {column} occur more than once, the first is {doubled[0]}"
        )


def _check_choices(table: pa.Table, column: str, choices: tuple[str, ...], where: str) -> None:
    wrong = sorted(set(pc.unique(table[column]).to_pylist()) - set(choices))
    if wrong:
        raise ManifestError(f"{where}: {column} holds {wrong}, expected one of {list(choices)}")


def _check_pairs(table: pa.Table, where: str) -> None:
    same = pc.sum(pc.equal(table["target_frame_id"], table["reference_frame_id"])).as_py()
    if same:
        raise ManifestError(f"{where}: {same} pairs have the same frame twice")
    is_pose = pc.equal(table["kind"], "pose")
    without_gap = pc.sum(pc.and_(is_pose, pc.is_null(table["dt_seconds"]))).as_py()
    if without_gap:
        raise ManifestError(f"{where}: {without_gap} pairs of kind pose have no dt_seconds")
    size = (table["num_patches"].to_numpy() + 7) // 8
    for column in ("target_patch_mask", "reference_patch_mask"):
        lengths = pc.binary_length(table[column])
        wrong = pc.sum(pc.not_equal(lengths, pa.array(size.astype(np.int32), lengths.type))).as_py()
        if wrong:
            raise ManifestError(f"{where}: {wrong} rows of {column} have another length than num_patches asks for")
