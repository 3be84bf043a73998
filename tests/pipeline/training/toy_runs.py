"""Small training runs as programs of their own, for tests that stop or kill them.

python -m tests.pipeline.training.toy_runs loop <scratch> <weights out> <steps> <options of run_loop, JSON>
python -m tests.pipeline.training.toy_runs pretrain <params file> <project root> <run>
python -m tests.pipeline.training.toy_runs together <processes> <scratch> <steps> <options of run_loop, JSON>
python -m tests.pipeline.training.toy_runs child <file for its pid>

The first two join the team that torchrun's environment describes, if it describes one.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from pipeline import run_spec
from pipeline.layout import Layout
from pipeline.process import die_with_parent, plain_errors
from pipeline.training.checkpoint import save_state
from pipeline.training.loop import train
from pipeline.training.optimizer import WarmupCosine, adamw
from pipeline.training.team import WHOLE, Share, Team, joined, together

BATCH = 12

Samples = tuple[int, range, Tensor]


class Regression:
    """Learn a fixed linear map through a network with dropout."""

    def __init__(self, module: nn.Module, seconds: float = 0.0, bad_step: int | None = None) -> None:
        self.module, self.seconds, self.bad_step = module, seconds, bad_step

    def batch(self, step: int, share: Share = WHOLE) -> Samples:
        time.sleep(self.seconds)
        part = share.of(BATCH)
        x = torch.randn(BATCH, 8, generator=torch.Generator().manual_seed(step))
        return step, range(BATCH)[part], x[part]

    def ids(self, batch: Samples) -> Sequence[str]:
        step, rows, _ = batch
        return [f"sample-{step}-{row}" for row in rows]

    def losses(self, batch: Samples) -> dict[str, Tensor]:
        step, rows, x = batch
        loss = (self.module(x) - x.cumsum(1)).square().mean()
        return {"loss": loss * float("nan") if step == self.bad_step and rows.stop == BATCH else loss}


def network(dropout: float = 0.3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 8))


def run_loop(
    scratch: Path,
    steps: int,
    seconds: float = 0.0,
    bad_step: int | None = None,
    every: int = 5,
    dropout: float = 0.3,
    module: nn.Module | None = None,
    seed: int = 3,
    saving: float = 0.0,
    **options: Any,
) -> nn.Module:
    """A batch takes so many `seconds`, a state as many more than ever as `saving` says."""

    def save(*arguments: Any) -> Path:
        time.sleep(saving)
        return save_state(*arguments)

    module = module or network(dropout)
    with patch("pipeline.training.loop.save_state", save):
        train(
            module, Regression(module, seconds, bad_step), adamw(module, lr=0.01, weight_decay=0.01),
            WarmupCosine(0.01, steps, 2), seed=seed, precision="fp32", scratch=scratch, checkpoint_every=every,
            title="toy", **options,
        )  # fmt: skip
    return module


def work(scratch: Path, steps: int, options: dict[str, Any], team: Team) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_loop(scratch, steps, team=team, **options)


def main(command: str, *rest: str) -> None:
    if command != "together":
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    if command == "loop":
        with plain_errors("loop"), joined() as team:
            trained = run_loop(Path(rest[0]), int(rest[2]), team=team, **json.loads(rest[3]))
            if team.leads:
                torch.save(trained.state_dict(), rest[1])
    elif command == "pretrain":
        from pipeline.training.pretrain import pretrain  # loads timm, which the others need not wait for

        params = run_spec.load(rest[0])
        with plain_errors("pretrain"), joined() as team:
            pretrain(rest[2], params, Layout(params.scale, Path(rest[1])), team)
    elif command == "together":
        together(int(rest[0]), partial(work, Path(rest[1]), int(rest[2]), json.loads(rest[3])))
    elif command == "child":
        die_with_parent()
        Path(rest[0]).write_text("ready")
        time.sleep(60)
    elif command == "parent":
        subprocess.run([sys.executable, "-m", "tests.pipeline.training.toy_runs", "child", *rest], check=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
