"""What every dataset module is: a source, a reader of the official layout, a writer of a stand-in.

The reader turns files into `FrameRecord`s (paper section 3.2: where pairs come from); the
writer renders the open world into the same layout, so that both go through one reader.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.quarantine import Quarantine
from pipeline.frames import UNREADABLE
from pipeline.records import FrameRecord

if TYPE_CHECKING:
    from pipeline.datasets.source import Source
    from pipeline.datasets.world import World

log = logging.getLogger(__name__)

Box = tuple[float, float, float, float]


class Dataset(ABC):
    """One dataset. Subclasses are stateless; `DATASET` of their module is the one instance."""

    name: ClassVar[str]
    source: ClassVar[Source]
    standin_sizes: ClassVar[type]
    """Dataclass: how large the stand-in is."""
    standin_shows: ClassVar[Literal["people", "hands", "rooms", "photographs"]] = "people"
    """What it is made from: bodies, motions and photographs; the hand; nothing for rooms and for photographs."""

    def records(self, root: Path, quarantine: Quarantine | None = None) -> Iterator[FrameRecord]:
        """Yield the records of the dataset that lies under `root` in its official layout.

        Damaged or odd entries are skipped, recorded in `quarantine` and summed up in one
        warning at the end. Raises ValueError, naming what is missing, when the layout as a
        whole is not the official one.
        """
        self.source.require(root, self.name)
        quarantine = Quarantine() if quarantine is None else quarantine
        before = len(quarantine)
        yield from self._read(root, quarantine)
        if len(quarantine) > before:
            log.warning("%s: left out %d entries: %s", self.name, len(quarantine) - before, quarantine.summary(before))

    @abstractmethod
    def _read(self, root: Path, quarantine: Quarantine) -> Iterator[FrameRecord]:
        """Yield records; the layout has been checked."""

    @abstractmethod
    def shards(self, sizes: Any) -> list[str]:
        """Names of the parts the stand-in is rendered in, each on its own; `sizes` is of `standin_sizes`."""

    @abstractmethod
    def write_shard(self, shard: str, folder: Path, world: World, seed: int, sizes: Any) -> None:
        """Render one part into `folder`, with the paths it has in the whole stand-in."""

    def finish(self, root: Path, sizes: Any) -> None:  # noqa: B027 - most datasets need nothing here
        """Write what describes all shards together (index files) once they lie in `root`."""

    def sizes(self, values: Mapping[str, object]) -> Any:
        """`values` (params.yaml, `datasets.<name>.standin`) as this dataset's `standin_sizes`.

        Raises ValueError naming unknown and missing keys.
        """
        known = {field.name for field in fields(self.standin_sizes)}
        if values.keys() != known:
            raise ValueError(
                f"datasets.{self.name}.standin in params.yaml: unknown {sorted(values.keys() - known)}, "
                f"missing {sorted(known - values.keys())}"
            )
        return self.standin_sizes(**values)

    def write_standin(self, root: Path, world: World, seed: int, **sizes: object) -> None:
        """Write a stand-in in the official layout into `root`, one part after the other.

        `pipeline.datasets.standin` does the same in parallel processes, resumably. The same
        world, seed and sizes give the same bytes on one machine, however many threads torch may use.
        """
        checked = self.sizes(sizes)
        with one_thread():
            for shard in self.shards(checked):
                self.write_shard(shard, root, world, seed, checked)
        self.finish(root, checked)
        mark_standin(root, self.name)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch with one thread inside: sums that more threads share differ in the last bit, and so do files."""
    import torch  # loads in seconds; readers do without

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


JOINT_MARGIN = 0.1
"""Joints and keypoints lie inside the outline: their box, widened by this share of its longer side on each side, is
about the person's (measured on rendered people: 1.19 times as long, 1.13 to 1.26 for nine of ten)."""
MARKER = "STANDIN.md"


def mark_standin(root: Path, dataset: str) -> None:
    """Say in the folder itself that it holds no real data."""
    (root / MARKER).write_text(
        f"# Not {dataset}\n\nRendered in the layout of {dataset} by this project, without any of its data.\n"
        "Results on it say nothing about the real data set.\n"
    )


def chunk(shard: str, count: int, size: int) -> range:
    """Items of shard number `shard` when `count` items are dealt out `size` at a time."""
    start = int(shard) * size
    return range(start, min(start + size, count))


def chunks(count: int, size: int) -> list[str]:
    """Names of the shards that `chunk` understands."""
    return [f"{number:04d}" for number in range(-(-count // size))]


def folders(root: Path) -> Iterator[Path]:
    """`root` and all folders below it in the order of their names, through links, too.

    A folder that several links lead to is found once, so that a circle of links has an end.
    """
    found = set()
    for folder, inside, _ in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in found:
            inside.clear()
            continue
        found.add(place)
        inside.sort()
        yield Path(folder)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header alone; ValueError when it is no image."""
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        raise ValueError("the image is missing") from None
    except UNREADABLE as error:
        raise ValueError(f"not a readable image ({type(error).__name__})") from None


def box_around(points: NDArray[np.floating], margin: float = 0.0) -> Box:
    """Box (x, y, width, height) in pixels around points (N, 2).

    `margin` widens each side by that share of the longer side, for points (joints) that lie
    inside the person's outline.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    pad = margin * float((high - low).max())
    x, y = (low - pad).tolist()
    width, height = (high - low + 2 * pad).tolist()
    return x, y, width, height


def project(
    points: NDArray[np.floating], K: NDArray[np.floating], R: NDArray[np.floating], t: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Pixels (N, 2) of world points (N, 3) in metres; `x_camera = R x + t`, OpenCV axes.

    Raises ValueError when a point lies on or behind the camera plane.
    """
    camera = np.asarray(points, dtype=np.float64) @ np.asarray(R).T + np.asarray(t)
    if (camera[:, 2] <= 0).any():
        raise ValueError("a point lies behind the camera")
    image = camera @ np.asarray(K).T
    return image[:, :2] / image[:, 2:]


def overlaps(box: Box, width: int, height: int) -> bool:
    """Whether any part of the box lies in the image."""
    return box[0] < width and box[1] < height and box[0] + box[2] > 0 and box[1] + box[3] > 0
