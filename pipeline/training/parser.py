"""Part labels of rendered people -> a small human parser (PGN), which finds silhouettes where a dataset
has none (CroCo-Human Sec. 3.1; losses of PGN: both parsing outputs and the person's edge).

    python -m pipeline.training.parser --params params.yaml
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models import checkpoints
from models.pgn import BGR_MEAN, CLASSES, PGN, person_margin
from models.tensorflow_like import resize_bilinear
from pipeline import run_spec
from pipeline.layout import Layout
from pipeline.process import die_with_parent, plain_errors
from pipeline.run_spec import Params
from pipeline.silhouettes import load_parser
from pipeline.training import provenance
from pipeline.training.loop import train
from pipeline.training.optimizer import WarmupCosine, build
from pipeline.training.parser_data import LabelledCrops, read_labelled, training_views
from pipeline.training.precision import choose_device
from pipeline.training.provenance import Value
from pipeline.training.team import WHOLE, Share
from pipeline.training.unfinished import Basis, close_scratch, open_scratch

logger = logging.getLogger(__name__)

STAGE = "train_parser"
CODE = ("pipeline/silhouettes.py", "pipeline/training/parser.py", "pipeline/training/parser_data.py")
"""Beside what every training computes with; the crops are hashed."""
NAME = "pgn"
CHECKPOINT_EVERY = 100
WARMUP_SHARE = 0.05
NUM_PICTURES = 8
TEST_BATCH = 32


@dataclass(frozen=True)
class ParserBatch:
    names: list[str]
    images: Tensor
    """(B, 3, S, S) float RGB, 0..255"""
    classes: Tensor
    """(B, S, S) int64"""


class ParsingTask:
    """Cross-entropy of both parsing outputs, person against background once more, edges where a cell has both.

    People fill an eighth of a crop, so pixelwise losses alone leave out limbs that are unsure; the soft
    intersection over union of each image asks for them.

    Views are made at the size of stored crops and brought to the parser's input, as in inference.
    """

    def __init__(
        self,
        model: PGN,
        crops: LabelledCrops,
        *,
        size: int,
        input_size: int,
        batch: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._model, self._crops, self._size, self._input_size = model, crops, size, input_size
        self._batch, self._seed, self._device = batch, seed, device

    def batch(self, step: int, share: Share = WHOLE) -> ParserBatch:
        rng, part = np.random.default_rng([self._seed, step]), share.of(self._batch)
        rows = rng.integers(len(self._crops), size=self._batch)
        images, classes = training_views(self._crops, rows, self._size, rng)
        return ParserBatch([self._crops.names[row] for row in rows[part]], images[part], classes[part])

    def ids(self, batch: ParserBatch) -> Sequence[str]:
        return batch.names

    def losses(self, batch: ParserBatch) -> dict[str, Tensor]:
        images, classes = batch.images.to(self._device), batch.classes.to(self._device)
        mean = images.new_tensor(BGR_MEAN).view(1, 3, 1, 1)
        found = self._model(resize_bilinear(images.flip(1) - mean, (self._input_size, self._input_size)))
        # Half the input's resolution tells where a boundary runs within an eighth, at a quarter of the cost.
        classes = classes[:, ::2, ::2]
        person = classes > 0
        parts, silhouette, overlap = (images.new_zeros(()) for _ in range(3))
        for logits in found.parsing:
            # The network's own resizing, as in inference: it counts pixels from the corner, not from centres.
            logits = resize_bilinear(logits.float(), (classes.shape[1], classes.shape[2]))
            parts = parts + F.cross_entropy(logits, classes)
            margin = person_margin(logits)
            silhouette = silhouette + F.binary_cross_entropy_with_logits(margin, person.float())
            overlap = overlap + 1 - _soft_iou(margin.sigmoid(), person.float()).mean()
        edge = _edges(person, (found.edge[0].shape[2], found.edge[0].shape[3]))
        edges = torch.stack([F.binary_cross_entropy_with_logits(each.float(), edge) for each in found.edge]).mean()
        return {
            "loss": parts + silhouette + overlap + edges,
            "parts": parts.detach(),
            "silhouette": silhouette.detach(),
            "overlap": overlap.detach(),
            "edge": edges.detach(),
        }


def _soft_iou(chance: Tensor, person: Tensor) -> Tensor:
    """(B,) intersection over union of probabilities and truth (B, h, w); one pixel more keeps empty views apart."""
    both = (chance * person).sum(dim=(1, 2))
    return (both + 1) / (chance.sum(dim=(1, 2)) + person.sum(dim=(1, 2)) - both + 1)


def _edges(person: Tensor, cells: tuple[int, int]) -> Tensor:
    """(B, 1, h, w) float: 1 where a cell shows both person and background."""
    share = F.adaptive_avg_pool2d(person[:, None].float(), cells)
    return ((share > 0.05) & (share < 0.95)).float()


def train_parser(params: Params, layout: Layout) -> None:
    """Train (or go on training) the parser of a scale; writes checkpoint, history, metrics and pictures.

    Raises:
        ValueError: the synthetic dataset is missing or has no part labels.
        TrainingError: a loss that is not finite, a full disk, or an unfinished run of the parser that was made from
            something else.
    """
    started = time.monotonic()
    spec, device = params.parser, choose_device()
    crops, heldout = read_labelled(layout.source("synthetic"), params.crops.scale, params.crops.size)
    logger.info("%d labelled crops to train on, %d held out", len(crops), len(heldout))
    model = PGN(
        width=spec.width,
        depths=spec.depths,
        head_width=spec.head_width,
        windows=spec.windows,
        dropout=spec.dropout,
    )
    model.reset_parameters(torch.Generator().manual_seed(spec.seed))
    model.to(device).train()
    fingerprint = run_spec.parser_fingerprint(params)
    seen = [len(crops), crops.images.sum(dtype=np.int64), crops.labels.sum(dtype=np.int64)]
    basis = Basis(
        run_spec.parser_parameters(params),
        {"labelled crops": run_spec.fingerprint([int(value) for value in seen])},
        provenance.code_fingerprints(*CODE),
        str(device),
    )
    scratch = open_scratch(layout, STAGE, NAME, basis)
    history = train(
        model,
        ParsingTask(
            model, crops, size=params.crops.size, input_size=spec.size, batch=spec.batch, seed=spec.seed, device=device
        ),
        build(spec.optimizer, model),
        WarmupCosine(spec.optimizer.lr, spec.steps, round(WARMUP_SHARE * spec.steps)),
        seed=spec.seed,
        precision="fp32",
        scratch=scratch,
        checkpoint_every=CHECKPOINT_EVERY,
        title="parser",
        samples=spec.batch,
    )
    folder = layout.checkpoint(NAME)
    facts = provenance.describe(fingerprint, {}, spec.seed, labelled_crops=len(crops))
    checkpoints.save(folder, model.cpu(), provenance=facts, config={"input_size": spec.size})
    provenance.write_text(layout.history(STAGE, NAME), history.read_text())
    values = {}
    if len(heldout):
        found = parse_all(folder, heldout.images)
        values = evaluate(found, heldout.labels)
        draw(layout.pictures("parser", NAME), heldout, found)
    provenance.write_metrics(
        layout,
        STAGE,
        NAME,
        values,
        checkpoint=folder,
        pictures=layout.pictures("parser", NAME),
        params_fingerprint=fingerprint,
        seconds=time.monotonic() - started,
        command=f"python -m pipeline.training.parser --params {params.params_file}",
        run=NAME,
        seed=spec.seed,
    )
    close_scratch(scratch)


def parse_all(checkpoint: Path, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, S, S) classes, found just as silhouettes of crops are found later."""
    parser = load_parser(checkpoint)
    return np.concatenate([parser(images[i : i + TEST_BATCH]) for i in range(0, len(images), TEST_BATCH)]).astype(
        np.uint8
    )


def evaluate(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, Value]:
    """Intersection over union, all pixels of all images pooled: person, mean with background, mean over parts.

    Parts that neither appear nor are found have no value and do not count.
    """

    def iou(a: NDArray, b: NDArray) -> float:
        union = (a | b).sum()
        return float((a & b).sum() / union) if union else float("nan")

    person = iou(found > 0, truth > 0)
    background = iou(found == 0, truth == 0)
    parts = [iou(found == k, truth == k) for k in range(len(CLASSES))]
    values = {
        "silhouette_iou": person,
        "silhouette_miou": (person + background) / 2,
        "parts_miou": float(np.nanmean(parts)),
    }
    return {name: Value(value, "fraction", len(truth)) for name, value in values.items()}


def draw(folder: Path, crops: LabelledCrops, found: NDArray[np.uint8]) -> None:
    """PNGs of evenly spread held-out crops: image, true parts, found parts; those that lay there go."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    palette = np.random.default_rng(7).integers(60, 256, (len(CLASSES), 3), dtype=np.uint8)
    palette[0] = 0
    captions = {}
    zoom = max(1, round(160 / crops.images.shape[1]))
    for number, row in enumerate(np.unique(np.linspace(0, len(crops) - 1, NUM_PICTURES).round().astype(int))):
        strip = np.concatenate([crops.images[row], palette[crops.labels[row]], palette[found[row]]], axis=1)
        name = f"parsing_{number:02d}.png"
        aside = folder / f".{name}.{os.getpid()}.tmp"
        Image.fromarray(strip.repeat(zoom, axis=0).repeat(zoom, axis=1)).save(aside, "PNG")
        aside.replace(folder / name)
        captions[name] = crops.names[row]
    provenance.write_text(folder / "captions.json", json.dumps(captions, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.parser", description=__doc__.split("\n\n")[0])
    parser.add_argument("--params", default="params.yaml", help="params file; decides the scale")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    die_with_parent()
    with plain_errors("parser"):
        params = run_spec.load(arguments.params)
        if choose_device().type == "cpu":
            # As in pre-training: a second thread gains a sixth here, a stage beside this one all of its core.
            torch.set_num_threads(1)
        train_parser(params, Layout(params.scale))


if __name__ == "__main__":
    main()
