"""A small open world and one tiny stand-in of every dataset, written once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import datasets, run_spec
from pipeline.bodies.model import load
from pipeline.datasets import Quarantine
from pipeline.datasets.world import World
from pipeline.layout import Layout
from pipeline.motions.__main__ import write_motions
from pipeline.records import FrameRecord

SIZES: dict[str, dict[str, int]] = {
    "coco": {"images": 4, "width": 160, "height": 120},
    "humbi": {"subjects": 2, "instants": 2, "cameras": 3, "width": 160, "height": 120},
    "aist": {"sequences": 2, "instants": 3, "stride": 4, "cameras": 2, "width": 160, "height": 120},
    "3dpw": {
        "train_sequences": 2, "val_sequences": 1, "test_sequences": 2,
        "frames": 3, "stride": 5, "width": 90, "height": 160,
    },
    "penn_action": {"videos": 4, "frames": 3, "width": 160, "height": 120},
    "synthetic": {"scenes": 3, "cameras": 3, "instants": 2, "width": 96, "height": 96},
    "synthetic_looks": {"scenes": 3, "cameras": 3, "instants": 2, "width": 96, "height": 96},
    "coco_part_eft": {"images": 6, "width": 160, "height": 120},
    "interhand": {"captures": 2, "sequences": 3, "frames": 3, "cameras": 3, "side": 192},
    "habitat": {"rooms": 2, "pairs": 3, "side": 64},
}  # fmt: skip


@pytest.fixture(scope="session")
def open_layout(
    tmp_path_factory: pytest.TempPathFactory, body_arrays: dict[str, np.ndarray], hand_arrays: dict[str, np.ndarray]
) -> Layout:
    """A project folder with an open body and hand, a few motions and four background photographs."""
    layout = Layout("mini", tmp_path_factory.mktemp("project"))
    layout.bodies.mkdir(parents=True)
    np.savez(layout.smpl, **body_arrays)
    np.savez(layout.mano, **hand_arrays)
    settings = run_spec.Motions(num_subjects=4, clips_per_subject=3, seconds=2.0, fps=10.0, seed=0)
    write_motions(layout.motions, load(layout.smpl), settings)
    datasets.get("coco").write_standin(layout.standin("coco"), world_of(layout), 0, **SIZES["coco"])
    return layout


@pytest.fixture(scope="session")
def world(open_layout: Layout) -> World:
    return world_of(open_layout)


@pytest.fixture(scope="session")
def standins(open_layout: Layout, world: World) -> Path:
    """Folder with a stand-in of every dataset; not to be changed."""
    for name in datasets.names():
        if name != "coco":
            datasets.get(name).write_standin(open_layout.standin(name), world, 0, **SIZES[name])
    return open_layout.standin("coco").parent


@pytest.fixture(scope="module")
def root(standins: Path, request: pytest.FixtureRequest) -> Path:
    """Stand-in of the data set that a test module is about (its `NAME`); not to be changed."""
    return standins / request.module.NAME


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(root, tmp_path / root.name))


def read(name: str, root: Path) -> tuple[list[FrameRecord], list[tuple[str, str]]]:
    """Records of a data set; file and reason of what could not be read."""
    quarantine = Quarantine()
    records = list(datasets.get(name).records(root, quarantine))
    return records, [(entry.file, entry.reason) for entry in quarantine.entries]


def world_of(layout: Layout) -> World:
    photographs = layout.standin("coco") / "train2017"
    return World(layout.smpl, layout.mano, layout.motions, lambda: sorted(photographs.glob("*.jpg")))
