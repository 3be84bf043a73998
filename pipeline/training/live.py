"""Figures of a run while it runs: losses, samples per second, share of time spent waiting for data, and how much of
the hardware's peak is used (MFU).

    dvc plots show -x step .scratch/*/*/live/plots/metrics/loss.tsv

DVC's logger, dvclive, writes them: `plots/metrics/<name>.tsv` and `metrics.json`. It can not take back what a killed
run had logged beyond its last state; that is done here, before it starts.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, median

import torch
from dvclive import Live as Logger
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.training.provenance import write_text

logger = logging.getLogger(__name__)

_LINE = re.compile(r"(\d+)\t\S+\n")

SECONDS = 5.0
"""Between two lines."""

PEAK_TFLOPS = {
    "H200 NVL": 835.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "A10G": 70.0,
    "L40S": 362.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
"""Dense bfloat16 products with float32 sums, 10^12 operations per second, by a part of the GPU's name (data sheets of
NVIDIA). The first that fits counts."""
LESSER = ("MIG", "Laptop")
"""In the names of GPUs that do less than the rest of the name says: a slice of one, one for laptops."""


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Operations per second that the hardware could do at most; None where that is not known.

    The environment variable PEAK_TFLOPS, 10^12 operations per second, goes before the table.
    """
    if given := os.environ.get("PEAK_TFLOPS"):
        return float(given) * 1e12
    if device.type != "cuda" or precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    if any(part in name for part in LESSER):
        return None
    return next((peak * 1e12 for part, peak in PEAK_TFLOPS.items() if part in name), None)


def count_flops(loss: Callable[[], Tensor]) -> int:
    """Operations of one forward and backward pass."""
    # Of the fused forms of attention, torch can not count the one that processors have.
    kernels = [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(kernels):
        loss().backward()
    return counter.get_total_flops()


class Live:
    """What is known of the steps since the last line, as lines of `folder` at most every few seconds.

    Args:
        start: steps done so far; lines of later steps, of a run that was killed, are removed.
        samples: of one step, by all processes; None = not counted.
        use: share of the hardware's peak that one step per second would be; None = not known.
    """

    def __init__(self, folder: Path, start: int, samples: int | None, use: float | None) -> None:
        self._folder, self._samples, self._use = folder, samples, use
        self._speeds: list[dict[str, float]] = []
        self._logger: Logger | None = None
        self._begin()
        with _no_harm():
            for path in folder.glob("plots/metrics/*.tsv"):
                # A kill or a full disk may have left the last line in part, or nothing at all.
                lines = path.read_text(errors="replace").splitlines(keepends=True)[1:]
                whole = (found for line in lines if (found := _LINE.fullmatch(line)))
                kept = "".join(found[0] for found in whole if int(found[1]) <= start)
                write_text(path, f"step\t{path.stem}\n{kept}")
            self._logger = _logger(folder)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def add(self, done: int, values: Mapping[str, float], last: bool) -> dict[str, float] | None:
        """Take in the values of a step; a line that this made due, else None."""
        self._window.append(values)
        seconds = time.perf_counter() - self._start
        if seconds < SECONDS and not last:
            return None
        rate = len(self._window) / seconds
        speed = {"data_wait": self._waited / seconds}
        if self._samples is not None:
            speed["samples_per_second"] = rate * self._samples
        if self._use is not None:
            speed["mfu"] = rate * self._use
        line = {name: fmean(values[name] for values in self._window) for name in values} | speed
        with _no_harm():
            self._write(done, line)
        self._speeds.append(speed)
        self._begin()
        return line

    def end(self) -> dict[str, float]:
        """Write `speed.json`: medians of the speeds so far, but for the first line's, when everything is loaded."""
        speeds = self._speeds[1:] or self._speeds
        medians = {name: median(speed[name] for speed in speeds) for name in (speeds[0] if speeds else ())}
        write_text(self._folder / "speed.json", json.dumps(medians, indent=1) + "\n")
        return medians

    def _begin(self) -> None:
        self._window: list[Mapping[str, float]] = []
        self._start, self._waited = time.perf_counter(), 0.0

    def _write(self, step: int, line: dict[str, float]) -> None:
        if self._logger is None:
            return
        self._logger.step = step
        for name, value in line.items():
            self._logger.log_metric(name, value)
        self._logger.make_summary()


def _logger(folder: Path) -> Logger | None:
    """One that goes on with the files in `folder`, and changes nothing else: no dvc.yaml, no experiment, no report.

    None where it does not start, which the log says.
    """
    # With a token in the user's settings of DVC it would post to a server from inside the training.
    os.environ.setdefault("DVC_STUDIO_OFFLINE", "true")
    # It would read the last step there, and a kill may have left a part of the file.
    (folder / "metrics.json").unlink(missing_ok=True)
    try:
        return Logger(str(folder), resume=True, save_dvc_exp=False, dvcyaml=None)
    except Exception as error:  # it asks git for a commit, and passes on whatever git's libraries raise
        logger.warning("no figures of the run while it lasts, DVC's logger does not start: %s", error)
        return None


@contextmanager
def _no_harm() -> Iterator[None]:
    """Around what a run can do without: its results are written elsewhere."""
    try:
        yield
    except OSError as error:
        logger.warning("the figures of the run while it lasts have a gap: %s", error)
