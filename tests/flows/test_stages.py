"""`dvc repro` as a child: one at a time, its lines read, its group taken down when cancelled."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from flows import stages, train
from flows.reproduce import reproduce
from pipeline.layout import PROJECT
from tests.flows.dvc_repository import make_repository
from tests.flows.server_talk import heed_interrupts, until


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stages, "PROJECT", tmp_path)
    return tmp_path


def test_the_second_waits_for_the_first_and_says_so(project: Path) -> None:
    said: list[str] = []
    order: list[str] = []

    def second() -> None:
        with stages.one_at_a_time(said.append):
            order.append("second")

    with stages.one_at_a_time(said.append):
        thread = threading.Thread(target=second)
        thread.start()
        until(lambda: said, 60)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
    assert len(said) == 1
    assert said[0].startswith(f"waiting for the pipeline run of process {os.getpid()}, started ")


def test_the_lock_is_free_after_an_error(project: Path) -> None:
    with pytest.raises(KeyError), stages.one_at_a_time(print):
        raise KeyError
    with (project / ".dvc/tmp/pipeline.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_stage_of_either_graph_is_named_as_dvc_does() -> None:
    which = ["pretrain@mae_body", "report", "pretrain_keypoints", "pair_hand@interhand"]
    assert stages.find(which, "scales/gpu/params.yaml") == [
        "scales/gpu/dvc.yaml:pretrain@mae_body", "scales/gpu/dvc.yaml:report",
        "scales/gpu/tables/dvc.yaml:pretrain_keypoints", "scales/gpu/tables/dvc.yaml:pair_hand@interhand",
    ]  # fmt: skip


def test_a_stage_goes_without_the_further_tables_that_hold_it() -> None:
    with pytest.raises(ValueError, match="either a stage or `tables`"):
        reproduce.fn(stage="pretrain_study", tables=True)


@pytest.mark.parametrize(
    ("step", "dataset", "params_file", "target"),
    [
        ("index", "humbi", "scales/gpu/params.yaml", "scales/gpu/dvc.yaml:index@humbi"),
        ("pair", "interhand", "scales/gpu/params.yaml", "scales/gpu/tables/dvc.yaml:pair_hand@interhand"),
        ("standin", "habitat", "scales/gpu/params.yaml", "scales/gpu/tables/dvc.yaml:standin_static@habitat"),
        ("parse", "synthetic_looks", "params.yaml", "tables/dvc.yaml:parse_looks@synthetic_looks"),
    ],
)
def test_the_stage_of_a_data_set_is_found_in_the_graph_that_has_it(
    step: str, dataset: str, params_file: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(stages, "repro", lambda arguments, say: asked.extend(arguments) or {})
    monkeypatch.setattr("prefect.get_run_logger", lambda: __import__("logging").getLogger())
    stages.run_data(step, dataset, params_file)
    assert asked == [target]


def test_a_step_that_a_data_set_does_not_take_is_named() -> None:
    with pytest.raises(ValueError, match="'pair' of 'coco'"):
        stages.run_data("pair", "coco")


def test_any_training_stage_of_both_graphs_can_be_handed_to_another_machine() -> None:
    which = ["pretrain", "finetune_body_mesh@croco_body", "pretrain_ablation@croco_hand", "pretrain_keypoints"]
    assert stages.find(which, "params.yaml", train.KINDS) == [
        *which[:2], "tables/dvc.yaml:pretrain_ablation@croco_hand", "tables/dvc.yaml:pretrain_keypoints",
    ]  # fmt: skip


@pytest.mark.parametrize("stage", ["pair", "pretrain@nobody", "pretrain_abl"])
def test_what_is_no_training_stage_is_refused_with_those_that_are(stage: str) -> None:
    with pytest.raises(ValueError, match=rf"'{stage}' is not among .*dvc.yaml that can .*pretrain_ablation"):
        stages.find([stage], "scales/gpu/params.yaml", train.KINDS)


@pytest.fixture
def repository(project: Path) -> Path:
    """The project as a repository of DVC."""
    make_repository(project)
    return project


def test_the_fate_of_each_stage_is_read_from_what_dvc_prints(repository: Path) -> None:
    (repository / "dvc.yaml").write_text(
        "stages:\n  good: {cmd: echo 1 > good, outs: [good]}\n  bad: {cmd: 'false', deps: [good], outs: [bad]}\n"
    )
    lines: list[str] = []
    with pytest.raises(stages.ReproError, match="failed to reproduce 'bad'"):
        stages.repro([], lines.append)
    assert stages.repro(["good"], lines.append) == {"good": "up to date"}
    assert any("Running stage 'good'" in line for line in lines)


def test_training_stages_of_both_graphs_run_in_one_go(repository: Path) -> None:
    (repository / "dvc.yaml").write_text("stages:\n  pretrain: {cmd: echo 1 > one, outs: [one]}\n")
    (repository / "tables").mkdir()
    study = {"foreach": ["a", "b"], "do": {"cmd": "echo 1 > ${item}", "deps": ["../one"], "outs": ["${item}"]}}
    (repository / "tables/dvc.yaml").write_text(yaml.safe_dump({"stages": {"pretrain_study": study}}))
    targets = stages.find(["pretrain_study"], "params.yaml", train.KINDS)
    fates = stages.repro(targets, print)
    assert fates == {"pretrain": "ran", **{f"tables/dvc.yaml:pretrain_study@{name}": "ran" for name in "ab"}}


def test_data_that_is_computed_although_it_could_be_pulled_is_warned_of(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pair = {"cmd": "echo 1 > pairs", "outs": ["pairs"]}
    pretrain = {"cmd": "echo 1 > weights", "deps": ["pairs"], "outs": ["weights"]}
    (repository / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"pair": pair, "pretrain": pretrain}}))
    monkeypatch.setattr(train, "get_run_logger", logging.getLogger)
    assert train.run_stages.fn(["pretrain"], remote=True) == {"pair": "ran", "pretrain": "ran"}
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith("pair is computed here, although there is a remote")


def test_what_a_run_elsewhere_leaves_for_git_is_named() -> None:
    committed = ["dvc.lock", "tables/dvc.lock", "reports/metrics/mini", "reports/histories/mini"]
    assert train.results("params.yaml") == committed


SAVES_WHEN_TOLD_TO_STOP = """
import time
from pathlib import Path
from pipeline.process import StopRequest, die_with_parent

die_with_parent()
with StopRequest() as stop:
    print("began", flush=True)
    while stop.code is None:
        time.sleep(0.01)
    time.sleep(1)
    Path("saved").touch()
"""


def test_who_cancels_waits_until_the_stage_has_saved_its_state(repository: Path) -> None:
    (repository / "train.py").write_text(SAVES_WHEN_TOLD_TO_STOP)
    command = f"PYTHONPATH={PROJECT} {sys.executable} train.py"
    (repository / "dvc.yaml").write_text(f"stages:\n  train: {{cmd: '{command}', outs: [weights]}}\n")

    class Cancelled(BaseException):
        pass

    def cancel(line: str) -> None:
        if line == "began":
            raise Cancelled

    with pytest.raises(Cancelled):
        stages.repro([], cancel)
    assert (repository / "saved").exists()


@pytest.fixture
def made(repository: Path) -> Iterator[subprocess.Popen[str]]:
    """What `make repro` starts, with a stage that is at work."""
    (repository / "train.py").write_text(SAVES_WHEN_TOLD_TO_STOP)
    command = f"PYTHONPATH={PROJECT} {sys.executable} train.py"
    (repository / "dvc.yaml").write_text(f"stages:\n  train: {{cmd: '{command}', outs: [weights]}}\n")
    code = "from pathlib import Path; from flows import stages; stages.PROJECT = Path.cwd(); stages.repro([])"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=repository, env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True, preexec_fn=heed_interrupts,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        until(lambda: "began" in process.stdout.readline(), 60)
        yield process
        with suppress(ProcessLookupError):  # nothing is left when all is well
            os.killpg(process.pid, signal.SIGKILL)


def test_who_is_interrupted_at_the_terminal_waits_as_well(made: subprocess.Popen[str], repository: Path) -> None:
    os.killpg(made.pid, signal.SIGINT)
    assert made.wait(60) == 130
    assert (repository / "saved").exists()


def test_who_is_told_to_stop_tells_the_stage_and_waits(made: subprocess.Popen[str], repository: Path) -> None:
    made.send_signal(signal.SIGTERM)
    assert made.wait(60) == 143
    assert (repository / "saved").exists()


def test_who_is_told_to_stop_with_all_the_others_waits_for_those_that_dvc_has_left(
    made: subprocess.Popen[str], repository: Path
) -> None:
    time.sleep(1)
    for process in [*psutil.Process(made.pid).children(recursive=True), made]:
        process.send_signal(signal.SIGTERM)
    assert made.wait(60) == 143
    assert (repository / "saved").exists()


def test_the_stage_of_one_who_is_killed_ends_as_well(made: subprocess.Popen[str], repository: Path) -> None:
    dvc, *_ = psutil.Process(made.pid).children()
    made.kill()
    until((repository / "saved").exists, 60)
    until(lambda: not dvc.is_running() or dvc.status() == psutil.STATUS_ZOMBIE, 60)
