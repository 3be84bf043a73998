"""Batches that other processes make ahead are those that would be made here, and nothing that befalls the makers hangs
the one who trains."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from itertools import islice
from pathlib import Path

import psutil
import pytest
import torch

from pipeline.layout import Layout
from pipeline.loading import crop_pixels
from pipeline.loading.ahead import MADE_AHEAD, MAKERS, Ahead, made_elsewhere
from pipeline.loading.crop_pixels import CropPixels
from pipeline.loading.pairs import Masking, PairBatch, PairPool, Source
from tests.pipeline.toy_world import write_pool
from tests.pipeline.training.programs import wait_for


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout("test", tmp_path_factory.mktemp("pool"))
    write_pool(layout, "synthetic", 12)
    return layout


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many makers as on a large machine."""
    monkeypatch.setattr("pipeline.loading.ahead.num_cores", lambda: MAKERS)


def pool(layout: Layout) -> PairPool:
    source = Source("synthetic", layout.pairs("body", "synthetic"), layout.crops("body", "synthetic"), 1.0)
    masking = Masking("human", 0.75, "max_n", min_human=8, patch=8)
    return PairPool([source], {"view": 1.0}, heldout=0.0, size=64, masking=masking, jitter=0.4, seed=0)


@pytest.mark.parametrize("kept", [crop_pixels.KEPT_BYTES, 0])
def test_batches_made_elsewhere_are_those_made_here(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, four_cores: None, kept: int
) -> None:
    monkeypatch.setattr(CropPixels.__init__, "__defaults__", (kept,))
    pairs, steps = pool(layout), range(3, 12)
    pairs.batch(0, 8)  # threads of this process decode; those of the makers are their own
    with closing(made_elsewhere(lambda step: pairs.batch(step, 8), steps)) as batches:
        for step, batch in zip(steps, batches, strict=True):
            here = pairs.batch(step, 8)
            assert all(torch.equal(getattr(batch, f.name), getattr(here, f.name)) for f in fields(PairBatch))


def test_crops_that_another_process_has_decoded_are_decoded_for_all(layout: Layout) -> None:
    pixels = CropPixels(layout.crops("body", "synthetic"))
    rows = torch.arange(4).numpy()
    with closing(made_elsewhere(lambda step: pixels.images.whole(rows).sum(), range(1))) as found:
        total = next(found)
    pixels.images._decoded = lambda row: pytest.fail("decoded again")  # type: ignore[method-assign]
    assert pixels.images.whole(rows).sum() == total > 0


def test_what_goes_wrong_with_a_batch_is_raised_in_its_place(four_cores: None) -> None:
    def make(step: int) -> int:
        if step == 5:
            raise ValueError("crop 7 is damaged")
        return step

    found = []
    with closing(made_elsewhere(make, range(10))) as batches, pytest.raises(ValueError, match=r"^crop 7 is damaged$"):
        for batch in batches:
            found.append(batch)
    assert found == [0, 1, 2, 3, 4]


def test_a_batch_that_can_not_be_handed_over_is_an_error_in_its_place(four_cores: None) -> None:
    found = []
    with (
        closing(made_elsewhere(lambda step: step if step != 5 else lambda: step, range(10))) as batches,
        pytest.raises((AttributeError, pickle.PicklingError), match="pickle"),
    ):
        for batch in batches:
            found.append(batch)
    assert found == [0, 1, 2, 3, 4]


def makers() -> list[psutil.Process]:
    return [psutil.Process(process.pid) for process in multiprocessing.active_children()]


@pytest.fixture
def batches(four_cores: None) -> Iterator[Iterator[int]]:
    with closing(made_elsewhere(lambda step: step, range(100))) as found:
        yield found


def test_a_signal_to_all_processes_of_a_run_does_not_stop_its_batches(batches: Iterator[int]) -> None:
    assert list(islice(batches, MAKERS)) == list(range(MAKERS))  # all of them have begun
    assert len(makers()) == MAKERS
    for maker in makers():
        maker.send_signal(signal.SIGTERM)
        maker.send_signal(signal.SIGINT)
    assert list(batches) == list(range(MAKERS, 100))


def test_a_maker_that_is_killed_ends_the_run_with_what_to_do(batches: Iterator[int]) -> None:
    next(batches)
    makers()[0].kill()
    with pytest.raises(ChildProcessError, match=r"has ended \(-9\).*--shm-size"):
        list(batches)
    assert not makers()


def test_makers_end_with_who_asked_for_them(batches: Iterator[int]) -> None:
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not makers()


KILLED = """
import os, time
from pipeline.loading.ahead import made_elsewhere
batches = made_elsewhere(lambda step: os.getpid(), range(1000))
print(next(batches), next(batches), flush=True)
time.sleep(600)
"""


def test_makers_end_when_who_trains_is_killed() -> None:
    here = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", KILLED], cwd=here, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        numbers = [int(number) for number in process.stdout.readline().split()]
        assert all(psutil.pid_exists(number) for number in numbers) and os.getpid() not in numbers
        process.kill()
    wait_for(lambda: not any(psutil.pid_exists(number) for number in numbers), seconds=30)


def test_no_more_is_made_ahead_than_there_is_room_for(four_cores: None, tmp_path: Path) -> None:
    def make(step: int) -> int:
        (tmp_path / str(step)).touch()
        return step

    with closing(made_elsewhere(make, range(200))) as batches:
        assert next(batches) == 0
        wait_for(lambda: len(list(tmp_path.iterdir())) > MAKERS * MADE_AHEAD, seconds=30)
        assert len(list(tmp_path.iterdir())) <= 1 + MAKERS * (MADE_AHEAD + 2)


def test_without_a_gpu_batches_are_made_when_asked_for() -> None:
    made = []
    with Ahead(lambda step: made.append(step) or step, range(4, 7), torch.device("cpu")) as ahead:
        assert not made
        assert ahead.next() == 4
        assert made == [4]
    assert not makers()
