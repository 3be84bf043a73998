"""`python -m pipeline.reporting`: metrics, histories and pictures of one scale -> reports/out.

Everything is written to a folder aside that then takes the place of the old report, so a
report that exists is whole.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.layout import PROJECT, Layout
from pipeline.process import die_with_parent, plain
from pipeline.reporting import (
    claims,
    figures,
    metric_table,
    page,
    paper,
    pictures,
    reference_study,
    repeats,
    studies,
    table_files,
    tables,
)
from pipeline.reporting.metric_table import MetricTable
from pipeline.run_spec import Params, load

log = logging.getLogger(__name__)

OBJECTIVES = {
    "croco": "Completion (CroCo)",
    "mae": "Masked auto-encoding (MAE)",
    "keypoints": "2D keypoints",
    "croco_keypoints": "Completion with 2D keypoints",
}
"""Of each method of pre-training."""


def write_report(params: Params, layout: Layout, reference: paper.Reference) -> Path:
    """Write tables, figures, claims and the page of one scale; returns the path of the page.

    Raises ValueError naming file and key when a metrics file, a history or one of reports/*.yaml is wrong.
    """
    metrics = metric_table.read(layout)
    other_seeds = repeats.repeats(metrics, params)
    filled = tables.build(reference, metrics, params, layout, other_seeds)
    found = studies.studies(metrics, params)
    outcomes = claims.judge(reference.claims, filled, found)
    study_of_reference = reference_study.reference_study(metrics, params, other_seeds)
    plots = draw_plots(params, layout, metrics, filled, found, study_of_reference)
    galleries = pictures.galleries(layout, params)
    html = page.render(
        reference, params, layout, metrics, filled, outcomes, plots, found, study_of_reference, other_seeds, galleries
    )

    aside = layout.report.with_name(f".{layout.report.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        (aside / "figures").mkdir(parents=True)
        for table in filled.values():
            table_files.write(table, aside / "tables", layout.root)
        claims.write(outcomes, aside / "claims.csv", layout.root)
        metrics.write(aside / "metrics.csv", layout.root)
        for study in found:
            study.write(aside / "tables" / f"{study.id}.csv", layout.root)
        if study_of_reference:
            study_of_reference.write(aside / "tables" / "reference_study.csv", layout.root)
        if other_seeds:
            other_seeds.write(aside / "tables" / "pretraining_seeds.csv", layout.root)
        for name, svg in _named(plots).items():
            (aside / "figures" / f"{name}.svg").write_text(svg)
        for gallery in galleries:
            for number, tile in enumerate(gallery.tiles):
                (aside / "figures" / f"{gallery.id}-{number:02d}.jpg").write_bytes(tile.jpeg)
        (aside / "index.html").write_text(html)
        _replace(aside, layout.report, keep=_other_scales(layout))
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return layout.report / "index.html"


def draw_plots(
    params: Params,
    layout: Layout,
    metrics: MetricTable,
    filled: Mapping[str, tables.Filled],
    found: Sequence[studies.Study],
    study_of_reference: reference_study.ReferenceStudy | None,
) -> page.Plots:
    """Every plot for which there is something to plot."""
    headline = filled[page.HEADLINE]
    # There are more runs than colours; those of the headline come first, so that each has its own.
    first = {cell.run for cell in headline.cells.values()}
    names = sorted([*params.pretrain, *params.import_weights], key=lambda name: name not in first)
    histories = {
        name: metric_table.read_history(layout.history("pretrain", name))
        for name in params.pretrain
        if layout.history("pretrain", name).is_file()
    }
    histories = {name: history for name, history in histories.items() if history}
    # Losses compare where method, images and number of hidden patches are the same: such runs share axes.
    comparable: dict[str, dict[str, figures.History]] = {}
    firsts = repeats.first_alike(params)
    for name, history in histories.items():
        if name not in params.study and firsts[name] == name:
            spec = params.pretrain[name]
            alike = spec.model_dump_json(include={"method", "pool", "datasets", "kinds", "masking", "mask_ratio"})
            comparable.setdefault(alike, {})[name] = history
    headline_runs = {*params.finetune.body_mesh.headline}
    together: dict[str, str] = {}
    further: dict[str, str] = {}
    for group in comparable.values():
        title = f"{OBJECTIVES[params.pretrain[next(iter(group))].method]}: {', '.join(group)}"
        (together if headline_runs & group.keys() else further)[title] = figures.loss_curves(group, names, title)
    task_losses: dict[tuple[str, str], str] = {}
    cells = [cell for table in filled.values() for cell in table.cells.values()]
    for stage, run in sorted({(cell.stage, cell.run) for cell in cells if cell.ours and cell.stage and cell.run}):
        paths = {
            file.seed: layout.history(stage, f"{run}/{file.seed}")
            for file in metrics.of(stage, run, params.body_mesh.seeds)
        }
        of_seeds = {f"seed {seed}": metric_table.read_history(path) for seed, path in paths.items() if path.is_file()}
        of_seeds = {name: history for name, history in of_seeds.items() if history}
        if of_seeds:
            task_losses[stage, run] = figures.seed_curves(
                of_seeds, f"Fine-tuning from {run}, every seed", figures.colour(run, names)
            )
    columns = [
        column.id
        for column in headline.table.columns
        if any(headline.cells[row.id, column.id].ours for row in headline.table.rows)
    ]
    return page.Plots(
        losses=together,
        further_losses=further,
        seeds=figures.seeds_beside_paper(headline, columns, names) if columns else None,
        run_losses={
            name: figures.loss_curves({name: history}, names, f"Pre-training of {name}")
            for name, history in histories.items()
        },
        task_losses=task_losses,
        studies={study.id: figures.study_curves(study, names) for study in found}
        | {
            factor.id: figures.factor_curves(factor)
            for factor in (study_of_reference.factors if study_of_reference else ())
        }
        | {
            part.id: figures.runs_of(part)
            for part in (study_of_reference.parts if study_of_reference else ())
            if len(part.runs) > 1
        },
    )


def _named(plots: page.Plots) -> dict[str, str]:
    named = {f"pretrain-{name}": svg for name, svg in plots.run_losses.items()}
    named |= {f"{stage}-{run}": svg for (stage, run), svg in plots.task_losses.items()}
    named |= plots.studies
    losses = {**plots.losses, **plots.further_losses}
    named |= {f"losses-{number}": svg for number, svg in enumerate(losses.values())}
    return named | ({"fig3a-seeds": plots.seeds} if plots.seeds else {})


def _other_scales(layout: Layout) -> Sequence[str]:
    """Folders inside our report that are reports of other scales: they stay."""
    return [] if not layout.report.is_dir() else [
        entry.name for entry in layout.report.iterdir() if entry.is_dir() and (entry / "index.html").is_file()
    ]  # fmt: skip


def _replace(aside: Path, report: Path, keep: Sequence[str]) -> None:
    if (report / ".gitignore").is_file():
        shutil.copy2(report / ".gitignore", aside / ".gitignore")
    old = report.with_name(f".{report.name}.{os.getpid()}.old")
    if report.exists():
        report.rename(old)
    aside.rename(report)
    # Last: whatever fails before leaves them where they were, or in what is not removed.
    for name in keep:
        (old / name).rename(report / name)
    shutil.rmtree(old, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.reporting",
        description="Write reports/out: index.html, tables (csv, md, tex), figures, claims.csv and metrics.csv.",
    )
    parser.add_argument("--params", default="params.yaml", help="params file of the scale (default: %(default)s)")
    parser.add_argument("--root", type=Path, default=PROJECT, help="project folder (default: this checkout)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    die_with_parent()
    try:
        params = load(options.params)
        reference = paper.load(options.root / "reports")
        written = write_report(params, Layout(params.scale, options.root), reference)
    except (ValueError, OSError) as error:
        print(f"error: {plain(error)}", file=sys.stderr)
        return 1
    log.info("wrote %s", written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
