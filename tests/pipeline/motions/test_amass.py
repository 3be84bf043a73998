from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bodies.model import BodyModel
from pipeline.motions import Motion, MotionFileError, read_amass, read_folder, write_amass
from tests.pipeline.damaged_npz import damaged


def motion(frames: int = 5, fps: float = 30.0, seed: int = 0, name: str = "everyday/subject_00/walk_00") -> Motion:
    rng = np.random.default_rng(seed)
    poses = rng.normal(0, 0.4, (frames, 72))
    return Motion(poses, rng.normal(size=(frames, 3)), rng.normal(size=10), "female", fps, name, up="y")


def test_a_real_file_reads_as_smpl_poses(shared: Path) -> None:
    path = shared / "samples" / "amass" / "amass_sample.npz"
    raw = np.load(path)
    read = read_amass(path)
    assert read.poses.shape == (len(raw["poses"]), 72)
    np.testing.assert_array_equal(read.poses[:, :66], raw["poses"][:, :66])
    np.testing.assert_array_equal(read.poses[:, 66:69], raw["poses"][:, 66:69])
    np.testing.assert_array_equal(read.poses[:, 69:72], raw["poses"][:, 111:114])
    assert read.fps == 120.0 and read.gender in ("male", "female")
    np.testing.assert_array_equal(read.betas, raw["betas"][:10])


def test_a_real_person_stands_upright_once_y_is_up(shared: Path, stick_figure: BodyModel) -> None:
    upright = read_amass(shared / "samples" / "amass" / "amass_sample.npz").y_up()
    pose = torch.from_numpy(upright.poses[::60]).float()
    output = stick_figure(torch.zeros(1, 10), pose[:, 3:], pose[:, :3], torch.from_numpy(upright.trans[::60]).float())
    assert (output.joints[:, 15, 1] > output.joints[:, 7, 1] + 0.8).all()
    assert output.vertices[..., 1].min(dim=1).values.abs().max() < 0.35


@pytest.mark.parametrize("gender", [np.array("female"), np.array(b"female")])
@pytest.mark.parametrize("rate,fps", [(120.0, 120.0), (120.00004577, 120.0), (59.94, 59.94)])
def test_gender_as_bytes_and_clock_rates_are_understood(
    tmp_path: Path, gender: np.ndarray, rate: float, fps: float
) -> None:
    path = tmp_path / "a_poses.npz"
    np.savez(
        path, poses=np.zeros((4, 156)), trans=np.zeros((4, 3)), betas=np.ones(16), gender=gender, mocap_framerate=rate
    )
    read = read_amass(path)
    assert (read.gender, read.fps) == ("female", fps)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    original = motion()
    path = write_amass(tmp_path, original)
    assert path == tmp_path / "everyday" / "subject_00" / "walk_00_poses.npz"
    back = read_amass(path).y_up()
    np.testing.assert_allclose(back.poses[:, 3:66], original.poses[:, 3:66])
    np.testing.assert_allclose(back.trans, original.trans, atol=1e-12)
    np.testing.assert_allclose(back.poses[:, :3], original.poses[:, :3], atol=1e-9)
    assert (back.name, back.fps, back.gender) == (original.name, original.fps, original.gender)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_turning_a_motion_upright_turns_the_posed_body_and_nothing_else(stick_figure: BodyModel, seed: int) -> None:
    upright = motion(frames=2, seed=seed)
    lying = upright.z_up()
    vertices = []
    for one in (upright, lying):
        pose = torch.from_numpy(one.poses).float()
        vertices.append(
            stick_figure(torch.zeros(1, 10), pose[:, 3:], pose[:, :3], torch.from_numpy(one.trans).float()).vertices
        )
    x, y, z = vertices[1].unbind(-1)
    torch.testing.assert_close(torch.stack([x, z, -y], -1), vertices[0], atol=1e-5, rtol=0)


def test_shape_files_are_skipped_in_folders_and_refused_alone(tmp_path: Path) -> None:
    write_amass(tmp_path, motion())
    folder = tmp_path / "everyday" / "subject_00"
    np.savez(folder / "shape.npz", betas=np.zeros(16))
    np.savez(folder / "walk_stagei.npz", betas=np.zeros(16))
    assert [read.name for read in read_folder(tmp_path)] == ["everyday/subject_00/walk_00"]
    with pytest.raises(MotionFileError, match=r"shape\.npz.*no motion"):
        read_amass(folder / "shape.npz")


def test_smplx_files_of_the_newer_release_are_read(tmp_path: Path) -> None:
    path = tmp_path / "d" / "s" / "a_stageii.npz"
    path.parent.mkdir(parents=True)
    body = np.random.default_rng(0).normal(size=(3, 63))
    np.savez(path, root_orient=np.ones((3, 3)), pose_body=body, pose_hand=np.zeros((3, 90)), trans=np.zeros((3, 3)),
             betas=np.zeros(16), gender="neutral", mocap_frame_rate=60.0)  # fmt: skip
    read = read_amass(path)
    np.testing.assert_array_equal(read.poses[:, 3:66], body)
    assert (read.fps, read.name) == (60.0, "d/s/a")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = write_amass(tmp_path, motion())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MotionFileError, match=r"walk_00_poses\.npz"):
        read_amass(path)
    for content in damaged(whole):
        path.write_bytes(content)
        with pytest.raises(MotionFileError, match=r"walk_00_poses\.npz: not a readable"):
            read_amass(path)
    np.savez(path, poses=np.full((4, 156), np.nan), trans=np.zeros((4, 3)), mocap_framerate=30.0)
    with pytest.raises(MotionFileError, match="NaN"):
        read_amass(path)
    np.savez(path, poses=np.zeros((4, 156)), trans=np.zeros((5, 3)), mocap_framerate=30.0)
    with pytest.raises(MotionFileError, match=r"trans has shape \(5, 3\)"):
        read_amass(path)
    np.savez(path, betas=np.zeros(10))
    with pytest.raises(MotionFileError, match="root_orient missing"):
        read_amass(path)


def test_a_lower_rate_takes_every_kth_frame() -> None:
    slower = motion(frames=40, fps=120.0).at_fps(30)
    assert len(slower) == 10 and slower.fps == 30.0
    assert len(motion(frames=40, fps=25.0).at_fps(30)) == 40
