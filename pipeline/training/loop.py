"""The training loop: batches and losses in, trained module out; knows no task and survives being killed.

Step k depends on the state after step k - 1, on batch(k) and on a seed made of (seed, k), on
nothing else. A run that is killed and started again therefore ends with the very bytes of an
undisturbed one (on one machine and by as many processes; GPUs only as far as their kernels are deterministic).
"""

from __future__ import annotations

import json
import logging
import math
import signal
from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.loading.ahead import Ahead
from pipeline.process import StopRequest
from pipeline.training.checkpoint import TrainingError, load_state, save_state
from pipeline.training.live import Live, count_flops, peak_flops
from pipeline.training.optimizer import Average, WarmupCosine, set_lr
from pipeline.training.precision import Precision, arithmetic, compiled, effective, full_float32
from pipeline.training.team import ALONE, WHOLE, Share, Team, keeps_statistics, others_may_end, unsynchronised

logger = logging.getLogger(__name__)

HISTORY_LINES = 200
"""Lines of a finished history: each is the mean of an equal share of the steps."""
FINISHED_LATE = ("cuda",)
"""Devices where a step is finished (its losses read, its state saved) while the next one, short of its change of the
weights, is computed: to ask for a loss is to wait for it, and the device would then wait for work.

Not the steps of a module with batch norm: its running statistics are changed by computing, and the state saved for a
step would hold those of the next."""


Batch = TypeVar("Batch")


class Task(Protocol[Batch]):
    """What the loop asks of a task."""

    def batch(self, step: int, share: Share = WHOLE) -> Batch:
        """A share of the samples of a step: a pure function of both, and the same samples that they are in the whole.

        May be called ahead, in a process forked from this one: it keeps to the processor.
        """
        ...

    def ids(self, batch: Batch) -> Sequence[str]:
        """Names of the samples, for the record of a batch that went wrong."""
        ...

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars; `loss` is minimised, the others are logged beside it.

        The mean of `loss` over equal shares must be that of the whole, as it is where every sample weighs the same; of
        what is only logged it may differ a little.
        """
        ...


def train(
    module: nn.Module,
    task: Task[Any],
    optimizer: torch.optim.Optimizer,
    schedule: WarmupCosine,
    *,
    seed: int,
    precision: Precision,
    scratch: Path,
    checkpoint_every: int,
    title: str,
    accumulate: int = 1,
    ema: float | None = None,
    fuse: Sequence[nn.Module] = (),
    samples: int | None = None,
    watch: Callable[[int], None] | None = None,
    watch_after: Container[int] | None = None,
    team: Team = ALONE,
) -> Path:
    """Train `module` in place for `schedule.steps` steps, resuming from `scratch` when it holds a state.

    Args:
        module: on its device, in training mode; everything that learns.
        scratch: folder of this run alone (its name hashes all the run depends on). The caller
            removes it once the results lie in their place.
        title: what the progress bar says.
        accumulate: micro-batches that a process makes of its samples of a step, one after the other, for want of
            memory. They change results by rounding only, where there is no dropout: each draws its own.
        ema: decay of a running average of the weights, which the module has in the end; None = the last weights.
        fuse: parts of `module`, such as its blocks, and functions of `task` (`Fusible`) for torch's compiler.
        samples: of one step, by all processes, for the throughput; None = not shown.
        watch: called by the first process with the number of steps done, before the state is saved. It sees the module
            as it would be were these all steps, with `ema` its average, and must leave no trace in it.
        watch_after: numbers of steps after which `watch` is called; None = after each.
        team: the processes that train the module together, all from the same weights; the first one keeps history
            and state. All of them read `scratch`.

    Returns:
        The history in `scratch`: a CSV file of step, learning rate and mean losses. Beside it lie, while the run
        lasts, figures with the clock in them (pipeline.training.live).

    Raises:
        TrainingError: a loss that is not finite (the batch is written down) or weights that are not, a full disk, a
            state that can not be read, processes of the team that have different ones, or the end of another of them.
        ChildProcessError: a process that made batches for a GPU has ended.
        SystemExit: 143 or 130 after SIGTERM or Ctrl-C to any process; the state was saved after the step.
    """
    device = next(module.parameters()).device
    precision = effective(precision, device)
    average = Average(module, ema) if ema is not None else None
    history = _History(scratch / "history.csv", every=max(1, schedule.steps // HISTORY_LINES))
    state = _State(module, optimizer, history, average, scratch)
    with others_may_end(), team.leader_first():
        start = state.load()
    if len(steps := set(team.gather([str(start)]))) > 1:
        raise TrainingError(
            f"the processes of this run found states after different steps ({', '.join(sorted(steps, key=int))}) in "
            f"{scratch}: that folder must be the same for all. Put the project where every machine sees it."
        )
    shares = team.shares(accumulate)
    late = device.type in FINISHED_LATE and not keeps_statistics(module)

    def batches(step: int) -> list[Any]:
        return [task.batch(step, share) for share in shares]

    with ExitStack() as stack:
        stack.enter_context(full_float32())
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        stack.enter_context(others_may_end())
        live = Live(scratch / "live", start, samples, _use(module, batches, task, precision)) if team.leads else None
        stack.enter_context(compiled(fuse))
        losses_of = team.parallel(_Losses(module, task))
        # From here on, and no sooner: until all are there, who waits for one that has failed ends when told to.
        stop = stack.enter_context(StopRequest())
        beside = min(team.size, max(1, torch.cuda.device_count()))
        ahead = stack.enter_context(Ahead(batches, range(start, schedule.steps), device, beside))
        progress = stack.enter_context(
            tqdm(total=schedule.steps, initial=start, desc=title, unit="step", mininterval=1.0, disable=not team.leads)
        )

        def finish(ran: _Ran) -> None:
            """All that is done about a step besides computing it."""
            *means, wished = ran.values()
            values = dict(zip(ran.names, means, strict=True))
            if not math.isfinite(values["loss"]):
                ids = team.gather([name for part in ran.parts for name in task.ids(part)])
                raise _not_finite(scratch, ran.step, values, ids, team)
            done = ran.step + 1
            stopped = bool(wished) and done < schedule.steps
            # Soon after the first process has ended torchrun kills the others, in the middle of saving if need be.
            with team.leader_first() if stopped else nullcontext():
                if live:
                    lr = schedule.lr(ran.step)
                    history.add(ran.step, lr, values)
                    progress.update()
                    line = live.add(done, values | {"lr": lr}, last=stopped or done == schedule.steps)
                    if line is not None:
                        progress.set_postfix_str(_shown(line), refresh=False)
                    if watch is not None and (watch_after is None or done in watch_after):
                        with (
                            torch.compiler.set_stance("force_eager") if fuse else nullcontext(),
                            average.given() if average is not None else nullcontext(),
                        ):
                            watch(done)
                    if done < schedule.steps and (done % checkpoint_every == 0 or stopped):
                        state.save(done)
            if stopped:
                logger.warning("stopped after step %d of %d; the same command goes on from there", done, schedule.steps)
                raise SystemExit(stop.code or 128 + signal.SIGTERM)

        ran: _Ran | None = None
        for step in range(start, schedule.steps):
            with live.waiting() if live else nullcontext():
                parts = ahead.next()
            set_lr(optimizer, schedule.lr(step))
            optimizer.zero_grad(set_to_none=True)
            sums: dict[str, Tensor] = {}
            for part, share in zip(parts, shares, strict=True):
                # Dropout draws from torch's own generator: seeding it by step leaves no state to save.
                torch.manual_seed(step_seed(seed, step, stream=share.index << 8))
                with nullcontext() if share is shares[-1] else unsynchronised(losses_of):
                    with arithmetic(precision, device):
                        losses = losses_of(part)
                    (losses["loss"] / accumulate).backward()
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value.detach().float() / accumulate
            # Whoever was told to stop tells the others, so that all stop after the same step.
            wish = torch.full((), float(stop.code is not None), device=device)
            means = team.mean(torch.stack([*sums.values(), wish]))
            if ran is not None:
                finish(ran)
            ran = _Ran(step, parts, list(sums), means)
            optimizer.step()
            if average is not None:
                average.add(step)
            if not late or step + 1 == schedule.steps:
                finish(ran)
                ran = None
    state.check(schedule.steps)
    if average is not None:
        average.give()
    if live:
        history.write()
        speed = ", ".join(f"{name} {value:.3g}" for name, value in live.end().items())
        logger.info("%s: %d steps done; %s", title, schedule.steps - start, speed)
    return history.path


def step_seed(seed: int, step: int, stream: int = 0) -> int:
    """A 63-bit seed for one step of one stream of random numbers."""
    return int(np.random.SeedSequence([seed, step, stream]).generate_state(1, np.uint64)[0] >> 1)


class _Ran:
    """A step whose losses are on their way from the device."""

    def __init__(self, step: int, parts: list[Any], names: list[str], means: Tensor) -> None:
        self.step, self.parts, self.names = step, parts, names
        self._means, self._there = means, None
        if means.is_cuda:
            self._means = torch.empty_like(means, device="cpu", pin_memory=True).copy_(means, non_blocking=True)
            self._there = torch.cuda.Event()
            self._there.record()

    def values(self) -> list[float]:
        if self._there is not None:
            self._there.synchronize()
        return self._means.tolist()


class _Losses(nn.Module):
    """The losses of a task as the forward pass of a module: what DistributedDataParallel can follow."""

    def __init__(self, module: nn.Module, task: Task[Any]) -> None:
        super().__init__()
        self.module, self._task = module, task

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return self._task.losses(batch)


def _use(module: nn.Module, batches: Callable[[int], list[Any]], task: Task[Any], precision: Precision) -> float | None:
    """Share of the hardware's peak that one step per second would be; None where that is not known."""
    device = next(module.parameters()).device
    peak = peak_flops(device, precision)
    if peak is None:
        return None

    def loss() -> Tensor:
        with arithmetic(precision, device):
            return task.losses(parts[0])["loss"]

    parts = batches(0)
    kept = [buffer.clone() for buffer in module.buffers()]  # batch norm takes note of a pass
    flops = len(parts) * count_flops(loss)
    for buffer, value in zip(module.buffers(), kept, strict=True):
        buffer.copy_(value)
    module.zero_grad(set_to_none=True)
    return flops / peak


def _shown(line: dict[str, float]) -> str:
    shown = [f"loss={line['loss']:.4f}", f"data wait={line['data_wait']:.0%}"]
    if "samples_per_second" in line:
        shown.append(f"{line['samples_per_second']:.4g} samples/s")
    if "mfu" in line:
        shown.append(f"MFU={line['mfu']:.1%}")
    return ", ".join(shown)


class _State:
    """All that a run keeps from step to step, and the folder it is saved in."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        history: _History,
        average: Average | None,
        scratch: Path,
    ) -> None:
        self._module, self._optimizer, self._history, self._average = module, optimizer, history, average
        self._scratch = scratch

    def load(self) -> int:
        """Take the newest state that is whole; the number of steps behind it."""
        found = load_state(self._scratch)
        if found is None:
            return 0
        step, state = found
        self._module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._history.restore(state["history"])
        if self._average is not None:
            self._average.restore(state["average"])
        logger.info("going on from step %d", step)
        return step

    def check(self, step: int) -> None:
        """Raises TrainingError where weights are not finite."""
        if not all(bool(torch.isfinite(value).all()) for value in self._module.parameters()):
            raise TrainingError(
                f"weights are no longer finite after step {step}; lower the learning rate. The state in "
                f"{self._scratch} is from before that."
            )

    def save(self, step: int) -> None:
        self.check(step)
        self._history.write()
        state: dict[str, Any] = {
            "module": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "history": self._history.state(),
        }
        if self._average is not None:
            state["average"] = self._average.state()
        save_state(self._scratch, step, state)


def _not_finite(scratch: Path, step: int, values: dict[str, float], ids: Sequence[str], team: Team) -> TrainingError:
    path = scratch / f"not-finite-{step}.json"
    if team.leads:
        scratch.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({"step": step, "losses": {k: repr(v) for k, v in values.items()}, "ids": list(ids)}, indent=1)
        )
    return TrainingError(
        f"the loss of step {step} is {values['loss']}; its samples are listed in {path}. Look at them, or lower "
        "the learning rate; the run has stopped and its last good state is kept."
    )


class _History:
    """Mean losses over windows of `every` steps; part of the saved state, so a resumed run has no line twice."""

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self.lines: list[str] = []
        self.window: list[dict[str, float]] = []

    def add(self, step: int, lr: float, values: dict[str, float]) -> None:
        self.window.append(values)
        if len(self.window) < self.every:
            return
        means = {name: float(np.mean([values[name] for values in self.window])) for name in values}
        if not self.lines:
            self.lines.append(",".join(["step", "lr", *means]))
        self.lines.append(",".join([str(step + 1), *(f"{value:.6g}" for value in (lr, *means.values()))]))
        self.window = []

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(f"{line}\n" for line in self.lines))

    def state(self) -> dict[str, Any]:
        return {"lines": self.lines, "window": self.window}

    def restore(self, state: dict[str, Any]) -> None:
        self.lines, self.window = list(state["lines"]), list(state["window"])
