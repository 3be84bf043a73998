"""Numbers of several seeds -> mean with a Student-t interval, and the verdict on an ordering.

The paper prints one number per cell; fine-tuning is repeated with other seeds here, so that a
difference can be told from the luck of a seed. The interval covers that luck only; for that of
pre-training see `pipeline.reporting.repeats`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf, sqrt
from statistics import fmean, stdev, variance

from scipy.special import stdtrit


class Verdict(StrEnum):
    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Interval:
    """Mean of `num` values and the half width of its Student-t interval.

    One value has no half width: its interval is the whole line, and overlaps with every other.
    """

    mean: float
    half_width: float | None
    num: int

    @property
    def low(self) -> float:
        return -inf if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float:
        return inf if self.half_width is None else self.mean + self.half_width

    def written_mean(self, decimals: int, sign: str = "") -> str:
        """`57.4`; `+57.4` with sign="+"."""
        return f"{self.mean:{sign}.{decimals}f}".replace("-", "\N{MINUS SIGN}")

    def written_half(self, decimals: int) -> str:
        """`± 0.8`, or nothing where it is not known."""
        return "" if self.half_width is None else f"± {self.half_width:.{decimals}f}"

    def written(self, decimals: int, sign: str = "") -> str:
        """`57.4 ± 0.8`, or the bare mean."""
        return f"{self.written_mean(decimals, sign)} {self.written_half(decimals)}".rstrip()

    def __neg__(self) -> Interval:
        return Interval(-self.mean, self.half_width, self.num)


def student_t(values: Sequence[float], confidence: float) -> Interval:
    """Mean and two-sided Student-t interval, with num - 1 degrees of freedom.

    Raises ValueError for no values or a confidence outside (0, 1).
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    if len(values) == 1:
        return Interval(float(values[0]), None, 1)
    return of_standard_error(fmean(values), stdev(values) / sqrt(len(values)), len(values), confidence)


def of_standard_error(mean: float, error: float | None, num: int, confidence: float) -> Interval:
    """The Student-t interval of a mean over `num` independent parts whose standard error is known; None = it is not."""
    if error is None or num < 2:
        return Interval(mean, None, num)
    return Interval(mean, float(stdtrit(num - 1, 0.5 + confidence / 2)) * error, num)


def over_repeats(each: Sequence[Interval], confidence: float) -> Interval:
    """The mean of what was repeated on the same samples, such as pre-trainings measured on the same recordings.

    Two lucks add up in squares: that of the repeats, by a Student-t interval of their means, and that of the samples.
    They all share the latter, so that the mean over repeats has as much of it as each. It stands in the spread of the
    repeats once more as far as their samples differ, which makes the interval wider than it need be. One alone is
    itself.

    Args:
        each: with one interval or more, each over samples; `num` of what comes out is that of the smallest.
        confidence: that of all, and of the one that comes out.
    """
    if len(each) == 1:
        return each[0]
    means, num = student_t([one.mean for one in each], confidence), min(one.num for one in each)
    halves = [one.half_width for one in each if one.half_width is not None]
    if means.half_width is None or len(halves) < len(each):
        return Interval(means.mean, None, num)
    return Interval(means.mean, sqrt(means.half_width**2 + fmean(half**2 for half in halves)), num)


def difference(a: Interval, b: Interval, confidence: float) -> Interval:
    """Interval of a - b for two independent means with their own spreads (Welch 1947).

    It is narrower than the two intervals laid end to end, so it decides more of what can be decided.

    Args:
        confidence: that of both intervals, and of the one that comes out.
    """
    mean, num = a.mean - b.mean, min(a.num, b.num)
    if a.half_width is None or b.half_width is None:
        return Interval(mean, None, num)
    squares = [(side.half_width or 0.0) ** 2 / stdtrit(side.num - 1, 0.5 + confidence / 2) ** 2 for side in (a, b)]
    if not any(squares):
        return Interval(mean, 0.0, num)
    freedom = sum(squares) ** 2 / sum(square**2 / (side.num - 1) for square, side in zip(squares, (a, b), strict=True))
    return Interval(mean, float(stdtrit(freedom, 0.5 + confidence / 2)) * sqrt(sum(squares)), num)


def crossed_difference(
    a: Sequence[Mapping[int, float]], b: Sequence[Mapping[int, float]], confidence: float
) -> Interval | None:
    """Interval of the mean of a minus that of b where each of them is repeated in two ways, crossed with each other.

    All were fine-tuned with the same seeds, which may suit a better than b: that luck is the same in all rows of a, and
    does not fall with their number. So there are two variances, that of rows (as in Welch's interval) and that of the
    difference between seeds; what is luck of a single value stands in both, and is taken off once. Not below the larger
    of the two; degrees of freedom are Satterthwaite's (1946).

    Args:
        a, b: rows are pre-trainings, a value for each seed of fine-tuning. A side of one row has no luck of rows.

    Returns:
        None where rows have other seeds, or a single one: then nothing is known of their luck.
    """
    seeds = a[0].keys()
    if len(seeds) < 2 or any(row.keys() != seeds for row in (*a, *b)):
        return None
    apart = [fmean(row[seed] for row in a) - fmean(row[seed] for row in b) for seed in seeds]
    # Each a variance of the mean and its degrees of freedom.
    of_seeds = (variance(apart) / len(seeds), len(seeds) - 1)
    of_rows, of_both = [], []
    for side in (a, b):
        if len(side) > 1:
            means = [fmean(row.values()) for row in side]
            of_rows.append((variance(means) / len(side), len(side) - 1))
            over_rows = {seed: fmean(row[seed] for row in side) for seed in seeds}
            rest = [
                row[seed] - mean - over_rows[seed] + fmean(means)
                for row, mean in zip(side, means, strict=True)
                for seed in seeds
            ]
            free = (len(side) - 1) * (len(seeds) - 1)
            of_both.append((-sum(value**2 for value in rest) / free / len(rest), free))
    parts = max(([*of_rows, of_seeds, *of_both], of_rows, [of_seeds]), key=lambda some: sum(part for part, _ in some))
    square, num = sum(part for part, _ in parts), min(len(side) if len(side) > 1 else len(seeds) for side in (a, b))
    if not square:
        return Interval(fmean(apart), 0.0, num)
    freedom = square**2 / sum(part**2 / of_part for part, of_part in parts)
    return Interval(fmean(apart), float(stdtrit(freedom, 0.5 + confidence / 2)) * sqrt(square), num)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], confidence: float) -> Interval | None:
    """Interval of a - b over the seeds both have; None when they share none.

    A seed fixes the head's initial weights and the order of the images, so two runs of one
    seed share luck that the difference removes.
    """
    seeds = sorted(a.keys() & b.keys())
    return student_t([a[seed] - b[seed] for seed in seeds], confidence) if seeds else None


def ordered(lesser: Interval | None, greater: Interval | None) -> Verdict:
    """Is `lesser` below `greater`? Undecided while the two intervals overlap."""
    if lesser is None or greater is None:
        return Verdict.NOT_RUN
    if lesser.high < greater.low:
        return Verdict.HOLDS
    if greater.high < lesser.low:
        return Verdict.FAILS
    return Verdict.UNDECIDED


def are_apart(one: Interval | None, other: Interval | None) -> bool:
    """Whether both are there and do not overlap."""
    return ordered(one, other) in (Verdict.HOLDS, Verdict.FAILS)


def below(difference: Interval | None, limit: float = 0.0) -> Verdict:
    """Is the quantity below `limit`, its whole interval included?"""
    return ordered(difference, Interval(limit, 0.0, 1))


def above(difference: Interval | None, limit: float = 0.0) -> Verdict:
    """Is the quantity above `limit`, its whole interval included?"""
    return ordered(Interval(limit, 0.0, 1), difference)


def lesser(one: str, other: str, difference: Interval | None) -> str | None:
    """Name of the smaller of two, by the interval of the first minus the second; None where that decides nothing."""
    return {Verdict.HOLDS: one, Verdict.FAILS: other}.get(below(difference))
