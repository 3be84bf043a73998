"""Pairs of own videos -> what a pre-trained network makes of them: pictures and losses (paper section 3.1).

A pair is drawn as in Figures 6 and 7 of the paper: the target, what the network sees of it, its
completion, the reference, and the completion when the reference is black. What the last lacks
came from the reference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models import checkpoints
from models.croco import CroCo
from models.mae import MAE
from pipeline.frames import Pixels
from pipeline.loading.pairs import Masking, PairPool, Source
from pipeline.manifests import read_pairs, read_records
from pipeline.run_spec import Params
from pipeline.training.completion import PER_PERSON, pictures, reference_use
from pipeline.videos.sheets import titled, write_sheet

COLUMNS = {
    "target": "target",
    "masked": "seen of it",
    "prediction": "completed",
    "reference": "reference",
    "prediction_black": "black reference",
}
SIDE = 128
"""Least side, px, at which a crop is drawn."""
NUM_MEASURED = 128


@dataclass(frozen=True)
class Completions:
    """What was drawn, and how well the network completes pairs of these videos."""

    sheet: Path
    checkpoint: str
    drawn: int
    measured: int
    """Pairs behind the losses."""
    losses: dict[str, float]
    """Loss over hidden patches by what stands as the reference; see `reference_use`."""

    def text(self) -> str:
        """Markdown in a few lines."""
        lines = [f"{self.drawn} pairs completed by `{self.checkpoint}`: `{self.sheet.name}`", ""]
        lines += ["| reference | loss over hidden patches |", "|---|---|"]
        lines += [f"| {name} | {loss:.4f} |" for name, loss in self.losses.items()]
        return "\n".join([*lines, "", f"Means over {self.measured} pairs; lower is better."])


def complete_pairs(
    checkpoint: Path, records: Path, crops: Path, pairs: Path, out: Path, params: Params, count: int = 12
) -> Completions:
    """Complete a sample of pairs; writes `completions.png` and `completions.json` into `out`.

    Args:
        checkpoint: a CroCo or MAE checkpoint directory. Masks and loss are those of the run of the
            params file that is named like it, else of its first run.
        records: records manifest, for captions.
        crops: crops no smaller than the network's input.
        pairs: pairs manifest of these crops.
        out: folder to write to.
        count: pairs to draw.

    Raises:
        FileNotFoundError, CheckpointError: no checkpoint there, or one that is damaged.
        ValueError: it is no network that completes images, there are no pairs, or the crops are too small.
    """
    model = checkpoints.load(checkpoint)
    if not isinstance(model, CroCo | MAE):
        raise ValueError(f"{checkpoint}: a {type(model).__name__} completes no images; name a CroCo or MAE checkpoint")
    run = params.pretrain.get(checkpoint.name) or next(iter(params.pretrain.values()))
    masking = Masking(run.masking, run.mask_ratio, run.visible_length, params.pairs.min_human_patches, model.patch_size)
    pool = PairPool(
        [Source("videos", pairs, crops, 1.0)],
        {"view": 1.0, "pose": 1.0},
        heldout=0.0,
        size=model.img_size,
        masking=masking,
        jitter=0.0,
        seed=params.report.seed,
    )
    shown = pool.batch(0, count)
    measured = pool.batch(1, min(NUM_MEASURED, max(2, sum(pool.counts.values()))))
    of_pairs = reference_use(model, measured, pool.groups(measured), run.normalize)
    # Means of the same pairs: what some of them lack is left out.
    whole = {name: loss for name, loss in of_pairs.items() if not name.endswith(PER_PERSON) and np.isfinite(loss).all()}
    losses = {name: float(loss.mean()) for name, loss in whole.items()}
    drawn = pictures(model, shown, run.normalize)
    columns = {name: title for name, title in COLUMNS.items() if name in drawn}
    rows = [np.hstack([_framed(drawn[name][number], columns[name]) for name in columns]) for number in range(count)]
    ids = pool.ids(shown)
    described = read_pairs(pairs, ["pair_id", "kind", "target_frame_id", "dt_seconds"])
    captions = _captions(ids, described, read_records(records, ["frame_id", "image"]))
    sheet = np.concatenate([titled(row, caption) for row, caption in zip(rows, captions, strict=True)])
    write_sheet(sheet, out / "completions.png")
    result = Completions(out / "completions.png", checkpoint.name, count, len(measured), losses)
    facts = {
        "checkpoint": result.checkpoint,
        "sha256": checkpoints.fingerprint(checkpoint),
        "pairs": ids,
        "measured": result.measured,
        "losses": losses,
    }
    aside = out / ".completions.json.tmp"
    aside.write_text(json.dumps(facts, indent=1) + "\n")
    aside.replace(out / "completions.json")
    return result


def _captions(ids: list[str], pairs: pa.Table, records: pa.Table) -> list[str]:
    # Only the rows asked for become Python objects: there may be millions of others.
    row = {pair["pair_id"]: pair for pair in _rows_with(pairs, "pair_id", ids)}
    targets = [row[name]["target_frame_id"] for name in ids]
    image = {record["frame_id"]: record["image"] for record in _rows_with(records, "frame_id", targets)}
    kinds = ["two views" if row[name]["kind"] == "view" else f"{row[name]['dt_seconds']:+.2f} s" for name in ids]
    return [f"{image[target]}  {kind}" for target, kind in zip(targets, kinds, strict=True)]


def _rows_with(table: pa.Table, column: str, values: list[str]) -> list[dict[str, Any]]:
    return list(table.filter(pc.is_in(table[column], pa.array(values))).to_pylist())


def _framed(image: Pixels, title: str) -> Pixels:
    zoom = max(1, round(SIDE / image.shape[0]))
    large = cv2.copyMakeBorder(
        image.repeat(zoom, axis=0).repeat(zoom, axis=1), 0, 4, 0, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255)
    )
    return np.asarray(titled(np.asarray(large, np.uint8), title))
