"""A project folder with reports/*.yaml and made-up metrics: nothing measured, only in temporary folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.layout import PROJECT, Layout
from pipeline.run_spec import Params, body_mesh_fingerprint, load

MEANS = {"random": 140.0, "mae_body": 118.0, "croco_body": 104.0}


@pytest.fixture(scope="session")
def params() -> Params:
    """Those of scale mini, with as many seeds as `measured` makes up."""
    params = load(PROJECT / "params.yaml")
    return params.model_copy(update={"body_mesh": params.body_mesh.model_copy(update={"seeds": (0, 1, 2)})})


@pytest.fixture
def layout(tmp_path: Path, params: Params) -> Layout:
    (tmp_path / "reports").mkdir()
    for name in ("paper_values.yaml", "claims.yaml", "rows.yaml"):
        shutil.copy(PROJECT / "reports" / name, tmp_path / "reports" / name)
    return Layout(params.scale, tmp_path)


WriteMetrics = Callable[..., Path]


@pytest.fixture
def write_metrics(layout: Layout, params: Params) -> WriteMetrics:
    """Write one body mesh metrics file; `pa_mpjpe` is the number most tests look at."""

    def write(init: str, seed: int, pa_mpjpe: float, **changes: object) -> Path:
        path = layout.metrics("body_mesh", f"{init}/{seed}")
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {"pa_mpjpe": pa_mpjpe, "mpjpe": 1.5 * pa_mpjpe, "pa_mpvpe": 1.2 * pa_mpjpe, "mpvpe": 2 * pa_mpjpe}
        values["pa_mpjpe_of_mean_pose"] = 123.4
        content = {
            "stage": "body_mesh",
            "task": "body_mesh",
            "init": init,
            "seed": seed,
            "scale": layout.scale,
            "values": {name: {"value": value, "unit": "mm", "n": 320} for name, value in values.items()},
            "checkpoint": {"path": f"data/mini/task_checkpoints/body_mesh/{init}/{seed}", "sha256": f"{seed:064x}"},
            "params_fingerprint": body_mesh_fingerprint(params),
            "git_revision": "0" * 40,
            "hardware": "a processor, AVX2",
            "command": f"python -m pipeline.tasks.body_mesh --params params.yaml --init {init} --seed {seed}",
            "seconds": 40.0 + seed,
        }
        path.write_text(json.dumps(content | changes))
        return path

    return write


@pytest.fixture
def measured(layout: Layout, write_metrics: WriteMetrics) -> Layout:
    """The headline as if it had been run: three seeds of three initialisations, and loss histories."""
    for init, mean in MEANS.items():
        for seed in range(3):
            write_metrics(init, seed, mean + 1.5 * (seed - 1))
            losses = {step: mean / (20 + step) + seed for step in range(0, 200, 10)}
            write_history(layout.history("body_mesh", f"{init}/{seed}"), losses)
    for run, floor in (("croco_body", 0.55), ("mae_body", 0.7)):
        losses = {step: floor + 30 / (60 + step) + 0.02 * (step % 7) for step in range(0, 1000, 10)}
        write_history(layout.history("pretrain", run), losses)
    return layout


def write_history(path: Path, losses: dict[int, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{step},0.001,{loss}" for step, loss in losses.items()]
    path.write_text("\n".join(["step,lr,loss", *lines]) + "\n")
