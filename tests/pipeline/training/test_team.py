"""Processes that train together compute what one computes, and stop, fail and go on as one."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.training.checkpoint import save_state
from pipeline.training.team import Share, Team
from tests.pipeline.training.programs import (
    Program,
    end,
    equal,
    last_step,
    loss_curve,
    start_as_team,
    start_team,
    states,
    wait_for,
)
from tests.pipeline.training.toy_runs import BATCH, run_loop

STEPS = 40
SIZE = 3
"""A sum of two is the same in either order, one of three is not; test_pretrain has two."""
NO_DROPOUT = {"dropout": 0.0}
"""Each process draws its own."""


def test_shares_are_all_samples_once_and_refuse_to_be_unequal() -> None:
    shares = [share for rank in range(3) for share in Team(rank, 3).shares(2)]
    rows = list(range(12))
    assert [row for share in shares for row in rows[share.of(12)]] == rows
    with pytest.raises(ValueError, match="a batch of 16 can not be cut into 3 equal parts"):
        Share(0, 3).of(16)


@pytest.mark.slow
def test_processes_have_the_losses_and_weights_of_one(tmp_path: Path) -> None:
    options = json.dumps(NO_DROPOUT | {"accumulate": 2})
    codes, errors = end(start_team(SIZE, "loop", tmp_path / "run", tmp_path / "weights", STEPS, options))
    assert codes == [0] * SIZE, errors
    alone = run_loop(tmp_path / "alone", STEPS, dropout=0.0)
    assert loss_curve(tmp_path / "run") == pytest.approx(loss_curve(tmp_path / "alone"), rel=1e-5)
    for name, value in torch.load(tmp_path / "weights", weights_only=True).items():
        torch.testing.assert_close(value, alone.state_dict()[name], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_killed_team_ends_with_the_very_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    codes, errors = end(start_team(SIZE, "loop", tmp_path / "calm", tmp_path / "calm.pt", STEPS, "{}"))
    assert codes == [0] * SIZE, errors
    team = start_team(SIZE, "loop", tmp_path / "run", tmp_path / "run.pt", STEPS, json.dumps({"seconds": 0.05}))
    wait_for(lambda: len(states(tmp_path / "run")) >= 2)
    time.sleep(0.12)  # somewhere between two states
    for process in team:
        process.kill()
    end(team)
    assert not (tmp_path / "run.pt").exists()
    codes, errors = end(start_team(SIZE, "loop", tmp_path / "run", tmp_path / "run.pt", STEPS, "{}"))
    assert codes == [0] * SIZE, errors
    assert all("going on from step" in error for error in errors)
    ran, calm = (torch.load(tmp_path / name, weights_only=True) for name in ("run.pt", "calm.pt"))
    assert equal(ran, calm)


@pytest.mark.slow
def test_a_signal_to_any_process_ends_all_after_the_same_step_with_the_state_saved(tmp_path: Path) -> None:
    options = NO_DROPOUT | {"seconds": 0.05}
    team = start_team(2, "loop", tmp_path / "run", tmp_path / "never", STEPS, json.dumps(options))
    wait_for(lambda: states(tmp_path / "run"))
    team[1].send_signal(signal.SIGTERM)
    codes, errors = end(team)
    assert codes == [143, 143], errors
    assert all("the same command goes on from there" in error for error in errors)
    # One process goes on with what two began.
    run_loop(tmp_path / "run", STEPS, dropout=0.0)
    run_loop(tmp_path / "alone", STEPS, dropout=0.0)
    assert loss_curve(tmp_path / "run") == pytest.approx(loss_curve(tmp_path / "alone"), rel=1e-5)


@pytest.mark.slow
def test_of_processes_that_are_told_to_stop_none_ends_before_the_state_is_saved(tmp_path: Path) -> None:
    options = json.dumps({"seconds": 0.05, "saving": 1.0})
    team = start_team(2, "loop", tmp_path / "run", tmp_path / "never", STEPS, options)
    wait_for(lambda: states(tmp_path / "run"))
    for process in team:
        process.send_signal(signal.SIGTERM)
    code, said = team[1].end()
    (step,) = re.findall(r"stopped after step (\d+)", said)
    assert (code, last_step(tmp_path / "run")) == (143, int(step))
    assert team[0].end()[0] == 143


def test_who_waits_for_the_others_to_begin_ends_at_once_when_told_to(tmp_path: Path) -> None:
    class Waiting(Team):
        def parallel(self, module: nn.Module) -> nn.Module:
            signal.raise_signal(signal.SIGINT)
            return module

    # Who started the tests may have it passed over.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_loop(tmp_path, STEPS, team=Waiting())
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_module_whose_statistics_would_differ_between_processes_is_refused() -> None:
    with pytest.raises(ValueError, match="batch norm can not be trained by several processes"):
        Team(0, 2).parallel(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_stops_all_and_lists_the_samples_of_all(tmp_path: Path) -> None:
    options = json.dumps({"bad_step": 7})
    codes, errors = end(start_team(2, "loop", tmp_path / "run", tmp_path / "never", STEPS, options))
    assert codes == [1, 1]
    assert all("the loss of step 7 is nan" in error and "Traceback" not in error for error in errors)
    content = json.loads((tmp_path / "run/not-finite-7.json").read_text())
    assert content["ids"] == [f"sample-7-{row}" for row in range(BATCH)]


@pytest.mark.slow
def test_the_loss_of_a_process_ends_the_others_with_a_line_that_says_so(tmp_path: Path) -> None:
    team = start_team(2, "loop", tmp_path / "run", tmp_path / "never", STEPS, json.dumps({"seconds": 0.05}))
    wait_for(lambda: states(tmp_path / "run"))
    team[1].kill()
    codes, errors = end(team)
    assert codes == [1, -signal.SIGKILL]
    assert "another process of this run has ended" in errors[0]
    assert "Traceback" not in errors[0]


@pytest.mark.slow
def test_processes_that_do_not_see_the_same_states_are_refused(tmp_path: Path) -> None:
    team = start_team(2, "loop", tmp_path / "run", tmp_path / "never", STEPS, json.dumps({"seconds": 0.05}))
    wait_for(lambda: states(tmp_path / "run"))
    for process in team:
        process.kill()
    end(team)
    folders = [tmp_path / "run", tmp_path / "another machine's"]
    codes, errors = end(start_as_team([("loop", folder, tmp_path / "never", STEPS, "{}") for folder in folders]))
    assert codes == [1, 1]
    for error in errors:
        assert "found states after different steps (0, " in error and "must be the same for all" in error
        assert "Traceback" not in error
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_where_the_first_is_refused_the_others_end_with_a_line(tmp_path: Path) -> None:
    path = save_state(tmp_path, 5, {"step": 5})
    path.write_bytes(path.read_bytes()[:-100])
    # Whole, as far as its name tells.
    path.rename(tmp_path / f"step-000000005-{hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()}.pt")
    codes, errors = end(start_team(2, "loop", tmp_path, tmp_path / "never", STEPS, "{}"))
    assert codes == [1, 1]
    assert "is whole but can not be read" in errors[0]
    assert "another process of this run has ended" in errors[1]
    assert not any("Traceback" in error for error in errors)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, None])
def test_a_program_runs_a_team_of_its_own_to_its_end(tmp_path: Path, number: signal.Signals | None) -> None:
    options = NO_DROPOUT | {"seconds": 0.05}
    program = Program("together", 2, tmp_path / "run", STEPS, json.dumps(options))
    if number is not None:
        wait_for(lambda: states(tmp_path / "run"))
        program.send_signal(number)
    codes, errors = end([program])
    assert codes == [0 if number is None else 128 + number], errors
    assert bool(states(tmp_path / "run")) or number is None
    assert (tmp_path / "run/history.csv").exists()
    assert ("stopped after step" in errors[0]) == (number is not None)
