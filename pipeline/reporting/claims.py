"""The paper's claims and the filled tables -> what became of each claim in our numbers.

`holds` and `does not hold` are said where both rows have several pre-trainings and the interval of
their difference leaves out zero, or else where the intervals of the two cells are apart. Beside
that stands the difference per seed, a sharper reading of one pre-training of each. What the paper
says of curves holds where it does at every place of ours, and does not where it fails at one.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from pipeline.reporting.intervals import Interval, Verdict, above, below, ordered
from pipeline.reporting.metric_table import MetricsFile
from pipeline.reporting.paper import Claims, Curve, Ordering, Threshold
from pipeline.reporting.repeats import Repeats
from pipeline.reporting.studies import Point, Study
from pipeline.reporting.table_files import MISSING, interval_numbers, names, paper_text
from pipeline.reporting.tables import Cell, Filled


@dataclass(frozen=True)
class Outcome:
    """One claim, the paper's truth and ours."""

    id: str
    where: str
    """`Figure 3(a), Body PA-MPJPE`."""
    says: str
    paper: bool | None
    """Whether the paper's own cells agree with the claim; None where it prints no numbers."""
    paper_detail: str
    ours: Verdict
    paired: Interval | None
    """Value of the row that should be better minus the other's, per seed: of one pre-training each."""
    paired_verdict: Verdict
    over_pretrainings: Interval | None
    """The same, each over its pre-trainings; None where one of them has a single one."""
    pretrainings: tuple[int, int] | None
    """How many those are of each; 0 of random weights."""
    files: tuple[MetricsFile, ...]
    """What the verdict rests on; empty where there is none."""
    stale: str | None
    """Why one of these pre-trainings is not what params.yaml asks for now; None where none is."""
    unit: str
    remark: str | None
    """In what ours is made otherwise than the paper's, of the whole table."""
    reason: str
    """Why it was not run; empty otherwise."""
    cells: tuple[Cell, ...]
    study: str | None = None
    """Of a claim about curves: the figure of ours that it was held against, by its id."""
    places: tuple[str, ...] = ()
    """Of a claim about curves: what became of it at each place of them."""


def judge(claims: Claims, tables: dict[str, Filled], studies: Sequence[Study]) -> list[Outcome]:
    """Every claim in the order of claims.yaml; none is left out."""
    outcomes = [_ordering(claim, tables[claim.table]) for claim in claims.orderings]
    outcomes += [_threshold(claim, tables[claim.table]) for claim in claims.thresholds]
    outcomes += [_curve(claim, tables, {study.id: study for study in studies}) for claim in claims.curves]
    return outcomes


def count(outcomes: Sequence[Outcome]) -> Counter[Verdict]:
    return Counter(outcome.ours for outcome in outcomes)


def _ordering(claim: Ordering, filled: Filled) -> Outcome:
    better, worse = (filled.cells[row, claim.column] for row in (claim.better, claim.worse))
    lesser, greater, beats = (better, worse, "<") if better.better == "lower" else (worse, better, ">")
    # A reader expects "better minus worse", whichever of the two should be the lesser number.
    comparison = filled.compare(lesser, greater)
    comparison = comparison if lesser is better else -comparison
    return Outcome(
        id=claim.id,
        where=_where(filled, better),
        says=claim.says,
        paper=claim.paper,
        paper_detail=f"{paper_said(better)} {'' if claim.paper else 'not '}{beats} {paper_said(worse)}",
        ours=comparison.verdict,
        paired=comparison.paired,
        paired_verdict=comparison.paired_verdict,
        over_pretrainings=comparison.over_pretrainings,
        pretrainings=comparison.pretrainings,
        files=comparison.files if comparison.verdict is not Verdict.NOT_RUN else (),
        stale=comparison.stale,
        unit=better.unit,
        remark=filled.remark,
        reason="; ".join(
            dict.fromkeys(f"{cell.row.label}: {cell.missing}" for cell in (better, worse) if cell.missing)
        ),
        cells=(better, worse),
    )


def _threshold(claim: Threshold, filled: Filled) -> Outcome:
    cell = filled.cells[claim.row, claim.column]
    is_there = above if claim.is_ == "above" else below
    verdict = is_there(cell.ours, claim.value)
    return Outcome(
        id=claim.id,
        where=_where(filled, cell),
        says=claim.says,
        paper=claim.paper,
        paper_detail=f"{paper_said(cell)} {claim.is_} {claim.value:g}",
        ours=verdict,
        paired=None,
        paired_verdict=Verdict.NOT_RUN,
        over_pretrainings=None,
        pretrainings=None,
        files=cell.files,
        stale=None,
        unit=cell.unit,
        remark=filled.remark,
        reason=f"{cell.row.label}: {cell.missing}" if cell.missing else "",
        cells=(cell,),
    )


def _curve(claim: Curve, tables: Mapping[str, Filled], studies: Mapping[str, Study]) -> Outcome:
    outcome = Outcome(
        id=claim.id,
        where=f"{claim.figure}, {claim.metric}",
        says=claim.says,
        paper=None,
        paper_detail=" before ".join(claim.best_first),
        ours=Verdict.NOT_RUN,
        paired=None,
        paired_verdict=Verdict.NOT_RUN,
        over_pretrainings=None,
        pretrainings=None,
        files=(),
        stale=None,
        unit="",
        remark=None,
        reason=f"{claim.figure} is not part of this version yet",
        cells=(),
    )
    if claim.ours is None:
        return outcome
    if claim.ours.study not in studies:
        return replace(outcome, reason=f"no metrics of {claim.figure} at this scale yet")
    filled, study = tables[claim.ours.table], studies[claim.ours.study]
    cells = [filled.cells[row, claim.ours.column] for row in claim.ours.rows]
    named = dict(zip(claim.best_first, cells, strict=True))
    shown = {name: cell for name, cell in named.items() if cell.run in study.curves}
    absent = [f"{name}: {cell.missing}" for name, cell in named.items() if name not in shown]
    verdicts, texts, stale = [Verdict.NOT_RUN] * len(absent), [], None
    files: list[MetricsFile] = []
    for x in filter(None, study.places):  # Weights after 0 steps are those that pre-training starts from.
        points = [study.at(cell.run or "", x) for cell in shown.values()]
        verdict = _of_all([_in_order(*pair, cells[0].key, filled.other_seeds) for pair in pairwise(points)])
        numbers = (point.values[cells[0].key].written(cells[0].decimals) if point else MISSING for point in points)
        told = ", ".join(f"{name} {number}" for name, number in zip(shown, numbers, strict=True))
        texts.append(f"at {x:g}: {told}: {verdict}")
        verdicts.append(verdict)
        files += [file for point in points if point for file in point.files]
        stale = stale or next((point.stale for point in points if point and point.stale), None)
    ours = _of_all(verdicts)
    why = "; ".join(absent) or "some points are not there yet"
    return replace(
        outcome,
        ours=ours,
        files=tuple(files),
        stale=stale,
        unit=cells[0].unit,
        remark=filled.remark,
        reason=f"{why}; what there is stands in tables/{study.id}.csv" if ours is Verdict.NOT_RUN else "",
        study=study.id,
        places=tuple(texts),
    )


def _in_order(better: Point | None, worse: Point | None, key: str, other_seeds: Repeats | None) -> Verdict:
    if better is None or worse is None:
        return Verdict.NOT_RUN
    found = other_seeds.between(better.files[0].name, worse.files[0].name) if other_seeds else None
    return below(found.apart[key]) if found else ordered(better.values[key], worse.values[key])


def _of_all(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a claim that says several things: it fails with one of them, and holds with all."""
    kinds = (Verdict.FAILS, Verdict.NOT_RUN, Verdict.UNDECIDED, Verdict.HOLDS)
    return next((kind for kind in kinds if kind in verdicts), Verdict.NOT_RUN)


def paper_said(cell: Cell) -> str:
    return f"{cell.row.label} {paper_text(cell)}"


def _where(filled: Filled, cell: Cell) -> str:
    return f"{filled.table.label}, {cell.column.task.split('_')[0]} {cell.column.heading}"


CSV_HEADER = (
    *("id", "where", "says", "paper", "paper_detail", "ours", "first_ours", "first_low", "first_high"),
    *("second_ours", "second_low", "second_high", "num_seeds", "intervals_overlap"),
    *("difference", "difference_low", "difference_high", "paired_ordering"),
    *("over_pretrainings", "over_pretrainings_low", "over_pretrainings_high"),
    *("first_pretrainings", "second_pretrainings", "unit", "at_each_place", "remark", "reason", "files"),
)


def write(outcomes: Sequence[Outcome], path: Path, relative_to: Path) -> None:
    """One line per claim. `first` is the row that should be better, `difference` is first minus second per seed.

    Names of files are relative to `relative_to`.
    """
    with path.open("w", newline="") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(CSV_HEADER)
        for item in outcomes:
            cells = [cell.ours for cell in item.cells] + [None] * (2 - len(item.cells))
            paper = {True: "holds", False: "does not hold", None: "shown without numbers"}[item.paper]
            rows.writerow(
                (
                    *(item.id, item.where, item.says, paper, item.paper_detail, item.ours),
                    *(*interval_numbers(cells[0]), *interval_numbers(cells[1])),
                    *(min((cell.num for cell in cells if cell), default=""), _overlap(item.cells)),
                    *(*interval_numbers(item.paired), item.paired_verdict if item.paired else ""),
                    *(*interval_numbers(item.over_pretrainings), *(item.pretrainings or ("", ""))),
                    *(item.unit, "; ".join(item.places), item.remark or "", item.reason),
                    names(item.files, relative_to),
                )
            )


def _overlap(cells: tuple[Cell, ...]) -> str:
    bounds = [(cell.ours.low, cell.ours.high) for cell in cells if cell.ours]
    if len(bounds) < 2:
        return ""
    (low, high), (other_low, other_high) = bounds
    return "yes" if low <= other_high and other_low <= high else "no"
