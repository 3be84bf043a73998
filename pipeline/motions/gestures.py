"""Licence-free motions of a hand: gestures within the limits of the joints, blended in time, the hand turning.

Stand in for the recordings of InterHand2.6M (paper section 3.1), where people make gestures
and move every finger through its range.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

from pipeline.bodies.fingers import FINGERS

Array = NDArray[np.float64]

ANGLES = ("first", "second", "third", "side")
"""Bend of the three joints of a finger from its root, and sideways at the root, away from the thumb; degrees."""
_FINGER_LIMITS = ((-15.0, 90.0), (0.0, 105.0), (0.0, 75.0), (-18.0, 18.0))
_THUMB_LIMITS = ((-12.0, 42.0), (-5.0, 55.0), (-10.0, 75.0), (-25.0, 25.0))
LIMITS = np.array([_THUMB_LIMITS if name == "thumb" else _FINGER_LIMITS for name in FINGERS])
"""(5, 4, 2) lowest and highest angle of each of FINGERS."""
_STRAIGHT, _FIST = np.array([2.0, 6.0, 4.0]), np.array([78.0, 98.0, 58.0])
_THUMB_OUT, _THUMB_IN = np.array([-8.0, 0.0, -4.0]), np.array([34.0, 44.0, 58.0])
# Sideways when the hand is spread; the template's is spread a little as it is.
_SPREAD = {"index": -13.0, "middle": -2.0, "ring": 7.0, "pinky": 15.0, "thumb": -18.0}
_CLOSED = {"index": 8.0, "middle": 1.0, "ring": -4.0, "pinky": -8.0, "thumb": 8.0}

GESTURES: dict[str, tuple[float, float, float, float, float, float]] = {
    "palm": (0, 0, 0, 0, 0, 0.4), "spread": (0, 0, 0, 0, 0, 1), "fist": (1, 1, 1, 1, 1, 0),
    "point": (1, 0, 1, 1, 1, 0.1), "two": (1, 0, 0, 1, 1, 0.7), "three": (1, 0, 0, 0, 1, 0.6),
    "four": (0.9, 0, 0, 0, 0, 0.6), "thumb up": (0, 1, 1, 1, 1, 0), "call": (0, 1, 1, 1, 0, 0.9),
    "horns": (0.9, 0, 1, 1, 0, 0.6), "ok": (0.6, 0.55, 0.05, 0.05, 0.05, 0.6), "pinch": (0.6, 0.5, 0.6, 0.7, 0.7, 0.2),
    "claw": (0.3, 0.45, 0.45, 0.45, 0.45, 0.7), "gun": (0, 0, 0, 1, 1, 0.2), "hook": (0.5, 0.6, 0.6, 0.6, 0.6, 0.1),
    "relaxed": (0.3, 0.2, 0.28, 0.34, 0.4, 0.2),
}  # fmt: skip
"""How far thumb, index, middle, ring and little finger are closed, 0 to 1, and how far the hand is spread."""
_ORDER = ("thumb", "index", "middle", "ring", "pinky")

# Seconds from one gesture to the next, and how long one is held.
CHANGE_S, HOLD_S = (0.35, 0.8), (0.0, 0.4)
# Standard deviations in degrees: a gesture made again, and the hand's own turns.
KEY_SPREAD, TURN_SPREAD = 6.0, 28.0


def gestures(rng: np.random.Generator, times: Array) -> Array:
    """(T, 5, 4) degrees in the order of FINGERS and ANGLES at T rising times in seconds, within LIMITS."""
    knots, keys = _keys(rng, float(times[-1]), lambda: _gesture(rng).ravel())
    return limited(PchipInterpolator(knots, keys)(times).reshape(len(times), len(FINGERS), len(ANGLES)))


def wander(rng: np.random.Generator, times: Array, spread: float) -> Array:
    """(T, 3) a point that moves from one random place to the next; `spread`: its standard deviation along each axis."""
    knots, keys = _keys(rng, float(times[-1]), lambda: rng.normal(0, spread, 3))
    return np.asarray(PchipInterpolator(knots, keys)(times))


def turns(rng: np.random.Generator, times: Array) -> Rotation:
    """T rotations of the hand about a resting attitude, the identity on average: slow turns of wrist and forearm."""
    return Rotation.from_rotvec(np.radians(wander(rng, times, TURN_SPREAD)))


def limited(angles: Array) -> Array:
    """(..., 5, 4) angles moved inside the joint limits."""
    return np.clip(angles, LIMITS[..., 0], LIMITS[..., 1])


def to_mano(angles: Array, axes: Array) -> Array:
    """(T, 5, 4) degrees -> (T, 45) axis-angle of MANO's finger joints, zero = flat hand.

    axes: (5, 2, 3) of `pipeline.bodies.fingers.finger_axes`.
    """
    radians = np.radians(angles)
    vectors = np.zeros((len(angles), len(FINGERS), 3, 3))
    for finger, (bend, side) in enumerate(axes):
        for joint in range(3):
            vectors[:, finger, joint] = radians[:, finger, joint, None] * bend
        root = Rotation.from_rotvec(radians[:, finger, 3, None] * side) * Rotation.from_rotvec(vectors[:, finger, 0])
        vectors[:, finger, 0] = root.as_rotvec()
    return vectors.reshape(len(angles), 45)


def _keys(rng: np.random.Generator, end: float, draw: Callable[[], Array]) -> tuple[Array, Array]:
    """Times and values of keys that are each held a while, from before 0 until after `end`."""
    knots, values = [-rng.uniform(*CHANGE_S)], [draw()]
    while knots[-1] <= end:
        value = draw()
        knots.append(knots[-1] + rng.uniform(*CHANGE_S))
        values.append(value)
        if (hold := rng.uniform(*HOLD_S)) > 0.1:
            knots.append(knots[-1] + hold)
            values.append(value)
    return np.array(knots), np.array(values)


def _gesture(rng: np.random.Generator) -> Array:
    """(5, 4) a known gesture made in a way of its own, or one of no name."""
    if rng.random() < 0.65:
        *named, spread = list(GESTURES.values())[rng.integers(len(GESTURES))]
        closed = np.clip(np.array(named) + rng.normal(0, 0.06, 5), 0, 1)
    else:
        # Neighbouring fingers go together more often than not.
        closed, spread = np.clip(0.5 * rng.random() + rng.uniform(-0.1, 0.6, 5), 0, 1), rng.random()
    angles = np.zeros((len(FINGERS), len(ANGLES)))
    for row, finger in enumerate(FINGERS):
        share = closed[_ORDER.index(finger)]
        straight, bent = (_THUMB_OUT, _THUMB_IN) if finger == "thumb" else (_STRAIGHT, _FIST)
        angles[row, :3] = straight + share * (bent - straight)
        # A bent finger can not be spread.
        angles[row, 3] = (_CLOSED[finger] + spread * (_SPREAD[finger] - _CLOSED[finger])) * (1 - 0.8 * share)
    angles[:, :3] += rng.normal(0, KEY_SPREAD, (len(FINGERS), 3))
    angles[:, 3] += rng.normal(0, 0.3 * KEY_SPREAD, len(FINGERS))
    return limited(angles)
