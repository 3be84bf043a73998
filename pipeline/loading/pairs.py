"""Pairs manifests and crops -> batches for completion (CroCo-Human Sec. 3.1-3.3).

Which pairs, roles, crops, colours and hidden patches step k gets depends on (seed, k) alone: a
resumed run goes on with the very next sample and nothing is kept about the past.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from models.masking import human_mask, uniform_mask
from pipeline.loading.augment import cut, human_patches, random_colours, random_corners
from pipeline.loading.crop_pixels import CropPixels
from pipeline.manifests import ManifestError, read_pairs

logger = logging.getLogger(__name__)

Kind = Literal["view", "pose"]

_COLUMNS = ("pair_id", "kind", "target_frame_id", "reference_frame_id", "target_crop", "reference_crop")


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

    def hide(self, human: Tensor, generator: torch.Generator) -> Tensor:
        """(B, N) human patches -> (B, N) hidden patches, the same number in every row."""
        if self.kind == "uniform":
            return uniform_mask(human.shape[0], human.shape[1], self.ratio, generator)
        return human_mask(human, self.ratio, generator, self.visible_length, min_human=self.min_human)


@dataclass(frozen=True)
class PairBatch:
    """Tensors of B pairs, on any device."""

    ids: list[str]
    target: Tensor
    """(B, S, S, 3) uint8 RGB, the image to complete."""
    reference: Tensor
    """(B, S, S, 3) uint8 RGB, seen whole."""
    target_colours: Tensor
    """(B, 3) factors for `augment.jitter_and_normalize`."""
    reference_colours: Tensor
    human: Tensor
    """(B, N) bool: patches of the target that show the person; all False where not known."""
    hidden: Tensor
    """(B, N) bool."""

    def to(self, device: torch.device) -> PairBatch:
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self) if f.name != "ids"}
        return replace(self, **moved)


class PairPool:
    """Pairs of several datasets, drawn by weight; a share of them is held out for validation.

    A pair of dataset d and kind k is drawn from a cell (d, k) whose chance is weight[d] * weight[k],
    uniformly within it, with replacement. Held out are whole groups of pairs that are linked by
    common frames, chosen by a hash of their names, so that no validation image is trained on.

    Args:
        kinds: weight of each kind of pair; kinds not named are left out.
        heldout: share of the groups that validation gets.
        size: side of the network's input, px.

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
    ) -> None:
        self._pixels = [CropPixels(source.crops) for source in sources]
        self._tables = [read_pairs(source.pairs).select(_COLUMNS) for source in sources]
        self._size, self._masking, self._jitter, self._seed = size, masking, jitter, seed
        self._cells: list[tuple[int, NDArray[np.int64]]] = []
        self._heldout: list[tuple[int, NDArray[np.int64]]] = []
        weights = []
        self.counts: dict[str, int] = {}
        """Training pairs by `<dataset>/<kind>`."""
        for index, (source, table) in enumerate(zip(sources, self._tables, strict=True)):
            if not table.num_rows:
                logger.warning("left out: %s, it has no pairs", source.name)
            apart = held_out(table, heldout)
            kind_of = table["kind"].to_numpy(zero_copy_only=False)
            for kind, weight in kinds.items():
                rows = np.flatnonzero((kind_of == kind) & ~apart)
                if len(rows):
                    self._cells.append((index, rows))
                    weights.append(source.weight * weight)
                    self.counts[f"{source.name}/{kind}"] = len(rows)
                if len(rows := np.flatnonzero((kind_of == kind) & apart)):
                    self._heldout.append((index, rows))
        if not self._cells:
            raise ManifestError(
                f"no pairs of kind {' or '.join(kinds)} in {', '.join(str(source.pairs) for source in sources)}; "
                "get one of these datasets (`make doctor` says how), or give this run others that have such pairs"
            )
        self._chances = np.array(weights) / np.sum(weights)

    def batch(self, step: int, batch: int) -> PairBatch:
        """Random pairs of a step, roles swapped at random, each image cropped and coloured on its own."""
        rng = np.random.default_rng([self._seed, step])
        cells = rng.choice(len(self._cells), size=batch, p=self._chances)
        sizes = np.array([len(rows) for _, rows in self._cells])
        picks = rng.integers(sizes[cells])
        chosen = [
            (self._cells[cell][0], int(self._cells[cell][1][pick])) for cell, pick in zip(cells, picks, strict=True)
        ]
        return self._assemble(chosen, rng, swap=rng.random(batch) < 0.5)

    def validation(self, count: int) -> PairBatch | None:
        """Up to `count` held-out pairs, dataset by dataset, always the same; None when none are held out.

        Centre crops and true colours; the hidden patches are drawn from the pool's seed.
        """
        rows = [(index, row) for index, part in self._heldout for row in part.tolist()]
        if not rows:
            return None
        rng = np.random.default_rng([self._seed, 1 << 40])
        chosen = [rows[i] for i in sorted(rng.permutation(len(rows))[:count])]
        return self._assemble(chosen, rng, swap=None)

    def _assemble(
        self, chosen: list[tuple[int, int]], rng: np.random.Generator, swap: NDArray[np.bool_] | None
    ) -> PairBatch:
        """Pairs given as (dataset, row); `swap` None = as validation shows them."""
        first = np.array([self._tables[i]["target_crop"][row].as_py() for i, row in chosen])
        second = np.array([self._tables[i]["reference_crop"][row].as_py() for i, row in chosen])
        if swap is not None:
            first, second = np.where(swap, second, first), np.where(swap, first, second)
        datasets = np.array([i for i, _ in chosen])
        corners = [self._corners(datasets, rng, centred=swap is None) for _ in range(2)]
        target, silhouettes = self._cut(datasets, first, corners[0])
        reference, _ = self._cut(datasets, second, corners[1])
        colours = [random_colours(rng, len(chosen), 0.0 if swap is None else self._jitter) for _ in range(2)]
        human = torch.from_numpy(human_patches(silhouettes, self._masking.patch))
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        return PairBatch(
            ids=[self._tables[i]["pair_id"][row].as_py() for i, row in chosen],
            target=torch.from_numpy(target),
            reference=torch.from_numpy(reference),
            target_colours=torch.from_numpy(colours[0]),
            reference_colours=torch.from_numpy(colours[1]),
            human=human,
            hidden=self._masking.hide(human, generator),
        )

    def _corners(self, datasets: NDArray[np.int64], rng: np.random.Generator, centred: bool) -> NDArray[np.int64]:
        corners = np.empty((len(datasets), 2), np.int64)
        for index in np.unique(datasets):
            here, stored = np.flatnonzero(datasets == index), self._pixels[index].size
            corners[here] = random_corners(rng, len(here), stored, self._size)
            if centred:
                corners[here] = (stored - self._size) // 2
        return corners

    def _cut(
        self, datasets: NDArray[np.int64], rows: NDArray[np.int64], corners: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Images (B, S, S, 3) and silhouettes (B, S, S) of rows of several crops files, cut at the same corners."""
        images = np.empty((len(rows), self._size, self._size, 3), np.uint8)
        silhouettes = np.empty((len(rows), self._size, self._size), bool)
        for index in np.unique(datasets):
            here, pixels = np.flatnonzero(datasets == index), self._pixels[index]
            images[here] = cut(pixels.images(rows[here]), corners[here], self._size)
            silhouettes[here] = cut(pixels.silhouettes(rows[here]), corners[here], self._size)
        return images, silhouettes


def held_out(pairs: pa.Table, share: float) -> NDArray[np.bool_]:
    """(P,) bool: pairs of about a `share` of the groups of linked frames.

    Frames are linked by the pairs they stand in. A group is held out when the smallest of its
    frame ids hashes into the lowest `share`, so adding pairs of other frames moves none.
    """
    if not pairs.num_rows or share <= 0:
        return np.zeros(pairs.num_rows, bool)
    ends = [
        pairs[name].to_numpy(zero_copy_only=False).astype("S16") for name in ("target_frame_id", "reference_frame_id")
    ]
    frames, places = np.unique(np.concatenate(ends), return_inverse=True)
    target, reference = places[: pairs.num_rows], places[pairs.num_rows :]
    links = coo_array((np.ones(len(target), np.int8), (target, reference)), shape=(len(frames), len(frames)))
    count, group = connected_components(links, directed=False)
    first = np.full(count, len(frames))
    np.minimum.at(first, group, np.arange(len(frames)))
    chosen = np.array([_unit_hash(frames[i]) < share for i in first])
    return chosen[group[target]]


def _unit_hash(name: bytes) -> float:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") / 2**64
