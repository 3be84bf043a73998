"""Cameras look where they are told and keep people in the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rendering.cameras import Camera, direction, frame_share, framed, hand_held, look_at, ring, sample_around
from pipeline.rendering.renderer import Person

SIZE = (112, 128)
coordinates = st.floats(-5, 5)


@given(
    azimuth=st.floats(0, 6.3), elevation=st.floats(-1.4, 1.4), distance=st.floats(0.5, 20),
    x=coordinates, y=coordinates, z=coordinates, roll=st.floats(-3, 3),
)  # fmt: skip
def test_a_camera_sees_its_target_in_the_middle_at_its_distance(
    azimuth: float, elevation: float, distance: float, x: float, y: float, z: float, roll: float
) -> None:
    target = np.array([x, y, z])
    camera = look_at(target + distance * direction(azimuth, elevation), target, SIZE, 200.0, roll)
    np.testing.assert_allclose(camera.R @ camera.R.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(camera.R) == pytest.approx(1)
    np.testing.assert_allclose(camera.project(target[None])[0], [64, 56], atol=1e-6)
    assert camera.to_camera(target[None])[0, 2] == pytest.approx(distance)
    np.testing.assert_allclose(camera.to_camera(camera.centre[None]), 0, atol=1e-6)


def test_what_is_higher_in_the_world_is_higher_in_the_image() -> None:
    camera = look_at(np.array([0, 0, 5.0]), np.zeros(3), SIZE, 200.0)
    above, left_hand = camera.project(np.array([[0, 0.5, 0], [0.5, 0, 0]]))
    assert above[1] < 56
    # Someone who faces the camera (+z) has their left, +x, on the right of the image.
    assert left_hand[0] > 64


def test_points_behind_the_camera_have_no_pixel() -> None:
    camera = look_at(np.array([0, 0, 5.0]), np.zeros(3), SIZE, 200.0)
    assert np.isnan(camera.project(np.array([[0, 0, 6.0]]))).all()


@pytest.mark.parametrize("eye", [(0, 0, 0), (0, 3, 0)])
def test_a_camera_needs_a_line_of_sight_that_is_not_vertical(eye: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="can not look"):
        look_at(np.array(eye), np.zeros(3), SIZE, 200.0)


@given(seed=st.integers(0, 2**32))
def test_the_framed_box_fills_the_asked_share(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(50, 3)) * rng.uniform(0.2, 1.0, 3)
    fill = rng.uniform(0.3, 0.8)
    camera = framed(points, rng.uniform(0, 6), rng.uniform(-0.2, 0.8), fill, SIZE)
    pixels = camera.project(points)
    assert (np.ptp(pixels, axis=0) / [SIZE[1], SIZE[0]]).max() == pytest.approx(fill, rel=0.05)


def test_sampled_cameras_hold_every_vertex_and_the_asked_share(person: Person) -> None:
    rng = np.random.default_rng(0)
    cameras = sample_around(rng, person.vertices, SIZE, 24)
    shares = [frame_share(camera, person.vertices, SIZE) for camera in cameras]
    assert len(cameras) == 24
    assert min(shares) >= 0.47
    assert max(shares) <= 0.95
    heights = [
        np.arcsin((c.centre[1] - person.joints[0, 1]) / np.linalg.norm(c.centre - person.joints[0])) for c in cameras
    ]
    assert min(heights) > -0.35
    assert max(heights) < 0.95
    # From all around.
    azimuth = np.array([np.arctan2(camera.centre[0], camera.centre[2]) for camera in cameras])
    assert np.abs(np.exp(1j * azimuth).mean()) < 0.5


def test_a_body_that_never_fits_is_refused() -> None:
    points = np.random.default_rng(0).normal(size=(100, 3))
    with pytest.raises(RuntimeError, match="no 1 views"):
        sample_around(np.random.default_rng(0), points, SIZE, 1, fill=(2.0, 2.1))


def test_a_ring_stands_evenly_around_and_sees_the_whole_motion(person: Person) -> None:
    moving = np.concatenate([person.vertices + np.array([x, 0, 0]) for x in (-0.3, 0.3)])
    cameras = ring(np.random.default_rng(0), moving, SIZE, 6)
    azimuth = np.unwrap([np.arctan2(camera.centre[0], camera.centre[2]) for camera in cameras])
    assert (np.abs(np.diff(azimuth) - np.pi / 3) < 0.45).all()
    assert all(frame_share(camera, moving, SIZE) <= 1.0 for camera in cameras)


def test_a_carried_camera_follows_and_moves_smoothly() -> None:
    walk = np.stack([np.linspace(0, 4, 90), np.full(90, 1.0), np.zeros(90)], axis=1)
    cameras: list[Camera] = hand_held(np.random.default_rng(1), walk, 1.8, SIZE, fps=30.0, azimuth=0.5)
    seen = np.array([camera.project(centre[None])[0] for camera, centre in zip(cameras, walk, strict=True)])
    assert ((seen > 0.15 * np.array(SIZE[::-1])) & (seen < 0.85 * np.array(SIZE[::-1]))).all()
    steps = np.linalg.norm(np.diff([camera.centre for camera in cameras], axis=0), axis=1)
    assert steps.max() < 0.35
