"""Rays meet solids where geometry says, whatever their turn; what stands between two points hides them."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.rendering.cameras import Camera, look_at
from pipeline.rendering.solids import Ball, Box, Cylinder, Group, Solid, Texture, clear, look

GREY = Texture(np.full((1, 1, 3), 128.0), (1.0, 1.0))
SIZE = (41, 41)
"""Odd, so that the middle pixel looks along the optical axis."""


def seen_from(eye: tuple[float, float, float], solids: list[Solid], target: tuple[float, float, float] = (0, 0, 0)):
    return look(solids, camera(eye, target), SIZE)


def camera(eye: tuple[float, float, float], target: tuple[float, float, float] = (0, 0, 0)) -> Camera:
    return look_at(np.array(eye), np.array(target), SIZE, focal=40.0)


@pytest.mark.parametrize(
    ("solid", "distance"),
    [
        (Box(np.zeros(3), np.array([1.0, 2.0, 0.5]), GREY), 4.5),
        (Box(np.zeros(3), np.array([1.0, 2.0, 0.5]), GREY, np.pi / 2), 4.0),
        (Box(np.zeros(3), np.array([1.0, 2.0, 1.0]), GREY, np.pi / 4), 5 - np.sqrt(2)),
        (Cylinder(np.zeros(3), np.array([0.7, 1.0, 0.7]), GREY), 4.3),
        (Ball(np.array([0.0, 0.0, 1.0]), np.full(3, 0.5), GREY), 3.5),
        (Ball(np.zeros(3), np.array([1.0, 1.0, 0.25]), GREY), 4.75),
    ],
)
def test_the_middle_ray_ends_on_the_surface(solid: Solid, distance: float) -> None:
    seen = seen_from((0, 0, 5), [solid])
    assert seen.depth[20, 20] == pytest.approx(distance, abs=1e-4)
    assert seen.solid[20, 20] == 0
    assert seen.points[20, 20] == pytest.approx([0, 0, 5 - distance], abs=1e-4)
    # Depth is counted along the axis: off the middle, points lie where their pixel says.
    v, u = np.argwhere(seen.solid == 0)[0]
    assert camera((0, 0, 5)).project(seen.points[v, u][None])[0] == pytest.approx([u + 0.5, v + 0.5], abs=1e-2)


def test_rays_that_meet_nothing_have_no_end() -> None:
    seen = seen_from((0, 0, 5), [Box(np.array([0, 0, 9.0]), np.ones(3), GREY)])
    assert (seen.solid == -1).all()
    assert np.isinf(seen.depth).all()


def test_the_nearest_is_seen_in_whichever_order_they_come() -> None:
    near, far = Ball(np.array([0, 0, 2.0]), np.full(3, 0.3), GREY), Box(np.zeros(3), np.full(3, 1.0), GREY)
    for solids in ([near, far], [far, near]):
        seen = seen_from((0, 0, 5), solids)
        assert solids[seen.solid[20, 20]] is near
        assert {solids[number] for number in np.unique(seen.solid) if number >= 0} == {near, far}


def test_what_is_partly_behind_the_camera_is_drawn_whole() -> None:
    floor = Box(np.array([0, -1.0, 0]), np.array([50.0, 0.5, 50.0]), GREY)
    seen = seen_from((0, 0, 5), [floor])
    assert (seen.solid[-1] == 0).all()
    assert (seen.solid[0] == -1).all()
    np.testing.assert_allclose(seen.points[-1, :, 1], -0.5, atol=1e-4)


def test_a_cylinder_has_lids_and_sides() -> None:
    tin = Cylinder(np.zeros(3), np.array([1.0, 0.5, 1.0]), GREY)
    points = np.array([[0.2, 0.5, 0.1], [0.0, 0.1, 1.0], [1.0, 0.0, 0.0]], np.float32)
    normals, places = tin.describe(points)
    np.testing.assert_allclose(normals, [[0, 1, 0], [0, 0, 1], [1, 0, 0]], atol=0.11)
    assert places[2, 0] - places[1, 0] == pytest.approx(np.pi / 2, abs=1e-3)


def test_normals_of_a_turned_and_stretched_solid_stand_on_its_surface() -> None:
    egg = Ball(np.array([0.3, 0.1, 0.0]), np.array([1.0, 0.4, 0.6]), GREY, turn=0.7)
    seen = seen_from((0, 1, 5), [egg])
    rows, columns = slice(18, 23), slice(18, 23)
    points = seen.points[rows, columns].reshape(-1, 3)
    normals, _ = egg.describe(points)
    along = points[[13, 17]] - points[[11, 7]]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert np.abs(along @ normals[12]).max() < 0.03 * np.linalg.norm(along, axis=1).min()
    assert normals[12] @ (np.array([0, 1, 5]) - points[12]) > 0


def test_moving_a_solid_moves_what_is_seen_of_it() -> None:
    box = Box(np.array([0.5, 0.2, 0.3]), np.array([0.2, 0.4, 0.6]), GREY, turn=0.3)
    turned = box.moved(np.array([1.0, 0.0, 2.0]), np.pi / 2)
    # A quarter turn takes z to x and x to -z.
    to = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    np.testing.assert_allclose(turned.corners, box.corners @ to.T + [1, 0, 2], atol=1e-6)


def test_a_solid_hides_what_is_behind_it_and_not_what_it_is_made_of() -> None:
    screen = Group((Box(np.zeros(3), np.array([1.0, 1.0, 0.1]), GREY), Ball(np.array([5.0, 0, 0]), np.ones(3), GREY)))
    points = np.array([[0, 0, -2.0], [0, 0, 0.1], [0, 0, -0.1], [3.0, 0, -2.0], [0, 0, 2.0]])
    assert clear([screen], points, np.array([0, 0, 4.0])).tolist() == [False, True, False, True, True]


def test_the_bound_of_a_group_holds_all_its_parts() -> None:
    parts = tuple(Box(np.array([x, 0.0, -x]), np.full(3, 0.3), GREY, turn=x) for x in (-1.0, 0.5, 2.0))
    bound = Group(parts).bound
    corners = np.concatenate([part.corners for part in parts])
    assert (np.abs(corners - bound.centre) <= bound.half + 1e-9).all()
    assert (np.abs(corners - bound.centre) >= bound.half - 1e-9).any(axis=0).all()


def test_a_texture_repeats_and_blurs_with_the_width_of_a_sample() -> None:
    checks = Texture(np.indices((8, 8)).sum(axis=0)[..., None] % 2 * np.full(3, 200.0), (0.8, 0.8))
    places = np.array([[0.05, 0.05], [0.15, 0.05], [0.85, 0.05], [-0.05, 0.05]], np.float32)
    sharp = checks.colours(places, np.full(4, 0.01))
    assert sharp[:, 0].tolist() == [0, 200, 0, 200]
    assert checks.colours(places, np.full(4, 1.0))[:, 0] == pytest.approx([100] * 4)
