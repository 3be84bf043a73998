"""One task per shard: threads that wait, processes that work.

A task in a thread costs some 30 ms, one in a process of Prefect's own four times that, and
there a killed process fails the whole flow; here it fails tasks, which are tried again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar, cast

from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.annotations import opaque

from flows.progress import Progress
from pipeline.process import num_cores, workers

Result = TypeVar("Result")


def runner() -> TaskRunner[PrefectFuture[Any]]:
    """As many shards at a time as this process may use cores."""
    return cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=num_cores()))


class Workers:
    """Processes that tasks in threads hand their shard to; what one loaded (a body, an OpenGL context) stays.

    Handed to a task as `whole`.

    Args:
        loaded: modules that take long to load; see `pipeline.process.workers`.
    """

    def __init__(self, loaded: Sequence[str]) -> None:
        self._start = partial(workers, num_cores(), loaded)
        self._lock = threading.Lock()
        self._pool = self._start()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def call(self, function: Callable[..., Result], *arguments: object) -> Result:
        """`function(*arguments)` in one of the processes; raises what it raises there.

        Raises RuntimeError when a process was killed, by lack of memory for example; the next
        call, such as a task's retry, then finds new processes.
        """
        pool = self._pool
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            with self._lock:
                if self._pool is pool:
                    self._pool = self._start()
            raise RuntimeError("a worker process was killed, most often because memory ran out") from error


def whole(value: object) -> Any:
    """Hand `value` to a task as it is: Prefect then neither walks through it nor copies it."""
    return opaque(value)


def gather(futures: Iterable[PrefectFuture[Result]], key: str, description: str) -> list[Result]:
    """Results in the order of `futures`, with a progress artifact; the first failure is raised after all have ended."""
    waiting = list(futures)
    progress = Progress(key, f"{description}, {len(waiting)} of them")
    for done, _ in enumerate(as_completed(waiting), start=1):
        progress(done, len(waiting))
    return [future.result() for future in waiting]
