"""The training loop: batches and losses in, trained module out; knows no task and survives being killed.

Step k depends on the state after step k - 1, on batch(k) and on a seed made of (seed, k), on
nothing else. A run that is killed and started again therefore ends with the very bytes of an
undisturbed one (on one machine; GPUs only as far as their kernels are deterministic).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.process import StopRequest
from pipeline.training.checkpoint import TrainingError, load_state, save_state
from pipeline.training.optimizer import WarmupCosine, set_lr
from pipeline.training.precision import Precision, arithmetic, effective

logger = logging.getLogger(__name__)

HISTORY_LINES = 200
"""Lines of a finished history: each is the mean of an equal share of the steps."""


Batch = TypeVar("Batch")


class Task(Protocol[Batch]):
    """What the loop asks of a task."""

    def batch(self, step: int) -> Batch:
        """Samples of a step: a pure function of the step. May be called ahead, on another thread."""
        ...

    def ids(self, batch: Batch) -> Sequence[str]:
        """Names of the samples, for the record of a batch that went wrong."""
        ...

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars; `loss` is minimised, the others are logged beside it."""
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
) -> Path:
    """Train `module` in place for `schedule.steps` steps, resuming from `scratch` when it holds a state.

    Args:
        module: on its device, in training mode; everything that learns.
        scratch: folder of this run alone (its name hashes all the run depends on). The caller
            removes it once the results lie in their place.
        title: what the progress bar says.

    Returns:
        The history in `scratch`: a CSV file of step, learning rate and mean losses.

    Raises:
        TrainingError: a loss that is not finite (the batch is written down), or a full disk.
        SystemExit: 143 or 130 after SIGTERM or Ctrl-C; the state was saved after the step.
    """
    device = next(module.parameters()).device
    precision = effective(precision, device)
    history = _History(scratch / "history.csv", every=max(1, schedule.steps // HISTORY_LINES))
    start = _resume(module, optimizer, scratch, history)
    ahead = _Ahead(task.batch, start, schedule.steps, threaded=device.type == "cuda")
    with (
        ahead,
        StopRequest() as stop,
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        tqdm(total=schedule.steps, initial=start, desc=title, unit="step", mininterval=1.0) as progress,
    ):
        for step in range(start, schedule.steps):
            batch = ahead.next()
            # Dropout draws from torch's own generator: seeding it by step leaves no state to save.
            torch.manual_seed(step_seed(seed, step))
            set_lr(optimizer, schedule.lr(step))
            with arithmetic(precision, device):
                losses = task.losses(batch)
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            values = {name: float(value.detach()) for name, value in losses.items()}
            if not math.isfinite(values["loss"]):
                raise _not_finite(scratch, step, values, task.ids(batch))
            optimizer.step()
            history.add(step, schedule.lr(step), values)
            progress.update()
            progress.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
            done = step + 1
            if done < schedule.steps and (done % checkpoint_every == 0 or stop.code is not None):
                _save(module, optimizer, scratch, done, history)
            if stop.code is not None and done < schedule.steps:
                logger.warning("stopped after step %d of %d; the same command goes on from there", done, schedule.steps)
                raise SystemExit(stop.code)
    history.write()
    return history.path


def step_seed(seed: int, step: int, stream: int = 0) -> int:
    """A 63-bit seed for one step of one stream of random numbers."""
    return int(np.random.SeedSequence([seed, step, stream]).generate_state(1, np.uint64)[0] >> 1)


def _resume(module: nn.Module, optimizer: torch.optim.Optimizer, scratch: Path, history: _History) -> int:
    found = load_state(scratch)
    if found is None:
        return 0
    step, state = found
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    history.restore(state["history"])
    logger.info("going on from step %d", step)
    return step


def _save(module: nn.Module, optimizer: torch.optim.Optimizer, scratch: Path, step: int, history: _History) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in module.parameters()):
        raise TrainingError(
            f"weights are no longer finite after step {step}; lower the learning rate. The state in {scratch} "
            "is from before that."
        )
    history.write()
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "history": history.state()}
    save_state(scratch, step, state)


def _not_finite(scratch: Path, step: int, values: dict[str, float], ids: Sequence[str]) -> TrainingError:
    path = scratch / f"not-finite-{step}.json"
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


class _Ahead(Generic[Batch]):
    """Makes batch k + 1 while step k runs, where a GPU leaves the processor idle; else when asked."""

    def __init__(self, make: Callable[[int], Batch], start: int, stop: int, threaded: bool) -> None:
        self._make, self._next, self._stop = make, start, stop
        self._pool = ThreadPoolExecutor(1) if threaded else None
        self._pending: Future[Batch] | None = None

    def next(self) -> Batch:
        step, self._next = self._next, self._next + 1
        if self._pool is None:
            return self._make(step)
        ready = self._pending or self._pool.submit(self._make, step)
        self._pending = self._pool.submit(self._make, step + 1) if step + 1 < self._stop else None
        return ready.result()

    def __enter__(self) -> _Ahead[Batch]:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
