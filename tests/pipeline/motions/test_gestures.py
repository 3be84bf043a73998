"""Gestures stay within what a hand can do, move smoothly, and bend the way fingers bend."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.bodies.anatomy import MANO_TIP_NAMES
from pipeline.bodies.fingers import FINGERS, finger_axes
from pipeline.bodies.model import BodyModel
from pipeline.motions.gestures import ANGLES, GESTURES, LIMITS, gestures, to_mano, turns

TIMES = np.arange(300) / 30.0


@pytest.fixture(scope="module")
def hand(hand_arrays: dict[str, np.ndarray]) -> BodyModel:
    return BodyModel(hand_arrays, "mano")


@pytest.fixture(scope="module")
def axes(hand: BodyModel) -> NDArray:
    return finger_axes(hand.joint_regressor @ hand.template_vertices)


def tips(hand: BodyModel, pose: NDArray) -> dict[str, NDArray]:
    """(3,) of each finger of the unturned hand."""
    with torch.no_grad():
        out = hand(torch.zeros(1, 10), torch.from_numpy(pose[None]).float(), torch.zeros(1, 3))
    return dict(zip(MANO_TIP_NAMES, out.vertices[0, hand.tip_vertices].double().numpy(), strict=True))


def bent(finger: str, **degrees: float) -> NDArray:
    angles = np.zeros((1, len(FINGERS), len(ANGLES)))
    for name, value in degrees.items():
        angles[0, FINGERS.index(finger), ANGLES.index(name)] = value
    return angles


@pytest.mark.parametrize("seed", range(5))
def test_angles_stay_within_the_limits_of_the_joints(seed: int) -> None:
    angles = gestures(np.random.default_rng(seed), TIMES)
    assert angles.shape == (300, 5, 4)
    assert (angles >= LIMITS[..., 0]).all()
    assert (angles <= LIMITS[..., 1]).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_hand_moves_smoothly_and_does_not_stand_still(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles, turned = gestures(rng, TIMES), turns(rng, TIMES)
    # From straight to bent in the shortest change there is, at half again its mean speed.
    assert np.abs(np.diff(angles, axis=0)).max() < 1.6 * 110 / 0.35 / 30
    assert np.ptp(angles[..., :2], axis=0).max() > 40
    assert np.degrees((turned[:-1].inv() * turned[1:]).magnitude()).max() < 25
    assert np.degrees((turned[0].inv() * turned).magnitude()).max() > 20


def test_the_same_generator_makes_the_same_gestures_and_another_others() -> None:
    one, again, other = (gestures(np.random.default_rng(seed), TIMES[:50]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 10


def test_zero_angles_are_the_flat_hand(axes: NDArray) -> None:
    assert (to_mano(np.zeros((2, 5, 4)), axes) == 0).all()


@pytest.mark.parametrize("finger", ["index", "middle", "ring", "pinky"])
def test_fingers_bend_towards_the_palm(finger: str, hand: BodyModel, axes: NDArray) -> None:
    flat = tips(hand, np.zeros(45))
    curled = tips(hand, to_mano(bent(finger, first=60, second=60, third=40), axes)[0])
    assert curled[finger][1] < flat[finger][1] - 0.03
    assert curled[finger][0] > flat[finger][0] + 0.02
    for other in set(MANO_TIP_NAMES) - {finger}:
        np.testing.assert_allclose(curled[other], flat[other], atol=1e-6)


def test_a_bent_thumb_crosses_the_palm(hand: BodyModel, axes: NDArray) -> None:
    flat = tips(hand, np.zeros(45))["thumb"]
    closed = tips(hand, to_mano(bent("thumb", first=34, second=44, third=58), axes)[0])["thumb"]
    assert closed[2] < flat[2] - 0.03  # the little finger lies at -z


@pytest.mark.parametrize(("finger", "neighbour"), [("index", "middle"), ("pinky", "ring"), ("thumb", "index")])
def test_fingers_spread_away_from_each_other(finger: str, neighbour: str, hand: BodyModel, axes: NDArray) -> None:
    flat = tips(hand, np.zeros(45))
    spread = -15.0 if finger != "pinky" else 15.0
    moved = tips(hand, to_mano(bent(finger, side=spread), axes)[0])
    before, after = (np.linalg.norm(found[finger] - flat[neighbour]) for found in (flat, moved))
    assert after > before + 0.003


def test_every_known_gesture_says_how_far_five_fingers_are_closed() -> None:
    for closed in GESTURES.values():
        assert len(closed) == 6
        assert 0 <= min(closed) <= max(closed) <= 1
