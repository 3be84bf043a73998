"""Figures 3(b) and 4: error against the share of the labels, and against the steps of pre-training."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.reporting.intervals import Interval, student_t
from pipeline.reporting.metric_table import FEW_LABELS, MetricsFile, MetricTable
from pipeline.reporting.staleness import why_any_stale
from pipeline.run_spec import Params

METRICS = {"pa_mpjpe": "PA-MPJPE", "mpvpe": "MPVPE"}


@dataclass(frozen=True)
class Point:
    """Fine-tunings of every seed at one place of a curve."""

    x: float
    values: Mapping[str, Interval]
    """Of each of METRICS, mm."""
    files: tuple[MetricsFile, ...]
    stale: str | None


@dataclass(frozen=True)
class Study:
    """One figure: a curve for each run, points in order of x."""

    id: str
    title: str
    text: str
    x: str
    """What x is."""
    curves: Mapping[str, tuple[Point, ...]]

    @property
    def places(self) -> list[float]:
        return sorted({point.x for points in self.curves.values() for point in points})

    def at(self, run: str, x: float) -> Point | None:
        return next((point for point in self.curves[run] if point.x == x), None)

    def write(self, path: Path, relative_to: Path) -> None:
        """Every point as CSV, with the files it rests on."""
        with path.open("w", newline="") as out:
            rows = csv.writer(out, lineterminator="\n")
            rows.writerow(["run", "x", "metric", "mean_mm", "half_width_mm", "num_seeds", "files"])
            for run, points in self.curves.items():
                for point in points:
                    files = " ".join(file.path.relative_to(relative_to).as_posix() for file in point.files)
                    for metric, found in point.values.items():
                        half = "" if found.half_width is None else f"{found.half_width:.3f}"
                        rows.writerow([run, f"{point.x:g}", metric, f"{found.mean:.3f}", half, found.num, files])


def studies(metrics: MetricTable, params: Params) -> list[Study]:
    """Both figures, as far as there is more to show than the ends of curves, which Figure 3(a) shows."""
    found = ((_labels(metrics, params), params.figure_3b.shares), (_on_the_way(metrics, params), params.figure_4.steps))
    return [study for study, between in found if set(study.places) & set(between)]


def _labels(metrics: MetricTable, params: Params) -> Study:
    curves = {}
    for init in params.figure_3b.inits:
        files = {
            share: [
                file
                for file in metrics.of(FEW_LABELS, seeds=params.body_mesh.seeds)
                if file.init == init and file.labels == share
            ]
            for share in params.figure_3b.shares
        }
        files[1.0] = metrics.of("body_mesh", init, params.body_mesh.seeds)
        curves[init] = _curve(files, metrics, params)
    return Study(
        "fig3b",
        "Figure 3(b): data efficiency of fine-tuning",
        "Fine-tuning on a part of the training images, with as many steps on each: error on the test set against the "
        "share of the images. The paper draws these curves and prints few of their numbers: CroCo-Body has a PA-MPJPE "
        "of about 65 mm with a tenth of the images, MAE-IN1k with a quarter; and it says that CroCo-Body needs 2 to 3 "
        "times fewer of them than MAE-Body for the same error.",
        "share of the training images",
        _drawn(curves),
    )


def _on_the_way(metrics: MetricTable, params: Params) -> Study:
    curves = {}
    for run in params.figure_4.runs:
        files = {
            float(step): metrics.of("body_mesh", f"{run}@{step}", params.body_mesh.seeds)
            for step in params.figure_4.steps
        }
        files[0.0] = metrics.of("body_mesh", params.pretrain[run].init, params.body_mesh.seeds)
        files[float(params.pretrain[run].steps)] = metrics.of("body_mesh", run, params.body_mesh.seeds)
        curves[run] = _curve(files, metrics, params)
    return Study(
        "fig4",
        "Figure 4: length of pre-training",
        "Fine-tuning from the weights that one pre-training had on its way: error on the test set against its steps; "
        f"0 is what it started from: {_starts(params)}. In the paper CroCo-Body starts from CroCo and MAE-Body from "
        "MAE on ImageNet. The learning rate of the pre-training falls towards its end, so that the points "
        "on the way are not what shorter runs would give. The paper says that CroCo-Body starts better and converges "
        "faster than MAE-Body, and prints no numbers.",
        "steps of pre-training",
        _drawn(curves),
    )


def _starts(params: Params) -> str:
    return ", ".join(f"{run} from {params.pretrain[run].init}" for run in params.figure_4.runs)


def _curve(files: Mapping[float, Sequence[MetricsFile]], metrics: MetricTable, params: Params) -> tuple[Point, ...]:
    points = []
    for x in sorted(files):
        values = {}
        for metric in METRICS:
            of_seeds = [file.values[metric].value for file in files[x] if metric in file.values]
            if of_seeds:
                values[metric] = student_t(of_seeds, params.report.confidence)
        if values:
            stale = why_any_stale(files[x], metrics, params)
            points.append(Point(x, values, tuple(files[x]), stale))
    return tuple(points)


def _drawn(curves: Mapping[str, tuple[Point, ...]]) -> dict[str, tuple[Point, ...]]:
    return {run: points for run, points in curves.items() if points}
