"""Stand-ins of a scale: shards rendered in parallel processes, resumed after a stop, put together at the end.

Writes `data/<scale>/standins/<dataset>` in the dataset's official layout (paper section
3.2: where the pre-training images come from), by the dataset module's own writer.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from pipeline import code
from pipeline.datasets import get
from pipeline.datasets.base import mark_standin, one_thread
from pipeline.datasets.coco import DATASET as COCO
from pipeline.datasets.world import World
from pipeline.layout import Layout
from pipeline.process import num_cores, workers
from pipeline.run_spec import Params, fingerprint

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (shards done, shards in all)."""

CODE = ("pipeline/bodies", "pipeline/datasets", "pipeline/frames.py", "pipeline/motions", "pipeline/rendering")
"""What shards hang on, beside parameters and inputs."""
LOADED = (__name__, "torch", "smplx")
"""Modules that take long to load; each process that renders needs them."""


@dataclass(frozen=True)
class Job:
    """A stand-in to write. Shards may be written in any order and process; done ones are kept."""

    dataset: str
    layout: Layout
    seed: int
    sizes: dict[str, int | float | list[int]]
    scratch: Path
    """Holds a folder per finished shard; named after everything the shards depend on."""
    shards: tuple[str, ...]

    def missing(self) -> list[str]:
        return [shard for shard in self.shards if not (self.scratch / shard).is_dir()]

    def write(self, shard: str) -> None:
        """Render one shard into the scratch folder, aside and renamed; nothing when it is there."""
        done = self.scratch / shard
        if done.is_dir():
            return
        module = get(self.dataset)
        aside = self.scratch / f".{shard}.{os.getpid()}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            with one_thread():
                module.write_shard(shard, aside, _world(self.layout), self.seed, module.sizes(self.sizes))
            aside.replace(done)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def assemble(self) -> Path:
        """Put the finished shards together as the stand-in and drop the scratch folder.

        Raises ValueError when shards are missing.
        """
        if missing := self.missing():
            raise ValueError(f"{self.dataset}: {len(missing)} shards are not rendered yet, the first is {missing[0]}")
        target = self.layout.standin(self.dataset)
        aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        for shard in self.shards:
            shutil.copytree(self.scratch / shard, aside, copy_function=_link, dirs_exist_ok=True)
        module = get(self.dataset)
        module.finish(aside, module.sizes(self.sizes))
        mark_standin(aside, self.dataset)
        shutil.rmtree(target, ignore_errors=True)
        aside.replace(target)
        # With them those that other parameters, inputs or code have left.
        for scratch in self.layout.scratches(f"standin-{self.dataset}"):
            shutil.rmtree(scratch)
        return target


def plan(dataset: str, layout: Layout, params: Params) -> Job:
    """What writing the stand-in takes. ValueError when params.yaml gives it no or wrong sizes."""
    module = get(dataset)
    section = params.datasets.get(dataset)
    if section is None or not section.standin:
        raise ValueError(f"{dataset}: scale {params.scale} has no stand-in (params: datasets.{dataset}.standin)")
    sizes = dict(section.standin)
    shards = tuple(module.shards(module.sizes(sizes)))
    key = fingerprint(dataset, section.standin_seed, sizes, _inputs(dataset, layout), code.hashes(CODE))
    return Job(dataset, layout, section.standin_seed, sizes, layout.scratch(f"standin-{dataset}", key), shards)


def write_standin(
    dataset: str, layout: Layout, params: Params, progress: Progress | None = None, processes: int | None = None
) -> Path:
    """Render and assemble a stand-in with one process per core; returns its folder.

    A run that was stopped goes on with the shards that were missing. The result depends on
    params, body, motions and backgrounds only, not on the number of processes.
    """
    job = plan(dataset, layout, params)
    missing, total = job.missing(), len(job.shards)
    if done := total - len(missing):
        log.info("%s: %d of %d shards are there from an earlier run", dataset, done, total)
    bar = tqdm(total=total, initial=done, desc=f"stand-in {dataset}", unit="shard", disable=progress is not None)
    with bar, workers(min(processes or num_cores(), max(len(missing), 1)), LOADED) as pool:
        futures = {pool.submit(job.write, shard): shard for shard in missing}
        try:
            for future in as_completed(futures):
                future.result()
                done += 1
                bar.update()
                if progress is not None:
                    progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return job.assemble()


@cache
def _world(layout: Layout) -> World:
    return World(layout.smpl, layout.mano, layout.motions, lambda: COCO.background_images(layout.source(COCO.name)))


def _inputs(dataset: str, layout: Layout) -> str:
    """Hash of the body, motions and list of backgrounds, or of the hand; rooms and photographs need nothing."""
    shows = get(dataset).standin_shows
    if shows in ("rooms", "photographs"):
        return ""
    if shows == "hands":
        if not layout.mano.is_file():
            raise ValueError(f"{dataset}: its stand-in needs {layout.mano}; make it with `python -m pipeline.bodies`")
        return hashlib.blake2b(layout.mano.read_bytes(), digest_size=8).hexdigest()
    if not layout.smpl.is_file() or not layout.motions.is_dir():
        raise ValueError(
            f"{dataset}: its stand-in needs {layout.smpl} and {layout.motions}; "
            "make them with `python -m pipeline.bodies` and `python -m pipeline.motions`"
        )
    if layout.is_missing(COCO.name):
        raise ValueError(
            f"{dataset}: there are no photographs to put behind rendered people. COCO is not present and this scale "
            f"has no stand-in for it: data/raw/{COCO.name}/SOURCE.md says how to get it"
        )
    digest = hashlib.blake2b(layout.smpl.read_bytes(), digest_size=8)
    for path in sorted(layout.motions.rglob("*.npz")):
        digest.update(path.relative_to(layout.motions).as_posix().encode())
        digest.update(path.read_bytes())
    photographs = layout.source("coco")
    index = photographs / "annotations/instances_train2017.json"
    digest.update(str(photographs).encode() + (index.read_bytes() if index.is_file() else b""))
    return digest.hexdigest()


def _link(source: str, target: str) -> None:
    """Hard link where the file system has them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
