from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.bodies import SMPL_JOINT_NAMES, flip_pose
from pipeline.bodies.model import BodyModel
from pipeline.motions import read_folder, sample_frames, sample_poses, split_by_subject
from pipeline.motions.__main__ import write_motions
from pipeline.motions.activities import ACTIVITIES
from pipeline.motions.generate import generate, plan
from pipeline.motions.posture import ANGLES, LIMITS, limited, mirrored, posture, to_smpl
from pipeline.run_spec import Motions

ALL_ACTIVITIES = [(dataset, name) for dataset, activities in ACTIVITIES.items() for name in activities]


def joints_of(body: BodyModel, pose: np.ndarray) -> dict[str, np.ndarray]:
    pose = torch.from_numpy(pose).float()
    joints = body(torch.zeros(1, 10), pose[:, 3:], pose[:, :3]).joints[0].numpy()
    return dict(zip(SMPL_JOINT_NAMES, joints, strict=True))


def test_the_words_of_a_posture_mean_what_they_say(stick_figure: BodyModel) -> None:
    def at(**degrees: float) -> dict[str, np.ndarray]:
        return joints_of(stick_figure, to_smpl(posture(**degrees)[None]))

    rest = at()
    assert rest["left_wrist"][1] < rest["left_shoulder"][1] - 0.4
    assert at(left_raise=90, left_forward=90, left_elbow=0)["left_wrist"][2] > 0.4
    assert at(left_raise=90, left_elbow=0)["left_wrist"][0] > 0.6
    assert at(right_raise=165, right_elbow=0)["right_wrist"][1] > rest["right_shoulder"][1] + 0.4
    assert at(right_elbow=90)["right_wrist"][2] > rest["right_wrist"][2] + 0.15
    assert at(left_thigh=90)["left_knee"][2] > 0.3
    assert at(left_spread=40)["left_ankle"][0] > rest["left_ankle"][0] + 0.3
    assert at(left_knee=90)["left_ankle"][2] < -0.3
    assert at(bend=60)["head"][2] > 0.25
    assert at(lean=30)["head"][0] > 0.1
    assert at(twist=40)["left_shoulder"][2] < -0.05
    assert at(pitch=80)["head"][2] > 0.5


@pytest.mark.parametrize("thigh,knee,pitch", [(0, 0, 0), (40, 60, 10), (80, 90, 15)])
def test_a_foot_left_alone_stands_level(thigh: float, knee: float, pitch: float) -> None:
    pose = to_smpl(posture(both_thigh=thigh, both_knee=knee, pitch=pitch)[None]).reshape(24, 3)
    chain = [SMPL_JOINT_NAMES.index(name) for name in ("pelvis", "left_hip", "left_knee", "left_ankle")]
    foot = np.eye(3)
    for joint in chain:
        foot = foot @ Rotation.from_rotvec(pose[joint]).as_matrix()
    assert abs(foot[1, 2]) < 0.02


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_mirroring_the_angles_flips_the_smpl_pose(seed: int) -> None:
    angles = limited(np.random.default_rng(seed).uniform(-60, 90, (1, len(ANGLES))))
    ours = Rotation.from_rotvec(to_smpl(mirrored(angles)).reshape(24, 3)).as_matrix()
    flipped = Rotation.from_rotvec(flip_pose(to_smpl(angles)).reshape(24, 3)).as_matrix()
    np.testing.assert_allclose(ours, flipped, atol=1e-9)


@pytest.mark.parametrize("dataset,activity", ALL_ACTIVITIES)
def test_every_key_posture_lies_within_the_joint_limits(dataset: str, activity: str) -> None:
    for _, key in ACTIVITIES[dataset][activity]:
        outside = [
            angle for angle, value, fits in zip(ANGLES, key, np.isclose(limited(key), key), strict=True) if not fits
        ]
        assert not outside, f"{outside}: limits {[LIMITS[angle] for angle in outside]}"


def test_an_unknown_angle_is_named() -> None:
    with pytest.raises(ValueError, match="left_elbo"):
        posture(left_elbo=3)


@pytest.mark.parametrize("dataset,activity", [("everyday", "walk"), ("dance", "spin"), ("sport", "pushup")])
def test_clips_are_smooth_and_stand_on_the_ground(stick_figure: BodyModel, dataset: str, activity: str) -> None:
    rng = np.random.default_rng(0)
    clip = generate(stick_figure, ACTIVITIES[dataset][activity], rng, np.zeros(10), 3.0, 30.0, "d/s/a", "male")
    pose = torch.from_numpy(clip.poses).float()
    vertices = stick_figure(
        torch.zeros(1, 10), pose[:, 3:], pose[:, :3], torch.from_numpy(clip.trans).float()
    ).vertices.numpy()
    assert np.abs(vertices[:, :, 1].min(axis=1)).max() < 1e-4
    assert np.abs(np.diff(vertices, axis=0)).max() < 0.4, "no joint moves faster than 12 m/s"
    assert not clip.trans[0, [0, 2]].any()


def test_walking_moves_forward_by_steps(stick_figure: BodyModel) -> None:
    keys = ACTIVITIES["everyday"]["walk"]
    clip = generate(stick_figure, keys, np.random.default_rng(1), np.zeros(10), 4.0, 30.0, "d/s/a", "male")
    way = clip.trans[-1, [0, 2]] - clip.trans[0, [0, 2]]
    facing = Rotation.from_rotvec(clip.poses[0, :3]).apply([0, 0, 1])[[0, 2]]
    assert 1.5 < np.linalg.norm(way) < 8
    assert way @ facing / np.linalg.norm(way) / np.linalg.norm(facing) > 0.9


def test_subjects_get_clips_of_every_dataset_before_activities_repeat() -> None:
    clips = [clip for subject in plan(6, 6, np.random.default_rng(0)) for clip in subject]
    assert {dataset for dataset, _ in clips} == set(ACTIVITIES)
    sport = [activity for dataset, activity in clips if dataset == "sport"]
    assert len(set(sport)) == min(len(sport), len(ACTIVITIES["sport"]))


def test_the_same_seed_writes_the_same_bytes_and_only_those_files(tmp_path: Path, stick_figure: BodyModel) -> None:
    params = Motions(num_subjects=2, clips_per_subject=3, seconds=0.5, fps=20.0, seed=3)
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "stale.npz").write_bytes(b"")
        paths = write_motions(folder, stick_figure, params)
        assert sorted(folder.rglob("*.npz")) == sorted(paths)
        contents.append({path.relative_to(folder): path.read_bytes() for path in paths})
    assert contents[0] == contents[1]
    assert len(list(read_folder(tmp_path / "a"))) == 6


def test_train_and_test_share_no_person(tmp_path: Path, stick_figure: BodyModel) -> None:
    write_motions(
        tmp_path / "m", stick_figure, Motions(num_subjects=5, clips_per_subject=3, seconds=0.4, fps=20.0, seed=0)
    )
    motions = list(read_folder(tmp_path / "m"))
    splits = split_by_subject(motions)
    people = {split: {motion.name.split("/")[1] for motion in members} for split, members in splits.items()}
    assert len(people["test"]) == 1 and not people["train"] & people["test"]
    assert len(splits["train"]) + len(splits["test"]) == len(motions)


def test_sampled_frames_of_a_motion_keep_their_distance(tmp_path: Path, stick_figure: BodyModel) -> None:
    write_motions(
        tmp_path / "m", stick_figure, Motions(num_subjects=1, clips_per_subject=3, seconds=2.0, fps=20.0, seed=0)
    )
    motions = list(read_folder(tmp_path / "m"))
    frames = sample_frames(motions, np.random.default_rng(0), 12)
    for index in range(3):
        own = sorted(frame for motion, frame in frames if motion == index)
        assert len(own) == 4 and min(np.diff(own)) >= 10
    assert sample_poses(motions, np.random.default_rng(0), 30).shape == (30, 72)
    with pytest.raises(ValueError, match="no motions"):
        sample_poses([], np.random.default_rng(0), 1)
