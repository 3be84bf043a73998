"""The study of what makes the reference pay (`study` in params.yaml): curves over whatever its runs change.

The first run of the study is the usual one. A run that changes one of its parameters is a point on the curve of that
parameter; one that changes two is on a second curve of it, if another shares the second change. A second curve is drawn
where it shows a run that no curve before it does. A run that changes more is the usual one of another part of the
study, with the runs that change one or two things of it. Runs that differ in their seed alone are pre-trainings of one
place, whose numbers are means over them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.reporting import study_findings
from pipeline.reporting.intervals import Interval, are_apart, lesser, paired_difference
from pipeline.reporting.metric_table import MetricsFile, MetricTable
from pipeline.reporting.repeats import Repeats, learns_from
from pipeline.reporting.staleness import why_any_stale
from pipeline.reporting.study_places import (
    KINDS,
    FineTuned,
    Place,
    errors_by_seed,
    fine_tuned,
    fine_tunings,
    place_of,
    pretrained_runs,
)
from pipeline.run_spec import Params, Pretrain

TITLES = {
    "mask_ratio": "Mask ratio",
    "masking": "Masking",
    "visible_length": "Visible patches",
    "max_pairs": "Pairs of each data set and kind",
    "baseline_degrees": "Angle between the views, degrees",
    "gap_s": "Time between the poses, s",
    "network": "Network",
    "crops": "Random crops of a pair's images",
    "batch": "Pairs a step",
    "steps": "Steps of pre-training",
    "kinds": "Kinds of pairs",
    "datasets": "Data sets",
}
"""Parameters by name; any other goes by its key."""
UNSET = {"crops": "own"}
"""What an option stands for that is not set, where that is not "all"."""
READINGS = {
    # Of `visible_length`, by the largest of the batch; see `models.masking.human_mask`.
    "max_n": "count of a person's visible part",
    "max_nh": "count of a whole person",
    "synthetic_looks": "synthetic, with other looks in every view",
    "shallowdecoder": "shallow decoder",
    "deepdecoder": "deep decoder",
    "widedecoder": "wide decoder",
}
"""Values, and words of the names of networks, that say little or read badly."""

MOST_CHANGES = 2
"""Of the usual run, by a run of its part of the study."""

COLUMNS = (
    *("from", "varies", "value", "besides", "run"),
    *("metric", "kind", "patches", "against", "mean", "half_width", "num", "pretrainings", "files"),
)


@dataclass(frozen=True)
class Factor:
    """One parameter that runs vary: curves by what else they change, "" for the usual rest."""

    usual: str
    """The run whose part of the study this is in."""
    key: str
    labels: tuple[str, ...]
    """Values in order."""
    curves: Mapping[str, tuple[Place, ...]]

    @property
    def id(self) -> str:
        return f"{self.usual}-{self.key}"

    @property
    def title(self) -> str:
        return _title(self.key)

    @property
    def places(self) -> tuple[Place, ...]:
        """Of all curves."""
        return tuple(place for places in self.curves.values() for place in places)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the pairs that anything was measured on."""
        return _kinds(self.places)

    @property
    def findings(self) -> tuple[str, ...]:
        """Where on each curve the reference saves most and least, in sentences."""
        found = []
        for besides, places in self.curves.items():
            against = f"With {besides}, against" if besides else "Against"
            if extremes := study_findings.extremes(places):
                found.append(f"{against} another recording's, the reference saves {extremes}.")
        return tuple(found)

    @property
    def fine_tuned(self) -> bool:
        """Whether more than one of the places was fine-tuned."""
        return _several_tuned(self.places)


@dataclass(frozen=True)
class Beside:
    """MAE beside CroCo that differs from it in having a reference: the same held-out pairs with the same masks."""

    without: str
    with_reference: str
    completed: tuple[int, int]
    """Images that a step completes: without a reference, and with one."""
    losses: tuple[float, float]
    """Held-out, over the person's hidden patches, means over pre-trainings; CroCo's with the true reference."""
    tuned: tuple[FineTuned | None, FineTuned | None]
    """After fine-tuning."""
    apart: Interval | None
    """Without minus with a reference, mm, paired by fine-tuning seed."""
    over_pretrainings: Interval | None
    """The same over pre-trainings; None where one of the two has no other seeds."""
    stale: str | None

    @property
    def better(self) -> str | None:
        """Which has the smaller error after fine-tuning; None where that is not decided."""
        return lesser(self.without, self.with_reference, self.over_pretrainings or self.apart)


@dataclass(frozen=True)
class Part:
    """A usual run and those that change little of it."""

    usual: Place
    changes: tuple[str, ...]
    """Of the first part's usual run, by this one; none in the first part."""
    runs: tuple[Place, ...]
    """All of them, called by what they change; the usual one first."""
    factors: tuple[Factor, ...]
    after_fine_tuning: tuple[str, ...]
    """Which runs are told from the usual one, in sentences; of those where both have other seeds."""
    told: frozenset[str]
    """Runs that are told from the usual one after fine-tuning: over pre-trainings, where one of both has a single one
    by intervals that lie apart."""

    @property
    def id(self) -> str:
        return f"around-{self.usual.run}"

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the pairs that anything was measured on."""
        return _kinds(self.runs)

    @property
    def fine_tuned(self) -> bool:
        """Whether more than one of the runs was fine-tuned."""
        return _several_tuned(self.runs)

    @property
    def findings(self) -> tuple[str, ...]:
        """What the reference gives in the usual run, and whether fine-tuning tells others from it, in sentences."""
        return (*study_findings.of_the_usual(self.usual), *self.after_fine_tuning)


@dataclass(frozen=True)
class ReferenceStudy:
    parts: tuple[Part, ...]
    without_a_reference: tuple[Beside, ...]
    findings: tuple[str, ...]
    """What the numbers of all runs say, in sentences."""

    @property
    def factors(self) -> tuple[Factor, ...]:
        return tuple(factor for part in self.parts for factor in part.factors)

    @property
    def out_of_date(self) -> tuple[Place, ...]:
        """Runs whose numbers the sentences still tell, though their parameters have changed since."""
        return tuple(place for part in self.parts for place in part.runs if place.stale)

    @property
    def of_one_pretraining(self) -> tuple[Place, ...]:
        """Runs whose intervals do not cover the luck of pre-training."""
        return tuple(place for part in self.parts for place in part.runs if len(place.files) == 1)

    def write(self, path: Path, relative_to: Path) -> None:
        """Every number as CSV, with the file it comes from."""
        with path.open("w", newline="") as out:
            rows = csv.writer(out, lineterminator="\n")
            rows.writerow(COLUMNS)
            for factor in self.factors:
                for besides, places in factor.curves.items():
                    for place in places:
                        head = [factor.usual, factor.key, place.label, besides, place.run]
                        files = _names(place.files, relative_to)
                        for key, found in place.savings.items():
                            rows.writerow([*head, "saving", *key, *_numbers(found), len(place.files), files])
                        if place.tuned:
                            numbers = *_numbers(place.tuned.pa_mpjpe), place.tuned.pretrainings
                            files = _names(place.tuned.files, relative_to)
                            rows.writerow([*head, "pa_mpjpe", "", "", "", *numbers, files])


def reference_study(metrics: MetricTable, params: Params, other_seeds: Repeats | None = None) -> ReferenceStudy | None:
    """As far as it has been run; None where its first run, or everything else, has not."""
    pretrained = pretrained_runs(metrics, params)
    measured = {run: files for run, files in pretrained.items() if files[0].reference_saves}
    if len(measured) < 2 or (first := params.study[0]) not in measured:
        return None
    specs = {run: _spec(params.pretrain[run]) for run in measured}
    places = {run: place_of(run, files, metrics, params, other_seeds) for run, files in measured.items()}
    parts = tuple(
        _part(usual, runs, first, specs, places, other_seeds) for usual, runs in _by_usual(first, specs).items()
    )
    beside = _without_a_reference(pretrained, metrics, params, other_seeds)
    findings = [
        *study_findings.most_saved(places, first),
        *study_findings.of_its_own(places, params),
        *study_findings.of_fine_tuning(places, metrics, params, other_seeds),
    ]
    return ReferenceStudy(parts, tuple(beside), tuple(findings))


def _by_usual(first: str, specs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The usual runs of the study, each with those that change the least of it."""
    found: dict[str, list[str]] = {first: []}
    for run, spec in specs.items():
        nearest = min(found, key=lambda usual: len(_changes(spec, specs[usual])))
        far = len(_changes(spec, specs[nearest])) > MOST_CHANGES
        found.setdefault(run if far else nearest, []).append(run)
    return found


def _changes(spec: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if value != usual[key]}


def _part(
    usual: str,
    runs: Sequence[str],
    first: str,
    specs: Mapping[str, Mapping[str, Any]],
    places: Mapping[str, Place],
    other_seeds: Repeats | None,
) -> Part:
    changes = {run: _changes(specs[run], specs[usual]) for run in runs}
    factors, shown = [], set[str]()
    for key in dict.fromkeys(key for changed in changes.values() for key in changed):
        values = _in_order([specs[run][key] for run in runs if run == usual or key in changes[run]])
        labels = [_label(value, specs[usual][key]) for value in values]
        curves: dict[str, list[Place]] = {}
        for value, label in zip(values, labels, strict=True):
            for run, changed in changes.items():
                if specs[run][key] == value:
                    besides = ", ".join(_written({other: changed[other] for other in changed if other != key}))
                    curves.setdefault(besides, []).append(replace(places[run], label=label))
        kept: dict[str, tuple[Place, ...]] = {}
        for besides, curve in curves.items():
            of_curve = {place.run for place in curve}
            if len(curve) > 1 and not (besides and of_curve <= shown):
                kept[besides] = tuple(curve)
                shown |= of_curve
        if kept:
            used = {place.label for curve in kept.values() for place in curve}
            factors.append(Factor(usual, key, tuple(label for label in labels if label in used), kept))
    of_first = tuple(_written(_changes(specs[usual], specs[first])))
    # In the order of the curves, so that what changes one thing stands together.
    in_order = dict.fromkeys([usual, *(place.run for factor in factors for place in factor.places), *runs])
    called = []
    for run in in_order:
        told = (f"{_title(key)}: {_label(value, specs[usual][key])}" for key, value in changes[run].items())
        called.append(replace(places[run], label=", ".join(told) or "as usual"))
    compared = [found for run in in_order if other_seeds and (found := other_seeds.between(run, usual))]
    findings = (
        study_findings.of_other_seeds(usual, compared, other_seeds.confidence) if other_seeds and compared else []
    )
    over = {two.one: two.better("pa_mpjpe") is not None for two in compared}
    of_usual = places[usual].pa_mpjpe
    told_apart = {run for run in in_order if over.get(run, are_apart(places[run].pa_mpjpe, of_usual))}
    return Part(places[usual], of_first, tuple(called), tuple(factors), tuple(findings), frozenset(told_apart))


def _title(key: str) -> str:
    return TITLES.get(key, key.replace("_", " ").capitalize())


def _kinds(places: Sequence[Place]) -> tuple[str, ...]:
    measured = {kind for place in places for kind, *_ in place.savings}
    return tuple(kind for kind in KINDS if kind in measured)


def _several_tuned(places: Sequence[Place]) -> bool:
    return sum(place.pa_mpjpe is not None for place in places) > 1


def _written(changes: Mapping[str, Any]) -> list[str]:
    return [f"{key}: {_label(value)}" for key, value in changes.items()]


def _spec(run: Pretrain) -> dict[str, Any]:
    # The pool follows from the data sets.
    return {key: UNSET.get(key) if value is None else value for key, value in run.model_dump(exclude={"pool"}).items()}


def _in_order(values: Sequence[Any]) -> list[Any]:
    """Different values: numbers and ranges by size, None (no limit) last, others as they come."""
    different = [value for number, value in enumerate(values) if value not in values[:number]]
    known = [value for value in different if value is not None]
    if all(isinstance(value, int | float | tuple) for value in known):
        known.sort()
    return known + [None] * (None in different)


def _label(value: Any, usual: Any = None) -> str:
    """A value in few words; of names only the words in which they differ from the usual one."""
    if value is None:
        return "all"
    if isinstance(value, tuple | list):
        return " to ".join(_label(end) for end in value)
    if isinstance(value, dict):
        return ", ".join(map(_label, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}"
    if value in READINGS:
        return READINGS[value]
    if isinstance(usual, str) and "_" in usual:
        words = (READINGS.get(word, word) for word in value.split("_") if word not in usual.split("_"))
        return " ".join(words) or "usual"
    return str(value)


def _without_a_reference(
    pretrained: Mapping[str, tuple[MetricsFile, ...]],
    metrics: MetricTable,
    params: Params,
    other_seeds: Repeats | None,
) -> list[Beside]:
    files = {
        run: shown
        for run, of in pretrained.items()
        if (shown := [file for file in of if "heldout_loss_human" in file.values])
    }
    losses = {run: fmean(file.values["heldout_loss_human"].value for file in of) for run, of in files.items()}
    specs = {run: params.pretrain[run] for run in files}
    usual = params.pretrain[params.study[0]].network
    found = []
    for run, spec in specs.items():
        for other, beside in specs.items():
            alike = learns_from(spec) == learns_from(beside)
            if spec.method == "mae" and beside.method == "croco" and alike and beside.network == usual:
                tuned = [fine_tuned(one, metrics, params, other_seeds) for one in (run, other)]
                of_run, of_other = (errors_by_seed(fine_tunings(one, metrics, params)) for one in (run, other))
                repeated = other_seeds.between(run, other) if other_seeds else None
                measured = [*files[run], *files[other], *(file for one in tuned if one for file in one.files)]
                found.append(
                    Beside(
                        run,
                        other,
                        completed=(2 * spec.batch, beside.batch),
                        losses=(losses[run], losses[other]),
                        tuned=(tuned[0], tuned[1]),
                        apart=paired_difference(of_run, of_other, params.report.confidence),
                        over_pretrainings=repeated.apart["pa_mpjpe"] if repeated else None,
                        stale=why_any_stale(measured, metrics, params),
                    )
                )
    return found


def _numbers(found: Interval) -> tuple[str, str, int]:
    return f"{found.mean:.5f}", "" if found.half_width is None else f"{found.half_width:.5f}", found.num


def _names(files: Sequence[MetricsFile], relative_to: Path) -> str:
    return " ".join(file.path.relative_to(relative_to).as_posix() for file in files)
