"""Pre-training from pairs to checkpoint, metrics and pictures; and through a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import checkpoints
from pipeline.layout import PROJECT, Layout
from pipeline.reporting.metric_table import read_file, read_history
from pipeline.run_spec import ParamsError
from pipeline.training.completion import black_like, plain, to_uint8
from pipeline.training.pretrain import pretrain
from pipeline.training.provenance import folder_fingerprint
from pipeline.weights import import_weights
from tests.pipeline.toy_world import small_params, write_pool

RUNS = ("croco_body", "mae_body")
STEPS = 12
SMALL = {
    f"pretrain__{run}__{key}": value
    for run in RUNS
    for key, value in {
        "steps": STEPS, "warmup_steps": 2, "batch": 8, "checkpoint_every": 3, "heldout": 0.2, "precision": "fp32",
        "snapshots": (4, 8), "datasets": {"synthetic": 2.0, "aist": 1.0},
    }.items()
}  # fmt: skip


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout("test", tmp_path_factory.mktemp("project"))
    write_pool(layout, "synthetic", 16)
    write_pool(layout, "aist", 8, ("view", "pose"), masks=False)
    params, _ = small_params(layout.root, **SMALL)
    for name in ("random", "random_mae"):
        import_weights(name, layout, params.import_weights[name])
    return layout


@pytest.mark.parametrize("run", RUNS)
def test_a_run_leaves_checkpoint_history_metrics_and_pictures(layout: Layout, run: str) -> None:
    params, _ = small_params(layout.root, **SMALL)
    pretrain(run, params, layout)
    metrics = read_file(layout.metrics("pretrain", run), "test")
    assert metrics.checkpoint is not None
    assert metrics.checkpoint.sha256 == checkpoints.fingerprint(layout.checkpoint(run))
    assert metrics.values["heldout_loss"].n
    history = read_history(layout.history("pretrain", run))
    assert [line["step"] for line in history] == list(range(1, STEPS + 1))
    assert history[-1]["loss"] < history[0]["loss"]
    start = checkpoints.load_pretrained(layout.checkpoint(params.pretrain[run].init)).state_dict()
    trained = checkpoints.load_pretrained(layout.checkpoint(run)).state_dict()
    assert not torch.equal(start["patch_embed.proj.weight"], trained["patch_embed.proj.weight"])
    provenance = json.loads((layout.checkpoint(run) / "provenance.json").read_text())
    assert provenance["init"] == params.pretrain[run].init
    assert provenance["seed"] == 0
    snapshots = {step: checkpoints.fingerprint(layout.checkpoint(f"{run}@{step}")) for step in (4, 8)}
    assert metrics.snapshots == {str(step): digest for step, digest in snapshots.items()}
    assert len({metrics.checkpoint.sha256, *snapshots.values()}) == 3
    on_the_way = json.loads((layout.checkpoint(f"{run}@8") / "provenance.json").read_text())
    assert on_the_way == provenance | {"steps": 8}
    (picture, *_) = sorted(layout.pictures("pretrain", run).glob("*.png"))
    assert Image.open(picture).size == ((512, 256) if run == "croco_body" else (384, 128))
    known = json.loads(layout.metrics("pretrain", run).read_text())["pictures"]["fingerprint"]
    assert known == folder_fingerprint(picture.parent)
    picture.write_bytes(picture.read_bytes() + b"another picture")
    assert known != folder_fingerprint(picture.parent)
    assert not layout.scratch("pretrain", "").parent.exists() or not list((layout.root / ".scratch").iterdir())


def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(layout: Layout, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # The same data seen from two project folders, so that neither finds the other's scratch.
    digests = []
    for kill in (False, True):
        root = tmp_path / f"root-{kill}"
        (root / "data").mkdir(parents=True)
        (root / "data" / "test").symlink_to(layout.data)
        _, path = small_params(root, **SMALL)
        command = [
            sys.executable,
            "-m",
            "tests.pipeline.training.toy_runs",
            "pretrain",
            str(path),
            str(root),
            "croco_body",
        ]
        if kill:
            process = subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=subprocess.DEVNULL)
            end = time.monotonic() + 120
            while not list(root.glob(".scratch/*/step-*.pt")):
                assert process.poll() is None, "ended before it could be killed"
                assert time.monotonic() < end
                time.sleep(0.005)
            process.kill()
            process.wait()
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
        assert ("going on from step" in done.stderr) == kill
        kept = ("croco_body", "croco_body@4", "croco_body@8")
        digests.append([checkpoints.fingerprint(layout.checkpoint(name)) for name in kept])
    assert digests[0] == digests[1]


def test_a_network_that_is_not_the_initial_weights_is_refused_by_name(layout: Layout) -> None:
    params, _ = small_params(layout.root, **SMALL, pretrain__croco_body__init="random_mae")
    with pytest.raises(ParamsError, match=r"pretrain\.croco_body: init 'random_mae' is a MAE"):
        pretrain("croco_body", params, layout)


def test_an_unknown_run_names_the_known_ones(layout: Layout) -> None:
    params, _ = small_params(layout.root)
    with pytest.raises(ParamsError, match="croco_body"):
        pretrain("nothing", params, layout)


def test_black_is_black_to_the_eye() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    assert (to_uint8(plain(images)) == images.numpy()).all()
    assert (to_uint8(black_like(plain(images))) == 0).all()
