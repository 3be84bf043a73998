"""Completion as a task of the training loop: CroCo on pairs, MAE on the same images one by one
(CroCo-Human Sec. 3.1, 4.2); what the reference adds on held-out pairs; pictures of completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.completion import Completion, completed_image, completion_loss, patch_errors
from models.croco import CroCo
from models.mae import MAE
from models.patches import IMAGE_MEAN, IMAGE_STD, patchify, unpatchify
from pipeline.loading.augment import jitter_and_normalize
from pipeline.loading.pairs import Masking, PairBatch, PairPool
from pipeline.training.loop import step_seed
from pipeline.training.team import WHOLE, Share


@dataclass(frozen=True)
class Completing:
    """What CroCo and MAE share: pairs per step, loss on normalised patches or plain ones, device."""

    batch: int
    normalize: bool
    device: torch.device


class CrossCompletion:
    """CroCo: complete the target with the reference beside it."""

    def __init__(self, model: CroCo, pool: PairPool, how: Completing) -> None:
        self._model, self._pool, self._how = model, pool, how

    def batch(self, step: int, share: Share = WHOLE) -> PairBatch:
        return self._pool.batch(step, self._how.batch, share.of(self._how.batch))

    def ids(self, batch: PairBatch) -> Sequence[str]:
        return self._pool.ids(batch)

    def losses(self, batch: PairBatch) -> dict[str, Tensor]:
        """See `completion_losses`."""
        batch = batch.to(self._how.device)
        target = jitter_and_normalize(batch.target, batch.target_colours)
        reference = jitter_and_normalize(batch.reference, batch.reference_colours)
        prediction = self._model(target, reference, batch.hidden).prediction
        return completion_losses(prediction, target, batch, self._how.normalize)


class SingleCompletion:
    """MAE on the images of the same pairs: each of the two is a sample, masked on its own.

    Matched with CroCo: images, order of pairs, crops, colours and number of steps. A step shows
    the network twice as many masked images, since here both images of a pair have a loss.
    """

    def __init__(self, model: MAE, pool: PairPool, how: Completing, masking: Masking, seed: int) -> None:
        self._model, self._pool, self._how, self._masking, self._seed = model, pool, how, masking, seed
        if masking.kind != "uniform":
            raise ValueError("MAE hides patches uniformly; set masking: uniform")

    def batch(self, step: int, share: Share = WHOLE) -> tuple[PairBatch, Tensor]:
        part = share.of(self._how.batch)
        pairs = self._pool.batch(step, self._how.batch, part)
        generator = torch.Generator().manual_seed(step_seed(self._seed, step, stream=1))
        nobody = torch.zeros(2 * self._how.batch, pairs.hidden.shape[1], dtype=torch.bool)
        targets, references = self._masking.hide(nobody, generator).chunk(2)
        return pairs, torch.cat([targets[part], references[part]])

    def ids(self, batch: tuple[PairBatch, Tensor]) -> Sequence[str]:
        return self._pool.ids(batch[0])

    def losses(self, batch: tuple[PairBatch, Tensor]) -> dict[str, Tensor]:
        pairs, hidden = batch[0].to(self._how.device), batch[1].to(self._how.device)
        images = torch.cat([pairs.target, pairs.reference])
        images = jitter_and_normalize(images, torch.cat([pairs.target_colours, pairs.reference_colours]))
        return {"loss": completion_loss(self._model(images, hidden).prediction, images, hidden, self._how.normalize)}


def completion_losses(prediction: Tensor, target: Tensor, pairs: PairBatch, normalize: bool) -> dict[str, Tensor]:
    """`loss`: mean over hidden patches; `human` and `background`: the two parts of it."""
    errors = patch_errors(prediction, target, normalize)
    return {"loss": _mean(errors, pairs.hidden)} | _parts(errors, pairs.hidden, pairs.human)


@torch.no_grad()
def reference_use(model: CroCo | MAE, pairs: PairBatch, normalize: bool, chunk: int = 64) -> dict[str, float]:
    """Completion loss of held-out pairs: with the true reference, a black one, and another pair's.

    The differences measure what the second image adds. MAE, which takes none, has `true` alone,
    measured with the very masks CroCo is measured with. Each comes again, as `<name>/human`, for the
    hidden patches that show the person, where silhouettes tell.
    """
    was_training = model.training
    model.eval()
    sums: dict[str, float] = {}
    order = torch.arange(len(pairs)).roll(1)
    for rows in torch.arange(len(pairs)).split(chunk):
        target, true = plain(pairs.target[rows]), plain(pairs.reference[rows])
        references = {"true": true, "black": black_like(true), "shuffled": plain(pairs.reference[order[rows]])}
        if isinstance(model, MAE):
            references = {"true": true}
        for name, reference in references.items():
            errors = patch_errors(_complete(model, target, reference, pairs.hidden[rows]).prediction, target, normalize)
            per_image = (errors * pairs.hidden[rows]).sum(1) / pairs.hidden[rows].sum(1)
            sums[name] = sums.get(name, 0.0) + float(per_image.sum())
            human = pairs.hidden[rows] & pairs.human[rows]
            per_human = (errors * human).sum() if human.any() else errors.sum() * 0
            sums[f"{name}/human"] = sums.get(f"{name}/human", 0.0) + float(per_human)
    model.train(was_training)
    num_human = int((pairs.hidden & pairs.human).sum())
    means = {name: total / len(pairs) for name, total in sums.items() if not name.endswith("/human")}
    # Pairs without silhouettes, those of hands, have no such part.
    return means | {name: total / num_human for name, total in sums.items() if name.endswith("/human") and num_human}


@torch.no_grad()
def pictures(model: CroCo | MAE, pairs: PairBatch, normalize: bool) -> dict[str, NDArray]:
    """Completions to look at, as in Figures 6 and 7 of the paper: uint8 arrays (K, S, S, 3) by name.

    `target`, `masked` (hidden patches grey), `prediction` (hidden patches given the true mean and
    deviation of each patch where the loss is normalised), and for CroCo `reference` and
    `prediction_black`, what becomes of it with a black reference.
    """
    was_training = model.training
    model.eval()
    target, reference = plain(pairs.target), plain(pairs.reference)
    patch = model.patch_size
    rows = target.shape[2] // patch
    seen = patchify(target, patch).masked_fill(pairs.hidden[:, :, None], 0.0)
    drawn = {"target": target, "masked": unpatchify(seen, patch, (rows, rows))}
    kinds = {"prediction": reference}
    if not isinstance(model, MAE):
        drawn["reference"] = reference
        kinds["prediction_black"] = black_like(reference)
    for name, second in kinds.items():
        drawn[name] = completed_image(_complete(model, target, second, pairs.hidden), target, patch, normalize)
    model.train(was_training)
    return {name: to_uint8(image) for name, image in drawn.items()}


def plain(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) normalised floats, colours unchanged."""
    return jitter_and_normalize(images, torch.ones(len(images), 3, device=images.device))


def black_like(images: Tensor) -> Tensor:
    """Black images as the network sees them."""
    level = -torch.tensor(IMAGE_MEAN) / torch.tensor(IMAGE_STD)
    return level.to(images).view(1, 3, 1, 1).expand_as(images)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """(B, 3, S, S) normalised floats -> (B, S, S, 3) uint8 RGB."""
    mean, deviation = (torch.tensor(values).to(images).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    pixels = (images.float() * deviation + mean).clamp(0, 1).mul(255).round()
    return pixels.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()


def _complete(model: CroCo | MAE, target: Tensor, reference: Tensor, hidden: Tensor) -> Completion:
    return model(target, hidden) if isinstance(model, MAE) else model(target, reference, hidden)


def _mean(errors: Tensor, where: Tensor) -> Tensor:
    weight = where.to(errors.dtype)
    return (errors * weight).sum() / weight.sum().clamp_min(1)


def _parts(errors: Tensor, hidden: Tensor, human: Tensor) -> dict[str, Tensor]:
    errors = errors.detach()
    return {"human": _mean(errors, hidden & human), "background": _mean(errors, hidden & ~human)}
