"""Completion as a task of the training loop: CroCo on pairs, MAE on the same images one by one
(CroCo-Human Sec. 3.1, 4.2); what the reference adds on held-out pairs; pictures of completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.completion import (
    Completion,
    PatchWeights,
    completed_image,
    completion_loss,
    masked_mean,
    mean_error,
    patch_errors,
)
from models.croco import CroCo
from models.mae import MAE
from models.patches import IMAGE_MEAN, IMAGE_STD, patchify, unpatchify, visible_indices
from pipeline.loading.augment import jitter_and_normalize
from pipeline.loading.pairs import Masking, PairBatch, PairPool
from pipeline.training.loop import step_seed
from pipeline.training.precision import Fusible
from pipeline.training.team import WHOLE, Share


@dataclass(frozen=True)
class Completing:
    """What CroCo and MAE share: pairs per step, loss on normalised patches or plain ones, device."""

    batch: int
    normalize: bool
    device: torch.device
    silhouettes: bool = True
    """Whether it is known which patches show a person; else no loss of theirs is logged."""
    weights: PatchWeights | None = None
    """None = of all hidden patches alike."""


class CrossCompletion:
    """CroCo: complete the target with the reference beside it."""

    def __init__(self, model: CroCo, pool: PairPool, how: Completing) -> None:
        self._model, self._pool, self._how = model, pool, how
        self._see, self._compare = Fusible(jitter_and_normalize), Fusible(completion_losses)
        self.fusible = (self._see, self._compare)

    def batch(self, step: int, share: Share = WHOLE) -> PairBatch:
        return self._pool.batch(step, self._how.batch, share.of(self._how.batch))

    def ids(self, batch: PairBatch) -> Sequence[str]:
        return self._pool.ids(batch)

    def losses(self, batch: PairBatch) -> dict[str, Tensor]:
        """See `completion_losses`."""
        batch = batch.to(self._how.device)
        target = self._see(batch.target, batch.target_colours)
        reference = self._see(batch.reference, batch.reference_colours)
        prediction = self._model(target, reference, batch.hidden, batch.visible).prediction
        losses = self._compare(prediction, target, batch, self._how.normalize, self._how.weights)
        return losses if self._how.silhouettes else {"loss": losses["loss"]}


class SingleCompletion:
    """MAE on the images of the same pairs: each of the two is a sample, masked on its own.

    Matched with CroCo: images, order of pairs, crops, colours and number of steps. A step shows
    the network twice as many masked images, since here both images of a pair have a loss.
    """

    def __init__(self, model: MAE, pool: PairPool, how: Completing, masking: Masking, seed: int) -> None:
        self._model, self._pool, self._how, self._masking, self._seed = model, pool, how, masking, seed
        self._see, self._compare = Fusible(jitter_and_normalize), Fusible(completion_loss)
        self.fusible = (self._see, self._compare)

    def batch(self, step: int, share: Share = WHOLE) -> tuple[PairBatch, Tensor, Tensor]:
        """The pairs of a step, and the masks of both images of each: `hidden` and `visible` as of a `Draw`."""
        part = share.of(self._how.batch)
        pairs = self._pool.batch(step, self._how.batch, part)
        generator = torch.Generator().manual_seed(step_seed(self._seed, step, stream=1))
        nobody = torch.zeros(2 * self._how.batch, pairs.hidden.shape[1], dtype=torch.bool)
        targets, references = self._masking.hide(nobody, generator).chunk(2)
        hidden = torch.cat([targets[part], references[part]])
        return pairs, hidden, visible_indices(hidden, *hidden.shape)

    def ids(self, batch: tuple[PairBatch, Tensor, Tensor]) -> Sequence[str]:
        return self._pool.ids(batch[0])

    def losses(self, batch: tuple[PairBatch, Tensor, Tensor]) -> dict[str, Tensor]:
        pairs, hidden, visible = (batch[0].to(self._how.device), *(mask.to(self._how.device) for mask in batch[1:]))
        images = torch.cat([pairs.target, pairs.reference])
        images = self._see(images, torch.cat([pairs.target_colours, pairs.reference_colours]))
        prediction = self._model(images, hidden, visible).prediction
        return {"loss": self._compare(prediction, images, hidden, self._how.normalize, self._how.weights)}


def completion_losses(
    prediction: Tensor, target: Tensor, pairs: PairBatch, normalize: bool, weights: PatchWeights | None = None
) -> dict[str, Tensor]:
    """`loss`: mean over hidden patches, or by weight; `human` and `background`: means over hidden ones of each kind."""
    errors = patch_errors(prediction, target, normalize)
    loss = mean_error(errors, pairs.hidden, weights, pairs.human)
    return {"loss": loss} | _parts(errors, pairs.hidden, pairs.human)


PER_PERSON = "/human"
"""Ends the names of losses over the hidden patches that show the person, where silhouettes tell."""


@torch.no_grad()
def reference_use(
    model: CroCo | MAE, pairs: PairBatch, groups: NDArray[np.int64], normalize: bool, chunk: int = 64
) -> dict[str, NDArray[np.float64]]:
    """Completion losses (B,) of held-out pairs by what stands as their reference.

    `true` is the pair's own; `same` that of another pair of its recording, neither of its own two images: the same
    looks in another view or pose; `other` that of another recording; `black` is black. What `true` saves against the
    others measures what the second image adds, and which part of that is looks alone. MAE, which takes no reference,
    has `true` alone, with the masks that CroCo with uniform masks and the same seed is measured with. Each comes again
    with `PER_PERSON`. NaN are pairs where a loss can not be had; names of which none can be had are left out.

    Args:
        groups: (B,) the recording of each pair; see `PairPool.groups`.
    """
    was_training = model.training
    model.eval()
    sources = {"true": np.arange(len(pairs))}
    if not isinstance(model, MAE):
        sources |= {name: source for name, source in stand_ins(pairs, groups).items() if (source >= 0).any()}
    pairs = pairs.to(next(model.parameters()).device)
    found: dict[str, list[Tensor]] = {}
    for rows in torch.arange(len(pairs)).split(chunk):
        target, hidden = plain(pairs.target[rows]), pairs.hidden[rows]
        references = {name: plain(pairs.reference[source[rows.numpy()]]) for name, source in sources.items()}
        if not isinstance(model, MAE):
            references["black"] = black_like(target)
        for name, reference in references.items():
            errors = patch_errors(_complete(model, target, reference, hidden).prediction, target, normalize)
            for part, where in (("", hidden), (PER_PERSON, hidden & pairs.human[rows])):
                found.setdefault(name + part, []).append((errors * where).sum(1) / where.sum(1))
    model.train(was_training)
    losses = {name: torch.cat(parts).double().cpu().numpy() for name, parts in found.items()}
    for name, source in sources.items():
        for part in ("", PER_PERSON):
            losses[name + part][source < 0] = np.nan
    return {name: loss for name, loss in losses.items() if not np.isnan(loss).all()}


def stand_ins(pairs: PairBatch, groups: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Of each pair, the one whose reference stands in for its own (B,), -1 where there is none; see `reference_use`.

    Manifests lie recording by recording: half a turn away are other people.
    """
    count = len(pairs)
    number, places = np.arange(count), np.empty(count, np.int64)
    order = np.lexsort(pairs.pairs.numpy().T[::-1])
    places[order] = number
    target, reference = (
        [tuple(cut) for cut in cuts[:, :2].tolist()] for cuts in (pairs.target_cut, pairs.reference_cut)
    )
    names = {image: name for name, image in enumerate({*target, *reference})}
    own, seen = (np.array([names[image] for image in images]) for images in (target, reference))
    found = {}
    for name, first in (("same", 1), ("other", count // 2)):
        candidates = order[(places[:, None] + first + number) % count]
        alike = groups[candidates] == groups[:, None]
        of_pair = (seen[candidates] == own[:, None]) | (seen[candidates] == seen[:, None])
        fits = alike & ~of_pair if name == "same" else ~alike
        chosen = candidates[number, fits.argmax(1)]
        found[name] = np.where(fits.any(1), chosen, -1)
    return found


@dataclass(frozen=True)
class Saving:
    """By how much the true reference lowers the loss of held-out pairs of one kind."""

    kind: str
    patches: str
    """`hidden`: over all hidden patches; `person`: over those that show the person."""
    against: str
    """What stands as the reference instead: `same`, `other` or `black`; see `reference_use`."""
    loss: float
    """With the true reference."""
    saves: float
    standard_error: float | None
    """Over recordings, whose pairs depend on each other; None with a single one."""
    pairs: int
    recordings: int


def savings(losses: dict[str, NDArray[np.float64]], kinds: NDArray[np.str_], groups: NDArray[np.int64]) -> list[Saving]:
    """Of every kind there is: what comes of the losses of `reference_use`."""
    found = []
    for kind in np.unique(kinds).tolist():
        for part, patches in (("", "hidden"), (PER_PERSON, "person")):
            for against in ("same", "other", "black"):
                if against + part not in losses:
                    continue
                saved = losses[against + part] - losses["true" + part]
                used = (kinds == kind) & ~np.isnan(saved)
                if used.any():
                    mean, error, recordings = clustered_mean(saved[used], groups[used])
                    loss = float(losses["true" + part][used].mean())
                    found.append(Saving(kind, patches, against, loss, mean, error, int(used.sum()), recordings))
    return found


def clustered_mean(values: NDArray[np.float64], groups: NDArray[np.int64]) -> tuple[float, float | None, int]:
    """Mean of values, its standard error where those of one group depend on each other, and the number of groups.

    The error is that of Liang and Zeger ("Longitudinal data analysis using generalized linear models", 1986), with
    G / (G - 1) for a small number of groups; None with one group.
    """
    mean = float(values.mean())
    _, group = np.unique(groups, return_inverse=True)
    sums = np.bincount(group, values - mean)
    count = len(sums)
    error = None if count == 1 else float(np.sqrt((sums**2).sum() * count / (count - 1)) / len(values))
    return mean, error, count


@torch.no_grad()
def pictures(model: CroCo | MAE, pairs: PairBatch, normalize: bool) -> dict[str, NDArray]:
    """Completions to look at, as in Figures 6 and 7 of the paper: uint8 arrays (K, S, S, 3) by name.

    `target`, `masked` (hidden patches grey), `prediction` (hidden patches given the true mean and
    deviation of each patch where the loss is normalised), and for CroCo `reference` and
    `prediction_black`, what becomes of it with a black reference.
    """
    was_training = model.training
    model.eval()
    pairs = pairs.to(next(model.parameters()).device)
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


def _parts(errors: Tensor, hidden: Tensor, human: Tensor) -> dict[str, Tensor]:
    errors = errors.detach()
    return {"human": masked_mean(errors, hidden & human), "background": masked_mean(errors, hidden & ~human)}
