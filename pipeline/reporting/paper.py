"""reports/*.yaml -> checked objects: the paper's numbers, its claims, and which runs of ours answer them.

The numbers follow the tables of the paper (arXiv 2311.09104); `rows.yaml` is the one place
that names the run of ours behind a row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from pipeline.run_spec import SAFE_LOADER, Section

Direction = Literal["lower", "higher"]


class PaperError(ValueError):
    """A file of reports/ contradicts itself or another one; the message names file and entry."""


class Metric(Section):
    unit: str
    better: Direction
    meaning: str


class Column(Section):
    id: str
    task: str
    metric: str
    label: str | None = None
    """Heading where the metric's name alone is ambiguous."""

    @property
    def heading(self) -> str:
        return self.label or self.metric


class Row(Section):
    id: str
    label: str
    group: str | None = None
    default: bool = False
    """The paper's own configuration: the row the others are compared with."""
    values: dict[str, float | None]


class Table(Section):
    id: str
    label: str
    section: str
    title: str
    setting: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _is_rectangular(self) -> Table:
        names = [column.id for column in self.columns]
        for row in self.rows:
            if list(row.values) != names:
                raise ValueError(f"row {row.id}: values are {list(row.values)}, the columns are {names}")
        if sum(row.default for row in self.rows) != 1:
            raise ValueError("exactly one row must be the default")
        return self

    def row(self, id: str) -> Row:
        return _find(self.rows, id, f"table {self.id} has no row")

    def column(self, id: str) -> Column:
        return _find(self.columns, id, f"table {self.id} has no column")

    @property
    def default(self) -> Row:
        return next(row for row in self.rows if row.default)

    def decimals(self, column: str) -> int:
        """Digits behind the point that the paper prints in this column."""
        printed = (repr(row.values[column]) for row in self.rows if row.values[column] is not None)
        return max(len(text.partition(".")[2]) for text in printed)


class Note(Section):
    id: str
    tables: tuple[str, ...]
    text: str


class Publication(Section):
    title: str
    model: str
    venue: str
    arxiv: str


class PaperValues(Section):
    paper: Publication
    metrics: dict[str, Metric]
    tables: tuple[Table, ...]
    notes: tuple[Note, ...]

    def table(self, id: str) -> Table:
        return _find(self.tables, id, "paper_values.yaml has no table")


class Ordering(Section):
    """Row `better` beats row `worse` in one column."""

    id: str
    table: str
    column: str
    better: str
    worse: str
    paper: bool
    """Whether the paper's own cells agree with its sentence."""
    says: str


class Threshold(Section):
    """One cell lies above or below a number."""

    id: str
    table: str
    column: str
    row: str
    is_: Literal["above", "below"]
    value: float
    paper: bool
    says: str

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, content: dict[str, object]) -> dict[str, object]:
        return {"is_" if key == "is" else key: value for key, value in content.items()}


class OurCurves(Section):
    """Which curves of ours answer a plot of the paper."""

    study: str
    """Id of the figure; see `pipeline.reporting.studies`."""
    table: str
    rows: tuple[str, ...]
    """Of that table, whose runs the curves are of."""
    column: str
    """Of that table, what the curves show."""


class Curve(Section):
    """An ordering the paper shows in a plot without printing numbers."""

    id: str
    figure: str
    metric: str
    best_first: tuple[str, ...]
    says: str
    ours: OurCurves | None = None
    """One row for each of `best_first`; None where this version has no such figure."""


class Claims(Section):
    orderings: tuple[Ordering, ...]
    thresholds: tuple[Threshold, ...]
    curves: tuple[Curve, ...]


class OurTask(Section):
    stage: str | None = None
    absent: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> OurTask:
        if (self.stage is None) == (self.absent is None):
            raise ValueError("needs either `stage` or `absent`")
        return self


class Nearer(Section):
    """A run made more as the paper's row than the one that fills it at a scale."""

    run: str
    says: str
    """In what."""


class OurRow(Section):
    """The first of `runs` that params.yaml has, with parameters that agree with `where`."""

    runs: tuple[str, ...] = ()
    where: dict[str, str] = Field(default_factory=dict)
    without: str | None = None
    absent: str | None = None
    nearer: Nearer | None = None
    """Compared with the other rows in a sentence, where there is such a run and it fills another row."""
    tasks: dict[str, OurRow] = Field(default_factory=dict)
    """What stands in its place in the columns of a task: other networks for hands than for bodies."""

    @model_validator(mode="after")
    def _one_of_both(self) -> OurRow:
        if bool(self.runs) == bool(self.absent):
            raise ValueError("needs either `runs` or `absent`")
        return self


class OurTable(Section):
    remark: str | None = None
    """A sentence: in what ours is made otherwise than the paper's, at every scale."""
    tasks: dict[str, OurTask] = Field(default_factory=dict)
    rows: dict[str, OurRow]


class Rows(Section):
    values: dict[str, str]
    tasks: dict[str, OurTask]
    tables: dict[str, OurTable]

    def task(self, table: str, task: str) -> OurTask:
        return self.tables[table].tasks.get(task) or self.tasks[task]

    def row(self, table: str, row: str, task: str) -> OurRow:
        """What of ours fills the cells of a row in the columns of a task."""
        ours = self.tables[table].rows[row]
        return ours.tasks.get(task, ours)


class Reference(Section):
    """The three files together, checked against one another."""

    values: PaperValues
    claims: Claims
    rows: Rows


def load(folder: Path) -> Reference:
    """Read paper_values.yaml, claims.yaml and rows.yaml of `folder`.

    Raises PaperError naming the file and entry when something is unknown, missing, or when
    a claim's `paper` mark contradicts the paper's own numbers.
    """
    values = _read(folder / "paper_values.yaml", PaperValues)
    claims = _read(folder / "claims.yaml", Claims)
    rows = _read(folder / "rows.yaml", Rows)
    _check_rows(values, rows, folder / "rows.yaml")
    _check_claims(values, claims, folder / "claims.yaml")
    return Reference(values=values, claims=claims, rows=rows)


Model = TypeVar("Model", bound=Section)


def _read(path: Path, model: type[Model]) -> Model:
    try:
        content = yaml.load(path.read_text(), SAFE_LOADER)
    except FileNotFoundError:
        raise PaperError(f"{path}: no such file; it belongs to the project, restore it with git") from None
    except yaml.YAMLError as error:
        raise PaperError(f"{path}: not valid YAML: {error}") from error
    try:
        return model.model_validate(content)
    except ValidationError as error:
        wrong = "\n".join(f"  {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise PaperError(f"{path}: {error.error_count()} wrong entries:\n{wrong}") from error


def _check_rows(values: PaperValues, rows: Rows, path: Path) -> None:
    for table in values.tables:
        if table.id not in rows.tables:
            raise PaperError(f"{path}: tables.{table.id} is missing")
        ours = rows.tables[table.id].rows
        if list(ours) != [row.id for row in table.rows]:
            raise PaperError(
                f"{path}: tables.{table.id}.rows are {list(ours)}, the paper's are {[row.id for row in table.rows]}"
            )
        for column in table.columns:
            if column.metric not in values.metrics:
                raise PaperError(f"{path}: {table.id}.{column.id}: unknown metric {column.metric!r}")
            if column.metric not in rows.values:
                raise PaperError(f"{path}: values.{column.metric} is missing")
            if column.task not in rows.tasks:
                raise PaperError(f"{path}: tasks.{column.task} is missing")


def _check_claims(values: PaperValues, claims: Claims, path: Path) -> None:
    checked: list[Ordering | Threshold] = [*claims.orderings, *claims.thresholds]
    for claim in checked:
        try:
            true = is_true_in_paper(values, claim)
        except KeyError as error:
            raise PaperError(f"{path}: {claim.id}: {error.args[0]}") from error
        if true != claim.paper:
            raise PaperError(f"{path}: {claim.id}: marked `paper: {claim.paper}`, the paper's cells say {true}")
    for curve in claims.curves:
        if curve.ours:
            try:
                table = values.table(curve.ours.table)
                found = [table.column(curve.ours.column), *map(table.row, curve.ours.rows)]
            except KeyError as error:
                raise PaperError(f"{path}: {curve.id}: {error.args[0]}") from error
            if len(found) != 1 + len(curve.best_first):
                raise PaperError(f"{path}: {curve.id}: needs one row of ours for each of {list(curve.best_first)}")


def is_true_in_paper(values: PaperValues, claim: Ordering | Threshold) -> bool:
    """Whether the paper's own cells agree with a claim. KeyError names an unknown table, row or column."""
    table = values.table(claim.table)
    column = table.column(claim.column)
    limit: float | None
    if isinstance(claim, Threshold):
        cell, limit = table.row(claim.row).values[column.id], claim.value
        larger = claim.is_ == "above"
    else:
        cell = table.row(claim.better).values[column.id]
        limit = table.row(claim.worse).values[column.id]
        larger = values.metrics[column.metric].better == "higher"
    if cell is None or limit is None:
        raise KeyError(f"{claim.table}.{claim.column} has no number to compare")
    return cell > limit if larger else cell < limit


Item = TypeVar("Item", Row, Column, Table)


def _find(items: tuple[Item, ...], id: str, message: str) -> Item:
    for item in items:
        if item.id == id:
            return item
    raise KeyError(f"{message} {id!r}; it has {[item.id for item in items]}")
