"""How well CroCo-Body's own pre-training, as scale `paper` describes it (ViT-B/16 and the small decoder, 224 px,
bfloat16), uses a GPU; `pytest -n 0 -s tests/benchmarks/test_gpu_speed.py` prints pairs per second, MFU and the wait
for data."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models import catalog
from pipeline import run_spec
from pipeline.crops import encode_jpeg
from pipeline.layout import PROJECT
from pipeline.loading import pairs
from pipeline.loading.crop_pixels import CropPixels
from pipeline.loading.pairs import PairPool
from pipeline.training.completion import Completing, CrossCompletion
from pipeline.training.live import peak_flops
from pipeline.training.loop import train
from pipeline.training.optimizer import WarmupCosine, build
from pipeline.training.pretrain import fusible
from tests.benchmarks.photo_pool import SIDE, photo_pool

GPU = torch.device("cuda")
RUN = run_spec.load(PROJECT / "scales/paper/params.yaml").pretrain["croco_body"]
STEPS = 300
COUNT = 5000
"""Of crops."""
WANTED_MFU, LEAST_MFU, LONGEST_WAIT = 0.45, 0.30, 0.03
"""The first is not reached: an H200 came to 0.35. With products alone it would come to 0.68; of the rest attention,
over short sequences by narrow heads, takes a fifth of a step, what lies between products a third. The second guards
against falling back."""
FAST = ("H100", "H200")
"""GPUs, by a part of their name, of which `LEAST_MFU` is asked."""


def photos(rng: np.random.Generator, count: int) -> list[bytes]:
    """JPEGs that take about as long to decode as photographs: shapes over soft noise, some 30 kB each."""
    found = []
    for _ in range(count):
        image = cv2.resize(rng.integers(256, size=(64, 64, 3), dtype=np.uint8), (SIDE, SIDE))
        for x, y, radius, *colour in rng.integers(256, size=(12, 6)).tolist():
            cv2.circle(image, (x, y), 8 + radius // 4, colour, -1)
        found.append(encode_jpeg(image))
    return found


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> PairPool:
    """Crops of which none is kept decoded, as of a data set that is too large for it."""
    different = photos(np.random.default_rng(0), 500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "CropPixels", partial(CropPixels, kept_bytes=0))
        return photo_pool(tmp_path_factory.mktemp("pool"), different, COUNT, RUN.visible_bucket)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pretraining_uses_the_gpu_and_does_not_let_it_wait_for_data(pool: PairPool, tmp_path: Path) -> None:
    model = catalog.create(RUN.network).to(GPU)
    task = CrossCompletion(model, pool, Completing(RUN.batch, RUN.normalize, GPU))
    train(
        model,
        task,
        build(RUN.optimizer, model),
        WarmupCosine(RUN.optimizer.lr, STEPS, STEPS // 10),
        seed=0,
        precision=RUN.precision,
        scratch=tmp_path,
        checkpoint_every=STEPS,
        title="pre-training",
        fuse=fusible(model, task) if RUN.compile else [],
        samples=RUN.batch,
    )
    speed = json.loads((tmp_path / "live" / "speed.json").read_text())
    memory = torch.cuda.max_memory_allocated() / 2**30
    name = torch.cuda.get_device_name(GPU)
    print(f"\n{name}: {', '.join(f'{key} {value:.4g}' for key, value in speed.items())}, {memory:.1f} GiB")
    assert speed["data_wait"] < LONGEST_WAIT
    if any(part in name for part in FAST):
        assert peak_flops(GPU, "bf16") is not None
        assert speed["mfu"] >= LEAST_MFU
        if speed["mfu"] < WANTED_MFU:
            pytest.xfail(f"an MFU of {speed['mfu']:.3f}, {WANTED_MFU} is wanted")
