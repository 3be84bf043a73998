"""Small training runs as programs of their own, for tests that stop or kill them.

python -m tests.pipeline.training.toy_runs loop <scratch> <weights out> <steps> <seconds per step>
python -m tests.pipeline.training.toy_runs pretrain <params file> <project root> <run>
python -m tests.pipeline.training.toy_runs child <file for its pid>
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline import run_spec
from pipeline.layout import Layout
from pipeline.process import die_with_parent
from pipeline.training.loop import train
from pipeline.training.optimizer import WarmupCosine, adamw
from pipeline.training.pretrain import pretrain


class Regression:
    """Learn a fixed linear map through a network with dropout."""

    def __init__(self, module: nn.Module, seconds: float = 0.0, bad_step: int | None = None) -> None:
        self.module, self.seconds, self.bad_step = module, seconds, bad_step

    def batch(self, step: int) -> tuple[int, Tensor]:
        time.sleep(self.seconds)
        return step, torch.randn(16, 8, generator=torch.Generator().manual_seed(step))

    def ids(self, batch: tuple[int, Tensor]) -> Sequence[str]:
        return [f"sample-{batch[0]}-{row}" for row in range(16)]

    def losses(self, batch: tuple[int, Tensor]) -> dict[str, Tensor]:
        step, x = batch
        loss = (self.module(x) - x.cumsum(1)).square().mean()
        return {"loss": loss * float("nan") if step == self.bad_step else loss}


def run_loop(scratch: Path, steps: int, seconds: float = 0.0, bad_step: int | None = None, every: int = 5) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 8))
    train(
        module, Regression(module, seconds, bad_step), adamw(module, lr=0.01, weight_decay=0.01),
        WarmupCosine(0.01, steps, 2), seed=3, precision="fp32", scratch=scratch, checkpoint_every=every, title="toy",
    )  # fmt: skip
    return module


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command, *rest = sys.argv[1:]
    if command == "loop":
        trained = run_loop(Path(rest[0]), int(rest[2]), float(rest[3]))
        torch.save(trained.state_dict(), rest[1])
    elif command == "pretrain":
        params = run_spec.load(rest[0])
        pretrain(rest[2], params, Layout(params.scale, Path(rest[1])))
    elif command == "child":
        die_with_parent()
        Path(rest[0]).write_text("ready")
        time.sleep(60)
    elif command == "parent":
        subprocess.run([sys.executable, "-m", "tests.pipeline.training.toy_runs", "child", *rest], check=False)
