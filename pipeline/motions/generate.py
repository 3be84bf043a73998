"""Licence-free clips: key postures varied, mirrored, blended in time and set on the ground.

Stand in for AMASS in the synthetic data of paper section 3.2 and in the stand-in datasets.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from pipeline.bodies.model import BodyModel
from pipeline.motions.activities import ACTIVITIES
from pipeline.motions.amass import Motion
from pipeline.motions.posture import ANGLES, limited, mirrored, to_smpl
from pipeline.motions.stances import Keys

Array = NDArray[np.float64]

# Standard deviations in degrees: how a person differs from the next, and one repeat from the next.
STYLE_SPREAD, KEY_SPREAD, SWAY = 5.0, 4.0, 1.5
# What decides the balance varies less.
_BALANCE = ("pitch", "roll", "yaw", "bend", "lean", "thigh", "foot")
_SPREAD_SCALE = np.array([0.4 if angle.rpartition("_")[2] in _BALANCE else 1.0 for angle in ANGLES])
# Vertices this close to the lowest one stand on the floor, metres.
CONTACT = 0.015


def plan(num_subjects: int, clips_per_subject: int, rng: np.random.Generator) -> list[list[tuple[str, str]]]:
    """(dataset, activity) of every clip of every subject: datasets in turn, all activities before one repeats."""
    decks: dict[str, list[str]] = {dataset: [] for dataset in ACTIVITIES}
    names = list(ACTIVITIES)
    subjects = []
    for _ in range(num_subjects):
        clips = []
        for clip in range(clips_per_subject):
            dataset = names[clip % len(names)]
            if not decks[dataset]:
                activities = sorted(ACTIVITIES[dataset])
                decks[dataset] = [activities[index] for index in rng.permutation(len(activities))]
            clips.append((dataset, decks[dataset].pop()))
        subjects.append(clips)
    return subjects


def generate(
    body: BodyModel,
    keys: Keys,
    rng: np.random.Generator,
    betas: Array,
    seconds: float,
    fps: float,
    name: str,
    gender: str,
) -> Motion:
    """One clip of an activity, y up, starting above the origin, feet (or whatever is lowest) on y = 0."""
    times = np.arange(round(seconds * fps)) / fps
    angles = limited(_in_time(keys, rng, times) + _sway(rng, times))
    poses = to_smpl(angles)
    trans = grounded(body, poses, betas)
    return Motion(poses, trans, np.asarray(betas, float), gender, fps, name, up="y")


def grounded(body: BodyModel, poses: Array, betas: Array) -> Array:
    """(T, 3) translation, y up, that puts the lowest vertex on y = 0 and lets what stands on the floor not slide."""
    contact_tables = []
    pose = torch.from_numpy(poses).float()
    shape = torch.as_tensor(betas, dtype=torch.float32).view(1, -1)
    with torch.no_grad():
        for part in pose.split(64):
            contact_tables.append(body(shape, part[:, 3:], part[:, :3]).vertices.double().numpy())
    vertices = np.concatenate(contact_tables)
    height = vertices[:, :, 1] - vertices[:, :, 1].min(axis=1, keepdims=True)
    # Soft at the edge of contact, so that lifting a foot makes no jerk.
    touching = np.clip(1 - height / CONTACT, 0, None)
    weight = (touching[:-1] * touching[1:]) + 1e-9 * touching[:-1]
    slide = np.einsum("tv,tvc->tc", weight, vertices[1:] - vertices[:-1]) / weight.sum(axis=1, keepdims=True)
    trans = np.zeros((len(poses), 3))
    trans[1:, [0, 2]] = -np.cumsum(slide[:, [0, 2]], axis=0)
    trans[:, 1] = -vertices[:, :, 1].min(axis=1)
    return trans


def _in_time(keys: Keys, rng: np.random.Generator, times: Array) -> Array:
    """(T, A) the varied keys repeated over the clip and joined by monotone cubics, which never overshoot a limit."""
    yaw = ANGLES.index("yaw")
    tempo = rng.uniform(0.8, 1.25)
    style = rng.normal(0, STYLE_SPREAD, len(ANGLES)) * _SPREAD_SCALE
    flip, heading = rng.random() < 0.5, rng.uniform(-180, 180)
    knots: list[float] = []
    values: list[Array] = []
    clock, turned = -rng.uniform(0, 1), 0.0
    while not knots or knots[-1] <= times[-1]:
        for gap, key in keys:
            clock += gap * tempo * rng.uniform(0.9, 1.1)
            varied = key + style + rng.normal(0, KEY_SPREAD, len(ANGLES)) * _SPREAD_SCALE
            varied[yaw] += turned
            knots.append(clock)
            values.append(mirrored(varied) if flip else varied)
        # A full turn stays turned: the next repeat goes on from there.
        turned += 360 * round((keys[-1][1][yaw] - keys[0][1][yaw]) / 360)
    knots.insert(0, knots[0] - 2.0)
    values.insert(0, values[0])
    angles = PchipInterpolator(np.array(knots), limited(np.array(values)))(times)
    angles[:, yaw] += heading
    return angles


def _sway(rng: np.random.Generator, times: Array) -> Array:
    """(T, A) slow small movement of everything: nobody stands like a statue."""
    frequency = rng.uniform(0.15, 0.5, len(ANGLES))
    phase = rng.uniform(0, 2 * np.pi, len(ANGLES))
    return SWAY * _SPREAD_SCALE * np.sin(2 * np.pi * frequency * times[:, None] + phase)
