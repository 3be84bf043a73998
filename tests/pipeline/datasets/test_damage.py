"""Damaged and odd entries are left out, listed with their file and reason; the rest is read."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

from pipeline import datasets, frames
from pipeline.datasets import Quarantine
from pipeline.datasets.base import image_size
from pipeline.manifests import write_records
from pipeline.pickles import load_arrays
from tests.pipeline.damaged_npz import damaged
from tests.pipeline.datasets.conftest import read

Copy = Callable[[str], Path]


@pytest.fixture
def copy(standins: Path, tmp_path: Path) -> Copy:
    """Gives a stand-in that may be damaged."""
    return lambda name: Path(shutil.copytree(standins / name, tmp_path / name))


def listed(entries: list[tuple[str, str]], file: str, reason: str) -> bool:
    return any(file in name and reason in why for name, why in entries)


class Harmful:
    """Unpickles by running a command."""

    def __reduce__(self) -> tuple:
        return os.system, ("true",)


def test_an_image_that_claims_to_be_beyond_all_size_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(path)
    content = path.read_bytes()
    size = content.index(b"\xff\xc0") + 5
    path.write_bytes(content[:size] + b"\xff\xdc" * 2 + content[size + 4 :])
    with pytest.raises(ValueError, match="not a readable image"):
        image_size(path)


def test_3dpw_survives_truncated_foreign_and_incomplete_sequences(copy: Copy) -> None:
    root = copy("3dpw")
    train = root / "sequenceFiles/train"
    whole = (train / "train_00.pkl").read_bytes()
    (train / "train_00.pkl").write_bytes(whole[: len(whole) // 2])
    (train / "train_01.pkl").write_bytes(pickle.dumps({"poses": Harmful()}))
    (root / "sequenceFiles/validation/validation_00.pkl").write_bytes(pickle.dumps({"poses": []}))
    (root / "imageFiles/test_00/image_00005.jpg").unlink()
    records, entries = read("3dpw", root)
    assert len(records) == 2 * 3 - 1
    assert any(reason.startswith("not a readable pickle") for file, reason in entries if "train_00.pkl" in file)
    assert listed(entries, "train_01.pkl", "refuses")
    assert listed(entries, "validation_00.pkl", "no betas")
    assert listed(entries, "image_00005.jpg", "missing")


def test_3dpw_loses_of_a_sequence_only_the_image_that_is_none(copy: Copy) -> None:
    root = copy("3dpw")
    images = root / "imageFiles/test_00"
    (images / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (images / "image_00000.jpg").write_bytes(b"")
    for image in (root / "imageFiles/test_01").iterdir():
        image.write_bytes(b"")
    records, entries = read("3dpw", root)
    assert [r.frame_index for r in records if r.sequence == "test_00"] == [5, 10]
    assert sum(listed([entry], "imageFiles/test_00", "not a readable image") for entry in entries) == 1
    assert sum(listed([entry], "imageFiles/test_01", "not a readable image") for entry in entries) == 3


def test_3dpw_names_the_array_that_is_not_what_it_should_be(copy: Copy) -> None:
    root = copy("3dpw")
    sequences = sorted((root / "sequenceFiles").glob("*/*.pkl"))
    wrong: list[Callable[[dict], object]] = [
        lambda content: content["poses"].append(content["poses"][0]),
        lambda content: content.update(cam_intrinsics=np.eye(4)),
        lambda content: content["poses2d"].__setitem__(0, content["poses2d"][0][:, :2]),
        lambda content: content["genders"].__setitem__(0, "x"),
        lambda content: content["trans"].__setitem__(0, content["trans"][0][:6]),
    ]
    for path, change in zip(sequences, wrong, strict=True):
        content = load_arrays(path)
        assert isinstance(content, dict)
        change(content)
        path.write_bytes(pickle.dumps(content, protocol=2))
    records, entries = read("3dpw", root)
    assert {r.sequence for r in records} == {sequences[4].stem}
    assert [r.frame_index for r in records] == [0, 5]
    keys = "poses, betas, trans, poses2d, jointPositions, campose_valid, genders"
    assert set(entries) >= {
        (f"sequenceFiles/test/{sequences[0].name}", f"not lists with one entry per actor: {keys}"),
        (f"sequenceFiles/test/{sequences[1].name}#actor 0", "cam_intrinsics is of shape (4, 4), expected (3, 3)"),
        (f"sequenceFiles/train/{sequences[2].name}#actor 0", "poses2d is of shape (15, 2, 18), expected (any, 3, 18)"),
        (f"sequenceFiles/train/{sequences[3].name}#actor 0", "the gender is 'x', expected one of m, f, n"),
    }
    assert listed(entries, sequences[4].name, "frames beyond the shortest of its arrays")


def test_3dpw_leaves_out_frames_without_a_valid_camera_and_counts_them(copy: Copy) -> None:
    root = copy("3dpw")
    quarantine = Quarantine()
    list(datasets.get("3dpw").records(root, quarantine))
    # Of 15 frames at 30 Hz three are filmed, in five sequences.
    assert sum(entry.records for entry in quarantine.entries) == 5 * 12


def test_3dpw_heeds_no_keypoint_outside_the_image(copy: Copy) -> None:
    root = copy("3dpw")
    path = root / "sequenceFiles/train/train_00.pkl"
    content = load_arrays(path)
    assert isinstance(content, dict)
    content["poses2d"][0][0, :, 17] = 0.0
    path.write_bytes(pickle.dumps(content, protocol=2))
    before = next(r for r in read("3dpw", root)[0] if r.sequence == "train_00" and r.frame_index == 0)
    content["poses2d"][0][0, :, 17] = 6500.0, -2100.0, 0.3
    content["poses2d"][0][5, 0, 5:] += 6500.0
    path.write_bytes(pickle.dumps(content, protocol=2))
    records, entries = read("3dpw", root)
    first, last = (r for r in records if r.sequence == "train_00")
    assert (first.frame_index, last.frame_index) == (0, 10)
    assert first.box == before.box
    np.testing.assert_array_equal(first.keypoints_2d, before.keypoints_2d)
    assert ("imageFiles/train_00/image_00005.jpg#actor 0", "too few 2D keypoints in the image") in entries


def test_penn_action_loses_of_a_video_only_the_images_that_are_none(copy: Copy) -> None:
    root = copy("penn_action")
    images = root / "Penn_Action/frames"
    (images / "0001/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (images / "0001/000001.jpg").write_bytes(b"")
    shutil.copy(images / "0002/000001.jpg", images / "0002/000004.jpg")
    records, entries = read("penn_action", root)
    assert [sum(r.sequence == s for r in records) for s in ("0001", "0002", "0003", "0004")] == [2, 3, 3, 3]
    assert sorted(entries) == [
        ("Penn_Action/frames/0001/000001.jpg", "not a readable image (UnidentifiedImageError)"),
        ("Penn_Action/labels/0002.mat", "images without labels"),
    ]


def test_penn_action_reports_videos_without_frames_and_forgives_a_missing_last_box(copy: Copy) -> None:
    root = copy("penn_action")
    base = root / "Penn_Action"
    shutil.rmtree(base / "frames/0001")
    labels = scipy.io.loadmat(base / "labels/0002.mat")
    labels["bbox"] = labels["bbox"][:-1]
    scipy.io.savemat(base / "labels/0002.mat", {k: v for k, v in labels.items() if not k.startswith("__")})
    (base / "labels/0003.mat").write_bytes(b"not matlab")
    (base / "frames/0004/000002.jpg").unlink()
    records, entries = read("penn_action", root)
    assert [sum(r.sequence == s for r in records) for s in ("0001", "0002", "0003", "0004")] == [0, 3, 0, 2]
    assert sum(listed([entry], "frames/0001", "missing") for entry in entries) == 3
    assert listed(entries, "labels/0003.mat", "not a readable MATLAB file")
    assert listed(entries, "frames/0004/000002.jpg", "missing")


def test_penn_action_lists_frames_without_a_label_file(copy: Copy) -> None:
    root = copy("penn_action")
    (root / "Penn_Action/labels/0002.mat").unlink()
    (root / "Penn_Action/frames/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    quarantine = Quarantine()
    records = list(datasets.get("penn_action").records(root, quarantine))
    assert {r.sequence for r in records} == {"0001", "0003", "0004"}
    [entry] = quarantine.entries
    assert (entry.file, entry.reason) == ("Penn_Action/frames/0002", "frames without a label file")
    assert entry.records == 3


def test_one_kind_of_fault_has_one_reason_and_each_record_its_place(copy: Copy) -> None:
    penn, aist = copy("penn_action"), copy("aist")
    labels = scipy.io.loadmat(penn / "Penn_Action/labels/0001.mat")
    labels["bbox"][:, 2] = labels["bbox"][:, 0] - [1.0, 2.0, 3.0]
    scipy.io.savemat(penn / "Penn_Action/labels/0001.mat", {k: v for k, v in labels.items() if not k.startswith("__")})
    _, entries = read("penn_action", penn)
    assert entries == [(f"Penn_Action/frames/0001/00000{n}.jpg", "box has no area") for n in (1, 2, 3)]
    path = min((aist / "aist_plusplus_final/keypoints3d").glob("*.pkl"))
    path.write_bytes(pickle.dumps({"keypoints3d_optim": np.full((12, 17, 3), np.nan)}))
    _, entries = read("aist", aist)
    fault = "joints_3d holds NaN or infinity; absent is None"
    places = [f"videos/{path.stem.replace('cAll', c)}.mp4#frame {n}" for c in ("c01", "c02") for n in (0, 4, 8)]
    assert [file for file, reason in entries if reason == fault] == places


def test_coco_part_eft_names_samples_without_photograph_rotation_or_box(copy: Copy) -> None:
    root = copy("coco_part_eft")
    path = root / "COCO2014-Part-ver01.json"
    content = json.loads(path.read_text())
    samples = content["data"]
    (root / "train2014" / samples[0]["imageName"]).unlink()
    samples[1]["parm_pose"][0] = np.diag([1.0, 1.0, -1.0]).tolist()
    del samples[2]["bbox_scale"]
    samples[3]["parm_shape"][0] = float("nan")
    path.write_text(json.dumps(content))
    records, entries = read("coco_part_eft", root)
    assert len(records) == 2
    for index, reason in enumerate(("photograph is missing", "no rotations", "no bbox_scale", "NaN")):
        assert listed(entries, f"#{index} COCO_train2014", reason)


def test_coco_part_eft_finds_its_photographs_in_coco_2017(copy: Copy, tmp_path: Path) -> None:
    root = copy("coco_part_eft")
    target = tmp_path / "coco/train2017"
    target.mkdir(parents=True)
    for image in (root / "train2014").iterdir():
        image.rename(target / f"{image.stem.rsplit('_')[-1]}.jpg")
    records, entries = read("coco_part_eft", root)
    assert len(records) == 6
    assert entries == []
    assert records[0].image == "../coco/train2017/000001000001.jpg"


def test_humbi_skips_cameras_without_calibration_and_images_that_are_none(copy: Copy) -> None:
    root = copy("humbi")
    images = root / "subject_1/body/00000010/image"
    shutil.copy(images / "image0000000.jpg", images / "image0000099.jpg")
    (images / "image0000003.jpg").write_bytes(b"")
    (root / "subject_1/body/00000020/reconstruction/keypoints.txt").write_text("1 2 3\n")
    (root / "subject_2/body/extrinsic.txt").write_text("a\nb\nc\n0 1\n1 2\n")
    quarantine = Quarantine()
    records = list(datasets.get("humbi").records(root, quarantine))
    # Of two subjects at two instants before three cameras, and of the image of a camera that is unknown.
    assert len(records) + sum(entry.records for entry in quarantine.entries) == 2 * 2 * 3 + 1
    entries = [(entry.file, entry.reason) for entry in quarantine.entries]
    found = [(r.subject, r.frame_index, r.camera) for r in records]
    assert found == [("subject_1", 10, "000"), ("subject_1", 10, "006")]
    assert listed(entries, "image0000099.jpg", "no calibration")
    assert listed(entries, "image0000003.jpg", "not a readable image")
    assert listed(entries, "subject_1/body/00000020", "reconstruction")
    assert listed(entries, "subject_2/body", "extrinsic.txt: not a camera file of HUMBI")


def test_humbi_keeps_images_whose_joints_are_not_all_known(copy: Copy) -> None:
    root = copy("humbi")
    first, second = (root / f"subject_1/body/{instant}/reconstruction" for instant in ("00000010", "00000020"))
    for reconstruction in (first, second):
        joints = np.loadtxt(reconstruction / "keypoints.txt")
        joints[22] = np.nan
        np.savetxt(reconstruction / "keypoints.txt", joints)
    (second / "smpl_vertex.txt").unlink()
    quarantine = Quarantine()
    records = [r for r in datasets.get("humbi").records(root, quarantine) if r.subject == "subject_1"]
    assert [(r.frame_index, r.joints_3d) for r in records] == [(10, None)] * 3
    assert [(entry.file, entry.reason, entry.records) for entry in quarantine.entries] == [
        ("subject_1/body/00000010", "keypoints.txt: NaN or infinity among the joints, which are left out", 0),
        ("subject_1/body/00000020", "reconstruction: NaN or infinity in what the box is made from", 3),
    ]


def test_humbi_reads_a_subject_that_lies_in_two_bundles_once(copy: Copy, tmp_path: Path) -> None:
    root = copy("humbi")
    shutil.copytree(root / "subject_1", root / "Sample_body/subject_1")
    (root / "subject_2").rename(root / "Sample_body/subject_2")
    shutil.copytree(root / "Sample_body/subject_2", root / "Bodies_1_80/subject_2")
    (root / "Bodies_1_80/subject_2/body/intrinsic.txt").unlink()
    quarantine = Quarantine()
    assert write_records(datasets.get("humbi").records(root, quarantine), tmp_path / "r.parquet") == 2 * 2 * 3
    damaged, doubled = quarantine.entries
    assert (damaged.file, damaged.records) == ("Bodies_1_80/subject_2/body", 6)
    assert (doubled.file, doubled.records) == ("Sample_body/subject_1/body", 6)
    assert doubled.reason == "the subject lies in humbi, too, and is read from there"


def test_aist_drops_ignored_sequences_and_broken_videos(copy: Copy) -> None:
    root = copy("aist")
    first, second = sorted(p.stem for p in (root / "aist_plusplus_final/keypoints2d").glob("*.pkl"))
    (root / "aist_plusplus_final/ignore_list.txt").write_text(f"{first}\n")
    video = root / f"videos/{second.replace('cAll', 'c01')}.mp4"
    video.write_bytes(video.read_bytes()[:200])
    records, entries = read("aist", root)
    assert {(r.sequence, r.camera) for r in records} == {(second, "c02")}
    assert listed(entries, first, "ignore list")
    assert listed(entries, video.name, "not a readable video")


def test_aist_names_annotations_it_can_not_use(copy: Copy) -> None:
    root = copy("aist") / "aist_plusplus_final"
    first, second = sorted((root / "keypoints3d").glob("*.pkl"))
    first.write_bytes(pickle.dumps({"keypoints3d": np.zeros((3, 17, 3))}))
    second.write_bytes(pickle.dumps({"keypoints3d_optim": np.zeros((3, 17, 3))}))
    records, entries = read("aist", root.parent)
    assert records == []
    assert listed(entries, first.stem, "keypoints3d: no keypoints3d_optim in it")
    assert listed(entries, second.stem, "3D keypoints are not 17 for every frame")


def test_aist_leaves_out_a_video_of_another_frame_rate_than_its_annotations(copy: Copy) -> None:
    root = copy("aist")
    video = min((root / "videos").glob("*_c01_*.mp4"))
    images = frames.read_video_frames(video, range(0, 12, 2))
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (160, 120))
    for image in images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    quarantine = Quarantine()
    records = list(datasets.get("aist").records(root, quarantine))
    # Two dances of three filmed instants and two cameras.
    assert len(records) == 3 * 3
    assert video.relative_to(root).as_posix() not in {record.image for record in records}
    [entry] = [entry for entry in quarantine.entries if entry.file.endswith(video.name)]
    assert entry.records == 3
    assert entry.reason == "the video has 30 frames per second, its annotations 60; get the original, as SOURCE.md says"


def test_aist_counts_all_records_of_a_dance_that_is_left_out(copy: Copy) -> None:
    root = copy("aist")
    first, second = sorted((root / "aist_plusplus_final/motions").glob("*.pkl"))
    first.write_bytes(pickle.dumps({"smpl_poses": np.zeros((11, 72))}))
    quarantine = Quarantine()
    assert {record.sequence for record in datasets.get("aist").records(root, quarantine)} == {second.stem}
    [entry] = [entry for entry in quarantine.entries if "poses in motions" in entry.reason]
    assert (entry.file, entry.records) == (f"aist_plusplus_final/keypoints2d/{first.name}", 2 * 3)


def test_aist_leaves_out_the_video_that_is_not_synchronised(copy: Copy) -> None:
    root, odd = copy("aist"), "gBR_sBM_cAll_d04_mBR0_ch01"
    annotations = root / "aist_plusplus_final"
    name = min((annotations / "keypoints2d").glob("*.pkl")).stem
    for path in annotations.glob(f"*/{name}.pkl"):
        path.rename(path.with_stem(odd))
    mapping = annotations / "cameras/mapping.txt"
    mapping.write_text(mapping.read_text().replace(name, odd))
    for camera, source in (("c02", "c02"), ("c05", "c01")):
        video = root / f"videos/{name.replace('cAll', source)}.mp4"
        video.rename(root / f"videos/{odd.replace('cAll', camera)}.mp4")
    content = load_arrays(annotations / f"keypoints2d/{odd}.pkl")
    assert isinstance(content, dict)
    content["keypoints2d"][4] = content["keypoints2d"][0]
    (annotations / f"keypoints2d/{odd}.pkl").write_bytes(pickle.dumps(content, protocol=2))
    quarantine = Quarantine()
    records = list(datasets.get("aist").records(root, quarantine))
    assert {r.camera for r in records if r.sequence == odd} == {"c02"}
    [entry] = [entry for entry in quarantine.entries if "not synchronised" in entry.reason]
    assert (entry.file, entry.records) == ("videos/gBR_sBM_c05_d04_mBR0_ch01.mp4", 3)


def test_aist_heeds_no_keypoint_that_is_a_guess(copy: Copy) -> None:
    root = copy("aist")
    path = min((root / "aist_plusplus_final/keypoints2d").glob("*.pkl"))
    content = load_arrays(path)
    assert isinstance(content, dict)
    content["keypoints2d"][0, 0, 4] = np.nan
    path.write_bytes(pickle.dumps(content, protocol=2))
    before = read("aist", root)[0]
    content["keypoints2d"][0, 0, 4] = 2.0, 3.0, 0.03
    content["keypoints2d"][0, 4, 5:, 2] = 0.1
    path.write_bytes(pickle.dumps(content, protocol=2))
    quarantine = Quarantine()
    records = list(datasets.get("aist").records(root, quarantine))
    assert [r.key for r in records] == [r.key for r in before if r.key != before[1].key]
    assert records[0].box == before[0].box
    assert records[0].keypoints_2d is not None
    np.testing.assert_allclose(records[0].keypoints_2d[4], [2.0, 3.0, 0.03], atol=1e-6)
    unseen = {entry.file: entry.records for entry in quarantine.entries if "detected person" in entry.reason}
    assert unseen[before[0].image] == 10


def test_aist_lists_videos_without_annotations(copy: Copy) -> None:
    root = copy("aist")
    shutil.copy(min((root / "videos").glob("*.mp4")), root / "videos/gBR_sFM_c01_d04_mBR0_ch01.mp4")
    _, entries = read("aist", root)
    reason = "a video without annotations of AIST++"
    assert [file for file, why in entries if why == reason] == ["videos/gBR_sFM_c01_d04_mBR0_ch01.mp4"]


def test_synthetic_scenes_survive_a_damaged_annotation_and_a_missing_image(copy: Copy) -> None:
    root = copy("synthetic")
    [path] = (root / "annotations").glob("*.npz")
    whole = path.read_bytes()
    for number, content in enumerate((whole[:300], *damaged(whole))):
        (root / f"annotations/{9999 - number}.npz").write_bytes(content)
    (root / "images/s000001/c2_001.jpg").unlink()
    (root / "parts/s000000/c0_000.png").unlink()
    records, entries = read("synthetic", root)
    assert len(records) == 17
    assert [r.image for r in records if r.silhouette is None] == ["images/s000000/c0_000.jpg"]
    for number in range(4):
        assert listed(entries, f"annotations/{9999 - number}.npz", "not a readable annotation file")
    assert listed(entries, "images/s000001/c2_001.jpg", "missing")


def test_coco_keeps_images_with_people_and_missing_ones_from_the_backgrounds(copy: Copy) -> None:
    root = copy("coco")
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"] = [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 18}]
    path.write_text(json.dumps(content))
    (root / "train2017/000000000003.jpg").unlink()
    quarantine = Quarantine()
    found = datasets.get("coco").background_images(root, quarantine)
    assert [p.name for p in found] == ["000000000002.jpg", "000000000004.jpg"]
    assert [entry.file for entry in quarantine.entries] == ["train2017/000000000003.jpg"]
    path.write_text("[]")
    with pytest.raises(ValueError, match="not the instances file of COCO 2017"):
        datasets.get("coco").background_images(root)


def test_what_was_left_out_is_summed_up_in_one_warning(copy: Copy, caplog: pytest.LogCaptureFixture) -> None:
    root = copy("synthetic")
    for image in (root / "images/s000001").iterdir():
        image.unlink()
    with caplog.at_level("WARNING"):
        list(datasets.get("synthetic").records(root))
    assert caplog.messages == ["synthetic: left out 6 entries: 6x the image is missing"]
