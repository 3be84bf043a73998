"""Stand-ins are written shard by shard and resume; datasets become records manifests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from pipeline import datasets, manifests, run_spec
from pipeline.datasets import standin
from pipeline.datasets.index import index, thin
from pipeline.layout import PROJECT, Layout
from pipeline.records import FrameRecord
from pipeline.run_spec import Params
from tests.pipeline.datasets.conftest import SIZES, world_of


@pytest.fixture
def params() -> Params:
    """The project's parameters with tiny stand-ins."""
    params = run_spec.load(PROJECT / "params.yaml")
    small = {name: section.model_copy(update={"standin": SIZES[name]}) for name, section in params.datasets.items()}
    return params.model_copy(update={"datasets": small})


@pytest.fixture
def layout(open_layout: Layout, tmp_path: Path) -> Layout:
    """A fresh project with the open world of the session."""
    layout = Layout("mini", tmp_path)
    layout.data.mkdir(parents=True)
    layout.bodies.symlink_to(open_layout.bodies)
    layout.motions.symlink_to(open_layout.motions)
    shutil.copytree(open_layout.standin("coco"), layout.standin("coco"))
    return layout


def test_parallel_processes_write_what_one_writes(layout: Layout, params: Params, standins: Path) -> None:
    steps: list[tuple[int, int]] = []
    root = standin.write_standin("humbi", layout, params, lambda done, total: steps.append((done, total)), processes=2)
    assert steps == [(1, 2), (2, 2)]
    for path in (standins / "humbi").rglob("*.jpg"):
        assert (root / path.relative_to(standins / "humbi")).read_bytes() == path.read_bytes()
    assert not list((layout.root / ".scratch").glob("*/*"))


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_of_the_process_change_no_byte(
    open_layout: Layout, standins: Path, tmp_path: Path, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        datasets.get("humbi").write_standin(tmp_path, world_of(open_layout), 0, **SIZES["humbi"])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    written = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert [
        path for path in written if (tmp_path / path).read_bytes() != (standins / "humbi" / path).read_bytes()
    ] == []


def test_a_stopped_job_goes_on_with_the_shards_that_are_missing(layout: Layout, params: Params) -> None:
    job = standin.plan("coco", layout, params)
    assert job.missing() == ["0000"]
    with pytest.raises(ValueError, match="coco: 1 shards are not rendered yet, the first is 0000"):
        job.assemble()
    job.write("0000")
    again = standin.plan("coco", layout, params)
    assert again.missing() == []
    stamp = (again.scratch / "0000/train2017/000000000001.jpg").stat().st_mtime_ns
    again.write("0000")
    assert (again.scratch / "0000/train2017/000000000001.jpg").stat().st_mtime_ns == stamp


def test_other_parameters_or_code_do_not_resume_a_job_and_what_it_left_goes_with_the_next(
    layout: Layout, params: Params, monkeypatch: pytest.MonkeyPatch, other_code: Callable[[str], Path]
) -> None:
    job = standin.plan("coco", layout, params)
    job.write("0000")
    section = params.datasets["coco"].model_copy(update={"standin_seed": 5})
    other = params.model_copy(update={"datasets": {"coco": section}})
    assert standin.plan("coco", layout, other).scratch != job.scratch
    monkeypatch.setattr("pipeline.code.PROJECT", other_code("pipeline/rendering/backgrounds.py"))
    again = standin.plan("coco", layout, params)
    assert again.missing() == ["0000"]
    of_others = layout.scratch("standin-coco_part_eft", "0123456789abcdef")
    of_others.mkdir(parents=True)
    again.write("0000")
    again.assemble()
    assert not job.scratch.exists()
    assert not again.scratch.exists()
    assert of_others.is_dir()


def test_a_stand_in_without_its_world_says_what_makes_it(params: Params, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3dpw: its stand-in needs .*SMPL_NEUTRAL.npz.*python -m pipeline.bodies"):
        standin.plan("3dpw", Layout("mini", tmp_path), params)


def test_a_scale_without_stand_ins_has_none_to_write(layout: Layout, params: Params) -> None:
    section = params.datasets["coco"].model_copy(update={"standin": {}})
    with pytest.raises(ValueError, match="coco: scale mini has no stand-in"):
        standin.plan("coco", layout, params.model_copy(update={"datasets": {"coco": section}}))


def test_indexing_writes_a_valid_manifest_and_the_list_of_what_was_left_out(
    layout: Layout, params: Params, standins: Path
) -> None:
    shutil.copytree(standins / "3dpw", layout.standin("3dpw"))
    (layout.standin("3dpw") / "imageFiles/train_00/image_00000.jpg").unlink()
    counts = index("3dpw", layout, params)
    assert counts == {"records": 14, "records_test": 6, "records_train": 5, "records_val": 3, "quarantined": 6}
    assert manifests.validate(layout.records("3dpw")) == "records"
    left_out = json.loads((layout.data / "records/3dpw.quarantine.json").read_text())
    assert left_out["count"] == 6
    image = "imageFiles/train_00/image_00000.jpg#actor 0"
    assert {"file": image, "reason": "the image is missing", "records": 1} in left_out["entries"]


def test_real_data_comes_before_the_stand_in(layout: Layout, params: Params, standins: Path) -> None:
    shutil.copytree(standins / "penn_action", layout.standin("penn_action"))
    shutil.copytree(standins / "penn_action", layout.raw("penn_action"))
    shutil.rmtree(layout.raw("penn_action") / "Penn_Action/frames/0004")
    assert index("penn_action", layout, params)["records"] == 9


def test_a_dataset_that_is_nowhere_is_an_error_one_left_empty_has_no_records(layout: Layout, params: Params) -> None:
    with pytest.raises(ValueError, match=r"aist: neither .*data/raw/aist nor the stand-in"):
        index("aist", layout, params)
    layout.standin("aist").mkdir()
    assert index("aist", layout, params) == {"records": 0, "quarantined": 0}


def record(frame: int, camera: str) -> FrameRecord:
    return FrameRecord(
        dataset="toy", split="train", sequence="s", subject="0", camera=camera, frame_index=frame,
        image=f"{frame}{camera}.jpg", width=9, height=9, box=(0.0, 0.0, 5.0, 5.0),
    )  # fmt: skip


def test_a_cap_keeps_whole_instants_whatever_their_order() -> None:
    records = [record(frame, camera) for frame in range(200) for camera in "abcd"]
    kept = thin(records, 50)
    assert 44 <= len(kept) <= 50
    instants = [r.frame_index for r in kept]
    assert all(instants.count(frame) == 4 for frame in set(instants))
    assert max(instants) - min(instants) > 100
    shuffled = [records[i] for i in np.random.default_rng(1).permutation(len(records))]
    assert {r.frame_id for r in thin(shuffled, 50)} == {r.frame_id for r in kept}


def test_a_cap_above_the_number_of_records_keeps_all() -> None:
    records = [record(frame, "a") for frame in range(7)]
    assert len(thin(records, 100)) == 7


def test_the_real_labels_of_penn_action_are_read(shared: Path, tmp_path: Path) -> None:
    labels = shared / "samples/penn_action/labels"
    (tmp_path / "labels").symlink_to(labels)
    for path in labels.glob("*.mat"):
        (tmp_path / "frames" / path.stem).mkdir(parents=True)
    for frame in range(1, 45):
        Image.new("RGB", (480, 270)).save(tmp_path / f"frames/0195/{frame:06d}.jpg")
    quarantine = datasets.Quarantine()
    records = list(datasets.get("penn_action").records(tmp_path, quarantine))
    assert len(records) == 44
    frames = {path.stem: int(scipy.io.loadmat(path)["nframes"].item()) for path in labels.glob("*.mat")}
    assert len(frames) == 12
    missing = {f"frames/{s}/{i:06d}.jpg" for s, n in frames.items() if s != "0195" for i in range(1, n + 1)}
    assert {entry.file for entry in quarantine.entries} == missing
    assert {entry.reason for entry in quarantine.entries} == {"the image is missing"}
    assert {r.label for r in records} == {"baseball_swing"}
    assert records[0].keypoints_2d.shape == (13, 3)
    for r in records:
        x, y, width, height = r.box
        assert 0 < x < x + width < 480
        assert 0 < y < y + height < 270


def test_the_real_photographs_of_coco_without_people_are_found(shared: Path) -> None:
    found = datasets.get("coco").background_images(shared / "samples/coco2017")
    assert [int(p.stem) for p in found] == [54718, 70133]
