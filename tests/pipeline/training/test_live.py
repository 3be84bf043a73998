"""Figures of a run while it runs: what they say, that DVC draws them, and that a killed run leaves no line twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from torch import nn

from models import catalog
from pipeline.training import live
from pipeline.training.checkpoint import TrainingError
from pipeline.training.live import Live, count_flops, peak_flops
from tests.pipeline.training.toy_runs import BATCH, run_loop

STEPS = 30


class Clock:
    """Time passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live, "time", clock)
    return clock


def lines(folder: Path, name: str) -> list[tuple[int, float]]:
    head, *rest = (folder / f"plots/metrics/{name}.tsv").read_text().splitlines()
    assert head == f"step\t{name}"
    return [(int(step), float(value)) for step, value in (line.split("\t") for line in rest)]


def test_a_line_is_the_mean_of_the_steps_since_the_last_one_with_their_speed(tmp_path: Path, clock: Clock) -> None:
    run = Live(tmp_path, 0, samples=16, use=0.125)
    for done in range(1, 6):
        with run.waiting():
            clock.now += 0.5
        clock.now += 1.5
        found = run.add(done, {"loss": float(done)}, last=done == 5)
        assert (found is None) == (done not in (3, 5))
    assert lines(tmp_path, "loss") == [(3, 2.0), (5, 4.5)]
    assert lines(tmp_path, "data_wait") == [(3, 0.25), (5, 0.25)]
    assert lines(tmp_path, "samples_per_second") == [(3, 8.0), (5, 8.0)]
    assert lines(tmp_path, "mfu") == [(3, 0.0625), (5, 0.0625)]
    assert json.loads((tmp_path / "metrics.json").read_text())["step"] == 5
    assert run.end() == {"data_wait": 0.25, "samples_per_second": 8.0, "mfu": 0.0625}


def test_a_run_that_goes_on_takes_back_the_lines_beyond_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SECONDS", 0.0)
    with pytest.raises(TrainingError):
        run_loop(tmp_path, STEPS, bad_step=23, samples=BATCH)
    assert [step for step, _ in lines(tmp_path / "live", "loss")] == list(range(1, 24))
    run_loop(tmp_path, STEPS, samples=BATCH)
    for name in ("loss", "lr", "data_wait", "samples_per_second"):
        assert [step for step, _ in lines(tmp_path / "live", name)] == list(range(1, STEPS + 1))


def test_figures_torn_by_a_kill_or_a_full_disk_are_mended_and_stop_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "SECONDS", 0.0)
    with pytest.raises(TrainingError):
        run_loop(tmp_path, STEPS, bad_step=23, samples=BATCH)
    figures = tmp_path / "live/plots/metrics"
    (figures / "loss.tsv").write_text("")
    (figures / "lr.tsv").write_text("st")
    for name, last in (("data_wait", "8"), ("samples_per_second", "8\t")):
        path = figures / f"{name}.tsv"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:8]) + last)
    run_loop(tmp_path, STEPS, samples=BATCH)
    for name in ("loss", "lr"):
        assert [step for step, _ in lines(tmp_path / "live", name)] == list(range(21, STEPS + 1))
    for name in ("data_wait", "samples_per_second"):
        assert [step for step, _ in lines(tmp_path / "live", name)] == [*range(1, 8), *range(21, STEPS + 1)]
    with pytest.raises(TrainingError):
        run_loop(tmp_path / "other", STEPS, bad_step=23)
    shutil.rmtree(tmp_path / "other/live/plots")
    (tmp_path / "other/live/plots").touch()  # nothing can be written below it
    run_loop(tmp_path / "other", STEPS)
    assert "have a gap" in caplog.text


def test_a_repository_without_any_commit_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    run_loop(tmp_path / "run", STEPS)
    assert "DVC's logger does not start: Empty git repo" in caplog.text


@pytest.mark.slow
def test_dvc_draws_them_while_the_run_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SECONDS", 0.0)
    with pytest.raises(TrainingError):
        run_loop(tmp_path / ".scratch/run", STEPS, bad_step=23)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "plots", "show", "-x", "step", ".scratch/run/live/plots/metrics/loss.tsv"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "dvc_plots/index.html").read_text()
    assert all(f'"step": "{step}"' in page for step in (1, 23))


def test_what_is_logged_leaves_the_machine_only_where_its_user_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DVC_STUDIO_TOKEN", "token")
        monkeypatch.setenv("DVC_STUDIO_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("DVC_STUDIO_REPO_URL", "git@127.0.0.1:nobody/nothing.git")
        for offline in (None, "false"):
            monkeypatch.delenv("DVC_STUDIO_OFFLINE", raising=False)
            if offline is not None:
                monkeypatch.setenv("DVC_STUDIO_OFFLINE", offline)
            Live(tmp_path, 0, samples=None, use=None).add(1, {"loss": 1.0}, last=True)
            assert bool(asked) == (offline == "false")
        server.shutdown()


def test_operations_are_counted_as_products_take_them() -> None:
    # Forward, gradient of the weights, gradient of the inputs: each 2 * rows * inputs * outputs.
    layers = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    x = torch.randn(10, 8)
    assert count_flops(lambda: layers(x).sum()) == 2 * 10 * (8 * 32 * 2 + 32 * 4 * 3)


def test_operations_of_a_vit_base_are_those_of_the_textbook() -> None:
    model = catalog.create("croco_base_patch16_224")
    images = torch.zeros(1, 3, 224, 224)
    found = count_flops(lambda: model.encode(images).sum())
    tokens, width = 196, 768
    products = 12 * (12 * tokens * width**2 + 2 * tokens**2 * width) + tokens * 768 * width
    # But for the gradient of the pixels, which nobody asks for.
    assert found == 3 * 2 * products - 2 * tokens * 768 * width


def test_the_peak_is_given_or_known_or_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PEAK_TFLOPS", raising=False)
    assert peak_flops(torch.device("cpu"), "bf16") is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 PCIe")
    assert peak_flops(torch.device("cuda"), "bf16") == 756e12
    assert peak_flops(torch.device("cuda"), "fp32") is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200 NVL")
    assert peak_flops(torch.device("cuda"), "bf16") == 835e12
    for unknown in ("Quadro 600", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA GeForce RTX 4090 Laptop GPU"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=unknown: name)
        assert peak_flops(torch.device("cuda"), "bf16") is None
    run_loop(tmp_path / "without", STEPS)
    assert not (tmp_path / "without/live/plots/metrics/mfu.tsv").exists()
    monkeypatch.setenv("PEAK_TFLOPS", "0.5")
    counted = run_loop(tmp_path / "with", STEPS)
    ((step, share),) = lines(tmp_path / "with/live", "mfu")
    assert step == STEPS
    assert 0 < share < 1
    monkeypatch.delenv("PEAK_TFLOPS")
    plain = run_loop(tmp_path / "plain", STEPS)
    assert all(torch.equal(a, b) for a, b in zip(counted.parameters(), plain.parameters(), strict=True))
