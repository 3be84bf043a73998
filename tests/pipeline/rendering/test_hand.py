"""A hand with its arm: closed, mirrored into the other hand, and looking like nobody else's."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.bodies.model import BodyModel
from pipeline.rendering.cameras import Camera, framed
from pipeline.rendering.clothes import Look
from pipeline.rendering.hand_skin import random_hand_look
from pipeline.rendering.hand_surface import MAX_WRIST, TO_ELBOW, HandSurface
from pipeline.rendering.renderer import Person, Renderer, SceneView

EVEN = np.array([1.0] + 8 * [0.0])
"""Light from everywhere alike."""
MIRROR = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def hand(hand_arrays: dict[str, np.ndarray]) -> BodyModel:
    return BodyModel(hand_arrays, "mano")


@pytest.fixture(scope="module")
def surface(hand: BodyModel) -> HandSurface:
    return HandSurface(hand)


@pytest.fixture(scope="module")
def look_of_hand(surface: HandSurface) -> Look:
    return random_hand_look(np.random.default_rng(0), surface, 256)


def straight(surface: HandSurface, cuff: float = 0.2) -> NDArray[np.float32]:
    return surface.vertices(surface.hand.template_vertices, np.eye(3), TO_ELBOW, cuff)


def test_the_surface_is_closed_and_faces_outwards(surface: HandSurface) -> None:
    edges = Counter((int(a), int(b)) for face in surface.faces for a, b in zip(face, np.roll(face, -1), strict=True))
    assert set(edges.values()) == {1}
    assert all((b, a) in edges for a, b in edges)
    a, b, c = straight(surface).astype(np.float64)[surface.faces].transpose(1, 0, 2)
    volume = np.einsum("fc,fc->", a, np.cross(b, c)) / 6
    # A hand holds some 0.35 litres, a forearm in its sleeve three times that.
    assert 0.0007 < volume < 0.003


def test_the_hand_keeps_its_vertices_and_the_arm_goes_to_the_elbow(surface: HandSurface) -> None:
    vertices = straight(surface)
    assert vertices.shape == (surface.num_vertices, 3)
    np.testing.assert_array_equal(vertices[: surface.hand.num_vertices], surface.hand.template_vertices.astype("f4"))
    assert vertices[:, 0].max() - surface.joints[0, 0] == pytest.approx(0.42, abs=0.02)


def test_a_wrist_bends_with_the_forearm_but_no_further_than_it_can(surface: HandSurface) -> None:
    hand = surface.hand.template_vertices
    for degrees, expected in ((0, 0), (40, 40), (150, np.degrees(MAX_WRIST))):
        towards = Rotation.from_rotvec([0, 0, np.radians(degrees)]).apply(TO_ELBOW)
        arm = surface.vertices(hand, np.eye(3), towards, 0.2)[surface.hand.num_vertices :].astype(np.float64)
        ring = len(arm) // 10
        axis = arm[-1] - arm[-1 - 2 * ring : -1 - ring].mean(axis=0)
        assert np.degrees(np.arctan2(axis[1], axis[0])) == pytest.approx(expected, abs=3)


def test_a_mirrored_hand_looks_as_the_hand_does_in_a_mirror(surface: HandSurface, look_of_hand: Look) -> None:
    vertices, size = straight(surface), (96, 96)
    background = np.zeros((*size, 3), np.uint8)
    camera = framed(surface.hand.template_vertices, 0.6, 0.5, 0.8, size)
    across = Camera(camera.K, np.diag([-1.0, 1, 1]) @ camera.R @ np.diag(MIRROR), camera.t * [-1, 1, 1])
    with Renderer(surface) as renderer:
        person = Person(vertices, vertices[:1], look_of_hand)
        right = renderer.render(SceneView((person,), camera, EVEN, background))
        other = Person(vertices * MIRROR.astype("f4"), vertices[:1], look_of_hand, mirrored=True)
        left = renderer.render(SceneView((other,), across, EVEN, background))
        inside_out = Person(other.vertices, vertices[:1], look_of_hand)
        wrong = renderer.render(SceneView((inside_out,), across, EVEN, background))
    assert right.silhouette.mean() > 0.1
    assert (left.silhouette[:, ::-1] == right.silhouette).mean() > 0.99
    nearer = (left.depth[:, ::-1] - right.depth)[right.silhouette]
    assert np.abs(np.median(nearer)) < 1e-3
    assert np.abs(left.image[:, ::-1].astype(int) - right.image).mean() < 1
    # Drawn as it is, the mirrored hand would be seen from within.
    inside = (wrong.depth[:, ::-1] - right.depth)[right.silhouette & wrong.silhouette[:, ::-1]]
    assert np.median(inside) > 0.01


def test_no_view_of_a_hand_shows_its_inside(surface: HandSurface, look_of_hand: Look) -> None:
    vertices, size = straight(surface), (64, 64)
    a, b, c = vertices[surface.faces].transpose(1, 0, 2)
    normals = np.cross(b - a, c - a)
    with Renderer(surface) as renderer:
        for azimuth in np.radians([0, 60, 120, 180, 240, 300]):
            camera = framed(vertices.astype(np.float64), azimuth, 0.4, 0.9, size)
            view = SceneView((Person(vertices, vertices[:1], look_of_hand),), camera, EVEN, np.zeros((*size, 3), "u1"))
            seen = np.unique(renderer.render(view).face)
            seen = seen[seen >= 0]
            towards = camera.centre - a[seen]
            assert (np.einsum("fc,fc->f", normals[seen], towards) > -1e-9).all()


def test_palms_of_dark_hands_are_lighter_than_their_backs(surface: HandSurface) -> None:
    texels, found = surface.texels(128), 0
    on_hand = (texels.along_arm < 0) & (texels.position[:, 0] < 0.05)
    palm, back = on_hand & (texels.normal[:, 1] < -0.6), on_hand & (texels.normal[:, 1] > 0.6)
    for seed in range(20):
        colour = np.zeros((len(texels.position), 3))
        colour[texels.index.ravel()] = random_hand_look(np.random.default_rng(seed), surface, 128).texture.reshape(
            -1, 3
        )
        if np.median(colour[back]) < 110:
            found += 1
            assert np.median(colour[palm]) > np.median(colour[back]) + 20
    assert found > 2


def test_every_person_has_hands_of_their_own_and_the_range_of_skin_is_wide(surface: HandSurface) -> None:
    texels = surface.texels(128)
    looks = [random_hand_look(np.random.default_rng(seed), surface, 128) for seed in range(40)]
    again = random_hand_look(np.random.default_rng(0), surface, 128)
    np.testing.assert_array_equal(looks[0].texture, again.texture)
    hand = np.isin(texels.index, np.flatnonzero(texels.along_arm < 0))
    brightness = np.array([np.median(look.texture[hand]) for look in looks])
    assert brightness.min() < 90
    assert brightness.max() > 200
    pairs = [(i, j) for i in range(40) for j in range(i)]
    differ = [np.abs(looks[i].texture.astype(int) - looks[j].texture)[hand].mean() for i, j in pairs]
    assert min(differ) > 2
