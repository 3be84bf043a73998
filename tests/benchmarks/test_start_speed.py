"""What a training takes until it could take its first step, by how often Python looks for garbage meanwhile."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys

import pipeline
from pipeline.layout import PROJECT

OF_PYTHON = 700
ROUNDS = 4
START = """
import gc, pipeline
gc.set_threshold({threshold})
from models import catalog
from pipeline.training import optimizer, pretrain
optimizer.Muon(catalog.create("croco_mini_patch8_64"), lr=0.1)
"""


def cpu_seconds(threshold: int) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", START.format(threshold=threshold)], cwd=PROJECT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_training_starts_in_less_time_than_with_pythons_own_setting() -> None:
    ours = gc.get_threshold()[0]
    assert pipeline.__file__ and ours > OF_PYTHON
    found = {threshold: [] for threshold in (OF_PYTHON, ours)}  # type: dict[int, list[float]]
    for _ in range(ROUNDS):
        for threshold, seconds in found.items():
            seconds.append(cpu_seconds(threshold))
    for threshold, seconds in found.items():
        print(f"looking every {threshold} objects: {min(seconds):.1f} s of the processor")
    assert min(found[ours]) < 0.95 * min(found[OF_PYTHON])
