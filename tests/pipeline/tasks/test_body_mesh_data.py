"""Bodies in the camera frame of their crops, and how they move with an augmented crop."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from models.rotations import axis_angle_to_matrix
from pipeline.bodies import SMPL_FLIP, BodyModel
from pipeline.bodies import load as load_body
from pipeline.layout import Layout
from pipeline.manifests import ManifestError
from pipeline.tasks.body_mesh_data import Augmentation, View, random_views, read_samples, see, turn, unchanged_views
from pipeline.tasks.skeleton import Skeleton
from tests.pipeline.toy_bodies import write_body, write_people


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout("test", tmp_path_factory.mktemp("project"))
    layout.bodies.mkdir(parents=True)
    write_body(layout.smpl)
    write_people(layout, "3dpw", "body", "test", 24, seed=1)
    return layout


@pytest.fixture(scope="module")
def body(layout: Layout) -> BodyModel:
    return load_body(layout.smpl)


def test_the_skeleton_has_the_joints_of_the_body(body: BodyModel) -> None:
    generator = torch.Generator().manual_seed(0)
    rotations = axis_angle_to_matrix(torch.randn(5, 24, 3, generator=generator))
    betas = torch.randn(5, 10, generator=generator)
    expected = body(betas, rotations[:, 1:], rotations[:, 0]).joints
    assert torch.allclose(Skeleton(body)(rotations, betas), expected, atol=1e-5)


def test_samples_agree_with_what_their_crops_show(layout: Layout, body: BodyModel) -> None:
    samples = read_samples(layout.records("3dpw"), layout.crops("body", "3dpw"), "test", 100, Skeleton(body))
    assert len(samples) == 24
    bodies = samples.bodies
    # The parameters alone, in the camera frame, give the joints.
    joints = Skeleton(body)(bodies.rotations, bodies.betas)
    assert torch.allclose(joints - joints[:, :1], bodies.joints, atol=1e-4)
    # Every joint lies on a drawn bone.
    images = samples.pixels.images.whole(samples.rows)
    places = ((bodies.points.numpy() + 1) * 40).astype(int).clip(0, 79)
    ground = images[:, 0, 0].astype(int)
    for image, place, colour in zip(images, places, ground, strict=True):
        assert (np.abs(image[place[:, 1], place[:, 0]].astype(int) - colour).max(axis=1) > 25).all()
    # Camera axes: y down, so heads lie above feet with smaller y.
    assert (bodies.joints[:, 15, 1] < bodies.joints[:, 7, 1]).all()


@pytest.mark.parametrize("flip", [False, True])
def test_joints_follow_the_pixels_of_a_changed_crop(layout: Layout, body: BodyModel, flip: bool) -> None:
    samples = read_samples(layout.records("3dpw"), layout.crops("body", "3dpw"), "test", 100, Skeleton(body))
    count = len(samples)
    view = View(
        torch.linspace(-0.5, 0.5, count),
        torch.linspace(0.8, 1.2, count),
        torch.full((count,), flip),
        torch.ones(count, 3),
    )
    turned = turn(samples.bodies, view)
    # A white dot where the left wrist is must be found where the (swapped) joint is said to be.
    dots = torch.zeros(count, 80, 80, 3, dtype=torch.uint8)
    wrist = samples.bodies.points[:, 20]
    x, y = ((wrist + 1) * 40 - 0.5).round().long().clamp(0, 79).unbind(1)
    for i in range(count):
        dots[i, max(0, y[i] - 1) : y[i] + 2, max(0, x[i] - 1) : x[i] + 2] = 255
    seen = see(dots, view, 64)[:, 0]
    joint = SMPL_FLIP[20] if flip else 20
    for image, point in zip(seen, turned.points[:, joint], strict=True):
        if point.abs().max() > 0.9:
            continue
        weight = image - image.min()
        rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        centre = torch.stack([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
        assert torch.allclose((centre + 0.5) / 32 - 1, point, atol=0.06)
    # 3D stays consistent with its parameters (the toy body is symmetric).
    joints = Skeleton(body)(turned.rotations, turned.betas)
    assert torch.allclose(joints - joints[:, :1], turned.joints, atol=1e-4)


def test_no_change_shows_the_crop_itself() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    plain = see(images, unchanged_views(2), 64)
    assert torch.allclose(
        plain, see(images, View(torch.zeros(2), torch.ones(2), torch.zeros(2, dtype=torch.bool), torch.ones(2, 3)), 64)
    )
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    assert torch.allclose((plain * deviation + mean) * 255, images.permute(0, 3, 1, 2).float(), atol=0.01)


def test_views_stay_within_their_bounds() -> None:
    view = random_views(np.random.default_rng(0), 2000, Augmentation(20, 0.2, 0.3, True))
    assert view.angle.abs().max() <= np.radians(40) + 1e-6
    assert 0.55 < (view.angle == 0).float().mean() < 0.65
    assert view.zoom.min() >= 0.8 - 1e-6
    assert view.zoom.max() <= 1.2 + 1e-6
    assert 0.45 < view.flip.float().mean() < 0.55


def test_views_reach_their_bounds_on_either_side() -> None:
    view = random_views(np.random.default_rng(0), 2000, Augmentation(20, 0.2, 0.3, True))
    for values, middle, reach in ((view.angle, 0.0, np.radians(40)), (view.zoom, 1.0, 0.2), (view.colours, 1.0, 0.3)):
        assert values.min().item() == pytest.approx(middle - reach, abs=1e-3)
        assert values.max().item() == pytest.approx(middle + reach, abs=1e-3)


def test_views_that_may_change_nothing_change_nothing() -> None:
    view, plain = random_views(np.random.default_rng(0), 100, Augmentation(0, 0, 0, False)), unchanged_views(100)
    assert all(torch.equal(getattr(view, f.name), getattr(plain, f.name)) for f in fields(View))


def test_fewer_samples_are_spread_over_all_and_an_empty_split_is_named(layout: Layout, body: BodyModel) -> None:
    files = (layout.records("3dpw"), layout.crops("body", "3dpw"))
    some = read_samples(*files, "test", 5, Skeleton(body))
    every = read_samples(*files, "test", 100, Skeleton(body))
    assert [every.frame_ids.index(name) for name in some.frame_ids] == [0, 6, 12, 17, 23]
    with pytest.raises(ManifestError, match="no record of split 'val'"):
        read_samples(*files, "val", 5, Skeleton(body))


def test_implausible_shapes_become_the_mean_shape(layout: Layout, body: BodyModel) -> None:
    files = (layout.records("3dpw"), layout.crops("body", "3dpw"))
    all_betas = read_samples(*files, "test", 100, Skeleton(body)).bodies.betas
    kept = read_samples(*files, "test", 100, Skeleton(body), max_beta=1.0).bodies.betas
    wild = (all_betas.abs() > 1.0).any(dim=1)
    assert wild.any()
    assert (kept[wild] == 0).all()
    assert torch.equal(kept[~wild], all_betas[~wild])
