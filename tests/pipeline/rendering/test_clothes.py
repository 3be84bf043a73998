"""Looks are complete, repeatable, labelled on the right side and without breaks at texture seams."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from pipeline.bodies.anatomy import CIHP_NAMES
from pipeline.bodies.model import BodyModel
from pipeline.rendering.clothes import Look, random_look
from pipeline.rendering.painter import Painter
from pipeline.rendering.patterns import PATTERNS, _between
from pipeline.rendering.texels import texels_of


@pytest.fixture(scope="module")
def looks(body: BodyModel) -> list[Look]:
    return [random_look(np.random.default_rng(seed), body) for seed in range(60)]


def names(look: Look) -> set[str]:
    return {CIHP_NAMES[label] for label in np.unique(look.labels)}


def test_the_same_seed_gives_the_same_look(body: BodyModel, looks: list[Look]) -> None:
    again = random_look(np.random.default_rng(5), body)
    assert again.texture.tobytes() == looks[5].texture.tobytes()
    assert again.labels.tobytes() == looks[5].labels.tobytes()


def test_other_seeds_give_other_looks(looks: list[Look]) -> None:
    pictures = np.stack([look.texture.astype(float) for look in looks[:20]])
    differences = [np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(differences) > 8


def test_every_texel_has_a_class_of_a_person(looks: list[Look]) -> None:
    for look in looks:
        assert look.texture.shape == (256, 256, 3) and look.labels.shape == (256, 256)
        assert look.labels.min() >= 1 and look.labels.max() <= 19


def test_every_look_has_a_face_and_something_worn(looks: list[Look]) -> None:
    for look in looks:
        assert "face" in names(look)
        assert names(look) & {"upper_clothes", "dress", "coat"}
        assert names(look) & {"pants", "skirt", "dress"}


def test_all_nineteen_classes_occur(looks: list[Look]) -> None:
    assert set().union(*map(names, looks)) == set(CIHP_NAMES) - {"background"}


def test_left_classes_are_on_the_left_of_the_body(body: BodyModel, looks: list[Look]) -> None:
    x = texels_of(body, 256).spread(texels_of(body, 256).position)[..., 0]
    for look in looks:
        for part in ("arm", "leg", "shoe"):
            assert (x[look.labels == CIHP_NAMES.index(f"left_{part}")] > 0).all()
            assert (x[look.labels == CIHP_NAMES.index(f"right_{part}")] < 0).all()


def test_skin_tones_span_from_dark_to_light(body: BodyModel, looks: list[Look]) -> None:
    shown = [look.texture[look.labels == CIHP_NAMES.index("face")].mean() for look in looks]
    assert min(shown) < 75 and max(shown) > 190


def test_front_and_back_usually_differ(body: BodyModel, looks: list[Look]) -> None:
    texels = texels_of(body, 256)
    chest = texels.within("chest", "abdomen")
    mean = []
    for look in looks:
        colour = np.zeros((len(texels.position), 3))
        colour[texels.index.ravel()] = look.texture.reshape(-1, 3)
        front, back = (colour[chest & (sign * texels.normal[:, 2] > 0.4)].mean(axis=0) for sign in (1, -1))
        mean.append(np.abs(front - back).max())
    assert np.median(mean) > 4


def test_colours_go_on_across_the_seams_of_the_texture(body: BodyModel, looks: list[Look]) -> None:
    texels = texels_of(body, 256)
    # One place on the texture for every texel on the body: its first in reading order.
    _, flat = np.unique(texels.index.ravel(), return_index=True)
    place = np.stack(np.divmod(flat, 256), axis=1)
    close = cKDTree(texels.position).query_pairs(0.004, output_type="ndarray")
    apart = np.abs(place[close[:, 0]] - place[close[:, 1]]).max(axis=1)
    # Lips, lids and toes touch without being one surface.
    agree = (texels.normal[close[:, 0]] * texels.normal[close[:, 1]]).sum(axis=1) > 0.8
    seams = close[(apart > 20) & agree & ~texels.within("face")[close].any(axis=1)]
    assert len(seams) > 100
    for look in looks[:10]:
        colour = look.texture.reshape(-1, 3)[flat].astype(float)
        assert np.abs(colour[seams[:, 0]] - colour[seams[:, 1]]).mean() < 5


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_give_a_colour_everywhere(pattern: str) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (500, 3))
    colours = PATTERNS[pattern][1](rng, points[:, 1], points[:, 0], points)
    assert colours.shape == (500, 3)
    assert np.isfinite(colours).all() and colours.min() >= 0 and colours.max() <= 255


def test_noise_runs_straight_between_the_points_of_its_lattice() -> None:
    rng = np.random.default_rng(0)
    lattice = rng.uniform(-1, 1, (16, 16, 16)).astype(np.float32)
    points = rng.uniform(-40, 40, (3, 1000)).astype(np.float32)
    expected = map_coordinates(lattice, points, order=1, mode="grid-wrap")
    np.testing.assert_allclose(_between(lattice, points), expected, atol=1e-4)


def test_a_garment_of_no_texels_has_no_colours(body: BodyModel) -> None:
    painter = Painter(np.random.default_rng(0), texels_of(body, 64))
    assert painter.cloth(np.zeros(len(painter.colour), bool)).shape == (0, 3)


def test_a_body_without_regions_is_refused(body: BodyModel) -> None:
    regions, body.face_regions = body.face_regions, None
    try:
        with pytest.raises(ValueError, match="surface regions"):
            random_look(np.random.default_rng(0), body)
    finally:
        body.face_regions = regions
