"""A run goes on with its own state only; one that was made from something else is refused with what differs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.layout import PROJECT, Layout
from pipeline.training import unfinished
from pipeline.training.checkpoint import TrainingError, save_state
from pipeline.training.unfinished import Basis, close_scratch, open_scratch, refuse_others

BASIS = Basis(
    params={"pretrain.run": {"steps": 9, "datasets": {"aist": 1.0}, "kinds": ["view"]}, "pairs": {"seed": 0}},
    inputs={"data/a.parquet": "1", "data/b.parquet": "2"},
    code={"torch": "2.0", "models/croco.py": "3"},
    device="cpu",
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout("test", tmp_path)


def leave(layout: Layout, basis: Basis, name: str = "run", steps: int = 6) -> Path:
    """What a run that was stopped leaves behind."""
    scratch = open_scratch(layout, "pretrain", name, basis)
    save_state(scratch, steps, {})
    return scratch


def test_a_run_finds_its_own_state_whatever_else_lies_there(layout: Layout) -> None:
    here = leave(layout, BASIS)
    leave(layout, BASIS, name="run_longer")
    assert open_scratch(layout, "pretrain", "run", BASIS) == here


def test_all_that_differs_is_named_with_both_values(layout: Layout) -> None:
    there = leave(layout, BASIS)
    params = {"pretrain.run": {"steps": 12, "datasets": {"3dpw": 0.5}, "kinds": ["view"]}, "pairs": {"seed": 0}}
    now = Basis(
        params, BASIS.inputs | {"data/b.parquet": "other"}, {"torch": "2.1", "models/mae.py": "3"}, device="cuda"
    )
    with pytest.raises(TrainingError) as refused:
        open_scratch(layout, "pretrain", "run", now)
    assert str(refused.value).splitlines() == [
        "an unfinished run of this name was made from something else than what is here now.",
        f"  {there}, after 6 steps:",
        "    pretrain.run.datasets.3dpw was not set, is 0.5 now",
        "    pretrain.run.datasets.aist was 1.0, is not set now",
        "    pretrain.run.steps was 9, is 12 now",
        "    inputs that changed: data/b.parquet",
        "    code that changed: models/croco.py, models/mae.py, torch",
        "    it ran on cpu, now it would on cuda",
        f"Restore that to go on from there by the same command; or start afresh after `rm -r {there}`",
    ]


def test_the_way_out_is_a_command_that_removes_all_that_is_in_the_way(tmp_path: Path) -> None:
    layout = Layout("test", tmp_path / "a folder")
    leave(layout, BASIS).rename(layout.scratch("pretrain", f"run-{0:016x}"))
    save_state(layout.scratch("pretrain", f"run-{BASIS.key}"), 6, {})
    other = leave(layout, BASIS, name="run_longer")
    now = replace(BASIS, device="cuda")
    with pytest.raises(TrainingError) as refused:
        open_scratch(layout, "pretrain", "run", now)
    assert str(refused.value).count("after 6 steps") == 2
    subprocess.run(shlex.split(str(refused.value).split("`")[1]), check=True)
    open_scratch(layout, "pretrain", "run", now)
    assert other.exists()


def test_a_state_that_does_not_say_what_it_was_made_from_is_refused_too(layout: Layout) -> None:
    (leave(layout, BASIS) / "made_from.json").unlink()
    with pytest.raises(TrainingError, match=r"from what is not known \(.*made_from\.json"):
        open_scratch(layout, "pretrain", "run", replace(BASIS, device="cuda"))


def test_runs_of_other_scales_are_others(tmp_path: Path) -> None:
    leave(Layout("paper", tmp_path), BASIS)
    open_scratch(Layout("mini", tmp_path), "pretrain", "run", replace(BASIS, device="cuda"))


def test_of_several_runs_all_that_is_in_the_way_is_named_at_once(layout: Layout) -> None:
    there = [leave(layout, BASIS, name=f"random/{seed}") for seed in range(3)]
    now = replace(BASIS, device="cuda")
    save_state(open_scratch(layout, "pretrain", "random/3", now), 6, {})
    with pytest.raises(TrainingError) as refused:
        refuse_others(layout, "pretrain", [f"random/{seed}" for seed in range(4)], now)
    assert str(refused.value).endswith(f"`rm -r {' '.join(map(str, there))}`")


def test_every_difference_shows(layout: Layout) -> None:
    leave(layout, replace(BASIS, params={"pretrain.run": {"without": {}}}))
    with pytest.raises(TrainingError, match=r"pretrain.run.without was \{\}, is not set now"):
        open_scratch(layout, "pretrain", "run", replace(BASIS, params={"pretrain.run": {}}))


def test_a_damaged_state_is_in_nobodys_way(layout: Layout) -> None:
    (state,) = leave(layout, BASIS).glob("step-*.pt")
    state.write_bytes(state.read_bytes()[:-1])
    open_scratch(layout, "pretrain", "run", replace(BASIS, device="cuda"))


def test_a_folder_without_a_state_is_in_nobodys_way(layout: Layout) -> None:
    open_scratch(layout, "pretrain", "run", BASIS)
    open_scratch(layout, "pretrain", "run", replace(BASIS, device="cuda"))


def test_a_run_that_another_process_trains_is_left_to_it(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    here = layout.scratch("pretrain", f"run-{BASIS.key}")
    program = (
        "import pathlib, sys, time; from tests.pipeline.training.test_unfinished import *; "
        "open_scratch(Layout('test', pathlib.Path(sys.argv[1])), 'pretrain', 'run', BASIS); "
        "print('held', flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", program, str(layout.root)]
    refusal = "process {} of .* trains this run already, in {}"
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with monkeypatch.context() as patch:
                patch.setattr(unfinished, "PATIENCE_S", 0.2)
                with pytest.raises(TrainingError, match=refusal.format(other.pid, here)):
                    open_scratch(layout, "pretrain", "run", BASIS)
            open_scratch(layout, "pretrain", "another", BASIS)
            threading.Timer(0.3, other.kill).start()
            assert open_scratch(layout, "pretrain", "run", BASIS) == here
        finally:
            other.kill()
    assert (here / "held_by").read_text().startswith(f"process {os.getpid()} of ")
    held = unfinished._held[here]
    close_scratch(here)
    assert held.closed, "NFS would keep it, and the folder with it"
    assert not here.exists()
