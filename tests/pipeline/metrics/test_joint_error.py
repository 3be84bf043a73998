"""Joint errors against hand-made cases, invariants, and the values of two public evaluation codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.metrics.joint_error import align, mpjpe, mpvpe, pa_mpjpe, pa_mpvpe

seeds = st.integers(0, 2**32 - 1)


def points(seed: int, batch: int = 4, count: int = 14) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(batch, count, 3)))


def rotations(seed: int, batch: int = 4) -> torch.Tensor:
    q, _ = torch.linalg.qr(points(seed, batch, 3))
    q[:, :, 0] *= torch.linalg.det(q)[:, None]
    return q


def test_a_shift_of_one_centimetre_is_ten_millimetres() -> None:
    gt = points(0)
    assert torch.allclose(mpjpe(gt + torch.tensor([0.01, 0.0, 0.0]), gt), torch.full((4,), 10.0, dtype=torch.float64))


def test_vertices_are_measured_like_joints() -> None:
    pred, gt = points(1, count=50), points(2, count=50)
    assert torch.equal(mpvpe(pred, gt), mpjpe(pred, gt))
    assert torch.equal(pa_mpvpe(pred, gt), pa_mpjpe(pred, gt))


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0.1, 10.0))
def test_a_similar_copy_has_no_aligned_error(seed: int, scale: float) -> None:
    gt = points(seed)
    pred = scale * gt @ rotations(seed + 1) + points(seed + 2, count=1)
    assert pa_mpjpe(pred, gt).max() < 1e-8


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_alignment_never_raises_the_root_mean_square(seed: int) -> None:
    pred, gt = points(seed), points(seed + 1)
    before = (pred - gt).square().sum(dim=(1, 2))
    after = (align(pred, gt) - gt).square().sum(dim=(1, 2))
    assert bool((after <= before + 1e-9).all())


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_the_alignment_is_scipys_rotation_with_the_best_scale(seed: int) -> None:
    pred, gt = points(seed, batch=1), points(seed + 1, batch=1)
    source, goal = ((one - one.mean(dim=1, keepdim=True))[0].numpy() for one in (pred, gt))
    turned = Rotation.align_vectors(goal, source)[0].apply(source)
    expected = (goal * turned).sum() / (turned**2).sum() * turned + gt.mean(dim=1).numpy()
    assert align(pred, gt)[0].numpy() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_order_of_samples_and_of_points_changes_nothing(seed: int) -> None:
    pred, gt = points(seed), points(seed + 1)
    samples, order = (
        torch.tensor([2, 0, 3, 1]),
        torch.randperm(14, generator=torch.Generator().manual_seed(seed % 1000)),
    )
    for error in (mpjpe, pa_mpjpe):
        assert torch.allclose(error(pred[samples], gt[samples]), error(pred, gt)[samples])
        assert torch.allclose(error(pred[:, order], gt[:, order]), error(pred, gt))


def test_a_mirrored_body_keeps_its_error() -> None:
    gt = points(3)
    assert pa_mpjpe(gt * torch.tensor([-1.0, 1.0, 1.0]), gt).min() > 100


def test_coinciding_points_give_a_finite_error() -> None:
    gt = points(4)
    assert torch.isfinite(pa_mpjpe(torch.ones_like(gt), gt)).all()


@pytest.mark.parametrize("shape", [(4, 14, 2), (14, 3), (4, 13, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="point sets"):
        mpjpe(torch.zeros(shape), points(0))


@pytest.mark.parametrize(
    ("name", "relative", "absolute"),
    [("procrustes_14j_f64", 1e-9, 1e-12), ("procrustes_14j_f32", 1e-5, 4e-6), ("procrustes_6890v_f32", 1e-5, 4e-6)],
)
def test_published_evaluation_codes_agree(shared: Path, name: str, relative: float, absolute: float) -> None:
    fixture = np.load(shared / "parity" / "procrustes" / f"{name}.npz")
    pred, gt, names = torch.from_numpy(fixture["pred"]), torch.from_numpy(fixture["gt"]), fixture["names"].tolist()
    ours = pa_mpjpe(pred, gt).numpy() / 1000
    for key in ("pa_spin", "pa_4dhumans"):
        single = key == "pa_4dhumans" or name.endswith("f32")
        for case, value, expected in zip(names, ours, fixture[key], strict=True):
            if case == "pred_constant":  # undefined scale: upstream divides by rounding noise
                continue
            if single and case == "gt_constant":  # the truth is one point: all that is left is upstream's rounding
                assert value < 1e-9
                continue
            tolerance = 5e-5 if single and case == "pred_far_offset" else max(relative, 1e-5 if single else 0)
            slack = 4e-6 if single else absolute  # upstream itself rounds to single precision
            assert value == pytest.approx(expected, rel=tolerance, abs=slack), (key, case)
    rooted = mpjpe(pred - pred[:, :1], gt - gt[:, :1]).numpy() / 1000
    far = np.array([case == "pred_far_offset" for case in names])
    assert rooted[~far] == pytest.approx(fixture["mpjpe_root0"][~far], rel=1e-5)
    assert mpjpe(pred, gt).numpy() / 1000 == pytest.approx(fixture["mpjpe_abs"], rel=1e-5, abs=2e-6)
