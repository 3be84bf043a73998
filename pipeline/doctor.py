"""What is there to run on: each dataset present, stood in for or missing; rendering, disk and Python.

For a dataset also how to get it, where to put it, what is wrong with its folder, and which
cells of the paper's tables rest on it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline import datasets
from pipeline.bodies import official
from pipeline.layout import Layout, has_real_data
from pipeline.reporting import metric_table, paper, tables
from pipeline.run_spec import Params

State = Literal["present", "wrong layout", "stand-in", "rendered", "missing"]

WANTED_GB = {"mini": 5, "gpu": 150, "paper": 4000}
"""Free disk a scale asks for, roughly: data in the checkout and once more in DVC's cache."""
_RENDER = """
import os
os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
import pyrender
renderer = pyrender.OffscreenRenderer(8, 8)
from OpenGL.GL import glGetString, GL_RENDERER
print(glGetString(GL_RENDERER).decode())
"""


@dataclass(frozen=True)
class Diagnosis:
    """One dataset, or one published weight file, as a run of this scale would find it."""

    name: str
    state: State
    folder: str
    """Where the real data goes, from the project root."""
    problems: tuple[str, ...]
    homepage: str
    licence: str
    how: str
    files: tuple[str, ...]
    cells: tuple[str, ...]
    """`table (number of cells)` of what depends on it."""


@dataclass(frozen=True)
class Check:
    """One property of the machine."""

    name: str
    ok: bool
    found: str


def diagnose(params: Params, layout: Layout, reference: paper.Reference) -> list[Diagnosis]:
    """Every dataset of the params file, in its order."""
    cells = dependent_cells(params, layout, reference)
    found = []
    for name, section in params.datasets.items():
        source, raw = datasets.get(name).source, layout.raw(name)
        problems: tuple[str, ...] = ()
        state: State
        if has_real_data(raw):
            problems = tuple(source.check(raw))
            state = "wrong layout" if problems else "present"
        else:
            state = "missing" if not section.standin else "rendered" if source.access == "generated" else "stand-in"
        found.append(
            Diagnosis(
                name=name,
                state=state,
                folder=raw.relative_to(layout.root).as_posix(),
                problems=problems,
                homepage=source.homepage,
                licence=source.licence,
                how=source.how,
                files=tuple(
                    file.name + (f" ({file.megabytes / 1000:.1f} GB)" if file.megabytes else "")
                    for file in source.files
                ),
                cells=cells.get(name, ()),
            )
        )
    return found


def diagnose_files(params: Params, layout: Layout) -> list[Diagnosis]:
    """What is not a data set: published weights that this scale starts from, and SMPL's bodies where real data needs
    them."""
    weights = layout.raw("weights")
    named = sorted({spec.source for spec in params.import_weights.values() if spec.source != "random"})
    found = [_files(f"weights {name}", layout, weights, [] if (weights / name).exists() else [name]) for name in named]
    spec = params.body_mesh
    genders = ["neutral"] if has_real_data(layout.raw(spec.train_dataset)) else []
    if has_real_data(layout.raw(spec.test_dataset)):
        genders = list(official.NAMES)
    if genders:
        found.append(_files("smpl", layout, layout.raw("smpl"), official.missing(layout.raw("smpl"), genders)))
    return found


def _files(name: str, layout: Layout, folder: Path, missing: list[str]) -> Diagnosis:
    place = folder.relative_to(layout.root).as_posix()
    return Diagnosis(
        name=name,
        state="missing" if missing else "present",
        folder=place,
        problems=(),
        homepage=f"where {place}/SOURCE.md says",
        licence="see there",
        how="Stages that need it fail without it; nothing stands in.",
        files=tuple(missing),
        cells=(),
    )


def dependent_cells(params: Params, layout: Layout, reference: paper.Reference) -> dict[str, tuple[str, ...]]:
    """Dataset -> `Table 1(a): 4 cells` of what is computed from it at this scale."""
    counts: dict[str, dict[str, int]] = {}
    filled = tables.build(reference, metric_table.MetricTable(()), params, layout)
    for table in filled.values():
        for cell in table.cells.values():
            for dataset in _behind(cell.run, cell.stage, params):
                of_table = counts.setdefault(dataset, {})
                of_table[table.table.label] = of_table.get(table.table.label, 0) + 1
    return {
        dataset: tuple(f"{label}: {count} cells" for label, count in of_table.items())
        for dataset, of_table in counts.items()
    }


def _behind(run: str | None, stage: str | None, params: Params) -> set[str]:
    if run is None or stage is None:
        return set()
    behind = {params.body_mesh.train_dataset, params.body_mesh.test_dataset}
    while run in params.pretrain:
        behind |= set(params.pretrain[run].datasets)
        run = params.pretrain[run].init
    if any(params.datasets[name].standin for name in behind):
        behind |= {name for name, section in params.datasets.items() if section.pool == "backgrounds"}
    return behind


def check_machine(params: Params, layout: Layout) -> list[Check]:
    """Python, off-screen rendering, memory and disk."""
    version = sys.version_info
    free = shutil.disk_usage(layout.root).free / 1e9
    wanted = WANTED_GB.get(params.scale, 0)
    return [
        Check("Python 3.11 to 3.13", (3, 11) <= version[:2] <= (3, 13), sys.version.split()[0]),
        _check_rendering(),
        Check(f"{wanted} GB of free disk", free >= wanted, f"{free:.0f} GB"),
        Check("8 GB of memory", (memory := _memory_gb()) >= 7.5, f"{memory:.0f} GB"),
    ]


def _check_rendering() -> Check:
    # In a process of its own: a broken driver ends it with a signal rather than with an exception.
    done = subprocess.run([sys.executable, "-c", _RENDER], capture_output=True, text=True, timeout=120)
    last = (done.stdout.strip() or done.stderr.strip() or f"ended with status {done.returncode}").splitlines()[-1]
    return Check("off-screen rendering (EGL)", done.returncode == 0, last)


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
