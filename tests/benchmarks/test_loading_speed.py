"""Starting on millions of pairs costs about what starting on thousands does;
`pytest -n 0 -s tests/benchmarks/test_loading_speed.py` prints seconds and megabytes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.crops import Crop, CropStore, Square, encode_jpeg, write_crops
from pipeline.layout import PROJECT
from pipeline.loading import pairs
from pipeline.loading.crop_pixels import CropPixels
from pipeline.manifests import PAIRS

FEW, MANY = 5_000, 5_000_000
ROWS = 250_000
"""Made and written at once."""
SIDE, NUM_CROPS = 256, 600

FIRST_BATCH = """
import json, os, sys, time
from pathlib import Path
import torch
from pipeline.loading.pairs import Masking, PairPool, Source

def kibibytes(what):
    return int(next(line for line in open("/proc/self/status") if line.startswith(what)).split()[1])

# Of the processor, outside the kernel: on the wall it takes as much more as others use the cores, and how long the
# kernel takes to hand out memory is the machine's affair. How much memory that is has a limit of its own.
def user():
    return os.times().user

before, started, began = kibibytes("VmRSS"), user(), time.perf_counter()
pool = PairPool(
    [Source("aist", Path(sys.argv[1]), Path(sys.argv[2]), 1.0)],
    {"view": 1.0, "pose": 1.0}, heldout=0.01, size=224, masking=Masking("human", 0.75, "max_n", 8, 16),
    jitter=0.4, seed=0,
)
first = pool.batch(0, 64)
seconds, wall = user() - started, time.perf_counter() - began
started = user()
later = pool.batch(50_000_000, 64)
print(json.dumps({
    "seconds": seconds, "wall": wall, "later": user() - started, "pairs": sum(pool.counts.values()),
    "mebibytes": (kibibytes("VmHWM") - before) / 1024,
}))
"""


def write_pairs_file(path: Path, count: int, crops: Path) -> None:
    """A manifest of so many pairs of `NUM_CROPS` crops, as it would lie there."""
    rng = np.random.default_rng(0)
    schema = PAIRS.with_metadata({**PAIRS.metadata, b"frames": CropStore(crops).frames})
    with pq.ParquetWriter(path, schema, compression="zstd") as out:
        for first in range(0, count, ROWS):
            out.write_table(some_pairs(rng, first, min(ROWS, count - first)))


def write_all_crops(path: Path) -> None:
    """`NUM_CROPS` JPEGs of a photograph's size, with silhouettes."""
    noise = np.random.default_rng(0).integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)
    jpeg = encode_jpeg(np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), np.uint8))
    person = np.zeros((SIDE, SIDE), bool)
    person[30:230, 80:180] = True
    mask = np.packbits(person).tobytes()
    crop = {"jpeg": jpeg, "square": Square(1.0, 1.0, 2.0), "silhouette": mask, "silhouette_source": "dataset"}
    write_crops(path, (Crop(frame_id=f"{i:016x}", **crop) for i in range(NUM_CROPS)), SIDE)


def some_pairs(rng: np.random.Generator, first: int, count: int) -> pa.Table:
    names = pc.cast(pa.array(10**15 + first + np.arange(count)), pa.string())
    targets = rng.integers(NUM_CROPS, size=count)
    same = pa.array(np.zeros(count, np.int64))
    masks = pa.array([bytes(25)]).take(same)
    columns = {
        "pair_id": names,
        "kind": pa.array(["view", "pose"]).take(pa.array(rng.integers(2, size=count))),
        "dataset": pa.array(["aist"]).take(same),
        "target_frame_id": names,
        "reference_frame_id": names,
        "target_crop": targets,
        "reference_crop": (targets + 1) % NUM_CROPS,
        "target_patch_mask": masks,
        "reference_patch_mask": masks,
        "num_patches": np.full(count, 196, np.int32),
        "dt_seconds": rng.random(count),
        "baseline_degrees": rng.random(count),
        "group_rank": rng.random(count),
    }
    return pa.table(columns, schema=PAIRS)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel for memory")
def test_five_million_pairs_give_their_first_batch_within_two_seconds_and_a_gigabyte(tmp_path: Path) -> None:
    write_all_crops(tmp_path / "crops.arrow")
    found = {}
    for count in (FEW, MANY):
        write_pairs_file(tmp_path / f"{count}.parquet", count, tmp_path / "crops.arrow")
        command = [sys.executable, "-c", FIRST_BATCH, tmp_path / f"{count}.parquet", tmp_path / "crops.arrow"]
        output = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
        found[count] = json.loads(output)
        assert found[count]["pairs"] == pytest.approx(0.99 * count, rel=0.01)
        print(f"\n{count} pairs: first batch of 64 after {found[count]['wall']:.2f} s, "
              f"{found[count]['seconds']:.2f} of the processor, {found[count]['mebibytes']:.0f} MiB; "
              f"one from far on {found[count]['later']:.2f} s")  # fmt: skip
    assert found[MANY]["seconds"] < 2
    assert found[MANY]["mebibytes"] < 1000
    # Reaching far into the order does not depend on how much lies before it.
    assert found[MANY]["later"] < 2 * found[FEW]["later"] + 0.2


@pytest.mark.slow
def test_threads_do_nearly_all_of_the_work_that_a_batch_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one thread has to do alone bounds how fast a GPU can be fed, however many cores there are."""
    write_all_crops(tmp_path / "crops.arrow")
    write_pairs_file(tmp_path / "pairs.parquet", FEW, tmp_path / "crops.arrow")
    monkeypatch.setattr(pairs, "CropPixels", partial(CropPixels, kept_bytes=0))
    pool = pairs.PairPool(
        [pairs.Source("aist", tmp_path / "pairs.parquet", tmp_path / "crops.arrow", 1.0)],
        {"view": 1.0, "pose": 1.0}, heldout=0.0, size=224, masking=pairs.Masking("human", 0.75, "max_n", 8, 16),
        jitter=0.4, seed=0,
    )  # fmt: skip
    pool.batch(0, 256)
    alone, all_together = time.thread_time(), time.process_time()
    for step in range(1, 5):
        pool.batch(step, 256)
    alone, all_together = time.thread_time() - alone, time.process_time() - all_together
    print(f"\na pair takes {all_together / 1.024:.2f} ms of the cores, {alone / 1.024:.2f} of it on one thread alone: "
          f"{1024 / alone:.0f} pairs per second at most")  # fmt: skip
    assert alone < 0.25 * all_together
