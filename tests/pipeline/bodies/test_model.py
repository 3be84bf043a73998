from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pipeline.bodies import SMPL_JOINT_NAMES, BodyFileError, flip_pose, load
from pipeline.bodies.anatomy import (
    COCO17_FLIP,
    COCO17_NAMES,
    EXTRA_VERTEX_NAMES,
    H36M17_NAMES,
    H36M17_TO_LSP14,
    LSP14_NAMES,
)
from pipeline.bodies.model import BodyModel
from tests.pipeline.damaged_npz import damaged

Arrays = dict[str, np.ndarray]


def saved(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture
def body(body_arrays: Arrays) -> BodyModel:
    return BodyModel(body_arrays, "smpl")


@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_smpl_agrees_with_recorded_output_of_smplx(
    shared: Path, tmp_path: Path, dtype: torch.dtype, tolerance: float
) -> None:
    folder = shared / "parity" / "smplx"
    recorded = np.load(folder / "smpl_200v_io.npz")
    body = load(folder / "smpl_200v_model.npz").to(dtype)
    suffix = "_f64" if dtype == torch.float64 else ""
    names = ("betas", "body_pose", "global_orient", "transl")
    output = body(*(torch.as_tensor(recorded[name], dtype=dtype) for name in names))
    # Row 1 turns by 1e-5 rad, where the package's formula keeps few digits.
    rows = [0, 2, 3] if suffix else [0, 1, 2, 3]
    np.testing.assert_allclose(output.vertices.numpy()[rows], recorded[f"vertices{suffix}"][rows], atol=tolerance)
    np.testing.assert_allclose(output.joints.numpy()[rows], recorded[f"joints{suffix}"][rows, :24], atol=tolerance)


def test_mano_agrees_with_recorded_output_of_smplx(shared: Path) -> None:
    folder = shared / "parity" / "smplx"
    recorded = np.load(folder / "mano_120v_io.npz")
    model = np.load(folder / "mano_120v_model.npz")
    body = load(folder / "mano_120v_model.npz", "mano")
    pose = torch.as_tensor(recorded["hand_pose_axisangle"])
    inputs = [torch.as_tensor(recorded[name]) for name in ("betas", "global_orient", "transl")]
    for mode, mean in (("axisangle_flat", 0), ("axisangle_mean", torch.as_tensor(model["hands_mean"]))):
        output = body(inputs[0], pose + mean, inputs[1], inputs[2])
        np.testing.assert_allclose(output.vertices.numpy(), recorded[f"{mode}/vertices"], atol=1e-6)
        np.testing.assert_allclose(output.joints.numpy(), recorded[f"{mode}/joints"], atol=1e-6)


def test_rotation_matrices_and_axis_angle_give_the_same_body(tmp_path: Path, tiny_smpl: Arrays) -> None:
    body = load(saved(tmp_path / "m.npz", tiny_smpl))
    pose = np.random.default_rng(0).normal(0, 0.5, (3, 24, 3))
    matrices = torch.from_numpy(np.stack([Rotation.from_rotvec(p).as_matrix() for p in pose])).float()
    vectors = torch.from_numpy(pose).float().view(3, 72)
    betas = torch.zeros(3, 10)
    by_matrix = body(betas, matrices[:, 1:], matrices[:, 0])
    by_vector = body(betas, vectors[:, 3:], vectors[:, :3])
    torch.testing.assert_close(by_matrix.vertices, by_vector.vertices, atol=1e-5, rtol=0)


def test_wrong_shapes_of_the_pose_are_named(tmp_path: Path, tiny_smpl: Arrays) -> None:
    body = load(saved(tmp_path / "m.npz", tiny_smpl))
    with pytest.raises(ValueError, match=r"\(1, 72\).*expected \(B, 69\)"):
        body(torch.zeros(1, 10), torch.zeros(1, 72), torch.zeros(1, 3))


def test_a_hand_given_as_a_body_and_a_body_given_as_a_hand_are_told(
    tmp_path: Path, tiny_smpl: Arrays, tiny_mano: Arrays
) -> None:
    with pytest.raises(BodyFileError, match=r"16 joints \(mano format\), expected smpl"):
        load(saved(tmp_path / "hand.npz", tiny_mano), "smpl")
    with pytest.raises(BodyFileError, match=r"24 joints \(smpl format\), expected mano"):
        load(saved(tmp_path / "body.npz", tiny_smpl), "mano")


def test_missing_keys_and_disagreeing_shapes_are_named(tmp_path: Path, tiny_smpl: Arrays) -> None:
    without = {key: value for key, value in tiny_smpl.items() if key != "weights"}
    with pytest.raises(BodyFileError, match=r"m\.npz: weights missing"):
        load(saved(tmp_path / "m.npz", without))
    with pytest.raises(BodyFileError, match=r"posedirs has shape \(60, 3, 135\), expected \(60, 3, 207\)"):
        load(saved(tmp_path / "m.npz", tiny_smpl | {"posedirs": np.zeros((60, 3, 135))}))


def test_a_missing_or_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BodyFileError, match=r"pipeline\.bodies"):
        load(tmp_path / "none.npz")
    (tmp_path / "m.npz").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(BodyFileError, match=r"m\.npz: not a readable"):
        load(tmp_path / "m.npz")


def test_a_body_whose_compressed_arrays_are_damaged_is_named(tmp_path: Path, tiny_smpl: Arrays) -> None:
    path = tmp_path / "m.npz"
    np.savez_compressed(path, **tiny_smpl)
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(BodyFileError, match=r"m\.npz: not a readable"):
            load(path)


def test_an_npz_with_pickled_objects_is_refused(tmp_path: Path, tiny_smpl: Arrays) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, **tiny_smpl, extra=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BodyFileError, match="plain arrays"):
        load(path)


def test_the_evaluation_regressor_of_an_official_body_is_read_from_beside_it(tmp_path: Path, tiny_smpl: Arrays) -> None:
    path = saved(tmp_path / "SMPL_NEUTRAL.npz", tiny_smpl)
    vertices = torch.rand(2, 60, 3)
    with pytest.raises(ValueError, match=r"J_regressor_h36m\.npy"):
        load(path).lsp14(vertices)
    rows = np.random.default_rng(0).random((17, 60))
    np.save(tmp_path / "J_regressor_h36m.npy", rows)
    expected = np.einsum("kv,bvc->bkc", rows, vertices.numpy())[:, H36M17_TO_LSP14]
    np.testing.assert_allclose(load(path).lsp14(vertices).numpy(), expected, atol=1e-5)


def test_the_lsp_order_is_the_h36m_order_by_name() -> None:
    assert tuple(H36M17_NAMES[index] for index in H36M17_TO_LSP14) == LSP14_NAMES


def test_the_zero_pose_is_a_t_facing_z_with_the_left_at_positive_x(body: BodyModel) -> None:
    zero = body(torch.zeros(1, 10), torch.zeros(1, 69), torch.zeros(1, 3))
    joint = dict(zip(SMPL_JOINT_NAMES, zero.joints[0].numpy(), strict=True))
    assert joint["left_wrist"][0] > joint["left_elbow"][0] > joint["left_shoulder"][0] > 0.1
    assert joint["right_wrist"][0] < -0.4
    assert abs(joint["left_wrist"][1] - joint["left_shoulder"][1]) < 0.02
    assert joint["head"][1] > joint["neck"][1] > joint["pelvis"][1] > joint["left_knee"][1] > joint["left_ankle"][1]
    keypoint = dict(zip(COCO17_NAMES, body.coco17(zero.vertices)[0].numpy(), strict=True))
    assert keypoint["nose"][2] > keypoint["left_ear"][2] + 0.05
    assert keypoint["left_eye"][0] > 0 > keypoint["right_eye"][0]
    assert 1.4 < np.ptp(zero.vertices[0, :, 1].numpy()) < 2.0


def test_keypoints_stay_at_their_joints_in_a_bent_pose(body: BodyModel) -> None:
    pose = torch.zeros(24, 3)
    pose[SMPL_JOINT_NAMES.index("left_elbow")] = torch.tensor([0.0, -1.4, 0.0])
    pose[SMPL_JOINT_NAMES.index("right_knee")] = torch.tensor([1.4, 0.0, 0.0])
    pose = pose.view(1, 72)
    output = body(torch.zeros(1, 10), pose[:, 3:], pose[:, :3])
    for regressed, names in (
        (body.coco17(output.vertices), COCO17_NAMES),
        (body.h36m17(output.vertices), H36M17_NAMES),
    ):
        for name in ("left_wrist", "left_elbow", "right_knee", "right_ankle", "left_shoulder"):
            joint = output.joints[0, SMPL_JOINT_NAMES.index(name)]
            assert torch.linalg.norm(regressed[0, names.index(name)] - joint) < 0.045, name


def test_turning_the_left_elbow_forward_moves_only_the_left_hand_forward(body: BodyModel) -> None:
    pose = torch.zeros(24, 3)
    pose[SMPL_JOINT_NAMES.index("left_elbow")] = torch.tensor([0.0, -1.0, 0.0])
    rest = body(torch.zeros(1, 10), torch.zeros(1, 69), torch.zeros(1, 3))
    bent = body(torch.zeros(1, 10), pose.view(1, 72)[:, 3:], torch.zeros(1, 3))
    tips = {
        name: int(index)
        for name, index in zip(EXTRA_VERTEX_NAMES, body._layer.vertex_joint_selector.extra_joints_idxs, strict=True)
    }
    moved = (bent.vertices - rest.vertices)[0]
    assert moved[tips["lindex"], 2] > 0.2
    assert moved[tips["rindex"]].abs().max() < 1e-5


def test_a_flipped_pose_gives_the_mirrored_body(body: BodyModel) -> None:
    pose = np.random.default_rng(3).normal(0, 0.3, (1, 72)).astype(np.float32)
    flipped = flip_pose(pose)
    np.testing.assert_allclose(flip_pose(flipped), pose)
    outputs = []
    for one in (pose, flipped):
        one = torch.from_numpy(one)
        output = body(torch.zeros(1, 10), one[:, 3:], one[:, :3])
        outputs.append(body.coco17(output.vertices)[0].numpy())
    mirrored = outputs[1][list(COCO17_FLIP)] * [-1, 1, 1]
    # Anny is symmetric to about a millimetre, its simplified mesh to a little more.
    np.testing.assert_allclose(mirrored, outputs[0], atol=0.012)


def test_the_mean_pose_as_6d_holds_the_first_two_columns_of_its_rotations(body: BodyModel) -> None:
    columns = body.mean_pose_6d().view(24, 3, 2).numpy()
    matrices = Rotation.from_rotvec(body.mean_pose.reshape(24, 3)).as_matrix()
    np.testing.assert_allclose(columns, matrices[:, :, :2], atol=1e-6)
