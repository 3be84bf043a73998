"""Batches made before they are asked for, while a GPU leaves the processor idle."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from queue import Empty, Full
from typing import Any, Generic, TypeVar

import torch
import torch.multiprocessing
from torch import Tensor

from pipeline.process import num_cores, share_cores

MAKERS = 4
"""Processes that make batches for a GPU."""
MADE_AHEAD = 2
"""Batches that each of them keeps ready."""
MOVED_AHEAD = 2
"""Batches on a GPU beside that of the step at hand."""

Batch = TypeVar("Batch")


class Ahead(Generic[Batch]):
    """The batches of steps one after the other: made ahead and copied to a GPU beside the kernels of earlier steps;
    without a GPU made when asked for.

    A batch must be kept until the step that it is for is through.

    Args:
        make: gives the batch of a step, on the processor.
        beside: processes of this machine that do the same for GPUs of their own.

    Raises:
        As `made_elsewhere`.
    """

    def __init__(self, make: Callable[[int], Batch], steps: range, device: torch.device, beside: int = 1) -> None:
        self._make, self._steps, self._device = make, iter(steps), device
        self._mover: ThreadPoolExecutor | None = None
        if device.type != "cuda" or not steps:
            return
        # On a thread of its own the first GPU is the current one, and work for another would open it, too.
        self._mover = ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(device,))
        self._copies = torch.cuda.Stream(device)
        self._made = made_elsewhere(make, steps, beside)
        self._unasked = len(steps)
        self._pending: deque[Future[Batch]] = deque()
        for _ in range(MOVED_AHEAD):
            self._ask()

    def next(self) -> Batch:
        if self._mover is None:
            return self._make(next(self._steps))
        found = self._pending.popleft().result()
        self._ask()
        return found

    def _ask(self) -> None:
        if self._mover is not None and self._unasked:
            self._unasked -= 1
            self._pending.append(self._mover.submit(self._on_gpu))

    def _on_gpu(self) -> Batch:
        batch = next(self._made)
        with torch.cuda.stream(self._copies):
            there = _moved(batch, self._device)
        self._copies.synchronize()
        return there

    def __enter__(self) -> Ahead[Batch]:
        return self

    def __exit__(self, *error: object) -> None:
        if self._mover is not None:
            self._mover.shutdown(cancel_futures=True)
            self._made.close()


def made_elsewhere(make: Callable[[int], Batch], steps: range, beside: int = 1) -> Generator[Batch]:
    """The batches of steps in their order, made ahead by processes forked from this one; close it to end them.

    Threads of this one would hold its interpreter while it has kernels to launch. A signal to all processes of a run
    is for the one that trains, so that these let it pass.

    Raises:
        ChildProcessError: one of the processes has ended.
        Whatever `make` raises.
    """
    context = torch.multiprocessing.get_context("fork")
    makers = min(MAKERS, max(1, num_cores() // beside), len(steps))
    queues = [context.Queue(MADE_AHEAD) for _ in range(makers)]
    processes = [
        context.Process(target=_work, args=(make, steps[first::makers], queue, makers * beside), daemon=True)
        for first, queue in enumerate(queues)
    ]
    for process in processes:
        process.start()
    try:
        for number in range(len(steps)):
            yield _received(queues[number % makers], processes[number % makers])
    finally:
        for process in processes:
            process.kill()
            process.join()


def _work(make: Callable[[int], Any], steps: range, queue: Any, sharers: int) -> None:
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, signal.SIG_IGN)
    share_cores(sharers)
    torch.set_num_threads(1)
    for step in steps:
        try:
            # Here, where it is known which step it was for: the queue's own thread loses what can not be sent, such as
            # a batch that finds no shared memory, and the next one would come in its place.
            made = bytes(ForkingPickler.dumps(make(step)))
        except Exception as error:
            made = bytes(ForkingPickler.dumps(error))
        _give(queue, made)
    while True:  # the parent may still ask for the memory that batches lie in, and ends this process
        time.sleep(1)
        _end_without_parent()


def _give(queue: Any, made: bytes) -> None:
    while True:
        with suppress(Full):
            return queue.put(made, timeout=1)
        _end_without_parent()


def _end_without_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():
        os._exit(1)  # at once: nobody takes what waits to be sent


def _received(queue: Any, process: BaseProcess) -> Any:
    while True:
        try:
            batch = ForkingPickler.loads(queue.get(timeout=1))
        except Empty:
            if process.is_alive():
                continue
            raise ChildProcessError(
                f"a process that makes batches has ended ({process.exitcode}). Where the kernel ended it for want of "
                "memory, free some; a container may need more shared memory (docker: --shm-size=4g, or --ipc=host). "
                "The same command goes on from the last state"
            ) from None
        if isinstance(batch, Exception):
            raise batch
        return batch


def _moved(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors on a GPU. From pinned memory: only such copies run beside kernels."""
    if isinstance(batch, Tensor):
        return batch.pin_memory().to(device, non_blocking=True)
    if isinstance(batch, list | tuple):
        return type(batch)(_moved(part, device) for part in batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: _moved(getattr(batch, f.name), device) for f in fields(batch)})
    return batch
