"""A run can be killed, stopped, damaged or starved of disk at any moment and still ends with the same weights."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pipeline.reporting.metric_table import read_history
from pipeline.training import loop
from pipeline.training.checkpoint import TrainingError, load_state, save_state
from pipeline.training.optimizer import WarmupCosine
from tests.pipeline.training.programs import Program, equal, last_step, loss_curve, states, wait_for
from tests.pipeline.training.toy_runs import BATCH, network, run_loop

STEPS = 40
SLOWLY = json.dumps({"seconds": 0.05})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return run_loop(tmp_path_factory.mktemp("undisturbed"), STEPS).state_dict()


def test_a_killed_run_ends_with_the_very_weights_and_history_of_an_undisturbed_one(
    tmp_path: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    process = Program("loop", tmp_path / "run", tmp_path / "never", STEPS, SLOWLY)
    wait_for(lambda: len(states(tmp_path / "run")) >= 2)
    time.sleep(0.12)  # somewhere between two states
    process.kill()
    process.end()
    assert not (tmp_path / "never").exists()
    module = run_loop(tmp_path / "run", STEPS)
    assert equal(module.state_dict(), undisturbed)
    run_loop(tmp_path / "other", STEPS)
    assert (tmp_path / "run/history.csv").read_bytes() == (tmp_path / "other/history.csv").read_bytes()
    lines = (tmp_path / "run/history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", *map(str, range(1, STEPS + 1))]


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_very_weights(
    tmp_path: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    moments = random.Random(5)
    slowly = json.dumps({"seconds": 0.1, "every": 2})
    reached = 0
    for _ in range(4):
        process = Program("loop", tmp_path / "run", tmp_path / "never", STEPS, slowly)
        # Each gets further than the one before, however slow the machine: together they are killed all along the run.
        wait_for(lambda after=reached: last_step(tmp_path / "run") > after)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.end()
        reached = last_step(tmp_path / "run")
    assert not (tmp_path / "never").exists()
    assert equal(run_loop(tmp_path / "run", STEPS).state_dict(), undisturbed)


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,)])
def test_signals_end_the_run_after_its_step_with_the_state_saved(
    tmp_path: Path, undisturbed: dict[str, torch.Tensor], numbers: tuple[signal.Signals, ...]
) -> None:
    process = Program("loop", tmp_path / "run", tmp_path / "never", STEPS, json.dumps({"seconds": 0.6, "every": 2}))
    wait_for(lambda: states(tmp_path / "run"))
    for number in numbers:  # all of them in one step, the third if the machine is not very busy
        time.sleep(0.1)
        process.send_signal(number)
    code, errors = process.end()
    assert code == 128 + numbers[0]
    (step,) = re.findall(r"stopped after step (\d+)", errors)
    assert 3 <= int(step) < STEPS
    assert states(tmp_path / "run")[-1].name.startswith(f"step-{int(step):09d}")
    assert "the same command goes on from there" in errors
    assert equal(run_loop(tmp_path / "run", STEPS).state_dict(), undisturbed)


def test_a_damaged_state_is_named_and_the_one_before_it_taken(
    tmp_path: Path, undisturbed: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TrainingError):
        run_loop(tmp_path, STEPS, bad_step=23)
    older, newest = states(tmp_path)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with caplog.at_level("INFO"):
        module = run_loop(tmp_path, STEPS)
    assert newest.name in caplog.text
    assert "damaged" in caplog.text
    assert "going on from step 15" in caplog.text
    assert older.name.startswith("step-000000015")
    assert equal(module.state_dict(), undisturbed)


def test_a_whole_state_that_memory_does_not_suffice_for_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError):
        run_loop(tmp_path, STEPS, bad_step=23)
    kept = states(tmp_path)

    def want(*_: object, **__: object) -> None:
        raise RuntimeError("can't allocate memory: you tried to allocate 9 bytes")

    with (
        monkeypatch.context() as patch,
        pytest.raises(TrainingError, match="is whole but can not be read: can't alloc"),
    ):
        patch.setattr(torch, "load", want)
        run_loop(tmp_path, STEPS)
    assert states(tmp_path) == kept


def test_weights_that_the_last_step_spoils_are_no_result(tmp_path: Path) -> None:
    module, passes = network(), iter(range(1, STEPS + 1))
    module[-1].weight.register_hook(lambda gradient: gradient * (float("nan") if next(passes) == STEPS else 1.0))
    with pytest.raises(TrainingError, match=f"no longer finite after step {STEPS}"):
        run_loop(tmp_path, STEPS, module=module)


def test_what_a_run_killed_while_it_saved_has_left_is_removed(
    tmp_path: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(TrainingError):
        run_loop(tmp_path, STEPS, bad_step=23)
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, saving = tmp_path / f".step.{ended.pid}.tmp", tmp_path / f".step.{os.getppid()}.tmp"
    for path in (left, saving):
        path.write_bytes(states(tmp_path)[-1].read_bytes()[:1000])
    assert equal(run_loop(tmp_path, STEPS).state_dict(), undisturbed)
    assert not left.exists()
    assert saving.exists(), "that process lives"


def test_states_that_are_all_damaged_mean_a_fresh_start(tmp_path: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    with pytest.raises(TrainingError):
        run_loop(tmp_path, STEPS, bad_step=23)
    for path in states(tmp_path):
        path.write_bytes(path.read_bytes()[:100])
    assert equal(run_loop(tmp_path, STEPS).state_dict(), undisturbed)


def test_a_loss_that_is_not_finite_stops_the_run_and_lists_its_samples(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss of step 7 is nan.*not-finite-7\.json"):
        run_loop(tmp_path, STEPS, bad_step=7)
    content = json.loads((tmp_path / "not-finite-7.json").read_text())
    assert content["ids"][0] == "sample-7-0"
    assert len(content["ids"]) == BATCH


def test_a_full_disk_keeps_the_state_before_and_says_what_to_do(tmp_path: Path) -> None:
    save_state(tmp_path, 5, {"x": torch.zeros(4)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # as if 100 kB were left
    try:
        with pytest.raises(TrainingError, match=r"can not save the state after step 10.*goes on from step 5"):
            save_state(tmp_path, 10, {"x": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = load_state(tmp_path)
    assert found is not None
    assert found[0] == 5
    assert [path.name for path in tmp_path.iterdir()] == [states(tmp_path)[0].name]


def test_micro_batches_give_the_weights_and_losses_of_the_whole_batch(tmp_path: Path) -> None:
    whole, parts = (run_loop(tmp_path / str(count), STEPS, dropout=0, accumulate=count) for count in (1, 4))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=0)  # whose size AdamW does not heed
    assert loss_curve(tmp_path / "4") == pytest.approx(loss_curve(tmp_path / "1"), rel=1e-5)


def test_a_batch_that_can_not_be_cut_into_micro_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a batch of 12 can not be cut into 5 equal parts.*`accumulate`"):
        run_loop(tmp_path, STEPS, accumulate=5)


def test_a_run_with_micro_batches_and_an_average_of_its_weights_goes_on_exactly(tmp_path: Path) -> None:
    undisturbed = run_loop(tmp_path / "undisturbed", STEPS, accumulate=3, ema=0.9)
    with pytest.raises(TrainingError):
        run_loop(tmp_path / "run", STEPS, bad_step=23, accumulate=3, ema=0.9)
    assert equal(run_loop(tmp_path / "run", STEPS, accumulate=3, ema=0.9).state_dict(), undisturbed.state_dict())


def test_the_module_has_the_average_of_the_weights_it_passed_in_the_end_and_for_who_watches(tmp_path: Path) -> None:
    def weights(module: torch.nn.Module) -> torch.Tensor:
        return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()

    plain, average = network(), network()
    passed, seen = {0: weights(plain)}, {}
    run_loop(tmp_path / "plain", STEPS, module=plain, watch=lambda done: passed.update({done: weights(plain)}))
    run_loop(
        tmp_path / "average", STEPS, module=average, ema=0.8,
        watch=lambda done: seen.update({done: weights(average)}), watch_after=(1, 7, STEPS),
    )  # fmt: skip
    assert list(seen) == [1, 7, STEPS]
    assert torch.equal(seen[STEPS], weights(average))
    mean = passed.pop(0)
    for done, last in passed.items():
        kept = min(0.8, done / (done + 9))
        mean = kept * mean + (1 - kept) * last
        if done in seen:
            torch.testing.assert_close(seen[done], mean, atol=1e-5, rtol=0)
            assert not torch.equal(seen[done], last)


class Killed(Exception):
    """As a signal would end it, but without leaving the process."""


def watched(scratch: Path, last: int = STEPS, **options: Any) -> dict[int, torch.Tensor]:
    """The weights that `watch` sees after each step, up to `last`, by their number."""
    module, seen = network(), {}

    def watch(done: int) -> None:
        seen[done] = torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()
        if done == last < STEPS:
            raise Killed

    with suppress(Killed):
        run_loop(scratch, STEPS, module=module, watch=watch, **options)
    return seen


@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "accumulate": 3}])
def test_steps_finished_while_the_next_runs_leave_what_others_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    at_once = watched(tmp_path / "at once", **options)
    monkeypatch.setattr(loop, "FINISHED_LATE", ("cpu",))
    late = watched(tmp_path / "late", **options)
    begun = watched(tmp_path / "killed", last=23, **options)
    assert load_state(tmp_path / "killed")[0] == 20  # type: ignore[index]
    resumed = watched(tmp_path / "killed", **options)
    assert list(begun) == list(range(1, 24)) and list(resumed) == list(range(21, STEPS + 1))
    for seen in (late, begun, resumed):
        assert all(torch.equal(weights, at_once[done]) for done, weights in seen.items())
    for name in ("late", "killed"):
        assert (tmp_path / name / "history.csv").read_bytes() == (tmp_path / "at once/history.csv").read_bytes()


@pytest.mark.parametrize("setting", ["late", "peak"])
def test_running_statistics_of_batch_norm_take_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """Wherever passes come that are no step's own: those of the next one, and that which counts operations."""
    whole, broken = normalising(), normalising()
    run_loop(tmp_path / "whole", STEPS, module=whole)
    if setting == "late":
        monkeypatch.setattr(loop, "FINISHED_LATE", ("cpu",))
    else:
        monkeypatch.setenv("PEAK_TFLOPS", "0.1")
    with pytest.raises(TrainingError):
        run_loop(tmp_path / "broken", STEPS, module=broken, bad_step=23)
    assert load_state(tmp_path / "broken")[0] == 20  # type: ignore[index]
    broken = normalising()
    run_loop(tmp_path / "broken", STEPS, module=broken)
    assert equal(broken.state_dict(), whole.state_dict())


def normalising() -> torch.nn.Module:
    module = network()
    module.insert(1, torch.nn.BatchNorm1d(32))  # type: ignore[operator]
    return module


def test_a_loss_that_is_not_finite_and_read_late_leaves_the_state_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, torch.Tensor]
) -> None:
    monkeypatch.setattr(loop, "FINISHED_LATE", ("cpu",))
    with pytest.raises(TrainingError, match=r"loss of step 24 is nan.*not-finite-24\.json"):
        run_loop(tmp_path, STEPS, bad_step=24)
    assert json.loads((tmp_path / "not-finite-24.json").read_text())["ids"][0] == "sample-24-0"
    assert equal(run_loop(tmp_path, STEPS).state_dict(), undisturbed)


def test_each_step_micro_batch_and_seed_draws_dropout_of_its_own(tmp_path: Path) -> None:
    drawn = set()

    def draw(*_: object) -> None:
        drawn.add(tuple(torch.nn.functional.dropout(torch.ones(64)).tolist()))

    for seed in (3, 4):
        module = network()
        module[2].register_forward_hook(draw)
        run_loop(tmp_path / str(seed), 5, module=module, accumulate=2, seed=seed)
    assert len(drawn) == 2 * 5 * 2


def test_each_step_is_taken_at_the_rate_that_the_schedule_and_the_history_say(tmp_path: Path) -> None:
    taken: list[float] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: taken.append(optimizer.param_groups[0]["lr"]))
    try:
        run_loop(tmp_path, STEPS)
    finally:
        hook.remove()
    assert taken == [WarmupCosine(0.01, STEPS, 2).lr(step) for step in range(STEPS)]
    assert [line["lr"] for line in read_history(tmp_path / "history.csv")] == pytest.approx(taken, rel=1e-5)


def test_a_line_of_a_long_history_is_the_mean_of_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "HISTORY_LINES", STEPS // 4)
    module, losses = network(), []
    module.register_forward_hook(
        lambda _, inputs, output: losses.append((output - inputs[0].cumsum(1)).square().mean().item())
    )
    run_loop(tmp_path, STEPS, module=module)
    means = [sum(losses[first : first + 4]) / 4 for first in range(0, STEPS, 4)]
    assert loss_curve(tmp_path) == pytest.approx(means, rel=1e-5)


def test_only_the_last_two_states_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 12):
        save_state(tmp_path, step, {"step": step})
    assert [path.name[:14] for path in states(tmp_path)] == ["step-000000003", "step-000000012"]


@pytest.mark.parametrize("starter", ["DVC_STAGE", "TORCHELASTIC_RUN_ID"])
def test_a_stage_dies_with_the_command_that_started_it(tmp_path: Path, starter: str) -> None:
    child = _orphan(tmp_path, **{starter: "one"})
    wait_for(lambda: not _lives(child), seconds=60)


def test_who_is_started_by_hand_in_the_background_outlives_the_shell(tmp_path: Path) -> None:
    child = _orphan(tmp_path)
    time.sleep(1)  # the signal would have come at once
    assert _lives(child)
    os.kill(child, signal.SIGKILL)


def _orphan(folder: Path, **environment: str) -> int:
    process = Program("parent", folder / "ready", **environment)
    wait_for(lambda: (folder / "ready").exists())
    (child,) = _children(process.pid)
    process.kill()
    process.end()
    return child


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and _state(pid) != "Z"


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
