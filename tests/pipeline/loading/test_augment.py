"""Crops, colours and patches of image batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.patches import normalize_images
from pipeline.loading.augment import (
    GREY,
    human_patches,
    jitter_and_normalize,
    random_colours,
    random_corners,
)
from pipeline.silhouettes import patch_mask

seeds = st.integers(0, 2**32 - 1)


def images(seed: int, count: int = 3, size: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def test_factors_of_one_change_nothing() -> None:
    assert torch.allclose(jitter_and_normalize(images(0), torch.ones(3, 3)), normalize_images(images(0)), atol=1e-5)


def test_pixels_are_as_exact_inside_autocast() -> None:
    pixels, colours = images(1), torch.from_numpy(random_colours(np.random.default_rng(1), 3, 0.4))
    with torch.autocast("cpu", torch.bfloat16):
        inside = jitter_and_normalize(pixels, colours)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, jitter_and_normalize(pixels, colours))


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_one_matrix_equals_brightness_then_contrast_then_saturation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Dark enough that no step leaves [0, 1]: the chain clips after each, the matrix once.
    pixels = (images(seed).float() * 0.3).to(torch.uint8)
    colours = random_colours(rng, 3, 0.4)
    one = jitter_and_normalize(pixels, torch.from_numpy(colours))
    expected = []
    for image, (brightness, contrast, saturation) in zip(pixels.double().numpy() / 255, colours, strict=True):
        image = image * brightness
        image = contrast * image + (1 - contrast) * (image @ GREY).mean()
        grey = (image @ GREY)[..., None]
        expected.append(np.clip(saturation * image + (1 - saturation) * grey, 0, 1))
    wanted = (np.stack(expected) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert one.permute(0, 2, 3, 1).numpy() == pytest.approx(wanted, abs=2e-5)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 16))
def test_corners_stay_inside_and_reach_every_place(seed: int, size: int) -> None:
    corners = random_corners(np.random.default_rng(seed), 200, 16, size)
    assert corners.min() >= 0
    assert corners.max() <= 16 - size
    assert size < 12 or (np.unique(corners) == np.arange(16 - size + 1)).all()


def test_crops_stored_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match=r"crops\.size must not be smaller"):
        random_corners(np.random.default_rng(0), 1, 60, 64)


def test_patches_agree_with_the_masks_of_the_pairs_manifest() -> None:
    silhouettes = np.random.default_rng(0).random((5, 64, 64)) < 0.01
    assert (human_patches(silhouettes, 8) == np.stack([patch_mask(one, 8) for one in silhouettes])).all()
