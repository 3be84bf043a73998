"""Rotations, checked in float64 against scipy and against each other, and the regressor built on them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from models.heads.iterative_regressor import IterativeRegressor
from models.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_rotation_6d,
    rotation_6d_to_matrix,
)

VECTORS = arrays(np.float64, (5, 3), elements=st.floats(-6, 6, allow_subnormal=False))
TIGHT = dict(atol=1e-9, rtol=0)


@given(VECTORS)
def test_axis_angle_agrees_with_scipy(vectors):
    ours = axis_angle_to_matrix(torch.from_numpy(vectors))
    np.testing.assert_allclose(ours, Rotation.from_rotvec(vectors).as_matrix(), **TIGHT)


@given(VECTORS)
def test_a_matrix_survives_the_way_through_axis_angle_and_6d(vectors):
    matrix = axis_angle_to_matrix(torch.from_numpy(vectors))
    back = matrix_to_axis_angle(matrix)
    assert (back.norm(dim=-1) <= np.pi + 1e-9).all()
    np.testing.assert_allclose(axis_angle_to_matrix(back), matrix, **TIGHT)
    np.testing.assert_allclose(rotation_6d_to_matrix(matrix_to_rotation_6d(matrix)), matrix, **TIGHT)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -2, 3)])
@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-4, np.pi - 1e-7, np.pi])
def test_tiny_and_half_turns_are_recovered(axis, angle):
    vector = torch.tensor(axis, dtype=torch.float64)
    vector = vector / vector.norm() * angle
    back = matrix_to_axis_angle(axis_angle_to_matrix(vector))
    sign = torch.sign((back * vector).sum()) if angle == np.pi else 1
    torch.testing.assert_close(back * sign, vector, atol=1e-9, rtol=0)


@given(arrays(np.float64, (4, 6), elements=st.floats(0.1, 5)))
def test_any_independent_six_numbers_give_a_rotation(numbers):
    numbers[:, :2] += [0.0, 10.0]  # keeps the two columns from being parallel
    matrix = rotation_6d_to_matrix(torch.from_numpy(numbers))
    eye = torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    torch.testing.assert_close(matrix @ matrix.mT, eye, atol=1e-9, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(4, dtype=torch.float64), atol=1e-9, rtol=0)


def test_the_two_columns_of_the_6d_form_are_interleaved():
    matrix = torch.arange(9.0).view(3, 3)
    assert matrix_to_rotation_6d(matrix).tolist() == [0, 1, 3, 4, 6, 7]
    assert rotation_6d_to_matrix(torch.tensor([1.0, 0, 0, 1, 0, 0])).equal(torch.eye(3))


def test_gradients_exist_at_zero_and_are_right_elsewhere():
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    axis_angle_to_matrix(zero)[:, 2, 1].sum().backward()
    assert zero.grad.tolist() == [[1, 0, 0], [1, 0, 0]]
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(3, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(axis_angle_to_matrix, vector)
    assert torch.autograd.gradcheck(lambda v: matrix_to_axis_angle(axis_angle_to_matrix(v)), vector)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (rotation_6d_to_matrix, (24, 3)),
        (axis_angle_to_matrix, (72,)),
        (matrix_to_axis_angle, (2, 9)),
        (matrix_to_rotation_6d, (6,)),
    ],
)
def test_a_wrong_shape_is_named(function, shape):
    with pytest.raises(ValueError, match=r"expected rotations of shape \(\.\.\., "):
        function(torch.zeros(shape))


def test_an_untrained_regressor_starts_near_the_given_parameters():
    pose = matrix_to_rotation_6d(axis_angle_to_matrix(torch.randn(24, 3, generator=torch.Generator().manual_seed(0))))
    head = IterativeRegressor(32, start_pose=pose, start_betas=torch.full((10,), 0.5), start_camera=torch.ones(3))
    head.reset_parameters(torch.Generator().manual_seed(0))
    body = head.eval()(torch.randn(5, 32, generator=torch.Generator().manual_seed(1)))
    assert [tuple(x.shape) for x in body] == [(5, 24, 3, 3), (5, 10), (5, 3), (5, 24, 6)]
    torch.testing.assert_close(body.rotations_6d, pose.expand(5, -1, -1), atol=0.1, rtol=0)
    torch.testing.assert_close(body.rotations, rotation_6d_to_matrix(body.rotations_6d))
    torch.testing.assert_close(body.betas, torch.full((5, 10), 0.5), atol=0.1, rtol=0)


def test_the_regressor_corrects_its_estimate_as_often_as_told():
    heads = [IterativeRegressor(8, num_joints=16, num_iterations=n, dropout=0.0) for n in (0, 1, 3)]
    for head in heads:
        head.reset_parameters(torch.Generator().manual_seed(0))
        head.decshape.bias.data.fill_(1.0)
        head.decshape.weight.data.zero_()
    feature = torch.randn(2, 8)
    assert [head(feature).betas.mean().item() for head in heads] == [0, 1, 3]


def test_a_feature_of_another_width_and_a_short_start_are_refused():
    with pytest.raises(ValueError, match=r"\(B, 32\)"):
        IterativeRegressor(32)(torch.zeros(2, 64, 32))
    with pytest.raises(ValueError, match="start_pose must have 144"):
        IterativeRegressor(32, start_pose=torch.zeros(72))
