"""The order of samples: each once before any twice, cells by weight, and a function of the place alone."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.loading.order import Order, permuted


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**31))
def test_a_permutation_takes_every_place_once(length: int, key: int) -> None:
    assert np.array_equal(np.sort(permuted(np.arange(length), length, key)), np.arange(length))


def test_a_permutation_mixes_and_another_key_mixes_otherwise() -> None:
    places = np.arange(10_000)
    one, other = permuted(places, 10_000, 1), permuted(places, 10_000, 2)
    # Chance leaves one place where it was, and one the same for both.
    assert (one == places).sum() < 10
    assert (one == other).sum() < 10
    assert abs(np.corrcoef(places, one)[0, 1]) < 0.05
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.05
    # Neighbours go anywhere: their distances are those of two random places.
    assert abs(np.abs(np.diff(one)).mean() / (10_000 / 3) - 1) < 0.05


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.floats(0.05, 20)), min_size=1, max_size=5),
    st.integers(0, 200),
    st.integers(1, 90),
    st.integers(0, 5),
)
def test_any_part_of_the_order_is_that_part_of_the_whole(
    cells: list[tuple[int, float]], first: int, count: int, seed: int
) -> None:
    order = Order([length for length, _ in cells], [weight for _, weight in cells], seed)
    whole, part = order.draw(0, first + count), order.draw(first, count)
    assert np.array_equal(np.stack(whole)[:, first:], np.stack(part))


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 5))
def test_weights_like_the_lengths_give_every_sample_once_an_epoch(lengths: list[int], seed: int) -> None:
    order = Order(lengths, lengths, seed)
    for epoch in range(3):
        cells, picks = order.draw(epoch * order.epoch, order.epoch)
        found = sorted(zip(cells.tolist(), picks.tolist(), strict=True))
        assert found == [(cell, pick) for cell, length in enumerate(lengths) for pick in range(length)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0.05, 20)), min_size=2, max_size=5), st.integers(0, 5))
def test_cells_come_by_weight_and_their_samples_equally_often(cells: list[tuple[int, float]], seed: int) -> None:
    lengths, weights = (np.array(values, float) for values in zip(*cells, strict=True))
    order = Order(lengths.astype(int).tolist(), weights.tolist(), seed)
    epochs = 7
    found, picks = order.draw(0, epochs * order.epoch)
    shares = np.bincount(found, minlength=len(cells)) / epochs
    assert np.abs(shares - weights / weights.sum() * order.epoch).max() <= 1
    for cell, length in enumerate(lengths.astype(int)):
        times = np.bincount(picks[found == cell], minlength=length)
        assert times.max() - times.min() <= 1


def test_epochs_differ() -> None:
    order = Order([500], [1.0], seed=0)
    assert not np.array_equal(order.draw(0, 500)[1], order.draw(500, 500)[1])


def test_cells_come_in_another_order_in_another_epoch_and_for_another_seed() -> None:
    order, other = (Order([250, 250], [1.0, 1.0], seed) for seed in (0, 1))
    first = order.draw(0, 500)[0]
    assert not np.array_equal(order.draw(500, 500)[0], first)
    assert not np.array_equal(other.draw(0, 500)[0], first)


def test_a_draw_from_billions_costs_what_a_draw_from_ten_does() -> None:
    order = Order([3_000_000_000, 2_000_000_000], [1.0, 3.0], seed=0)
    started = time.process_time()
    cells, picks = order.draw(1_234_567_890_123, 256)
    assert time.process_time() - started < 1
    assert len(np.unique(picks)) == 256
    assert 0.6 < cells.mean() < 0.9
