"""Which pairs are trained on: a fixed number per kind, spread evenly over sequences (paper sections 3.2, 3.3).

Only frames of split `train` that have a crop, and that show enough of the person where the
silhouette is known, take part. What is left out is counted by reason.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from pipeline.crops import CropStore
from pipeline.manifests import read_records, write_pairs
from pipeline.pairs import cross_pose, cross_view
from pipeline.pairs.candidates import Candidates
from pipeline.run_spec import Pairs
from pipeline.silhouettes import centre, pack, patch_mask

log = logging.getLogger(__name__)

COLUMNS = ["frame_id", "dataset", "split", "sequence", "subject", "camera", "frame_index", "time_s", "camera_R"]
"""Of the records manifest: what pairs hang on. Joints and body parameters of a large dataset take gigabytes."""

Kind = Literal["view", "pose"]
Progress = Callable[[int, int], None]
"""Called with (pairs chosen, pairs asked for)."""


@dataclass(frozen=True)
class Frames:
    """The frames that may enter pairs, N of them."""

    records: pa.Table
    crops: np.ndarray
    """(N,) row of each frame in the crops file."""
    patch_masks: list[bytes | None]
    """Packed human patches of the centre crop; None where no silhouette is known."""
    num_patches: int


def write_selection(
    records: Path,
    store: CropStore,
    out: Path,
    params: Pairs,
    kinds: Sequence[Kind],
    progress: Progress | None = None,
) -> dict[str, int]:
    """Choose pairs of a records manifest and write theirs; returns counts of what was kept and why the rest was not.

    No records (a dataset that is not there) give no pairs. Raises ValueError with these counts when
    records give not one pair.
    """
    rows, counts = select(read_records(records, COLUMNS), store, params, kinds, progress)
    if counts["records"] and not rows:
        raise ValueError(f"{out}: no pair of kind {' or '.join(kinds)} could be made: {counts}")
    write_pairs(rows, out, store.frames)
    log.info("%s: %s", out.name, counts)
    return counts


def select(
    records: pa.Table, store: CropStore, params: Pairs, kinds: Sequence[Kind], progress: Progress | None = None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows of the pairs manifest, by kind, target and reference crop; and the counts. Of the records it takes COLUMNS.

    The same arguments give the same rows; the choice within a sequence does not depend on
    which other sequences exist, unless the quota makes it.
    """
    counts: Counter[str] = Counter(records=records.num_rows)
    frames = usable_frames(records, store, params, counts)
    quotas = {"view": params.max_view, "pose": params.max_pose}
    wanted = sum(quotas[kind] for kind in kinds)
    rows: list[dict[str, Any]] = []
    for kind in sorted(set(kinds)):
        with tqdm(total=quotas[kind], unit="pair", desc=f"{kind} pairs", disable=progress is not None) as bar:
            for row in _choose(frames, store, params, kind, quotas[kind], counts):
                rows.append(row)
                bar.update()
                if progress:
                    progress(len(rows), wanted)
    rows.sort(key=lambda row: (row["kind"], row["target_crop"], row["reference_crop"]))
    return rows, dict(counts)


def usable_frames(records: pa.Table, store: CropStore, params: Pairs, counts: Counter[str]) -> Frames:
    """Frames of the training split that have a crop and, as far as known, enough human patches."""
    if params.input_size > store.size or params.input_size % params.patch:
        raise ValueError(
            f"pairs.input_size {params.input_size} must be a multiple of pairs.patch {params.patch} "
            f"and at most the crop size {store.size} of {store.path}"
        )
    train = records.filter(pc.equal(records["split"], "train"))
    counts["not_train"] += records.num_rows - train.num_rows
    crops = store.rows(train["frame_id"].to_pylist())
    counts["no_crop"] += int((crops < 0).sum())
    kept: list[int] = []
    masks: list[bytes | None] = []
    for row, crop_row in enumerate(crops):
        if crop_row < 0:
            continue
        silhouette = store.silhouette(int(crop_row))
        human = None if silhouette is None else patch_mask(centre(silhouette, params.input_size), params.patch)
        if human is not None and human.sum() < params.min_human_patches:
            counts["too_few_human_patches"] += 1
            continue
        kept.append(row)
        masks.append(None if human is None else pack(human))
    counts["usable"] += len(kept)
    chosen = np.array(kept, np.int64)
    return Frames(train.take(pa.array(chosen)), crops[chosen], masks, (params.input_size // params.patch) ** 2)


def _choose(
    frames: Frames, store: CropStore, params: Pairs, kind: Kind, quota: int, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    records = frames.records
    times, directions = cross_pose.times(records), cross_view.viewing_directions(records)
    if kind == "pose":
        found = cross_pose.candidates(records, params.min_gap_s, params.max_gap_s)
        counts["no_time"] += int(np.isnan(times).sum())
    else:
        found = cross_view.candidates(records)
    counts[f"{kind}_candidates"] += len(found)
    frame_ids = records["frame_id"].to_pylist()
    datasets = records["dataset"].to_pylist()

    def pair(one: int, other: int, rng: np.random.Generator) -> dict[str, Any] | None:
        baseline = cross_view.baseline_degrees(directions[one], directions[other]) if kind == "view" else None
        if baseline is not None and baseline < params.min_baseline_degrees:
            counts["small_baseline"] += 1
            return None
        if store.jpeg(int(frames.crops[one])) == store.jpeg(int(frames.crops[other])):
            # A still passage of a video, or one picture filed twice: nothing to complete across.
            counts["same_picture"] += 1
            return None
        target, reference = (one, other) if rng.random() < 0.5 else (other, one)
        counts[kind] += 1
        return {
            "pair_id": pair_id(kind, frame_ids[target], frame_ids[reference]),
            "kind": kind,
            "dataset": datasets[target],
            "target_frame_id": frame_ids[target],
            "reference_frame_id": frame_ids[reference],
            "target_crop": int(frames.crops[target]),
            "reference_crop": int(frames.crops[reference]),
            "target_patch_mask": frames.patch_masks[target],
            "reference_patch_mask": frames.patch_masks[reference],
            "num_patches": frames.num_patches,
            "dt_seconds": float(times[reference] - times[target]) if kind == "pose" else None,
            "baseline_degrees": baseline,
        }

    def draw(sequence: str, candidates: Candidates) -> Iterator[dict[str, Any]]:
        # A generator of its own for every sequence: more data elsewhere leaves its pairs alone.
        rng = np.random.default_rng([params.seed, zlib.crc32(f"{kind}/{sequence}".encode())])
        for one, other in candidates.shuffled(rng):
            row = pair(one, other, rng)
            if row is not None:
                yield row

    sequence = records["sequence"].combine_chunks().dictionary_encode()
    names = sequence.dictionary.to_pylist()
    groups = found.split(sequence.indices.to_numpy(zero_copy_only=False))
    draws = {names[code]: draw(names[code], group) for code, group in groups.items()}
    yield from spread([draws[name] for name in sorted(draws)], quota, np.random.default_rng(params.seed))


def spread(draws: Sequence[Iterator[dict[str, Any]]], quota: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Take `quota` items in all, as evenly as the iterators allow: what one lacks, the others give."""
    active = list(draws)
    while active and quota > 0:
        share = quota // len(active)
        if share == 0:  # fewer items left than sequences: a random choice of them gives one more each
            active = [active[place] for place in np.sort(rng.permutation(len(active))[:quota])]
            share = 1
        unfinished = []
        for items in active:
            taken = list(islice(items, share))
            yield from taken
            quota -= len(taken)
            if len(taken) == share:
                unfinished.append(items)
        active = unfinished


def pair_id(kind: str, target: str, reference: str) -> str:
    """Stable name of a pair: 16 hex digits of a hash of its kind and its two frames, in their roles."""
    return hashlib.blake2b(f"{kind}\x1f{target}\x1f{reference}".encode(), digest_size=8).hexdigest()
