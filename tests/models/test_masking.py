"""Masking: what holds for every silhouette, ratio and seed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.masking import human_mask, uniform_mask

RATIOS = st.sampled_from([0.5, 0.6, 0.75, 0.8, 0.9])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def silhouettes(draw: st.DrawFn) -> Tensor:
    """(B, N) bool with any share of person per row, none and all included."""
    batch, num_patches = draw(st.integers(1, 6)), draw(st.sampled_from([16, 49, 64, 196]))
    counts = draw(st.lists(st.integers(0, num_patches), min_size=batch, max_size=batch))
    noise = torch.rand(batch, num_patches, generator=generator(draw(st.integers(0, 2**16))))
    return noise.argsort(dim=1).argsort(dim=1) < torch.tensor(counts)[:, None]


@settings(deadline=None)
@given(silhouettes(), RATIOS, st.sampled_from(["max_n", "max_nh"]), st.sampled_from([1, 8]), st.integers(0, 99))
def test_every_row_hides_the_same_number_and_leaves_something(human, ratio, reading, bucket, seed):
    hidden = human_mask(human, ratio, generator(seed), visible_length=reading, bucket=bucket)
    assert hidden.shape == human.shape and hidden.dtype == torch.bool
    counts = hidden.sum(dim=1)
    assert len(set(counts.tolist())) == 1
    assert 0 < counts[0] < human.shape[1]


@settings(deadline=None)
@given(silhouettes(), RATIOS, st.sampled_from(["max_n", "max_nh"]), st.sampled_from([1, 8]), st.integers(0, 99))
def test_exactly_the_floored_share_of_the_person_is_hidden(human, ratio, reading, bucket, seed):
    hidden = human_mask(human, ratio, generator(seed), visible_length=reading, bucket=bucket)
    for row, mask in zip(human, hidden, strict=True):
        wanted = math.floor(ratio * int(row.sum()))
        if wanted >= 1:
            assert int((row & mask).sum()) == wanted


@settings(deadline=None)
@given(silhouettes(), RATIOS, st.integers(0, 99))
def test_visible_length_is_the_largest_number_of_visible_human_patches(human, ratio, seed):
    visible = ~human_mask(human, ratio, generator(seed))
    num_patches = human.shape[1]
    lengths = []
    for count in human.sum(dim=1).tolist():
        counted = count if math.floor(ratio * count) >= 1 else num_patches
        lengths.append(counted - math.floor(ratio * counted))
    assert visible.sum(dim=1).tolist() == [max(lengths)] * len(human)


def test_the_literal_reading_shows_as_many_patches_as_the_largest_person_has():
    human = torch.zeros(2, 196, dtype=torch.bool)
    human[0, :80], human[1, :40] = True, True
    visible = ~human_mask(human, 0.75, generator(0), visible_length="max_nh")
    assert visible.sum(dim=1).tolist() == [80, 80]
    assert (visible & human).sum(dim=1).tolist() == [20, 10]


def test_the_literal_reading_is_cut_to_what_a_large_person_allows():
    human = torch.zeros(1, 196, dtype=torch.bool)
    human[0, :118] = True  # 60 % of the image
    visible = ~human_mask(human, 0.75, generator(0), visible_length="max_nh")
    assert int(visible.sum()) == 196 - math.floor(0.75 * 118) == 108


def test_rows_without_person_have_no_say_in_the_literal_visible_length():
    human = torch.zeros(2, 196, dtype=torch.bool)
    human[0, :80] = True
    visible = ~human_mask(human, 0.75, generator(0), visible_length="max_nh")
    assert visible.sum(dim=1).tolist() == [80, 80]


def test_a_row_without_person_is_masked_uniformly():
    human = torch.zeros(4000, 16, dtype=torch.bool)
    hidden = human_mask(human, 0.75, generator(0))
    assert (hidden.sum(dim=1) == 12).all()
    torch.testing.assert_close(hidden.float().mean(dim=0), torch.full((16,), 0.75), atol=0.03, rtol=0)


def test_a_silhouette_below_the_floor_is_not_trusted():
    human = torch.zeros(2000, 64, dtype=torch.bool)
    human[:, :7] = True
    hidden = human_mask(human, 0.75, generator(0), min_human=8)
    assert (hidden.sum(dim=1) == 48).all()
    torch.testing.assert_close(hidden.float().mean(dim=0), torch.full((64,), 0.75), atol=0.05, rtol=0)


def test_a_silhouette_at_the_floor_is_trusted():
    human = torch.zeros(50, 64, dtype=torch.bool)
    human[:, :8] = True
    hidden = human_mask(human, 0.75, generator(0), min_human=8)
    assert ((hidden & human).sum(dim=1) == 6).all()


def test_human_and_background_patches_are_each_chosen_uniformly():
    human = torch.zeros(6000, 20, dtype=torch.bool)
    human[::2, :12], human[1::2, :8] = True, True
    hidden = human_mask(human, 0.75, generator(1))[1::2].float().mean(dim=0)
    # the larger persons set L = 3; here 2 of 8 human patches and 1 of 12 background patches show
    torch.testing.assert_close(hidden[:8], torch.full((8,), 0.75), atol=0.03, rtol=0)
    torch.testing.assert_close(hidden[8:], torch.full((12,), 11 / 12), atol=0.03, rtol=0)


def test_the_bucket_rounds_the_visible_length_up_but_not_beyond_what_is_feasible():
    human = torch.zeros(1, 64, dtype=torch.bool)
    human[0, :20] = True
    assert int((~human_mask(human, 0.75, generator(0), bucket=8)).sum()) == 8
    assert int((~human_mask(torch.ones_like(human), 0.75, generator(0), bucket=10)).sum()) == 16


@settings(deadline=None)
@given(silhouettes(), RATIOS, st.integers(0, 99))
def test_the_same_seed_gives_the_same_masks(human, ratio, seed):
    assert human_mask(human, ratio, generator(seed)).equal(human_mask(human, ratio, generator(seed)))
    shape = human.shape
    assert uniform_mask(*shape, ratio, generator(seed)).equal(uniform_mask(*shape, ratio, generator(seed)))


@settings(deadline=None)
@given(st.integers(1, 5), st.sampled_from([16, 64, 196]), RATIOS, st.integers(0, 99))
def test_uniform_masks_hide_the_floored_share_in_every_row(batch, num_patches, ratio, seed):
    hidden = uniform_mask(batch, num_patches, ratio, generator(seed))
    assert hidden.sum(dim=1).tolist() == [int(ratio * num_patches)] * batch


def test_uniform_masks_hide_every_patch_equally_often():
    hidden = uniform_mask(5000, 16, 0.75, generator(2)).float().mean(dim=0)
    torch.testing.assert_close(hidden, torch.full((16,), 0.75), atol=0.03, rtol=0)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5])
def test_a_ratio_outside_the_open_interval_is_refused(ratio):
    with pytest.raises(ValueError, match="between 0 and 1"):
        human_mask(torch.ones(1, 16, dtype=torch.bool), ratio)
    with pytest.raises(ValueError, match="between 0 and 1"):
        uniform_mask(1, 16, ratio)


def test_a_silhouette_grid_of_floats_is_refused():
    with pytest.raises(ValueError, match=r"\(B, N\) bool"):
        human_mask(torch.ones(2, 16), 0.75)
