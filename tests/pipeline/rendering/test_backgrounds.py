"""Stand-in photographs: repeatable, all different, with detail."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.rendering.backgrounds import standin_photo


@pytest.mark.parametrize("size", [(160, 120), (97, 141)])
def test_a_seed_gives_one_picture_of_the_asked_size(size: tuple[int, int]) -> None:
    first, again = (standin_photo(np.random.default_rng(4), *size) for _ in range(2))
    assert first.shape == (size[1], size[0], 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)


def test_pictures_differ_and_none_is_blank() -> None:
    pictures = [standin_photo(np.random.default_rng(seed), 80, 60).astype(float) for seed in range(30)]
    assert min(picture.std() for picture in pictures) > 6
    assert min(np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]) > 8
