"""Threads of torch that wait do not spin: stages share the machine with others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.layout import PROJECT


@pytest.mark.parametrize("module", ["pipeline.training.pretrain", "pipeline.tasks.body_mesh", "flows.parse"])
@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_openmp_waits_as_it_is_told_to(module: str, chosen: str | None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "true"} | ({"OMP_WAIT_POLICY": chosen} if chosen else {})
    command = [sys.executable, "-c", f"import {module}, torch"]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    # OpenMP itself prints what it goes by.
    assert f"OMP_WAIT_POLICY = '{chosen or 'PASSIVE'}'" in done.stderr
