"""InterHand2.6M: the stand-in read back, its traps, damaged releases, and pairs made of it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline import datasets, frames, manifests
from pipeline.crops import CropStore
from pipeline.datasets.base import project
from pipeline.datasets.hands import MIRROR
from pipeline.datasets.keypoints import HAND21_FROM_INTERHAND, HAND21_FROM_MANO
from pipeline.datasets.world import World
from pipeline.loading.pairs import Masking
from pipeline.pairs.selection import select
from pipeline.parsing import Cutting, parse
from pipeline.records import FrameRecord
from pipeline.run_spec import Pairs
from tests.pipeline.datasets.conftest import SIZES, read

NAME = "interhand"
ANNOTATIONS = "annotations/train/InterHand2.6M_train_{}.json"
SETTINGS = Pairs(
    max_view=400, max_pose=400, patch=8, input_size=64, min_human_patches=8, min_gap_s=0.1, max_gap_s=4.0,
    min_baseline_degrees=5.0, seed=0,
)  # fmt: skip


def edit(root: Path, kind: str, change: Callable[[Any], object]) -> None:
    path = root / ANNOTATIONS.format(kind)
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def model_joints(world: World, record: FrameRecord) -> NDArray:
    """(21, 3) of the record's MANO parameters; a left hand is posed as the mirrored right one."""
    side = "left" if record.body_model == "mano_left" else "right"
    pose = record.body_pose + world.hands.mean_pose(side)
    orient, transl = record.global_orient, record.transl
    if side == "left":
        pose, orient, transl = -pose * np.tile(MIRROR, 15), -orient * MIRROR, transl * MIRROR
    inputs = [torch.from_numpy(values[None]).float() for values in (record.betas, pose, orient, transl)]
    with torch.no_grad():
        out = world.hands.model(*inputs)
    tips = out.vertices[0, torch.from_numpy(world.hands.model.tip_vertices).long()]
    joints = torch.cat([out.joints[0], tips]).double().numpy()[list(HAND21_FROM_MANO)]
    return joints * MIRROR if side == "left" else joints


def test_joints_project_onto_the_hand_in_every_camera(root: Path) -> None:
    records, _ = read(NAME, root)
    cameras = set()
    for record in records:
        image = frames.read_image(root / record.image).max(axis=2)
        x, y, confidence = record.keypoints_2d.T
        u, v = np.floor(x[confidence > 0]).astype(int), np.floor(y[confidence > 0]).astype(int)
        # A joint lies under the skin, and the studio behind is darker than any skin.
        assert (image[v, u] > np.median(image) + 8).mean() > 0.9
        cameras.add((record.sequence.split("/")[0], record.camera))
    assert len(cameras) == SIZES[NAME]["captures"] * SIZES[NAME]["cameras"]


def test_3d_joints_seen_by_the_camera_are_the_2d_ones(root: Path) -> None:
    whole = [record for record in read(NAME, root)[0] if record.joints_3d is not None]
    assert len(whole) > 20
    for record in whole:
        assert record.joints_3d.shape == (21, 3)
        seen = record.keypoints_2d[:, 2] > 0
        points = project(record.joints_3d, record.camera_K, record.camera_R, record.camera_t)
        np.testing.assert_allclose(points[seen], record.keypoints_2d[seen, :2], atol=1e-6)
        assert (record.keypoints_2d[~seen] == 0).all()
        # Metres: the wrist is within a metre and a half of the camera, and a hand's length from its fingertips.
        assert 0.7 < np.linalg.norm(record.camera_R @ record.joints_3d[0] + record.camera_t) < 1.5
        assert 0.05 < np.linalg.norm(record.joints_3d[12] - record.joints_3d[0]) < 0.25


def test_mano_parameters_of_both_hands_give_the_joints_in_the_world(root: Path, world: World) -> None:
    fitted = [r for r in read(NAME, root)[0] if r.body_model is not None and r.joints_3d is not None]
    assert {record.body_model for record in fitted} == {"mano_right", "mano_left"}
    for record in fitted[::5]:
        np.testing.assert_allclose(model_joints(world, record), record.joints_3d, atol=1e-4)


def test_hands_are_of_the_side_that_their_record_says(root: Path) -> None:
    for record in read(NAME, root)[0]:
        if record.joints_3d is None:
            continue
        wrist, index, middle, pinky = record.joints_3d[[0, 5, 9, 17]]
        # Across the palm, from little to index finger, by the way to the fingers: out of the back of a right hand.
        back = np.cross(middle - wrist, index - pinky)
        curled = record.joints_3d[[8, 12, 16, 20]].mean(axis=0) - (index + pinky) / 2
        to_palm = -back if record.subject.endswith("right") else back
        # Bent fingers point to the palm, straight ones hardly to the back.
        assert curled @ to_palm / np.linalg.norm(to_palm) > -0.03


def test_fingers_come_in_the_same_order_from_both_conventions() -> None:
    mano = ["wrist", *(f"{f}{k}" for f in ("index", "middle", "pinky", "ring", "thumb") for k in (1, 2, 3))]
    mano += [f"{finger}4" for finger in ("thumb", "index", "middle", "ring", "pinky")]
    release = [f"{f}{k}" for f in ("thumb", "index", "middle", "ring", "pinky") for k in (4, 3, 2, 1)] + ["wrist"]
    ours = ["wrist", *(f"{f}{k}" for f in ("thumb", "index", "middle", "ring", "pinky") for k in (1, 2, 3, 4))]
    assert [mano[i] for i in HAND21_FROM_MANO] == ours
    assert [release[i] for i in HAND21_FROM_INTERHAND] == ours


def test_the_stand_in_has_the_oddities_of_the_release(root: Path) -> None:
    records, entries = read(NAME, root)
    data, joints, fits = (
        json.loads((root / ANNOTATIONS.format(kind)).read_bytes()) for kind in ("data", "joint_3d", "MANO_NeuralAnnot")
    )
    assert Counter(reason for _, reason in entries)["the image is black"] == SIZES[NAME]["captures"]
    assert {(i["width"], i["height"]) for i in data["images"]} == {(125, 192), (192, 125)}
    images: dict[tuple[str, str], set[int]] = defaultdict(set)
    for item in data["images"]:
        images[f"{item['capture']}/{item['seq_name']}", item["camera"]].add(item["frame_idx"])
    assert Counter(len(found) for found in images.values()) == {3: 16, 1: 2}
    instants = [instant for capture in joints.values() for instant in capture.values()]
    placeholders = [np.array(i["world_coord"])[~np.array(i["joint_valid"]).ravel()] for i in instants]
    assert sum(len(points) % 21 != 0 for points in placeholders) > 0  # single joints, not whole hands alone
    assert all((points == 1.0).all() for points in placeholders)
    assert {instant["hand_type"] for instant in instants} == {"right", "left", "interacting"}
    assert any(
        fit["left"] is None and fit["right"] is not None for capture in fits.values() for fit in capture.values()
    )
    # A joint that is not annotated has no part in any box.
    assert all(max(record.box[2:]) < 150 for record in records)


def test_a_right_hand_and_a_left_hand_of_one_image_are_two_records(root: Path) -> None:
    records, _ = read(NAME, root)
    by_image: dict[str, list[FrameRecord]] = defaultdict(list)
    for record in records:
        by_image[record.image].append(record)
    both = [found for found in by_image.values() if len(found) == 2]
    assert both
    for one, other in both:
        assert (one.subject, other.subject) == (f"{one.subject[0]}-right", f"{one.subject[0]}-left")
        assert one.box != other.box
    assert all("_dh_" in found[0].sequence for found in both)


@pytest.mark.parametrize("numbers_per_frame", [18, 6])
def test_frames_are_a_fifth_of_a_second_apart_at_either_numbering(copy: Path, numbers_per_frame: int) -> None:
    step = 18 // numbers_per_frame

    def renumber(content: dict[str, Any]) -> None:
        for capture, instants in content.items():
            content[capture] = {str(int(number) // step): instant for number, instant in instants.items()}

    edit(copy, "data", lambda data: [i.update(frame_idx=i["frame_idx"] // step) for i in data["images"]])
    edit(copy, "joint_3d", renumber)
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in read(NAME, copy)[0]:
        times[record.sequence, f"{record.camera} {record.subject}"].append(record.time_s)
    gaps = {round(float(gap), 6) for found in times.values() for gap in np.diff(sorted(found))}
    assert 0.2 in gaps
    assert gaps <= {0.2, 0.4}


def test_a_recording_of_single_frames_has_no_times(copy: Path) -> None:
    edit(copy, "data", lambda data: data.update(images=[i for i in data["images"] if i["frame_idx"] == 1000]))
    records, _ = read(NAME, copy)
    assert records
    assert {record.time_s for record in records} == {None}


def test_what_is_missing_or_damaged_is_left_out_and_listed(copy: Path) -> None:
    before, _ = read(NAME, copy)
    images = [record.image for record in before if "_rt_" in record.sequence][:6]
    (copy / images[0]).unlink()
    (copy / images[1]).write_bytes((copy / images[1]).read_bytes()[:40])

    def damage(data: dict[str, Any]) -> None:
        by_name = {f"images/train/{item['file_name']}": item for item in data["images"]}
        of = {annotation["image_id"]: annotation for annotation in data["annotations"]}
        by_name[images[3]]["camera"] = "499999"
        of[by_name[images[4]]["id"]]["joint_valid"] = [[0]] * 42
        data["annotations"].remove(of[by_name[images[5]]["id"]])

    edit(copy, "data", damage)
    records, entries = read(NAME, copy)
    assert len(records) == len(before) - 5
    reasons = (
        "missing",
        "not a readable image",
        "no calibration",
        "right hand: too few joints",
        "no annotation",
    )
    for image, reason in zip([images[0], images[1], *images[3:]], reasons, strict=True):
        assert any(file == image and reason in why for file, why in entries), (image, reason)


def test_a_capture_without_cameras_or_joints_leaves_the_others_alone(copy: Path) -> None:
    before, _ = read(NAME, copy)
    edit(copy, "camera", lambda cameras: cameras["0"].pop("campos"))
    edit(copy, "joint_3d", lambda joints: joints["1"].pop("1000"))
    records, entries = read(NAME, copy)
    assert len(records) == sum(r.sequence.startswith("Capture1/") and r.frame_index != 1000 for r in before)
    assert (ANNOTATIONS.format("camera"), "Capture0: not the cameras of a capture (no campos in its entry)") in entries
    assert any(reason == "right hand: no joints of that instant" for _, reason in entries)


def test_without_mano_parameters_hands_are_read_all_the_same(copy: Path) -> None:
    before, _ = read(NAME, copy)
    path = copy / ANNOTATIONS.format("MANO_NeuralAnnot")
    path.write_text(path.read_text()[:100])
    records, entries = read(NAME, copy)
    assert [record.frame_id for record in records] == [record.frame_id for record in before]
    assert {record.body_model for record in records} == {None}
    assert any(
        file == ANNOTATIONS.format("MANO_NeuralAnnot") and "not readable as JSON" in why for file, why in entries
    )


def test_an_annotation_file_that_is_none_is_an_error_that_names_it(copy: Path) -> None:
    (copy / ANNOTATIONS.format("joint_3d")).write_text('{"0": ')
    with pytest.raises(ValueError, match=r"train_joint_3d.json: not readable as JSON .*unpack the annotations again"):
        read(NAME, copy)
    (copy / ANNOTATIONS.format("data")).write_text("[]")
    with pytest.raises(ValueError, match=r"train_data.json: not an annotation file of InterHand2.6M"):
        read(NAME, copy)


def test_archives_unpacked_a_folder_deeper_are_found(copy: Path) -> None:
    before, _ = read(NAME, copy)
    batch = copy / "InterHand2.6M_5fps_batch1"
    batch.mkdir()
    (copy / "images").rename(batch / "images")
    records, _ = read(NAME, copy)
    assert [record.frame_id for record in records] == [record.frame_id for record in before]
    assert records[0].image.startswith("InterHand2.6M_5fps_batch1/images/train/")


def test_real_annotations_project_into_their_boxes(shared: Path) -> None:
    root = shared / "samples/interhand2.6m"
    records, entries = read(NAME, root)
    assert entries == []
    assert [(r.sequence, r.subject, r.camera) for r in records] == [
        ("Capture3/0390_dh_touchROM", "3-right", "400026"),
        ("Capture3/0390_dh_touchROM", "3-left", "400026"),
        ("Capture4/0007_thumbup_normal", "0-right", "410028"),
    ]
    data = json.loads((root / ANNOTATIONS.format("data")).read_bytes())
    boxes = {
        f"images/train/{i['file_name']}": a["bbox"] for i, a in zip(data["images"], data["annotations"], strict=True)
    }
    for record in records:
        x, y, width, height = boxes[record.image]
        u, v, _ = record.keypoints_2d[record.keypoints_2d[:, 2] > 0].T
        assert ((u > x - 2) & (u < x + width + 2) & (v > y - 2) & (v < y + height + 2)).all()


@pytest.fixture(scope="module")
def pairs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[FrameRecord], list[dict[str, Any]]]:
    """Records of the stand-in, and the pairs that the pipeline makes of them."""
    folder = tmp_path_factory.mktemp("pairs")
    records, _ = read(NAME, root)
    manifests.write_records(records, folder / "records.parquet")
    table = manifests.read_records(folder / "records.parquet")
    parse(table, folder / "crops.arrow", folder / "scratch", Cutting(root, 80, 1.1, "none"))
    rows, _ = select(table, CropStore(folder / "crops.arrow"), SETTINGS, ("view", "pose"))
    return records, rows


def test_cross_view_pairs_show_one_hand_at_one_instant_from_two_sides(
    pairs: tuple[list[FrameRecord], list[dict[str, Any]]],
) -> None:
    records, rows = pairs
    by_id = {record.frame_id: record for record in records}
    views = [row for row in rows if row["kind"] == "view"]
    assert len(views) > 40
    for row in views:
        target, reference = by_id[row["target_frame_id"]], by_id[row["reference_frame_id"]]
        for name in ("sequence", "subject", "frame_index", "time_s"):
            assert getattr(target, name) == getattr(reference, name)
        assert target.camera != reference.camera
        assert row["baseline_degrees"] >= SETTINGS.min_baseline_degrees


def test_cross_pose_pairs_show_one_hand_before_one_camera_and_not_one_of_a_single_image(
    pairs: tuple[list[FrameRecord], list[dict[str, Any]]],
) -> None:
    records, rows = pairs
    by_id = {record.frame_id: record for record in records}
    poses = [row for row in rows if row["kind"] == "pose"]
    assert len(poses) > 40
    for row in poses:
        target, reference = by_id[row["target_frame_id"]], by_id[row["reference_frame_id"]]
        for name in ("sequence", "subject", "camera"):
            assert getattr(target, name) == getattr(reference, name)
        assert row["dt_seconds"] == pytest.approx(reference.time_s - target.time_s)
        assert abs(row["dt_seconds"]) in (pytest.approx(0.2), pytest.approx(0.4))
    alone = {
        key
        for key, count in Counter((r.sequence, r.subject, r.camera) for r in records).items()
        if count == 1 and "_dh_" in key[0]
    }
    assert alone
    assert not alone & {(t.sequence, t.subject, t.camera) for t in (by_id[row["target_frame_id"]] for row in poses)}


def test_hands_have_no_patch_mask_and_are_hidden_uniformly_even_where_humans_are_masked(
    pairs: tuple[list[FrameRecord], list[dict[str, Any]]], tmp_path: Path
) -> None:
    _, rows = pairs
    assert {row["target_patch_mask"] for row in rows} == {row["reference_patch_mask"] for row in rows} == {None}
    manifests.write_pairs(rows, tmp_path / "pairs.parquet", frames="of no file")
    assert manifests.validate(tmp_path / "pairs.parquet") == "pairs"
    nobody = torch.zeros(256, 64, dtype=torch.bool)
    masking = Masking("human", 0.75, "max_n", min_human=8, patch=8)
    hidden = masking.hide(nobody, torch.Generator().manual_seed(0))
    assert (hidden.sum(dim=1) == 48).all()
    assert (hidden.float().mean(dim=0) - 0.75).abs().max() < 0.12


def test_a_pose_of_another_length_than_the_model_has_is_refused(root: Path) -> None:
    record = next(iter(datasets.get(NAME).records(root)))
    values = {name: getattr(record, name) for name in manifests.FIELD_NAMES}
    with pytest.raises(ValueError, match="body_pose has 69 numbers, mano_right expects 45"):
        FrameRecord(**values | {"body_model": "mano_right", "body_pose": np.zeros(69)})
