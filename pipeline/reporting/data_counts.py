"""Records, crops, pairs and quarantine lists of one scale -> how much of each dataset went how far.

Nothing is lost silently: what was left out is counted here with its reasons, and the lists
lie beside the manifests.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from pipeline.crops import CropsError, CropStore
from pipeline.layout import Layout, has_real_data
from pipeline.manifests import PAIR_KINDS, ManifestError, read_pairs, read_records
from pipeline.records import SPLITS
from pipeline.run_spec import Params

NUM_REASONS = 3


@dataclass(frozen=True)
class DatasetCount:
    """One dataset from its files to its pairs; None = that step has left nothing (yet)."""

    name: str
    source: str
    """`real`, `stand-in`, `not made yet` or `missing`."""
    use: str
    """A value of USES."""
    records: dict[str, int] | None
    """By split."""
    crops: int | None
    pairs: dict[str, int] | None
    """By kind."""
    left_out: int
    """Records that are in a quarantine list."""
    reasons: tuple[str, ...]
    """The most frequent reasons, with their number of records."""


USES = {
    "body": "pre-training",
    "looks": "the study",
    "hand": "pre-training, hands",
    "static": "pre-training, static scenes",
    "body_mesh": "body mesh",
    "backgrounds": "backgrounds",
}


def count(layout: Layout, params: Params) -> list[DatasetCount]:
    """One row per dataset of params.yaml."""
    rows = []
    for name, spec in params.datasets.items():
        crops = layout.crops(spec.pool, name)
        reasons = _reasons([layout.records(name), crops])
        rows.append(
            DatasetCount(
                name=name,
                source=source(layout, name, stood_in=bool(spec.standin)),
                use=USES[spec.pool],
                records=_by(layout.records(name), "split") if spec.pool != "backgrounds" else None,
                crops=_num_crops(crops),
                pairs=_by(layout.pairs(spec.pool, name), "kind") if spec.pairs else None,
                left_out=sum(reasons.values()),
                reasons=tuple(f"{number}: {reason}" for reason, number in reasons.most_common(NUM_REASONS)),
            )
        )
    return rows


def source(layout: Layout, name: str, stood_in: bool) -> str:
    """Whether a dataset is the user's own copy, a stand-in, one that is still to be made, or not there."""
    if not layout.is_missing(name):
        return "real" if has_real_data(layout.raw(name)) else "stand-in"
    # What only the further tables need is rendered when they are made.
    return "not made yet" if stood_in and not layout.source(name).is_dir() else "missing"


def stood_in_sentence(layout: Layout, params: Params) -> str | None:
    """Which of the data sets of body mesh recovery are no photographs; None where all are."""
    both = (params.body_mesh.train_dataset, params.body_mesh.test_dataset)
    stood_in = [
        name
        for name in dict.fromkeys(both)
        if source(layout, name, stood_in=bool(params.datasets[name].standin)) in ("stand-in", "not made yet")
    ]
    if not stood_in:
        return None
    return (
        f"Ours: {' and '.join(stood_in)} are stand-ins here, rendered people in the data set's file layout; errors on "
        "them do not compare with errors on its photographs."
    )


def _by(path: Path, column: str) -> dict[str, int] | None:
    try:
        table = read_records(path, [column]) if column == "split" else read_pairs(path, [column])
    except ManifestError:
        return None
    counts = pc.value_counts(table[column].combine_chunks()).to_pylist() if table.num_rows else []
    found = {item["values"]: item["counts"] for item in counts}
    return {name: found[name] for name in (*SPLITS, *PAIR_KINDS) if name in found}


def _num_crops(path: Path) -> int | None:
    try:
        return len(CropStore(path))
    except CropsError:
        return None


def _reasons(manifests: list[Path]) -> Counter[str]:
    """Reason -> records left out, over the quarantine lists beside the manifests."""
    reasons: Counter[str] = Counter()
    for path in manifests:
        listed = path.with_name(f"{path.stem}.quarantine.json")
        if listed.is_file():
            for entry in json.loads(listed.read_text())["entries"]:
                reasons[entry["reason"]] += entry.get("records", 1)
    return reasons
