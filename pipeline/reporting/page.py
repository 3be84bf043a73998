"""Tables, claims, plots and galleries -> one HTML page that needs no network and no server.

The page opens with Figure 3(a). Everything is inside the one file; only the links to metrics
files, tables and parameters point beside it.
"""

from __future__ import annotations

import base64
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline.layout import Layout
from pipeline.reporting import claims as claims_module
from pipeline.reporting import data_counts
from pipeline.reporting.claims import Outcome
from pipeline.reporting.intervals import Verdict
from pipeline.reporting.metric_table import FEW_LABELS, Checkpoint, MetricsFile, MetricTable
from pipeline.reporting.paper import Column, Reference
from pipeline.reporting.pictures import Gallery
from pipeline.reporting.reference_study import ReferenceStudy
from pipeline.reporting.repeats import Repeats, first_alike
from pipeline.reporting.staleness import mean_pose, why_stale
from pipeline.reporting.studies import METRICS, Study
from pipeline.reporting.study_places import AGAINST, KINDS
from pipeline.reporting.table_files import TASK_NAMES, heading, over_text, paper_text
from pipeline.reporting.tables import Cell, Filled
from pipeline.run_spec import Params, fingerprint

TEMPLATES = Path(__file__).parent / "templates"
HEADLINE = "fig3a"
TASK_TITLES = {
    "body_mesh": "Body mesh recovery",
    "hand_mesh": "Hand mesh recovery",
    "dense_pose": "Dense correspondence",
    "gesture": "Gesture classification",
    "grasp": "Grasp classification",
}
PACKAGES = ("torch", "timm", "numpy", "opencv-python", "pyarrow", "pyrender", "anny", "smplx", "matplotlib")
SIGNS = {Verdict.HOLDS: "✓", Verdict.FAILS: "✗", Verdict.UNDECIDED: "≈", Verdict.NOT_RUN: "\N{EN DASH}"}
CLASSES = {Verdict.HOLDS: "holds", Verdict.FAILS: "fails", Verdict.UNDECIDED: "undecided", Verdict.NOT_RUN: "notrun"}


@dataclass(frozen=True)
class Plots:
    """SVG elements by what they show; absent ones are simply not in there."""

    losses: Mapping[str, str]
    """Title -> loss curves of the headline's pre-training runs, and of those that compare with them."""
    further_losses: Mapping[str, str]
    """Likewise of the others."""
    seeds: str | None
    """Every seed of the headline table beside the paper."""
    run_losses: Mapping[str, str]
    """Run -> its own pre-training curve."""
    task_losses: Mapping[tuple[str, str], str]
    """(stage, run) -> the curves of its fine-tunings."""
    studies: Mapping[str, str]
    """Id of a study, or of a part or a factor of the study of the reference -> its curves."""


@dataclass(frozen=True)
class Block:
    """The columns of one task of one table: a table of its own on the page."""

    task: str
    title: str
    columns: tuple[Column, ...]
    reasons: tuple[str, ...]
    """Why cells are empty, numbered from 1."""
    num_measured: int


def render(
    reference: Reference,
    params: Params,
    layout: Layout,
    metrics: MetricTable,
    tables: Mapping[str, Filled],
    outcomes: Sequence[Outcome],
    plots: Plots,
    studies: Sequence[Study],
    study_of_reference: ReferenceStudy | None,
    other_seeds: Repeats | None,
    galleries: Sequence[Gallery],
) -> str:
    """The page as text; the same arguments give the same text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "inline": Markup,
        "breakable": lambda name: escape(name).replace("_", Markup("_<wbr>")),
        "data": lambda content: "data:image/jpeg;base64," + base64.b64encode(content).decode(),
        "link": lambda path: Path(os.path.relpath(path, layout.report)).as_posix(),
        "shown": lambda path: path.relative_to(layout.root).as_posix(),
        "duration": duration,
    }
    environment.globals |= {
        "heading": heading,
        "paper_text": paper_text,
        "over_text": over_text,
        "task_name": lambda task: TASK_NAMES.get(task, task),
        "sign": SIGNS.__getitem__,
        "verdict_class": CLASSES.__getitem__,
        "why_stale": lambda file: why_stale(file, metrics, params),
        "Verdict": Verdict,
    }
    blocks = {id: blocks_of(filled) for id, filled in tables.items()}
    return environment.get_template("page.html").render(
        css=Markup((TEMPLATES / "page.css").read_text()),
        script=Markup((TEMPLATES / "page.js").read_text()),
        paper=reference.values.paper,
        metric_meanings=reference.values.metrics,
        notes=reference.values.notes,
        params=params,
        report=layout.report,
        params_path=layout.root / params.params_file,
        headline=tables[HEADLINE],
        tables=[filled for id, filled in tables.items() if id != HEADLINE],
        blocks=blocks,
        details=run_details(tables, metrics, params, plots),
        counts=claims_module.count(outcomes),
        num_over_pretrainings=sum(item.over_pretrainings is not None for item in outcomes),
        judged=[
            (remark, list(items))
            for remark, items in groupby(
                (item for item in outcomes if item.ours is not Verdict.NOT_RUN), lambda item: item.remark
            )
        ],
        not_run=[
            (reason, list(items))
            for reason, items in groupby(
                (item for item in outcomes if item.ours is Verdict.NOT_RUN), lambda item: item.reason
            )
        ],
        on_the_way=on_the_way(reference, metrics, params),
        mean_pose=mean_pose(metrics, params),
        any_stale=any(cell.stale for filled in tables.values() for cell in filled.cells.values()),
        plots=plots,
        studies=studies,
        study_metrics=METRICS,
        study_of_reference=study_of_reference,
        num_beside=sum(
            bool(two.over_pretrainings or two.apart)
            for two in (study_of_reference.without_a_reference if study_of_reference else ())
        ),
        other_seeds=other_seeds,
        study_kinds=KINDS,
        study_against=AGAINST,
        galleries=galleries,
        datasets=data_counts.count(layout, params),
        stages=stage_times(metrics),
        revisions=sorted({file.git_revision for file in metrics.files if file.git_revision}),
        hardware=Counter(file.hardware or "not noted" for file in metrics.files).most_common(),
        fingerprint=fingerprint(params),
        versions=versions(),
        confidence=f"{params.report.confidence:.0%}",
        percent_luck=f"{1 - params.report.confidence:.0%}",
    )


def blocks_of(filled: Filled) -> list[Block]:
    """A table cut by task: each part has its own heading and its own list of reasons."""
    blocks = []
    for task, group in groupby(filled.table.columns, lambda column: column.task):
        columns = tuple(group)
        cells = [filled.cells[row.id, column.id] for row in filled.table.rows for column in columns]
        reasons = tuple(dict.fromkeys(cell.missing for cell in cells if cell.missing))
        num_measured = sum(cell.ours is not None for cell in cells)
        blocks.append(Block(task, TASK_TITLES.get(task, task), columns, reasons, num_measured))
    return blocks


@dataclass(frozen=True)
class RunDetail:
    """Everything behind the cells of one run in one task."""

    id: str
    title: str
    stage: str
    run: str
    files: tuple[MetricsFile, ...]
    metrics: tuple[str, ...]
    units: Mapping[str, str]
    repro: tuple[str, ...]
    checkpoints: tuple[Checkpoint, ...]
    parameters: str
    pretrain_curve: str | None
    task_curve: str | None


def lineage(run: str, params: Params) -> list[str]:
    """The pre-trainings behind the weights of a run, the first one first and itself last; none of weights that nothing
    here has trained."""
    found: list[str] = []
    while run in params.pretrain:
        found.insert(0, run)
        run = params.pretrain[run].init
    return found


def run_details(tables: Mapping[str, Filled], metrics: MetricTable, params: Params, plots: Plots) -> list[RunDetail]:
    """One entry per (task, run) that fills a cell anywhere, in order of appearance."""
    cells: dict[tuple[str, str], Cell] = {}
    for filled in tables.values():
        for cell in filled.cells.values():
            if cell.ours is not None and cell.stage and cell.run:
                cells.setdefault((cell.stage, cell.run), cell)
    details = []
    for (stage, run), cell in cells.items():
        names = tuple(dict.fromkeys(name for file in cell.files for name in sorted(file.values)))
        behind = lineage(run, params)
        before = [file for name in behind for file in metrics.of("pretrain", name)]
        start = params.pretrain[behind[0]].init if behind else run
        sections: dict[str, Any] = {f"import_weights.{start}": params.import_weights[start].model_dump(mode="json")}
        for name in behind:
            sections[f"pretrain.{name}"] = params.pretrain[name].model_dump(mode="json")
        sections["body_mesh"] = params.body_mesh.model_dump(mode="json")
        details.append(
            RunDetail(
                id=detail_id(cell),
                title=f"{TASK_TITLES.get(cell.column.task, stage)} from {run}",
                stage=stage,
                run=run,
                files=cell.files,
                metrics=names,
                units={name: file.values[name].unit for file in cell.files for name in file.values},
                repro=tuple(dict.fromkeys(file.command for file in (*before, *cell.files) if file.command)),
                checkpoints=tuple(dict.fromkeys(file.checkpoint for file in (*before, *cell.files) if file.checkpoint)),
                parameters=yaml.safe_dump(sections, sort_keys=False, default_flow_style=None, width=100),
                pretrain_curve=plots.run_losses.get(run),
                task_curve=plots.task_losses.get((stage, run)),
            )
        )
    return details


def detail_id(cell: Cell) -> str:
    return f"run-{cell.stage}-{cell.run}"


@dataclass(frozen=True)
class Measured:
    """What one stage measures that fills no table of the paper."""

    stage: str
    files: tuple[MetricsFile, ...]

    @property
    def by_unit(self) -> dict[str, list[str]]:
        """Names of what is measured, those of one unit together."""
        found: dict[str, list[str]] = {}
        units = {name: value.unit for file in self.files for name, value in sorted(file.values.items())}
        for name, unit in units.items():
            found.setdefault(unit, []).append(name)
        return found


def on_the_way(reference: Reference, metrics: MetricTable, params: Params) -> list[Measured]:
    """Pre-training, the parser, the bodies. The study and other seeds have sections of their own."""
    in_tables = {task.stage for task in reference.rows.tasks.values()} | {FEW_LABELS}
    elsewhere = {*params.study, *(run for run, first in first_alike(params).items() if run != first)}
    of_stage: dict[str, list[MetricsFile]] = {}
    for file in metrics.files:
        if file.stage not in in_tables and file.values and not (file.stage == "pretrain" and file.name in elsewhere):
            of_stage.setdefault(file.stage, []).append(file)
    return [Measured(stage, tuple(files)) for stage, files in of_stage.items()]


def stage_times(metrics: MetricTable) -> list[tuple[str, int, float]]:
    """(stage, number of runs, seconds) of the stages that leave metrics with their time."""
    times: dict[str, list[float]] = {}
    for file in metrics.files:
        if file.seconds is not None:
            times.setdefault(file.stage, []).append(file.seconds)
    return [(stage, len(seconds), sum(seconds)) for stage, seconds in times.items()]


def versions() -> list[tuple[str, str]]:
    """Python and the packages that can change a number."""
    found = [("python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def duration(seconds: float) -> str:
    """`41 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
