"""Rooms: closed, furnished, lit by a lamp that throws shadows, and the same for the same numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.rendering.cameras import Camera, look_at
from pipeline.rendering.rooms import Room, random_room

SIZE = (48, 64)


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    return [random_room(np.random.default_rng(seed)) for seed in range(12)]


def standing(room: Room, seed: int = 0) -> Camera:
    """A camera in the room that looks at its middle, a little downwards."""
    rng = np.random.default_rng(seed)
    while True:
        x, z = rng.uniform(-0.5, 0.5, 2) * room.size[[0, 2]]
        if room.is_free(np.array([x, z])) and np.hypot(x, z) > 0.5:
            return look_at(np.array([x, 1.6, z]), np.array([0.0, 0.9, 0.0]), SIZE, focal=0.87 * SIZE[1])


def test_every_ray_ends_in_the_room(rooms: list[Room]) -> None:
    for room in rooms:
        seen = room.look(standing(room), SIZE)
        assert (seen.solid >= 0).all()
        low, high = np.array([-0.5, 0, -0.5]) * room.size, np.array([0.5, 1, 0.5]) * room.size
        assert (seen.points > low - 0.01).all() and (seen.points < high + 0.01).all()


def test_furniture_stands_on_the_floor_in_the_room_and_apart(rooms: list[Room]) -> None:
    for room in rooms:
        assert 5 <= len(room.furniture) <= 13
        bounds = [piece.bound for piece in room.furniture]
        for number, bound in enumerate(bounds):
            assert bound.centre[1] - bound.half[1] == pytest.approx(0, abs=0.15)
            assert (np.abs(bound.centre) + bound.half - room.size / 2)[[0, 2]].max() < 0.03
            for other in bounds[:number]:
                apart = np.abs(bound.centre - other.centre) - bound.half - other.half
                assert apart[0] > 0 or apart[2] > 0


def test_nobody_stands_in_furniture_or_walls(rooms: list[Room]) -> None:
    room = rooms[0]
    middle = room.furniture[0].bound.centre[[0, 2]]
    assert not room.is_free(middle)
    assert not room.is_free(room.size[[0, 2]] / 2 - 0.1)
    seen = room.look(standing(room), SIZE)
    assert seen.depth.min() > 0.1


def test_the_same_numbers_give_the_same_picture_and_others_another(rooms: list[Room]) -> None:
    camera = standing(rooms[0])
    picture = rooms[0].photograph(camera, SIZE)
    assert picture.shape == (*SIZE, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, random_room(np.random.default_rng(0)).photograph(camera, SIZE))
    other = rooms[1].photograph(standing(rooms[1]), SIZE)
    assert np.abs(picture.astype(float) - other).mean() > 15


def test_surfaces_can_be_told_apart(rooms: list[Room]) -> None:
    for room in rooms:
        picture = room.photograph(standing(room), SIZE).reshape(-1, 3)
        assert len(np.unique(picture // 24, axis=0)) > 25
        assert 15 < picture.mean() < 230


def test_the_lamp_throws_shadows(rooms: list[Room]) -> None:
    darker = 0
    for room in rooms:
        camera = standing(room)
        without = replace(room, furniture=()).look(camera, SIZE)
        picture = room.photograph(camera, SIZE).astype(float)
        seen = room.look(camera, SIZE)
        floor = (seen.solid == 0) & (without.solid == 0)
        lit = np.zeros(SIZE, bool)
        lit[floor] = room.clear(seen.points[floor], room.lamp)
        if min(lit[floor].sum(), (~lit[floor]).sum()) > 20:
            assert picture[floor & ~lit].mean() < 0.9 * picture[floor & lit].mean()
            darker += 1
    assert darker > 3
