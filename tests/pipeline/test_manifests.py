"""Records and pairs survive a round trip; what breaks a rule is refused with its name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline import manifests
from pipeline.manifests import ManifestError
from pipeline.records import ARRAY_SHAPES, FIELD_NAMES, POSE_LENGTHS, FrameRecord

finite = st.floats(-1e6, 1e6, allow_nan=False)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@st.composite
def records(draw) -> FrameRecord:
    optional = {
        name: draw(
            st.none()
            | arrays(np.float64, tuple(draw(st.integers(1, 5)) if n is None else n for n in shape), elements=finite)
        )
        for name, shape in ARRAY_SHAPES.items()
    }
    if (body_model := draw(st.none() | st.sampled_from(sorted(filter(None, POSE_LENGTHS))))) is None:
        optional["body_pose"] = None
    elif optional["body_pose"] is not None:
        optional["body_pose"] = draw(arrays(np.float64, POSE_LENGTHS[body_model], elements=finite))
    return FrameRecord(
        body_model=body_model,
        dataset=draw(names),
        split=draw(st.sampled_from(["train", "val", "test"])),
        sequence=draw(names),
        subject=draw(names),
        camera=draw(names),
        frame_index=draw(st.integers(0, 2**40)),
        image=draw(names),
        width=draw(st.integers(1, 5000)),
        height=draw(st.integers(1, 5000)),
        box=(draw(finite), draw(finite), draw(st.floats(0.1, 1e4)), draw(st.floats(0.1, 1e4))),
        time_s=draw(st.none() | finite),
        video_frame=draw(st.none() | st.integers(0, 2**40)),
        silhouette=draw(st.none() | names),
        label=draw(st.none() | names),
        **optional,
    )


def same(a: FrameRecord, b: FrameRecord) -> bool:
    return all(
        np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y
        for x, y in ((getattr(a, name), getattr(b, name)) for name in FIELD_NAMES)
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(records(), max_size=6, unique_by=lambda record: record.frame_id))
def test_records_come_back_as_they_were_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("records") / "r.parquet"
    assert manifests.write_records(rows, path) == len(rows)
    back = manifests.to_records(manifests.read_records(path))
    assert len(back) == len(rows)
    assert all(same(a, b) for a, b in zip(sorted(rows, key=lambda record: record.key), back, strict=True))
    assert manifests.validate(path) == "records"


def make_record(**changes) -> FrameRecord:
    values = dict(
        dataset="d", split="train", sequence="s", subject="p", camera="c", frame_index=0,
        image="a.jpg", width=10, height=10, box=(0.0, 0.0, 5.0, 5.0),
    )  # fmt: skip
    return FrameRecord(**(values | changes))


FRAMES = "hash of a crops file"


def make_pair(**changes) -> dict[str, object]:
    values = dict(
        pair_id="1", kind="view", dataset="d", target_frame_id="a", reference_frame_id="b", target_crop=0,
        reference_crop=1, target_patch_mask=b"\x01" * 8, reference_patch_mask=None, num_patches=64,
        dt_seconds=None, baseline_degrees=30.0,
    )  # fmt: skip
    return values | changes


def test_the_order_of_writing_does_not_change_the_bytes(tmp_path):
    rows = [make_record(frame_index=i) for i in range(20)]
    manifests.write_records(rows, tmp_path / "a.parquet")
    manifests.write_records(rows[::-1], tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_few_of_many_records_are_in_memory_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "SPOOL_BATCH", 8)
    monkeypatch.setattr(manifests, "ROW_GROUP", 30)
    alive, most = 0, 0

    def forget():
        nonlocal alive
        alive -= 1

    def stream():
        nonlocal alive, most
        for number in np.random.default_rng(0).permutation(100):
            record = make_record(frame_index=int(number), betas=np.full(10, number) if number % 3 else None)
            weakref.finalize(record, forget)
            alive += 1
            most = max(most, alive)
            yield record
        assert not list(tmp_path.iterdir()), "a killed writer would leave it behind"

    assert manifests.write_records(stream(), tmp_path / "r.parquet") == 100
    assert most <= 2 * 8 + 1
    assert pq.read_metadata(tmp_path / "r.parquet").num_row_groups == 4
    back = manifests.to_records(manifests.read_records(tmp_path / "r.parquet"))
    assert [record.frame_index for record in back] == list(range(100))
    for record in back:
        assert same(record, make_record(frame_index=record.frame_index, betas=record.betas))
        assert (record.betas is None) == (record.frame_index % 3 == 0)
        assert record.betas is None or (record.betas == record.frame_index).all()
    assert [path.name for path in tmp_path.iterdir()] == ["r.parquet"]


def test_a_reader_that_fails_leaves_nothing_behind(tmp_path):
    def stream():
        yield make_record()
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        manifests.write_records(stream(), tmp_path / "r.parquet")
    assert list(tmp_path.iterdir()) == []


def test_frame_ids_depend_on_every_part_of_the_key():
    parts = ["dataset", "sequence", "subject", "camera"]
    ids = {make_record().frame_id, make_record(frame_index=1).frame_id, make_record(split="test").frame_id}
    ids |= {make_record(**{part: "other"}).frame_id for part in parts}
    assert len(ids) == 7


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"split": "dev"}, "split is 'dev', expected one of train, val, test"),
        ({"box": (0.0, 0.0, 0.0, 5.0)}, "box has no area"),
        ({"box": (0.0, float("nan"), 1.0, 5.0)}, "four finite numbers"),
        ({"betas": np.zeros(9)}, r"betas has shape \(9,\), expected \(10,\)"),
        ({"camera_t": np.array([0.0, np.nan, 0.0])}, "camera_t holds NaN"),
        ({"width": 0}, "image size is 0x10"),
    ],
)
def test_an_impossible_record_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        make_record(**changes)
    name = make_record().key.replace("train", changes.get("split", "train"))
    assert refused.value.__notes__[0].startswith(f"{name}: box (")
    # Reports count by the message, whichever record it is about.
    assert name not in str(refused.value)


def test_a_doubled_record_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ManifestError, match="1 values of frame_id occur more than once"):
        manifests.write_records([make_record(), make_record()], tmp_path / "r.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kind": "sideways"}, r"kind holds \['sideways'\]"),
        ({"reference_frame_id": "a"}, "1 pairs have the same frame twice"),
        ({"kind": "pose"}, "1 pairs of kind pose have no dt_seconds"),
        ({"target_patch_mask": b"\x01" * 7}, "1 rows of target_patch_mask have another length"),
    ],
)
def test_an_impossible_pair_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(ManifestError, match=message):
        manifests.write_pairs([make_pair(**changes)], tmp_path / "p.parquet", FRAMES)


def test_no_silhouette_and_an_empty_silhouette_stay_apart(tmp_path):
    path = tmp_path / "p.parquet"
    manifests.write_pairs([make_pair(target_patch_mask=None, reference_patch_mask=bytes(8))], path, FRAMES)
    row = manifests.read_pairs(path).to_pylist()[0]
    assert row["target_patch_mask"] is None and row["reference_patch_mask"] == bytes(8)


def test_another_major_version_is_refused_and_another_minor_is_read(tmp_path):
    table = pa.Table.from_pylist([make_pair() | {"group_rank": 0.5}], schema=manifests.PAIRS)
    for version in ("2.0", "3.7"):
        changed = table.replace_schema_metadata({"manifest": "pairs", "version": version, "frames": FRAMES})
        pq.write_table(changed, tmp_path / f"{version}.parquet")
    with pytest.raises(ManifestError, match=r"manifest version 2\.0, this code reads 3\.0; make it again"):
        manifests.read_pairs(tmp_path / "2.0.parquet")
    assert manifests.read_pairs(tmp_path / "3.7.parquet").num_rows == 1


def test_reading_the_wrong_thing_says_what_it_is(tmp_path):
    manifests.write_pairs([make_pair()], tmp_path / "p.parquet", FRAMES)
    with pytest.raises(ManifestError, match="this is a pairs manifest, expected records"):
        manifests.read_records(tmp_path / "p.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "p.parquet").read_bytes()[:200])
    with pytest.raises(ManifestError, match="not a Parquet file or damaged"):
        manifests.read_pairs(tmp_path / "cut.parquet")
    with pytest.raises(ManifestError, match="no such pairs manifest; `dvc repro` or `make tables`"):
        manifests.read_pairs(tmp_path / "absent.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ManifestError, match="not a manifest of this project"):
        manifests.validate(tmp_path / "other.parquet")
    with pytest.raises(ManifestError, match="not a Parquet file or damaged"):
        manifests.validate(tmp_path / "cut.parquet")
    with pytest.raises(ManifestError, match="no such records or pairs manifest"):
        manifests.validate(tmp_path / "absent.parquet")
    assert manifests.validate(tmp_path / "p.parquet") == "pairs"


def test_damage_within_a_manifest_is_named_with_the_file(tmp_path):
    path = tmp_path / "p.parquet"
    manifests.write_pairs([make_pair(pair_id=f"{number:016x}") for number in range(2000)], path, FRAMES)
    whole, said = path.read_bytes(), []
    for place in range(16, len(whole), len(whole) // 24):
        path.write_bytes(whole[:place] + bytes(64) + whole[place + 64 :])
        try:
            manifests.read_pairs(path)
        except ManifestError as error:
            said.append(str(error))
    assert len(said) > 12
    assert all("p.parquet: not a Parquet file or damaged" in line and "delete it and run" in line for line in said)


def test_pairs_say_which_crops_they_are_of(tmp_path):
    path = tmp_path / "p.parquet"
    manifests.write_pairs([make_pair()], path, FRAMES)
    assert manifests.frames_of(manifests.read_pairs(path, ["kind"])) == FRAMES
    with pytest.raises(ManifestError, match="does not say which crops file its pairs are of"):
        manifests.write_table(pq.read_table(path).replace_schema_metadata(manifests.PAIRS.metadata), path)


def test_every_field_states_its_meaning():
    for schema in (manifests.RECORDS, manifests.PAIRS):
        assert len(schema) > 10
        assert all(field.metadata[b"meaning"] for field in schema)


def test_a_writer_killed_at_any_moment_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "r.parquet"
    manifests.write_records([make_record()], path)
    before = path.read_bytes()
    code = (
        "from pathlib import Path; from tests.pipeline.test_manifests import make_record\n"
        "from pipeline import manifests\n"
        f"print('go', flush=True)\n"
        f"while True: manifests.write_records([make_record(frame_index=i) for i in range(3000)], Path({str(path)!r}))"
    )
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root, env=os.environ | {"PYTHONPATH": root}
    )
    process.stdout.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.7)
    process.send_signal(signal.SIGKILL)
    process.wait()
    rows = manifests.read_records(path).num_rows
    assert rows == 3000 or path.read_bytes() == before
