"""A dataset's folder -> its records manifest and the list of what was left out.

Real data where it is present, else the stand-in; a cap on records draws whole instants, so
that views of one moment stay together (paper section 3.2).
"""

from __future__ import annotations

import hashlib
import heapq
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

from tqdm import tqdm

from pipeline import manifests
from pipeline.datasets import Quarantine, get
from pipeline.layout import Layout, has_real_data
from pipeline.records import FrameRecord
from pipeline.run_spec import Params

log = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]
"""Called with (done, total); total is None while it is not known."""


def index(dataset: str, layout: Layout, params: Params, progress: Progress | None = None) -> dict[str, int]:
    """Write `records/<dataset>.parquet` and `records/<dataset>.quarantine.json`; returns counts.

    Counts: `records`, one `records_<split>` per split, `quarantined` entries. A dataset that is
    not there gives an empty manifest: whatever reads it goes on with the others. Raises
    ValueError when its stand-in was not made yet, or its layout is wrong.
    """
    module = get(dataset)
    root = layout.source(dataset)
    if not root.is_dir():
        raise ValueError(
            f"{dataset}: neither {layout.raw(dataset)} nor the stand-in {root} exists; "
            f"make the stand-in with `python -m pipeline.datasets standin --dataset {dataset}`"
        )
    what = "real data" if has_real_data(layout.raw(dataset)) else "the stand-in"
    log.info("%s: reading %s from %s", dataset, what, root)
    quarantine = Quarantine()
    section = params.datasets.get(dataset)
    found = module.records(root, quarantine)
    if layout.is_missing(dataset):
        log.warning("left out: %s, not present; `make doctor` says how to get it", dataset)
        found = iter(())
    stream: Iterable[FrameRecord] = _counted(found, dataset, progress)
    records = thin(stream, section.max_records) if section and section.max_records else stream
    splits: Counter[str] = Counter()
    path = layout.records(dataset)
    count = manifests.write_records(_tallied(records, splits), path)
    quarantine.write(path.with_suffix(".quarantine.json"))
    per_split = {f"records_{name}": splits[name] for name in sorted(splits)}
    return {"records": count, **per_split, "quarantined": len(quarantine)}


def thin(records: Iterable[FrameRecord], limit: int) -> list[FrameRecord]:
    """At most `limit` records: a uniform sample of instants, each with all its views and people.

    An instant is drawn by the hash of (split, sequence, frame index), so the choice depends
    neither on order nor on a seed; memory stays at `limit` records while a stream of any
    length passes. An instant with more records than `limit` would be dropped whole, as
    happens only for limits below the number of cameras.
    """
    kept: dict[int, list[FrameRecord]] = defaultdict(list)
    highest: list[int] = []
    bound, size = 1 << 64, 0
    for record in records:
        rank = _rank(record)
        if rank >= bound:
            continue
        if rank not in kept:
            heapq.heappush(highest, -rank)
        kept[rank].append(record)
        size += 1
        while size > limit:
            bound = -heapq.heappop(highest)
            size -= len(kept.pop(bound))
    return [record for rank in sorted(kept) for record in kept[rank]]


def _rank(record: FrameRecord) -> int:
    text = f"{record.split}\x1f{record.sequence}\x1f{record.frame_index}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _tallied(records: Iterable[FrameRecord], splits: Counter[str]) -> Iterator[FrameRecord]:
    for record in records:
        splits[record.split] += 1
        yield record


def _counted(records: Iterator[FrameRecord], dataset: str, progress: Progress | None) -> Iterator[FrameRecord]:
    bar = tqdm(records, desc=f"index {dataset}", unit="record", disable=progress is not None)
    for done, record in enumerate(bar, start=1):
        yield record
        if progress is not None and done % 1000 == 0:
            progress(done, None)
