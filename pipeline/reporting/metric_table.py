"""Metrics files of one scale (reports/metrics/<scale>/<stage>/**/*.json) -> one checked long table.

One file per (initialisation, task, seed); one row of the table per value in it, with unit,
number of samples and the file it came from, so that any number of the report leads back.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.layout import Layout

FEW_LABELS = "body_mesh_labels"
"""Stage of body mesh recovery on a part of the training images (Figure 3(b))."""


class MetricsError(ValueError):
    """A metrics file is not what it should be; the message names file, key and remedy."""


class Value(BaseModel):
    """One measured number."""

    model_config = ConfigDict(frozen=True)

    value: float
    unit: str
    n: int | None = Field(default=None, ge=0)
    """Samples the value is the mean of."""

    @field_validator("value")
    @classmethod
    def _is_finite(cls, value: float) -> float:
        if not isfinite(value):
            raise ValueError(f"is {value}; a measurement must be a finite number")
        return value


class Checkpoint(BaseModel):
    model_config = ConfigDict(frozen=True)

    path: str
    sha256: str


class Saving(BaseModel):
    """By how much the true reference lowers a held-out loss; see `pipeline.training.completion.Saving`."""

    model_config = ConfigDict(frozen=True)

    kind: str
    patches: str
    against: str
    saves: float
    standard_error: float | None
    recordings: int


class MetricsFile(BaseModel):
    """One metrics file; keys beyond these are kept out of the tables but do not hurt."""

    model_config = ConfigDict(frozen=True)

    stage: str
    scale: str
    values: dict[str, Value]
    init: str | None = None
    init_sha256: str | None = None
    """Weights of `init` that were measured from."""
    labels: float = 1.0
    """Share of the training images that were used."""
    run: str | None = None
    snapshots: dict[str, str] = {}
    """Steps -> sha256 of the weights a pre-training had then."""
    reference_saves: tuple[Saving, ...] = ()
    seed: int | None = None
    checkpoint: Checkpoint | None = None
    params_fingerprint: str | None = None
    git_revision: str | None = None
    hardware: str | None = None
    """What measured it; of files from before this was noted, None."""
    command: str | None = None
    seconds: float | None = None
    path: Path

    @property
    def name(self) -> str:
        """The checkpoint that was measured, and on how many labels when not on all."""
        name = self.init or self.run or self.path.stem
        return name if self.labels == 1 else f"{name}, {self.labels:.3g} of the labels"


@dataclass(frozen=True)
class Measurement:
    """One row of the long table."""

    stage: str
    name: str
    seed: int | None
    metric: str
    value: float
    unit: str
    num_samples: int | None
    path: Path


@dataclass(frozen=True)
class MetricTable:
    files: tuple[MetricsFile, ...]

    def of(self, stage: str, name: str | None = None, seeds: tuple[int, ...] | None = None) -> list[MetricsFile]:
        """Files of one stage, of one checkpoint, of these seeds, ordered by name and seed."""
        return [
            file
            for file in self.files
            if file.stage == stage and name in (None, file.name) and (seeds is None or file.seed in seeds)
        ]

    def measurements(self) -> Iterator[Measurement]:
        for file in self.files:
            for metric, value in sorted(file.values.items()):
                yield Measurement(file.stage, file.name, file.seed, metric, value.value, value.unit, value.n, file.path)

    def write(self, path: Path, relative_to: Path) -> None:
        """The long table as CSV."""
        with path.open("w", newline="") as out:
            rows = csv.writer(out, lineterminator="\n")
            rows.writerow(["stage", "name", "seed", "metric", "value", "unit", "num_samples", "file"])
            for item in self.measurements():
                seed = "" if item.seed is None else item.seed
                num = "" if item.num_samples is None else item.num_samples
                where = item.path.relative_to(relative_to).as_posix()
                rows.writerow([item.stage, item.name, seed, item.metric, repr(item.value), item.unit, num, where])


def read(layout: Layout) -> MetricTable:
    """Every metrics file of the scale. No folder at all is an empty table, a wrong file is an error.

    Raises MetricsError naming the file and the key.
    """
    folder = layout.root / "reports" / "metrics" / layout.scale
    files = [read_file(path, layout.scale) for path in sorted(folder.rglob("*.json"))]
    for file in files:
        if file.stage != (lies := file.path.relative_to(folder).parts[0]):
            raise MetricsError(f"{file.path}: key stage is {file.stage!r}, but the file lies under {lies!r}")
    files.sort(key=lambda file: (file.stage, file.name, -1 if file.seed is None else file.seed))
    for one, next_ in pairwise(files):
        if (one.stage, one.name, one.seed) == (next_.stage, next_.name, next_.seed):
            raise MetricsError(f"{next_.path}: measures the same as {one.path}; remove the one that is out of date")
    return MetricTable(tuple(files))


def read_file(path: Path, scale: str) -> MetricsFile:
    """One metrics file. Raises MetricsError naming the file and the key."""
    try:
        content = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise MetricsError(f"{path}: not valid JSON ({error}); run its stage again") from error
    if not isinstance(content, dict):
        raise MetricsError(f"{path}: expected an object, found {type(content).__name__}; run its stage again")
    try:
        file = MetricsFile.model_validate({**content, "path": path})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise MetricsError(f"{path}: {wrong}; run its stage again") from error
    if file.scale != scale:
        raise MetricsError(f"{path}: key scale is {file.scale!r}, but the file lies under {scale!r}")
    return file


def read_history(path: Path) -> list[dict[str, float]]:
    """Losses of a training run over its steps: a CSV file with at least the columns `step` and `loss`.

    Raises MetricsError naming file and line.
    """
    with path.open(newline="") as content:
        lines = csv.DictReader(content)
        if not {"step", "loss"} <= set(found := lines.fieldnames or []):
            raise MetricsError(f"{path}:1: expected columns step and loss, found {found}; run its stage again")
        steps = []
        for line in lines:
            try:
                steps.append({name: float(value) for name, value in line.items()})
            except (TypeError, ValueError) as error:
                raise MetricsError(f"{path}:{lines.line_num}: not a line of numbers; run its stage again") from error
        return steps
