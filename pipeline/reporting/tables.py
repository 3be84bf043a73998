"""The paper's tables and the metric table -> the same tables with ours beside the paper's numbers.

Every row and column of the paper is kept: a cell without a number of ours carries the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.layout import Layout
from pipeline.reporting import data_counts, repeats
from pipeline.reporting.intervals import Interval, Verdict, below, ordered, paired_difference, student_t
from pipeline.reporting.metric_table import MetricsFile, MetricTable
from pipeline.reporting.paper import Column, Nearer, OurRow, Reference, Row, Table
from pipeline.reporting.repeats import Repeats
from pipeline.reporting.staleness import why_any_stale
from pipeline.run_spec import Params


@dataclass(frozen=True)
class Comparison:
    """One cell of ours against another one, in the direction in which the paper orders the two."""

    verdict: Verdict
    """Over pre-trainings where both rows have several, else by the two separate intervals."""
    paired: Interval | None
    """The first cell minus the second over shared seeds, in the unit of the column: of one pre-training each."""
    paired_verdict: Verdict
    """By the interval of the paired difference."""
    over_pretrainings: Interval | None
    """The first row minus the second, each over its pre-trainings; None where one of them has a single one."""
    pretrainings: tuple[int, int] | None
    """How many those are of the first row and of the second; 0 of random weights."""
    files: tuple[MetricsFile, ...]
    """What the verdict rests on."""
    stale: str | None
    """Why one of these pre-trainings is not what params.yaml asks for now; None where none is."""

    def __neg__(self) -> Comparison:
        """With the second minus the first; verdicts stay."""
        return replace(
            self,
            paired=-self.paired if self.paired else None,
            over_pretrainings=-self.over_pretrainings if self.over_pretrainings else None,
            pretrainings=self.pretrainings[::-1] if self.pretrainings else None,
        )


@dataclass(frozen=True)
class Cell:
    """The paper's value and ours (report cell of table id, row id, column id)."""

    table: str
    row: Row
    column: Column
    key: str
    """Of the value in our metrics files."""
    unit: str
    better: Literal["lower", "higher"]
    decimals: int
    paper: float | None
    run: str | None
    """The checkpoint of ours behind the row."""
    stage: str | None
    files: tuple[MetricsFile, ...]
    by_seed: dict[int, float]
    ours: Interval | None
    missing: str | None
    """Why there is no number of ours; None where there is one."""
    num_planned: int
    """Seeds that params.yaml asks for."""
    stale: str | None = None
    """Why ours is not what params.yaml asks for now; None where it is."""


@dataclass(frozen=True)
class Filled:
    """A table of the paper with ours in every cell it has."""

    table: Table
    cells: dict[tuple[str, str], Cell]
    """By (row id, column id)."""
    confidence: float
    remark: str | None = None
    """Sentences: in what ours is made otherwise than the paper's."""
    images: str | None = None
    """A sentence: which data sets are stood in for, where any number of ours rests on some."""
    other_seeds: Repeats | None = None
    """Further pre-trainings of the rows, as far as there are any."""

    def against_default(self, cell: Cell) -> Comparison | None:
        """Does the paper's order of this row and its default row hold for ours?

        Its differences are this row minus the default row.
        None for the default row itself and where the paper prints no number or the same one.
        """
        default = self.cells[self.table.default.id, cell.column.id]
        if cell.row.default or cell.paper is None or default.paper is None or cell.paper == default.paper:
            return None
        return self.compare(cell, default) if cell.paper < default.paper else -self.compare(default, cell)

    def compare(self, lesser: Cell, greater: Cell) -> Comparison:
        """Whether our value of `lesser` lies below that of `greater`; differences are the first minus the second."""
        paired = paired_difference(lesser.by_seed, greater.by_seed, self.confidence)
        found = None
        if self.other_seeds and lesser.run and greater.run and lesser.stage == greater.stage == repeats.STAGE:
            found = self.other_seeds.between(lesser.run, greater.run)
        found = found if found and lesser.key in found.apart else None
        over = found.apart[lesser.key] if found else None
        verdict = below(over) if over else ordered(lesser.ours, greater.ours)
        return Comparison(
            verdict,
            paired,
            Verdict.NOT_RUN if verdict is Verdict.NOT_RUN else below(paired),
            over,
            found.pretrainings if found else None,
            found.files if found else lesser.files + greater.files,
            found.stale if found else None,
        )

    @property
    def num_measured(self) -> int:
        return sum(cell.ours is not None for cell in self.cells.values())

    @property
    def num_compared(self) -> int:
        """Cells with a verdict: ours and the default row's are both there."""
        found = (self.against_default(cell) for cell in self.cells.values())
        return sum(item is not None and item.verdict is not Verdict.NOT_RUN for item in found)


def build(
    reference: Reference, metrics: MetricTable, params: Params, layout: Layout, other_seeds: Repeats | None = None
) -> dict[str, Filled]:
    """Every table of the paper at the scale of `params`, by table id, in the paper's order.

    Raises ValueError when a metrics file has another unit than the paper's column.
    """
    return {
        table.id: _fill(table, reference, metrics, params, layout, other_seeds) for table in reference.values.tables
    }


def _fill(
    table: Table,
    reference: Reference,
    metrics: MetricTable,
    params: Params,
    layout: Layout,
    other_seeds: Repeats | None,
) -> Filled:
    cells = {
        (row.id, column.id): _cell(table, row, column, reference, metrics, params, layout)
        for row in table.rows
        for column in table.columns
    }
    ours = reference.rows.tables[table.id]
    remarks = [ours.remark] if ours.remark else []
    for row in table.rows:
        nearer = ours.rows[row.id].nearer
        if nearer and other_seeds and (said := _of_the_nearer(nearer, row, cells.values(), other_seeds)):
            remarks.append(said)
    images = None
    if any(cell.ours and cell.stage == repeats.STAGE for cell in cells.values()):
        images = data_counts.stood_in_sentence(layout, params)
    return Filled(table, cells, params.report.confidence, " ".join(remarks) or None, images, other_seeds)


def _of_the_nearer(nearer: Nearer, row: Row, cells: Iterable[Cell], other_seeds: Repeats) -> str | None:
    """How a run nearer to the paper's row compares with the other rows, over pre-trainings; None where it does not."""
    others: dict[str, list[str]] = {}
    stale: str | None = None
    for cell in cells:
        if cell.row is row and cell.run == nearer.run:
            return None
        if cell.run and cell.row is not row and cell.stage == repeats.STAGE:
            found = other_seeds.between(nearer.run, cell.run)
            if found and cell.key in found.apart:
                told = f"{cell.column.heading} {found.apart[cell.key].written(cell.decimals, '+')} {cell.unit}"
                others.setdefault(cell.row.label, []).append(told)
                stale = stale or found.stale
    if not others:
        return None
    differences = "; ".join(f"minus {label}: {', '.join(told)}" for label, told in others.items())
    outdated = f" Out of date: {stale}." if stale else ""
    return f"{nearer.says}, is {nearer.run} here. Over pre-trainings, it {differences}.{outdated}"


def find_run(row: OurRow, params: Params) -> tuple[str | None, str | None]:
    """The run behind a row and None, or None and why there is none at this scale."""
    if row.absent:
        return None, row.absent
    for name in row.runs:
        spec = params.pretrain.get(name) or params.import_weights.get(name)
        if spec is not None and all(getattr(spec, key, None) == value for key, value in row.where.items()):
            return name, None
        if waits_for := params.waits_for(name):
            return None, f"{name} waits for {', '.join(waits_for)}, which this version does not read yet"
    return None, row.without or f"{params.params_file} has no run {' or '.join(row.runs)} of this kind"


def _cell(
    table: Table, row: Row, column: Column, reference: Reference, metrics: MetricTable, params: Params, layout: Layout
) -> Cell:
    metric = reference.values.metrics[column.metric]
    key = reference.rows.values[column.metric]
    task = reference.rows.task(table.id, column.task)
    run, missing = find_run(reference.rows.row(table.id, row.id, column.task), params)
    missing = missing or task.absent
    seeds = params.body_mesh.seeds
    files: list[MetricsFile] = []
    if run is not None and task.stage is not None:
        files = [file for file in metrics.of(task.stage, run, seeds) if key in file.values]
        for file in files:
            if file.values[key].unit != metric.unit:
                raise ValueError(
                    f"{file.path}: values.{key}.unit is {file.values[key].unit!r}, "
                    f"{table.label} prints {column.metric} in {metric.unit}"
                )
        if not files:
            missing = _why_no_file(task.stage, run, params, layout)
    by_seed = {file.seed: file.values[key].value for file in files if file.seed is not None}
    return Cell(
        table=table.id,
        row=row,
        column=column,
        key=key,
        unit=metric.unit,
        better=metric.better,
        decimals=table.decimals(column.id),
        paper=row.values[column.id],
        run=run,
        stage=task.stage,
        files=tuple(files),
        by_seed=by_seed,
        ours=student_t(list(by_seed.values()), params.report.confidence) if by_seed else None,
        missing=missing,
        num_planned=len(seeds),
        stale=why_any_stale(files, metrics, params),
    )


def _why_no_file(stage: str, run: str, params: Params, layout: Layout) -> str:
    folder = layout.metrics(stage, run).parent.relative_to(layout.root).as_posix()
    return f"no metrics in {folder} for {run} yet; `{params.command(run)}` measures it"
