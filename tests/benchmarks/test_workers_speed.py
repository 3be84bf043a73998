"""What it takes until processes that render have loaded what they need: each for itself, or as copies of one that has.

`pytest -n 0 -s tests/benchmarks/test_workers_speed.py` prints it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest

from pipeline.datasets.standin import LOADED
from pipeline.layout import PROJECT
from pipeline.process import workers

COUNT = 3


def load(number: int) -> None:
    for name in LOADED:
        importlib.import_module(name)
    time.sleep(1)  # so that each process gets one


def measure(how: str) -> None:
    """Prints seconds of the processor and megabytes of memory that no other process has, of all processes together."""
    afresh = multiprocessing.get_context("spawn")
    with workers(COUNT, LOADED) if how == "copies" else ProcessPoolExecutor(COUNT, afresh) as pool:
        list(pool.map(load, range(COUNT)))
        started = psutil.Process().children(recursive=True)
        seconds = sum(sum(process.cpu_times()[:2]) for process in started)
        print(seconds, sum(process.memory_full_info().uss for process in started) / 1e6)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux copies processes")
def test_copies_take_half_the_time_and_memory_of_processes_that_load_for_themselves() -> None:
    found = {}
    for how in ("afresh", "copies"):
        command = [sys.executable, "-m", "tests.benchmarks.test_workers_speed", how]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
        found[how] = tuple(float(number) for number in done.stdout.split())
        print(f"{COUNT} processes, {how}: {found[how][0]:.1f} s of the processor, {found[how][1]:.0f} MB")
    assert found["copies"][0] < 0.5 * found["afresh"][0]
    assert found["copies"][1] < 0.5 * found["afresh"][1]


if __name__ == "__main__":
    measure(sys.argv[1])
