"""What was measured of the runs of the study of the reference (`study` in params.yaml), one `Place` for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.reporting.intervals import Interval, of_standard_error, over_repeats, student_t
from pipeline.reporting.metric_table import MetricsFile, MetricTable
from pipeline.reporting.repeats import Repeats, first_alike
from pipeline.reporting.staleness import why_any_stale
from pipeline.run_spec import Params

KINDS = {"view": "cross-view", "pose": "cross-pose"}
AGAINST = {"other": "another recording's", "same": "another of the same recording", "black": "a black one"}
"""What stands for the true reference; see `pipeline.training.completion.reference_use`."""

Key = tuple[str, str, str]
"""Kind, patches, against."""


@dataclass(frozen=True)
class FineTuned:
    """Errors after fine-tuning."""

    pa_mpjpe: Interval
    """mm; over pre-trainings where several were fine-tuned, else over the seeds of fine-tuning."""
    pretrainings: int
    files: tuple[MetricsFile, ...]


@dataclass(frozen=True)
class Place:
    """One run at its place on a curve, with all its pre-trainings."""

    label: str
    """The value of what the curve varies."""
    run: str
    files: tuple[MetricsFile, ...]
    """Of its pre-trainings, which differ in their seed; that of `run` first."""
    savings: Mapping[Key, Interval]
    """By how much the true reference lowers the held-out loss; intervals over recordings, and over the pre-trainings
    where there are several."""
    tuned: FineTuned | None
    """None where the run was not fine-tuned."""
    stale: str | None

    @property
    def pa_mpjpe(self) -> Interval | None:
        return self.tuned.pa_mpjpe if self.tuned else None


def pretrained_runs(metrics: MetricTable, params: Params) -> dict[str, tuple[MetricsFile, ...]]:
    """Runs of the study that were run -> their own metrics, then those of the runs that differ in their seed alone."""
    alike: dict[str, list[str]] = {}
    for run, first in first_alike(params).items():
        alike.setdefault(first, []).append(run)
    found = {
        run: tuple(file for name in alike.get(run, ()) for file in metrics.of("pretrain", name)) for run in params.study
    }
    return {run: files for run, files in found.items() if files and files[0].name == run}


def place_of(
    run: str, files: tuple[MetricsFile, ...], metrics: MetricTable, params: Params, other_seeds: Repeats | None
) -> Place:
    """A run, its label still to be given."""
    confidence = params.report.confidence
    each: dict[Key, list[Interval]] = {}
    for file in files:
        for item in file.reference_saves:
            found = of_standard_error(item.saves, item.standard_error, item.recordings, confidence)
            each.setdefault((item.kind, item.patches, item.against), []).append(found)
    savings = {key: over_repeats(found, confidence) for key, found in each.items()}
    tuned = fine_tuned(run, metrics, params, other_seeds)
    stale = why_any_stale((*files, *(tuned.files if tuned else ())), metrics, params)
    return Place("", run, files, savings, tuned, stale)


def fine_tuned(run: str, metrics: MetricTable, params: Params, other_seeds: Repeats | None) -> FineTuned | None:
    """Errors of the fine-tunings of a run, or of it and of its other pre-trainings; None where there are none."""
    if other_seeds and (group := other_seeds.of(run)):
        return FineTuned(group.values["pa_mpjpe"], len(group.repeats), group.files)
    tuned = fine_tunings(run, metrics, params)
    errors = errors_by_seed(tuned)
    return FineTuned(student_t(list(errors.values()), params.report.confidence), 1, tuned) if errors else None


def fine_tunings(run: str, metrics: MetricTable, params: Params) -> tuple[MetricsFile, ...]:
    """Metrics of its own fine-tunings, one of each seed."""
    return tuple(metrics.of("body_mesh", run, params.body_mesh.seeds))


def errors_by_seed(tuned: Sequence[MetricsFile]) -> dict[int, float]:
    """PA-MPJPE in mm by the seed of fine-tuning."""
    return {
        file.seed: file.values["pa_mpjpe"].value
        for file in tuned
        if file.seed is not None and "pa_mpjpe" in file.values
    }
