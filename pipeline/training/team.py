"""Processes that train one module together: each takes its shares of the samples of every step, and all step along
the mean of their gradients (data parallelism).

Whoever draws a batch draws all of it and keeps a share, masks and colours included. So N processes compute what one
computes on the same batch, up to rounding, and so do micro-batches.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.process import side_by_side
from pipeline.training.checkpoint import TrainingError


@dataclass(frozen=True)
class Share:
    """One of `count` equal parts of the samples of a step."""

    index: int = 0
    count: int = 1

    def of(self, samples: int) -> slice:
        """Which of the samples these are. Raises ValueError when they can not be shared out equally."""
        if samples % self.count:
            raise ValueError(
                f"a batch of {samples} can not be cut into {self.count} equal parts (processes times `accumulate`); "
                "change `batch` or `accumulate`, or start another number of processes, or fewer GPUs: "
                "CUDA_VISIBLE_DEVICES=0,1,2,3"
            )
        size = samples // self.count
        return slice(self.index * size, (self.index + 1) * size)


WHOLE = Share()


@dataclass(frozen=True)
class Team:
    """This process among those that train a module; the first one (`rank` 0) speaks and writes for all."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def shares(self, accumulate: int) -> list[Share]:
        """This process's own shares of a step, one for each of its micro-batches."""
        return [Share(self.rank * accumulate + number, self.size * accumulate) for number in range(accumulate)]

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the team while they are made.

        DistributedDataParallel sends the gradients of late layers while those of early ones are computed. On
        processors it must look for unused parameters: otherwise it sorts its packets anew after the first step, and
        a resumed run of three processes or more would add up gradients in another order than an undisturbed one.
        Torch warns that there are none. Buffers, such as tables of positions, never change: none is sent again.

        Raises ValueError: the module has batch norm, whose statistics each process would take of its own share.
        """
        if self.size == 1:
            return module
        if keeps_statistics(module):
            raise ValueError("a module with batch norm can not be trained by several processes; start one")
        on_cpu = next(module.parameters()).device.type == "cpu"
        parallel = DistributedDataParallel(module, gradient_as_bucket_view=True, find_unused_parameters=on_cpu)
        # Set here: the argument has another name in newer versions of torch.
        parallel.broadcast_buffers = False
        return parallel

    def mean(self, values: Tensor) -> Tensor:
        """Mean of float values over the team. Every process calls this at the same time."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def gather(self, names: list[str]) -> list[str]:
        """The names of all processes, in their order. Every process calls this at the same time."""
        if self.size == 1:
            return names
        found: list[list[str]] = [[]] * self.size
        dist.all_gather_object(found, names)
        return [name for names in found for name in names]

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """What is inside is done by the first process, and only then by the others."""
        if self.size > 1 and not self.leads:
            dist.barrier()
        yield
        if self.size > 1 and self.leads:
            dist.barrier()


ALONE = Team()


def keeps_statistics(module: nn.Module) -> bool:
    """Whether computing changes the module, as the running statistics of batch norm are changed."""
    return any(getattr(part, "track_running_stats", False) for part in module.modules())


def unsynchronised(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Around a micro-batch that is not the last of its step: its gradients are kept, not averaged yet."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else contextlib.nullcontext()


@contextmanager
def others_may_end() -> Iterator[None]:
    """Says in one line that another process has gone, where torch says which of its sockets was closed.

    Raises TrainingError.
    """
    try:
        yield
    except RuntimeError as error:
        if dist.is_initialized() and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise TrainingError(f"another process of this run has ended, so this one ends, too ({error})") from error
        raise


@contextmanager
def joined() -> Iterator[Team]:
    """The team that torchrun's environment makes this process a member of; ALONE where there is none."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield ALONE
        return
    local = int(os.environ.get("LOCAL_RANK", 0))
    on_one_machine = int(os.environ.get("LOCAL_WORLD_SIZE", size)) == size
    with _member(Team(int(os.environ["RANK"]), size), local, "env://", on_one_machine) as team:
        yield team


def together(size: int, job: Callable[[Team], None]) -> None:
    """Run `job` in `size` processes of this machine, one for each GPU or, without, on the processor, to their end.

    They start afresh: `job` is pickled, and sets up what it needs, such as logging.
    Raises SystemExit as `pipeline.process.side_by_side`.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting_point = (Path(folder) / "team").as_uri()
        members = [partial(_work, Team(rank, size), meeting_point, job) for rank in range(size)]
        side_by_side(members, lambda: size, copied=False)


def _work(team: Team, meeting_point: str, job: Callable[[Team], None]) -> None:
    with _member(team, team.rank, meeting_point, on_one_machine=True):
        job(team)


@contextmanager
def _member(team: Team, device: int, meeting_point: str, on_one_machine: bool) -> Iterator[Team]:
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(device)
    if on_one_machine:
        # Loopback only; without this gloo asks which address the host's name stands for.
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)
    dist.init_process_group(
        "nccl" if on_gpus else "gloo", init_method=meeting_point, rank=team.rank, world_size=team.size
    )
    try:
        yield team
    finally:
        dist.destroy_process_group()
