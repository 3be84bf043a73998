"""Pairs manifests and crops -> batches for completion (CroCo-Human Sec. 3.1-3.3).

Which pairs, roles, crops, colours and hidden patches step k gets depends on (seed, k) alone, and on nothing that
any process keeps: a resumed run goes on with the very next sample, and processes that share a step agree on it.
Of a manifest only four columns are read (a fifth or sixth for a run that limits them), so that millions of pairs start
as thousands do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.masking import human_mask, uniform_mask
from models.patches import visible_indices
from pipeline.crops import CropStore
from pipeline.loading.augment import human_patches, random_colours, random_corners
from pipeline.loading.crop_pixels import CropPixels, Rows
from pipeline.loading.order import Order
from pipeline.manifests import ManifestError, frames_of, read_pairs

logger = logging.getLogger(__name__)

Kind = Literal["view", "pose"]

ALL = slice(None)


@dataclass(frozen=True)
class Source:
    """One dataset of the pool: its pairs manifest, its crops file, how often it is drawn."""

    name: str
    pairs: Path
    crops: Path
    weight: float


@dataclass(frozen=True)
class Masking:
    """Which patches of the target are hidden (models.masking)."""

    kind: Literal["human", "uniform"]
    ratio: float
    visible_length: Literal["max_n", "max_nh"]
    min_human: int
    """Below this many human patches, or without a silhouette, an image is masked uniformly."""
    patch: int
    bucket: int = 1
    """Human masking shows a multiple of this many patches."""

    def hide(self, human: Tensor, generator: torch.Generator) -> Tensor:
        """(B, N) human patches -> (B, N) hidden patches, the same number in every row."""
        if self.kind == "uniform":
            return uniform_mask(human.shape[0], human.shape[1], self.ratio, generator)
        return human_mask(human, self.ratio, generator, self.visible_length, self.bucket, self.min_human)


@dataclass(frozen=True)
class Limits:
    """Which pairs a run leaves aside; None or nothing = none."""

    max_pairs: int | None = None
    """Training pairs of one dataset and kind, spread evenly over its manifest."""
    baseline_degrees: tuple[float, float] | None = None
    """From and below which angle between the cameras pairs of kind view are used, held-out ones as well."""
    gap_s: tuple[float, float] | None = None
    """Likewise the time between the two images of pairs of kind pose."""
    without: Mapping[str, Collection[Kind]] = field(default_factory=dict)
    """Dataset -> kinds, all pairs of which are left out."""


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Draw:
    """All that chance decides about B pairs: a batch but for its pixels. Tensors on any device."""

    pairs: Tensor
    """(B, 2) int64: number of the source, row of its manifest; see `PairPool.ids`."""
    target_cut: Tensor
    """(B, 4) int64, where the target's pixels lie: source, row of its crops file, top and left there in px."""
    reference_cut: Tensor
    """Likewise for the reference."""
    target_colours: Tensor
    """(B, 3) factors for `augment.jitter_and_normalize`."""
    reference_colours: Tensor
    human: Tensor
    """(B, N) bool: patches of the target that show the person; all False where not known."""
    hidden: Tensor
    """(B, N) bool."""
    visible: Tensor
    """(B, L) int64: `visible_indices` of `hidden`."""

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class PairBatch(Draw):
    """A draw with its pixels."""

    target: Tensor
    """(B, S, S, 3) uint8 RGB, the image to complete."""
    reference: Tensor
    """(B, S, S, 3) uint8 RGB, seen whole."""

    def to(self, device: torch.device) -> PairBatch:
        return replace(self, **{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


class PairPool:
    """Pairs of several datasets, drawn by weight; a share of them is held out for validation.

    The pairs of dataset d and kind k are a cell of the order (see pipeline.loading.order), drawn with weight[d] *
    weight[k], each of its pairs once before any again. Held out are whole groups of pairs that are linked by
    common frames, chosen by a hash of their names (`group_rank` of the manifest), so that no validation image
    is trained on.

    Args:
        kinds: weight of each kind of pair; kinds not named are left out.
        heldout: share of the groups that validation gets.
        size: side of the network's input, px.
        limits: pairs beyond these are left out.
        shared_crops: both images of a pair are cropped at one place, not each at a place of its own.

    Raises:
        ManifestError, CropsError: a file that is missing or damaged, or nothing at all to draw from.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        kinds: Mapping[Kind, float],
        *,
        heldout: float,
        size: int,
        masking: Masking,
        jitter: float,
        seed: int,
        limits: Limits = NO_LIMITS,
        shared_crops: bool = False,
    ) -> None:
        self._pixels = [CropPixels(source.crops) for source in sources]
        self._manifests = [_Manifest(source, limits) for source in sources]
        self._size, self._masking, self._jitter, self._seed = size, masking, jitter, seed
        self._shared_crops, self._shape = shared_crops, (size, size)
        self._cells: list[tuple[int, NDArray[np.int32]]] = []
        self._heldout: list[tuple[int, NDArray[np.int32]]] = []
        weights = []
        self.counts: dict[str, int] = {}
        """Training pairs by `<dataset>/<kind>`."""
        emptied = []
        for index, (source, manifest) in enumerate(zip(sources, self._manifests, strict=True)):
            if manifest.frames != self._pixels[index].frames:
                raise _not_of_one_making(source)
            if not len(manifest):
                logger.warning("left out: %s, it has no pairs", source.name)
            for kind, weight in kinds.items():
                if kind in limits.without.get(source.name, ()):
                    continue
                rows, apart = manifest.rows(kind, heldout)
                if limits.max_pairs is not None:
                    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), limits.max_pairs)).astype(np.int64)]
                if not len(rows) and manifest.has(kind):
                    emptied.append(f"{source.name}/{kind}")
                if len(rows):
                    self._cells.append((index, rows))
                    weights.append(source.weight * weight)
                    self.counts[f"{source.name}/{kind}"] = len(rows)
                if len(apart):
                    self._heldout.append((index, apart))
        if emptied:
            logger.warning(
                "left out: %s: none of their pairs is within the run's limits (`baseline_degrees`, `gap_s`) and not "
                "held out (`heldout`)",
                ", ".join(emptied),
            )
        if emptied and not self._cells:
            raise ManifestError(
                f"nothing is left to train on of the pairs of {', '.join(emptied)}: none is within this run's limits "
                "(`baseline_degrees`, `gap_s`) and not held out (`heldout`)"
            )
        if not self._cells:
            raise ManifestError(
                f"no pairs of kind {' or '.join(kinds)} in {', '.join(str(source.pairs) for source in sources)}"
                + (", beside those that the run's `without` leaves out" if limits.without else "")
                + "; get one of these datasets (`make doctor` says how), or give this run others that have such pairs"
            )
        if heldout and not self._heldout:
            logger.warning("none of these pairs is held out, there will be no validation: `heldout` is %g", heldout)
        self._order = Order([len(rows) for _, rows in self._cells], weights, seed)
        self.shares = {cell: weight / sum(weights) for cell, weight in zip(self.counts, weights, strict=True)}
        """Of what is drawn, by the same names."""
        self._last: tuple[tuple[int, int], Draw] | None = None

    @property
    def epoch(self) -> int:
        """Pairs in an epoch: as many as there are to train on."""
        return self._order.epoch

    def batch(self, step: int, batch: int, part: slice = ALL) -> PairBatch:
        """The pairs of a step, roles swapped at random, images cropped at random and each coloured on its own.

        With a `part`, those of the batch alone: the very ones, masks included, that they are in the whole.
        """
        # Whoever takes a step in parts draws it once.
        if self._last is None or self._last[0] != (step, batch):
            self._last = (step, batch), self._draw_step(step, batch)
        return self._see(self._last[1], part)

    def validation(self, count: int) -> PairBatch | None:
        """Up to `count` held-out pairs, dataset by dataset, always the same; None when none are held out.

        Every held-out pair is as likely as any other, whatever the weights of training: a loss of another mixture.
        Centre crops and true colours; the hidden patches are drawn from the pool's seed. All these masks show the same
        number of patches. With human masking it follows from all these people, in training from those of a batch: it is
        rarely the same there (`models.masking.human_mask`).
        """
        bounds = np.cumsum([0, *(len(rows) for _, rows in self._heldout)])
        if not bounds[-1]:
            return None
        rng = np.random.default_rng([self._seed, 1 << 40])
        places = np.sort(rng.choice(bounds[-1], size=min(count, bounds[-1]), replace=False))
        cells = np.searchsorted(bounds, places, side="right") - 1
        chosen = np.array(
            [
                (self._heldout[cell][0], self._heldout[cell][1][place - bounds[cell]])
                for cell, place in zip(cells.tolist(), places.tolist(), strict=True)
            ]
        )
        return self._see(self._draw(chosen, rng, swap=None))

    def ids(self, batch: PairBatch) -> list[str]:
        """The `pair_id` of every pair."""
        return [self._manifests[source].ids[row] for source, row in batch.pairs.tolist()]

    def kinds(self, batch: PairBatch) -> NDArray[np.str_]:
        """(B,) the kind of every pair."""
        return np.array([self._manifests[source].kind(row) for source, row in batch.pairs.tolist()])

    def groups(self, batch: PairBatch) -> NDArray[np.int64]:
        """(B,) a number for the group of every pair: those linked by common frames, of one recording, share theirs."""
        ranks = [(source, self._manifests[source].rank(row)) for source, row in batch.pairs.tolist()]
        return np.unique(ranks, axis=0, return_inverse=True)[1].ravel()

    def _draw_step(self, step: int, batch: int) -> Draw:
        cells, picks = self._order.draw(step * batch, batch)
        chosen = np.array(
            [
                (self._cells[cell][0], self._cells[cell][1][pick])
                for cell, pick in zip(cells.tolist(), picks.tolist(), strict=True)
            ]
        )
        rng = np.random.default_rng([self._seed, step])
        return self._draw(chosen, rng, swap=rng.random(batch) < 0.5)

    def _draw(self, chosen: NDArray[np.int64], rng: np.random.Generator, swap: NDArray[np.bool_] | None) -> Draw:
        """Pairs given as (source, row); `swap` None = as validation shows them."""
        sources = chosen[:, 0]
        crops = np.array([self._manifests[source].crops(row) for source, row in chosen.tolist()])
        if swap is not None:
            crops = np.where(swap[:, None], crops[:, ::-1], crops)
        corners = [self._corners(sources, rng, centred=swap is None) for _ in range(2)]
        if self._shared_crops:
            # Both were drawn all the same: everything else is then as it is with crops of their own.
            corners[1] = corners[0]
        cuts = [torch.from_numpy(np.column_stack([sources, crops[:, role], corners[role]])) for role in range(2)]
        colours = [random_colours(rng, len(chosen), 0.0 if swap is None else self._jitter) for _ in range(2)]
        silhouettes = self._cut(lambda pixels: pixels.silhouettes, cuts[0], np.empty((len(chosen), *self._shape), bool))
        human = torch.from_numpy(human_patches(silhouettes, self._masking.patch))
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        hidden = self._masking.hide(human, generator)
        return Draw(
            pairs=torch.from_numpy(chosen),
            target_cut=cuts[0],
            reference_cut=cuts[1],
            target_colours=torch.from_numpy(colours[0]),
            reference_colours=torch.from_numpy(colours[1]),
            human=human,
            hidden=hidden,
            visible=visible_indices(hidden, *hidden.shape),
        )

    def _see(self, draw: Draw, part: slice = ALL) -> PairBatch:
        drawn = {f.name: getattr(draw, f.name)[part] for f in fields(draw)}
        shape = (len(drawn["pairs"]), *self._shape, 3)
        images = {
            role: torch.from_numpy(
                self._cut(lambda pixels: pixels.images, drawn[f"{role}_cut"], np.empty(shape, np.uint8))
            )
            for role in ("target", "reference")
        }
        return PairBatch(**drawn, **images)

    def _corners(self, sources: NDArray[np.int64], rng: np.random.Generator, centred: bool) -> NDArray[np.int64]:
        corners = np.empty((len(sources), 2), np.int64)
        for index in np.unique(sources):
            here, stored = np.flatnonzero(sources == index), self._pixels[index].size
            corners[here] = random_corners(rng, len(here), stored, self._size)
            if centred:
                corners[here] = (stored - self._size) // 2
        return corners

    def _cut(self, what: Callable[[CropPixels], Rows], cuts: Tensor, out: NDArray[Any]) -> NDArray[Any]:
        """`out` (B, S, S, ...), filled from rows of several crops files, each cut at its own corner."""
        sources, rows, corners = np.split(cuts.numpy(), (1, 2), axis=1)
        for index in np.unique(sources):
            here = np.flatnonzero(sources == index)
            what(self._pixels[index]).cut(rows[here, 0], corners[here], [out[place] for place in here])
        return out


def _not_of_one_making(source: Source) -> ManifestError:
    """Pairs that were made from other crops; names the first one whose crop lies elsewhere now, or is gone."""
    store, example = CropStore(source.crops), ""
    for role in ("reference", "target"):
        columns = (f"{role}_crop", f"{role}_frame_id", "pair_id")
        rows, frames, names = (column.to_pylist() for column in read_pairs(source.pairs, columns).columns)
        now = store.rows(frames)
        if len(wrong := np.flatnonzero(now != np.array(rows, np.int64))):
            first = wrong[0]
            there = f"row {now[first]} there" if now[first] >= 0 else "not there"
            example = f" (the {role} of pair {names[first]}, frame {frames[first]}, row {rows[first]}, is {there})"
    return ManifestError(
        f"{source.pairs} was made from other crops than {source.crops} holds{example}; "
        "`dvc repro` makes the pairs again"
    )


class _Manifest:
    """The numbers of a pairs manifest that drawing takes; 25 bytes a pair."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self._path = source.pairs
        bounds = {
            ("view", "baseline_degrees"): limits.baseline_degrees,
            ("pose", "dt_seconds"): limits.gap_s,
        }
        limited = {key: bound for key, bound in bounds.items() if bound is not None}
        names = ["kind", "target_crop", "reference_crop", "group_rank", *(column for _, column in limited)]
        table = read_pairs(source.pairs, names)
        self.frames = frames_of(table)
        """Of the crops that the pairs were made from; see `CropStore.frames`."""
        self._targets, self._references = (
            table[name].to_numpy().astype(np.int32) for name in ("target_crop", "reference_crop")
        )
        self._kinds, self._ranks = table["kind"], table["group_rank"].to_numpy()
        self._within = np.ones(len(self._ranks), bool)
        for (kind, column), (low, high) in limited.items():
            # A place in time before the target's is as far as one behind it; what is not known is beyond any limit.
            value = np.abs(table[column].to_numpy())
            self._within &= ~self._of(kind) | ((value >= low) & (value < high))

    def __len__(self) -> int:
        return len(self._ranks)

    def crops(self, row: int) -> tuple[int, int]:
        """Rows of target and reference of a pair in the crops file."""
        return int(self._targets[row]), int(self._references[row])

    def kind(self, row: int) -> str:
        return str(self._kinds[row])

    def rank(self, row: int) -> float:
        return float(self._ranks[row])

    def has(self, kind: Kind) -> bool:
        return bool(self._of(kind).any())

    def rows(self, kind: Kind, heldout: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Rows of the pairs of a kind to train on, and of those held out."""
        used, apart = self._of(kind) & self._within, self._ranks < heldout
        return tuple(np.flatnonzero(used & chosen).astype(np.int32) for chosen in (~apart, apart))  # type: ignore[return-value]

    def _of(self, kind: str) -> NDArray[np.bool_]:
        return np.asarray(pc.equal(self._kinds, kind).to_numpy())

    @cached_property
    def ids(self) -> list[str]:
        return read_pairs(self._path, ["pair_id"])["pair_id"].to_pylist()
