"""What a stand-in's writer puts down, its reader finds again: bodies, cameras, boxes, splits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline import datasets, frames
from pipeline.datasets import Quarantine, aist, keypoints, penn_action, threedpw
from pipeline.datasets.base import one_thread, project
from pipeline.datasets.world import Posed, World
from pipeline.layout import PROJECT, Layout
from pipeline.motions.sampling import person
from pipeline.records import FrameRecord
from pipeline.rendering.cameras import direction
from tests.e2e.small_project import small_params
from tests.pipeline.datasets.conftest import SIZES

PEOPLE = [name for name in datasets.names() if name not in ("coco", "habitat")]
EXPECTED = {"humbi": 12, "aist": 12, "3dpw": 15, "penn_action": 12, "synthetic": 18, "synthetic_looks": 18,
            "coco_part_eft": 6, "interhand": 62}  # fmt: skip


def read(standins: Path, name: str) -> list[FrameRecord]:
    return list(datasets.get(name).records(standins / name))


def posed(world: World, record: FrameRecord) -> Posed:
    pose = np.concatenate([record.global_orient, record.body_pose])[None]
    return world.pose(pose, np.zeros((1, 3)) if record.transl is None else record.transl[None], record.betas)


def seen(record: FrameRecord, points: NDArray) -> NDArray:
    return project(points, record.camera_K, record.camera_R, record.camera_t)


@pytest.mark.parametrize("name", PEOPLE)
def test_every_filmed_person_becomes_one_record(name: str, standins: Path) -> None:
    records = read(standins, name)
    assert len(records) == EXPECTED[name]
    assert len({record.frame_id for record in records}) == len(records)


@pytest.mark.parametrize("name", PEOPLE)
def test_images_decode_at_the_size_of_the_record_and_hold_the_box(name: str, standins: Path) -> None:
    for record in read(standins, name):
        path = standins / name / record.image
        if record.video_frame is None:
            image = frames.read_image(path)
        else:
            (image,) = frames.read_video_frames(path, [record.video_frame])
        assert image.shape == (record.height, record.width, 3)
        x, y, width, height = record.box
        visible = min(x + width, record.width) - max(x, 0), min(y + height, record.height) - max(y, 0)
        assert min(visible) > 5
        assert max(width, height) > 0.2 * min(record.width, record.height)


@pytest.mark.parametrize("name", ["humbi", "aist", "3dpw", "synthetic", "interhand"])
def test_joints_project_into_the_box(name: str, standins: Path) -> None:
    for record in read(standins, name):
        if record.joints_3d is None:
            continue
        x, y, width, height = record.box
        # Joints of the hands and feet lie a little outside a box around wrists and ankles.
        margin = 0.15 * max(width, height)
        u, v = seen(record, record.joints_3d).T
        assert ((u > x - margin) & (u < x + width + margin) & (v > y - margin) & (v < y + height + margin)).all()


@pytest.mark.parametrize("name", ["3dpw", "synthetic"])
def test_body_parameters_give_the_joints_in_the_world(name: str, standins: Path, world: World) -> None:
    for record in read(standins, name)[:6]:
        np.testing.assert_allclose(posed(world, record).joints[0], record.joints_3d, atol=1e-4)


def test_2d_keypoints_of_3dpw_are_those_of_its_bodies_and_cameras(standins: Path, world: World) -> None:
    for record in read(standins, "3dpw"):
        found = record.keypoints_2d[:, 2] > 0
        expected = seen(record, keypoints.openpose18(posed(world, record).coco[0]))
        # The neck is the middle of the shoulders: in the image when written, in space here.
        assert np.abs(expected - record.keypoints_2d[:, :2])[found].max() < 0.5


def test_2d_keypoints_of_aist_are_its_3d_keypoints_seen_by_its_cameras(standins: Path) -> None:
    for record in read(standins, "aist"):
        assert np.abs(seen(record, record.joints_3d) - record.keypoints_2d[:, :2]).max() < 0.01


@pytest.mark.parametrize("name", ["aist", "humbi"])
def test_bodies_scaled_by_the_release_are_turned_as_their_joints(name: str, standins: Path, world: World) -> None:
    for record in read(standins, name):
        coco = posed(world, record).coco[0]
        model = coco if name == "aist" else keypoints.body25(coco)[:19]
        joints = record.joints_3d[: len(model)]
        model, joints = model - model.mean(axis=0), joints - joints.mean(axis=0)
        scale = (model * joints).sum() / (model**2).sum()
        assert 0.9 < scale < 1.1
        np.testing.assert_allclose(scale * model, joints, atol=1e-3)


def test_cameras_of_humbi_agree_with_its_projection_matrices(standins: Path) -> None:
    for record in read(standins, "humbi"):
        lines = (standins / "humbi" / record.sequence / "body/project.txt").read_text().splitlines()
        start = lines.index(f"0 {int(record.camera)}")
        P = np.array([line.split() for line in lines[start + 1 : start + 4]], dtype=float)
        ours = record.camera_K @ np.column_stack([record.camera_R, record.camera_t])
        np.testing.assert_allclose(ours / ours[2, 3], P / P[2, 3], atol=1e-6)
        # The world of HUMBI has its up along -y.
        nose, heel = record.joints_3d[0], record.joints_3d[21]
        assert record.frame_index > 0
        assert seen(record, np.array([nose, nose - [0, 0.1, 0]]))[1, 1] < seen(record, nose[None])[0, 1]
        assert np.linalg.norm(nose - heel) < 2.2


def test_the_camera_of_an_eft_fit_shows_the_body_where_the_photograph_does(standins: Path, world: World) -> None:
    for record in read(standins, "coco_part_eft"):
        points = keypoints.spin49(posed(world, record).coco[0])
        annotated = record.keypoints_2d[:, 2] > 0
        assert annotated[25:37].all()
        error = np.linalg.norm(seen(record, points[annotated]) - record.keypoints_2d[annotated, :2], axis=1)
        # A fit is orthographic, the photograph is not.
        assert error.mean() < 0.02 * record.box[2]


def test_silhouettes_of_synthetic_scenes_cover_the_joints_of_every_view(standins: Path) -> None:
    for record in read(standins, "synthetic"):
        mask = frames.read_mask(standins / "synthetic" / record.silhouette)
        u, v = np.floor(record.keypoints_2d[:, :2]).astype(int).T
        assert mask[v, u].mean() > 0.8
        rows, columns = np.nonzero(mask)
        x, y, width, height = record.box
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x, y, x + width, y + height)


def test_scenes_with_other_looks_differ_from_the_synthetic_ones_in_nothing_else(standins: Path) -> None:
    one, other = (read(standins, name) for name in ("synthetic", "synthetic_looks"))
    for usual, changed in zip(one, other, strict=True):
        np.testing.assert_array_equal(usual.camera_R, changed.camera_R)
        np.testing.assert_array_equal(usual.joints_3d, changed.joints_3d)
        assert usual.box == changed.box
        masks = [frames.read_mask(standins / r.dataset / str(r.silhouette)) for r in (usual, changed)]
        np.testing.assert_array_equal(*masks)
        images = [frames.read_image(standins / r.dataset / r.image).astype(int) for r in (usual, changed)]
        apart, person = np.abs(images[0] - images[1]), masks[0]
        assert apart[~person].mean() < 2
        assert (apart.max() == 0) if usual.camera == "c0" else (apart[person].mean() > 10)


def test_a_person_with_other_looks_wears_the_same_at_every_instant(standins: Path) -> None:
    colours = {}
    for record in read(standins, "synthetic_looks"):
        image = frames.read_image(standins / "synthetic_looks" / record.image)
        mask = frames.read_mask(standins / "synthetic_looks" / str(record.silhouette))
        colours[record.sequence, record.camera, record.frame_index] = image[mask].mean(axis=0)
    scenes = {sequence for sequence, *_ in colours}
    within = [np.abs(colours[s, c, 0] - colours[s, c, 1]).max() for s in scenes for c in ("c0", "c1", "c2")]
    between = [np.abs(colours[s, "c0", 0] - colours[s, c, 0]).max() for s in scenes for c in ("c1", "c2")]
    assert np.mean(within) < 0.5 * np.mean(between)


def test_views_of_one_instant_show_the_same_body_from_other_sides(standins: Path) -> None:
    for name in ("synthetic", "humbi", "aist", "interhand"):
        first, *others = [r for r in read(standins, name) if (r.sequence, r.frame_index) == instant(standins, name)]
        assert others
        for other in others:
            np.testing.assert_array_equal(first.joints_3d, other.joints_3d)
            assert np.arccos((np.trace(first.camera_R @ other.camera_R.T) - 1) / 2) > np.deg2rad(5)


def instant(standins: Path, name: str) -> tuple[str, int]:
    record = next(iter(datasets.get(name).records(standins / name)))
    return record.sequence, record.frame_index


def test_hidden_joints_of_penn_action_carry_no_confidence(standins: Path) -> None:
    records = read(standins, "penn_action")
    assert {record.split for record in records} == {"train", "test"}
    for record in records:
        hidden = record.keypoints_2d[:, 2] == 0
        assert (record.keypoints_2d[hidden] == 0).all()
        x, y, width, height = record.box
        u, v = record.keypoints_2d[~hidden, :2].T
        assert ((u >= x - 1) & (u <= x + width + 1) & (v >= y - 1) & (v <= y + height + 1)).all()


def test_motions_of_the_test_set_are_by_people_whom_no_training_set_shows(world: World) -> None:
    train, test = ({person(m) for m in world.motions(held_out)} for held_out in (False, True))
    assert train
    assert test
    assert not train & test


def test_moments_drawn_for_one_shard_are_those_of_all(world: World) -> None:
    everything = world.moments(np.random.default_rng(1), 7, range(7), instants=2)
    some = world.moments(np.random.default_rng(1), 7, [5, 2], instants=2)
    for moment, number in zip(some, (5, 2), strict=True):
        np.testing.assert_array_equal(moment.poses, everything[number].poses)
        np.testing.assert_array_equal(moment.trans, everything[number].trans)


@pytest.mark.parametrize("seed", range(3))
def test_instants_of_a_scene_follow_each_other_in_its_motion_and_are_in_no_other_scene(world: World, seed: int) -> None:
    motions = world.motions(held_out=False)
    shown = []
    for moment in world.moments(np.random.default_rng(seed), len(motions), range(len(motions)), instants=2):
        [motion] = [motion for motion in motions if motion.name == moment.name]
        # Turning a motion changes its root alone.
        first, second = (
            int(np.flatnonzero((motion.poses[:, 3:] == pose[3:]).all(axis=1)).item()) for pose in moment.poses
        )
        assert second - first == 5  # at ten frames a second
        shown += [(motion.name, first), (motion.name, second)]
    assert len(set(shown)) == 2 * len(motions)


def test_what_motions_are_too_short_for_is_told_with_what_to_change(world: World) -> None:
    [motion, *_] = world.motions(held_out=False)
    rng = np.random.default_rng(0)
    assert len(world.clip(rng, motion, 60, 30.0, on_the_spot=False)) == 60
    with pytest.raises(ValueError, match=rf"{motion.name}: lasts 2 s, too short for 61 frames at 30 Hz; .*standin"):
        world.clip(rng, motion, 61, 30.0, on_the_spot=False)
    assert len(world.moments(rng, 1, [0], instants=4)[0]) == 4
    with pytest.raises(ValueError, match=r"lasts 2 s, too short for 5 instants every 0\.5 s; .*motions\.seconds"):
        world.moments(rng, 1, [0], instants=5)


def params_of_scales() -> dict[str, dict[str, Any]]:
    files = [PROJECT / "params.yaml", *sorted((PROJECT / "scales").glob("*/params.yaml"))]
    return {"test": small_params()} | {
        params["scale"]: params for params in map(yaml.safe_load, map(Path.read_text, files))
    }


@pytest.mark.parametrize("params", [pytest.param(value, id=key) for key, value in params_of_scales().items()])
def test_motions_of_every_scale_are_long_enough_for_its_stand_ins(world: World, params: dict[str, Any]) -> None:
    seconds, fps = params["motions"]["seconds"], params["motions"]["fps"]
    [motion, *_] = world.motions(held_out=False)
    length = round(seconds * fps)
    poses, trans = np.resize(motion.poses, (length, 72)), np.resize(motion.trans, (length, 3))
    motion = replace(motion, poses=poses, trans=trans, fps=fps)
    for name, rate in (("aist", aist.FPS), ("3dpw", threedpw.FPS), ("penn_action", penn_action.STANDIN_FPS)):
        if sizes := params["datasets"][name].get("standin"):
            asked = sizes.get("frames", sizes.get("instants")) * sizes.get("stride", 1)
            assert len(world.clip(np.random.default_rng(0), motion, asked, rate, on_the_spot=True)) == asked


def test_bodies_posed_together_are_those_posed_alone(world: World) -> None:
    rng = np.random.default_rng(1)
    moments = [*world.moments(rng, 10, range(10), instants=4), *world.moments(rng, 1, [0])]
    betas = [world.betas(rng) for _ in moments]
    poses, trans = [moment.poses for moment in moments], [moment.trans + 1 for moment in moments]
    for i, body in enumerate(world.pose_all(poses, trans, betas)):
        alone = world.pose(poses[i], trans[i], betas[i])
        for name in ("vertices", "joints", "coco", "rest_pelvis"):
            np.testing.assert_allclose(getattr(body, name), getattr(alone, name), atol=1e-5)
        unposed = world.pose(np.zeros((1, 72)), np.zeros((1, 3)), betas[i])
        np.testing.assert_allclose(body.rest_pelvis, unposed.joints[0, 0], atol=1e-6)


@pytest.mark.parametrize(("size", "side"), [((96, 112), 128), ((192, 144), 192), ((180, 320), 256)])
def test_clothes_are_painted_as_finely_as_the_image_shows(size: tuple[int, int], side: int, world: World) -> None:
    assert world.look(np.random.default_rng(0), *size).texture.shape == (side, side, 3)


def test_photographs_show_the_front_more_often_than_the_back(world: World) -> None:
    rng = np.random.default_rng(0)
    [motion] = world.moments(rng, 1, [0])
    body = world.pose(motion.poses, motion.trans, np.zeros(10))
    facing = Rotation.from_rotvec(body.poses[0, :3]).apply([0.0, 0.0, 1.0])
    towards = np.array([direction(body.photographed_from(rng), 0.0) for _ in range(400)])
    flat = facing * [1, 0, 1] / np.linalg.norm(facing * [1, 0, 1])
    # A normal deviation of 50 degrees leaves 93 % in front of the shoulders.
    assert 0.88 < (towards @ flat > 0).mean() < 0.98


def test_shapes_of_the_test_set_are_in_no_training_set(standins: Path) -> None:
    records = read(standins, "3dpw")
    shapes = {s: {tuple(r.betas) for r in records if r.split == s} for s in ("train", "val", "test")}
    fits = {tuple(np.float64(r.betas)) for r in read(standins, "coco_part_eft")}
    assert not shapes["test"] & (shapes["train"] | shapes["val"] | fits)


def test_backgrounds_are_the_photographs_without_people(standins: Path) -> None:
    quarantine = Quarantine()
    found = datasets.get("coco").background_images(standins / "coco", quarantine)
    assert len(found) == SIZES["coco"]["images"]
    assert len(quarantine) == 0
    assert list(datasets.get("coco").records(standins / "coco")) == []


def test_a_damaged_photograph_is_named_once_and_the_next_one_takes_its_place(
    open_layout: Layout, standins: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = sorted(Path(shutil.copytree(standins / "coco/train2017", tmp_path / "photographs")).iterdir())
    paths[1].write_bytes(paths[1].read_bytes()[:500])
    paths[3].write_bytes(b"")

    def backgrounds(photographs: list[Path]) -> list[NDArray]:
        world = World(open_layout.smpl, open_layout.mano, open_layout.motions, lambda: photographs)
        return [world.background(np.random.default_rng(seed), 40, 30) for seed in range(12)]

    found = backgrounds(paths)
    for path in (paths[1], paths[3]):
        [message] = [message for message in caplog.messages if path.name in message]
        assert message.endswith("the next photograph takes its place")
    np.testing.assert_array_equal(found, backgrounds([paths[0], paths[2], paths[2], paths[0]]))
    with pytest.raises(ValueError, match="none of the 2 photographs"):
        backgrounds([paths[1], paths[3]])


@pytest.mark.parametrize("name", datasets.names())
def test_the_same_seed_writes_the_same_bytes_in_any_order_of_shards(
    name: str, standins: Path, world: World, tmp_path: Path
) -> None:
    dataset = datasets.get(name)
    sizes = dataset.sizes(SIZES[name])
    with one_thread():
        for shard in reversed(dataset.shards(sizes)):
            dataset.write_shard(shard, tmp_path, world, 0, sizes)
    dataset.finish(tmp_path, sizes)
    written, again = contents(standins / name), contents(tmp_path)
    written.pop("STANDIN.md")
    assert again.keys() == written.keys()
    assert [path for path in written if again[path] != written[path]] == []


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_turned_world_keeps_the_body_where_it_is(world: World) -> None:
    rng = np.random.default_rng(0)
    [moment] = world.moments(rng, 1, [0])
    body = world.pose(moment.poses, moment.trans + 1.0, world.betas(rng))
    rotation = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    poses, transl = body.turned(rotation)
    with torch.no_grad():
        again = world.pose(poses, transl, body.betas)
    np.testing.assert_allclose(again.joints, body.joints @ rotation.T, atol=1e-4)
