"""Intervals and verdicts: hand-computed cases and properties."""

from __future__ import annotations

from math import inf
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtrit
from scipy.stats import ttest_ind

from pipeline.reporting.intervals import (
    Interval,
    Verdict,
    above,
    below,
    crossed_difference,
    difference,
    ordered,
    over_repeats,
    paired_difference,
    student_t,
)

numbers = st.floats(-1e3, 1e3)


def test_the_interval_of_three_numbers_is_the_textbook_one():
    interval = student_t([1.0, 2.0, 3.0], 0.95)
    assert interval.mean == 2.0
    assert interval.half_width == pytest.approx(4.30265 / 3**0.5, rel=1e-5)  # t(2, 0.975) * 1 / sqrt(3)


def test_one_seed_has_no_interval_and_decides_nothing():
    one = student_t([5.0], 0.95)
    assert one == Interval(5.0, None, 1)
    assert (one.low, one.high) == (-inf, inf)
    assert ordered(one, student_t([9.0, 9.1, 9.2], 0.95)) is Verdict.UNDECIDED


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("other", [(118.0, 117.0, 122.0), (104.5, 103.0, 107.0, 99.0), (103.0, 103.5)])
def test_the_difference_of_independent_means_is_welchs(other: tuple[float, ...], confidence: float):
    one = (104.0, 103.0, 105.0)
    found = difference(student_t(other, confidence), student_t(one, confidence), confidence)
    expected = ttest_ind(other, one, equal_var=False).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_difference_without_spread_is_exact_and_of_single_runs_unknown():
    three, single = student_t([2.0, 2.0, 2.0], 0.95), student_t([1.0], 0.95)
    assert difference(three, student_t([1.0, 1.0], 0.95), 0.95) == Interval(1.0, 0.0, 2)
    assert difference(three, single, 0.95) == difference(-single, -three, 0.95) == Interval(1.0, None, 1)


def test_a_crossed_difference_has_the_luck_of_rows_and_that_of_seeds():
    one, other = [{0: 1.0, 1: 3.0}, {0: 3.0, 1: 5.0}], [{0: 0.0, 1: 4.0}]
    # Variances 1 of the rows' means (2, 4) and 1 of the differences between seeds (2, 0); degrees of freedom 2.
    found = crossed_difference(one, other, 0.95)
    assert (found.mean, found.num, found.half_width) == (1.0, 2, pytest.approx(4.30265 * 2**0.5, rel=1e-5))
    assert crossed_difference(other, one, 0.95) == -found
    # What a seed does to one row alone stands in both, 25 / 16 and 9 / 16, and is taken off once, 1 / 16.
    found = crossed_difference([{0: 1.0, 1: 3.0}, {0: 3.0, 1: 6.0}], other, 0.95)
    freedom = 33**2 / (25**2 + 9**2 + 1)
    assert found.half_width == pytest.approx(stdtrit(freedom, 0.975) * (33 / 16) ** 0.5)


def test_a_crossed_difference_is_welchs_where_seeds_do_the_same_to_both_sides():
    one, other = ([{0: mean - 1, 1: mean, 2: mean + 1} for mean in means] for means in ((1, 2, 4), (3, 9, 7, 5)))
    expected = difference(student_t((1, 2, 4), 0.95), student_t((3, 9, 7, 5), 0.95), 0.95)
    assert crossed_difference(one, other, 0.95) == Interval(
        pytest.approx(expected.mean), pytest.approx(expected.half_width), 3
    )
    assert crossed_difference(one[:1], other[:1], 0.95) == Interval(-2.0, 0.0, 3)


@pytest.mark.parametrize("other", [[{0: 1.0}], [{0: 1.0, 1: 2.0}, {0: 1.0}], [{0: 1.0, 2: 2.0}]])
def test_nothing_is_known_of_seeds_that_are_not_the_same(other):
    assert crossed_difference([{0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}], other, 0.95) is None
    assert crossed_difference([{0: 1.0}, {0: 2.0}], [{0: 1.0}], 0.95) is None


@pytest.mark.parametrize("of_seeds", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("rows", [5, 3, 1])
def test_no_more_ties_are_decided_than_the_confidence_allows(of_seeds: float, rows: int):
    """With the spreads of PA-MPJPE: of pre-trainings, of what a seed does to one side, of a fine-tuning."""
    luck = np.random.default_rng(rows)

    def side(number: int) -> list[dict[int, float]]:
        of_rows = luck.normal(0, 0.35, (number, 1)) * (number > 1)
        values = of_rows + luck.normal(0, of_seeds, 4) + luck.normal(0, 0.87, (number, 4))
        return [dict(enumerate(row)) for row in values.tolist()]

    ties = [(side(5), side(rows)) for _ in range(1000)]
    means = [[student_t([*map(fmean, (row.values() for row in of))], 0.95) for of in pair] for pair in ties]
    crossed = sum(below(crossed_difference(*pair, 0.95)) is not Verdict.UNDECIDED for pair in ties) / len(ties)
    welchs = sum(below(difference(*pair, 0.95)) is not Verdict.UNDECIDED for pair in means) / len(ties)
    assert 0.01 < crossed < 0.06
    assert rows == 1 or of_seeds == 0 or crossed + 0.03 < welchs


def test_repeats_on_the_same_samples_add_their_luck_to_that_of_the_samples():
    found = over_repeats([Interval(1.0, 3.0, 9), Interval(2.0, 4.0, 7), Interval(3.0, 5.0, 8)], 0.95)
    assert (found.mean, found.num) == (2.0, 7)
    assert found.half_width == pytest.approx((4.30265**2 / 3 + 50 / 3) ** 0.5, rel=1e-5)
    assert over_repeats([Interval(1.0, 3.0, 9)], 0.95) == Interval(1.0, 3.0, 9)
    assert over_repeats([Interval(1.0, 3.0, 9), Interval(2.0, None, 1)], 0.95) == Interval(1.5, None, 1)


@given(st.lists(numbers, min_size=2, max_size=8), st.floats(0, 1e3))
def test_repeating_never_hides_the_luck_of_samples_or_that_of_repeats(means, half):
    found = over_repeats([Interval(mean, half, 5) for mean in means], 0.95)
    least = max(half, student_t(means, 0.95).half_width)
    assert found.half_width >= least or found.half_width == pytest.approx(least)


@given(st.lists(numbers, min_size=2, max_size=8))
def test_more_confidence_means_a_wider_interval(values):
    assert student_t(values, 0.99).half_width >= student_t(values, 0.9).half_width


@given(st.lists(numbers, min_size=2, max_size=5), st.lists(numbers, min_size=2, max_size=5))
def test_swapping_the_two_sides_swaps_the_verdict(a, b):
    one, other = student_t(a, 0.95), student_t(b, 0.95)
    swapped = {Verdict.HOLDS: Verdict.FAILS, Verdict.FAILS: Verdict.HOLDS}
    assert ordered(other, one) is swapped.get(ordered(one, other), Verdict.UNDECIDED)


def test_touching_intervals_are_undecided():
    assert ordered(Interval(0.0, 1.0, 3), Interval(2.0, 1.0, 3)) is Verdict.UNDECIDED
    assert ordered(Interval(0.0, 1.0, 3), Interval(2.1, 1.0, 3)) is Verdict.HOLDS


def test_a_missing_side_is_not_run():
    assert ordered(None, Interval(1.0, 0.1, 3)) is Verdict.NOT_RUN


def test_pairing_sees_a_difference_that_the_luck_of_seeds_hides():
    a = {0: 50.0, 1: 60.0, 2: 70.0}
    b = {seed: value + 2 + 0.1 * seed for seed, value in a.items()}
    assert ordered(student_t(list(a.values()), 0.95), student_t(list(b.values()), 0.95)) is Verdict.UNDECIDED
    assert below(paired_difference(a, b, 0.95)) is Verdict.HOLDS


def test_only_shared_seeds_are_paired():
    assert paired_difference({0: 1.0, 1: 2.0}, {1: 5.0, 2: 6.0}, 0.95) == Interval(-3.0, None, 1)
    assert paired_difference({0: 1.0}, {1: 5.0}, 0.95) is None


def test_a_threshold_is_passed_by_the_whole_interval():
    assert above(Interval(93.0, 0.5, 3), 92.0) is Verdict.HOLDS
    assert above(Interval(92.3, 0.5, 3), 92.0) is Verdict.UNDECIDED
    assert below(Interval(93.0, 0.5, 3), 92.0) is Verdict.FAILS


@pytest.mark.parametrize(("values", "confidence"), [([], 0.95), ([1.0, 2.0], 1.0)])
def test_no_values_and_full_confidence_are_refused(values, confidence):
    with pytest.raises(ValueError, match=r"at least one value|confidence must lie in \(0, 1\)"):
        student_t(values, confidence)
