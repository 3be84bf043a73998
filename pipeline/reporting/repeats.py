"""The luck of pre-training: runs of params.yaml that differ in nothing but their seed, fine-tuned alike.

Intervals of cells are over fine-tuning seeds of one pre-training. Those here are over pre-trainings, each counted
as the mean of its fine-tunings: they hold for what a method gives, not for what one checkpoint gives. All are
fine-tuned with the same few seeds, whose luck stands in the intervals of differences as well. Pre-trainings that start
from one and the same pre-trained checkpoint share its luck, and count as one by their mean. The random weights that
others start from are the same for all, and their luck is in no interval.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from pathlib import Path
from statistics import fmean, variance

from pipeline.reporting.intervals import Interval, crossed_difference, difference, lesser, student_t
from pipeline.reporting.metric_table import MetricsFile, MetricTable
from pipeline.reporting.staleness import why_any_stale
from pipeline.reporting.studies import METRICS
from pipeline.run_spec import Params, Pretrain

STAGE = "body_mesh"
"""Of the fine-tunings."""
_CHANGE_NOTHING = {"seed", "snapshots", "num_previews", "checkpoint_every"}
# `crops` says where the second image of a pair is cut, which to MAE is an image among others.
_OF_A_METHOD = {"method", "network", "init", "batch", "crops"}


@dataclass(frozen=True)
class Repeat:
    """One pre-training and its fine-tunings."""

    run: str
    seed: int
    values: Mapping[str, Interval]
    """Of each of METRICS over fine-tuning seeds, mm."""
    files: tuple[MetricsFile, ...]
    stale: str | None


@dataclass(frozen=True)
class Repeated:
    """Pre-trainings alike but for their seed, two at least; the first is the one of the tables."""

    repeats: tuple[Repeat, ...]
    values: Mapping[str, Interval]
    """Of each of METRICS over the pre-trainings, mm; `num` counts those that start from the same one once."""
    by_seed: Mapping[str, Sequence[Mapping[int, float]]]
    """Of each of METRICS what `values` is of: a row for each start, with the mm of each fine-tuning seed."""

    @property
    def name(self) -> str:
        return self.repeats[0].run

    @property
    def num_pretrainings(self) -> int:
        return min(found.num for found in self.values.values())

    @property
    def files(self) -> tuple[MetricsFile, ...]:
        return tuple(file for repeat in self.repeats for file in repeat.files)

    @property
    def stale(self) -> str | None:
        return next((repeat.stale for repeat in self.repeats if repeat.stale), None)

    def spread(self, metric: str) -> tuple[float, float] | None:
        """Standard deviations, mm: of pre-trainings, of fine-tunings of one of them. None with too few to say.

        The first still holds the part of the second that the mean over fine-tunings leaves.
        """
        of_one = [[file.values[metric].value for file in repeat.files] for repeat in self.repeats]
        if any(len(values) < 2 for values in of_one):
            return None
        return sqrt(variance(map(fmean, of_one))), sqrt(fmean(map(variance, of_one)))


@dataclass(frozen=True)
class Untrained:
    """One draw of weights that nothing was pre-trained of; of their luck, that of fine-tuning alone is known."""

    name: str
    values: Mapping[str, Interval]
    """Of each of METRICS over fine-tuning seeds, mm."""
    by_seed: Mapping[str, Sequence[Mapping[int, float]]]
    """Of each of METRICS a single row, with the mm of each fine-tuning seed."""
    files: tuple[MetricsFile, ...]
    stale: str | None
    num_pretrainings = 0


@dataclass(frozen=True)
class Comparison:
    """Two groups, or a group and weights that nothing was pre-trained of."""

    one: str
    other: str
    apart: Mapping[str, Interval]
    """Of each of METRICS: `one` minus `other`, mm, over pre-trainings and fine-tuning seeds."""
    pretrainings: tuple[int, int]
    """Of `one` and of `other`, those that start from the same one counted once; 0 of untrained weights."""
    files: tuple[MetricsFile, ...]
    stale: str | None

    def better(self, metric: str) -> str | None:
        """Which has the smaller error; None where the interval does not decide it."""
        return lesser(self.one, self.other, self.apart[metric])


@dataclass(frozen=True)
class Repeats:
    groups: tuple[Repeated, ...]
    untrained: tuple[Untrained, ...]
    study: Mapping[str, str]
    """Run -> what it learns from; see `learns_from`."""
    headline: tuple[str, ...]
    confidence: float

    def of(self, run: str) -> Repeated | None:
        """The group that a run is the first of."""
        return next((group for group in self.groups if group.name == run), None)

    def between(self, one: str, other: str) -> Comparison | None:
        """Of two runs, each the first of its group. None where one has no group, or both are untrained."""
        groups = {group.name: group for group in self.groups}
        sides: dict[str, Repeated | Untrained] = groups | {side.name: side for side in self.untrained}
        if one == other or not {one, other} <= sides.keys() or not {one, other} & groups.keys():
            return None
        a, b = sides[one], sides[other]
        counts = a.num_pretrainings, b.num_pretrainings
        # Of several that start from the same one nothing is known of their luck, unlike of those that have none.
        crossed = {
            name: crossed_difference(a.by_seed[name], b.by_seed[name], self.confidence) if 1 not in counts else None
            for name in METRICS
        }
        apart = {
            name: found or difference(a.values[name], b.values[name], self.confidence)
            for name, found in crossed.items()
        }
        return Comparison(one, other, apart, counts, a.files + b.files, a.stale or b.stale)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Runs of the study with each other, the others with each other, each with no pre-training."""
        untrained = [side.name for side in self.untrained]
        pairs = [
            (one, other)
            for one, other in combinations([*(group.name for group in self.groups), *untrained], 2)
            if other in untrained or (one in self.study) == (other in self.study)
        ]
        return tuple(found for pair in pairs if (found := self.between(*pair)))

    @property
    def shown(self) -> tuple[Comparison, ...]:
        """Those of the page: of the study, runs that learn from the same; what else the paper compares stands in its
        tables and claims."""
        untrained = {side.name for side in self.untrained}
        return tuple(
            two
            for two in self.comparisons
            if two.other in untrained
            or {two.one, two.other} <= {*self.headline}
            or (two.one in self.study and self.study[two.one] == self.study[two.other])
        )

    def write(self, path: Path, relative_to: Path) -> None:
        """Every number as CSV, with the files it rests on."""
        with path.open("w", newline="") as out:
            rows = csv.writer(out, lineterminator="\n")
            rows.writerow(["of", "run", "pretraining_seed", "metric", "mean_mm", "half_width_mm", "num", "files"])
            for group in self.groups:
                for repeat in group.repeats:
                    rows.writerows(
                        _rows([group.name, repeat.run, repeat.seed], repeat.values, repeat.files, relative_to)
                    )
                rows.writerows(_rows([group.name, "all", ""], group.values, group.files, relative_to))
            for two in self.comparisons:
                rows.writerows(_rows([f"{two.one} minus {two.other}", "all", ""], two.apart, two.files, relative_to))


def _rows(
    head: Sequence[object], values: Mapping[str, Interval], files: Sequence[MetricsFile], relative_to: Path
) -> Iterator[list[object]]:
    names = " ".join(file.path.relative_to(relative_to).as_posix() for file in files)
    for metric, found in values.items():
        half = "" if found.half_width is None else f"{found.half_width:.3f}"
        yield [*head, metric, f"{found.mean:.3f}", half, found.num, names]


def repeats(metrics: MetricTable, params: Params) -> Repeats | None:
    """As far as they have been run; None where no pre-training has been run and fine-tuned with two seeds."""
    alike: dict[str, list[Repeat]] = {}
    for run, first in first_alike(params).items():
        files = _fine_tunings(run, metrics, params)
        if files:
            stale = why_any_stale(files, metrics, params)
            repeat = Repeat(run, params.pretrain[run].seed, _over_seeds(files, params), files, stale)
            alike.setdefault(first, []).append(repeat)
    groups = tuple(
        _repeated(found, params) for first, found in alike.items() if len(found) > 1 and found[0].run == first
    )
    if not groups:
        return None
    untrained = tuple(
        Untrained(
            init,
            _over_seeds(files, params),
            {metric: [_by_seed(files, metric)] for metric in METRICS},
            files,
            why_any_stale(files, metrics, params),
        )
        for init in params.finetune.body_mesh.headline
        if init in params.import_weights and (files := _fine_tunings(init, metrics, params))
    )
    headline = params.finetune.body_mesh.headline
    study = {run: learns_from(params.pretrain[run]) for run in params.study}
    return Repeats(groups, untrained, study, headline, params.report.confidence)


def _repeated(repeats: Sequence[Repeat], params: Params) -> Repeated:
    by_seed = {metric: _of_each_start(repeats, metric, params) for metric in METRICS}
    values = {
        metric: student_t([fmean(row.values()) for row in rows], params.report.confidence)
        for metric, rows in by_seed.items()
    }
    return Repeated(tuple(repeats), values, by_seed)


def _of_each_start(repeats: Sequence[Repeat], metric: str, params: Params) -> list[dict[int, float]]:
    """Of the pre-trainings by fine-tuning seed, those that start from the same pre-trained checkpoint as one."""
    of_start: dict[str, dict[int, list[float]]] = {}
    for repeat in repeats:
        init = params.pretrain[repeat.run].init
        row = of_start.setdefault(init if init in params.pretrain else repeat.run, {})
        for seed, value in _by_seed(repeat.files, metric).items():
            row.setdefault(seed, []).append(value)
    return [{seed: fmean(values) for seed, values in row.items()} for row in of_start.values()]


def _by_seed(files: Sequence[MetricsFile], metric: str) -> dict[int, float]:
    return {file.seed: file.values[metric].value for file in files if file.seed is not None}


def learns_from(run: Pretrain) -> str:
    """Equal for runs with the same images, masks and numbers of steps, whatever learns from them: with a reference or
    without, how many pairs at a time, with which seed."""
    return run.model_dump_json(exclude=_CHANGE_NOTHING | _OF_A_METHOD)


def first_alike(params: Params) -> dict[str, str]:
    """Run -> the first run that is alike but for its seed and the seed of what it starts from; it may be itself."""

    def but_for_seeds(run: str) -> str:
        spec = params.pretrain[run]
        start = but_for_seeds(spec.init) if spec.init in params.pretrain else spec.init
        return spec.model_copy(update={"init": start}).model_dump_json(exclude=_CHANGE_NOTHING)

    firsts: dict[str, str] = {}
    return {run: firsts.setdefault(but_for_seeds(run), run) for run in params.pretrain}


def _fine_tunings(run: str, metrics: MetricTable, params: Params) -> tuple[MetricsFile, ...]:
    files = metrics.of(STAGE, run, params.body_mesh.seeds)
    return tuple(files) if all(METRICS.keys() <= file.values.keys() for file in files) else ()


def _over_seeds(files: Sequence[MetricsFile], params: Params) -> dict[str, Interval]:
    return {
        metric: student_t([file.values[metric].value for file in files], params.report.confidence) for metric in METRICS
    }
