"""`make repro` from nothing to the report, again, after a change, and after a kill."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.layout import Layout
from tests.e2e.small_project import FURTHER, MISSING, environment, run, small_params
from tests.flows.server_talk import ask, deployments, ended, serving, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def stale(project: Path) -> set[str]:
    """Stages of the root graph that DVC would run for a change of their own inputs."""
    status = json.loads(run(project, "flows.dvc_command", "status", "--json", "dvc.yaml").stdout.splitlines()[-1])
    return {stage for stage, changes in status.items() if any(set(change) != {"changed outs"} for change in changes)}


def made(project: Path, stage: str) -> dict[str, bytes]:
    """Bytes of every output of a stage, but for the notes on when and how it was made."""
    outs = yaml.safe_load((project / "dvc.lock").read_text())["stages"][stage]["outs"]
    paths = [project / out["path"] for out in outs if not out["path"].startswith("reports/metrics/")]
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return {
        str(file.relative_to(project)): file.read_bytes()
        for file in files
        if file.is_file() and file.name != "provenance.json"
    }


def unfinished(project: Path, what: str = "/step-*") -> list[Path]:
    """States of the pre-training croco_body, or with `what` empty the folders they lie in."""
    scratch = Layout("test", project).scratch("pretrain", "croco_body-*")
    return list(scratch.parent.glob(scratch.name + what))


def cpu_seconds() -> float:
    """What finished children have used: unlike time on the wall, hardly more on a machine that others use too."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_text(before)


def test_one_command_gives_a_report_with_a_number_in_each_cell_that_is_planned(finished_project: Path) -> None:
    report = finished_project / "reports/out/test"
    page = (report / "index.html").read_text()
    assert "<html" in page[:2000]
    assert re.findall(r"left out: (\S+), not present", page) == [MISSING, MISSING]  # below the headline, and below data
    with (report / "tables/fig3a.csv").open(newline="") as file:
        cells = {(cell["row"], cell["column"]): cell["ours"] for cell in csv.DictReader(file)}
    for row in ("random", "mae_human", "croco_human"):
        for column in ("body_pa_mpjpe", "body_mpvpe"):
            assert float(cells[row, column]) > 0


def test_dvc_draws_the_losses_and_lists_the_metrics(finished_project: Path, tmp_path: Path) -> None:
    for history in ("pretrain/croco_body.csv", "body_mesh/random/1.csv"):
        run(
            finished_project,
            "flows.dvc_command",
            "plots",
            "show",
            "--out",
            str(tmp_path),
            f"reports/histories/test/{history}",
        )
        drawn = (tmp_path / "index.html").read_text()
        last = (finished_project / "reports/histories/test" / history).read_text().splitlines()[-1]
        assert last.split(",")[2] in drawn, "the last loss is not among the points"
    shown = run(
        finished_project, "flows.dvc_command", "metrics", "show", "--json", "reports/metrics/test/body_mesh/random"
    ).stdout
    (files,) = (revision["data"] for revision in json.loads(shown.splitlines()[-1]).values())
    assert all(metrics["data"]["values"]["pa_mpjpe"]["value"] > 0 for metrics in files.values())
    assert len(files) == len(small_params()["body_mesh"]["seeds"])


def test_the_second_run_does_nothing(finished_project: Path) -> None:
    before = cpu_seconds()
    output = run(finished_project, "flows.reproduce").stdout
    assert "Data and pipelines are up to date." in output
    assert "Running stage" not in output
    assert "Report: reports/out/test/index.html" in output
    assert cpu_seconds() - before < 30


def test_the_prefect_server_is_stopped_when_nothing_uses_it(finished_project: Path) -> None:
    def state() -> str:
        return run(finished_project, "flows.local_server", "status").stdout.strip()

    log = finished_project / ".prefect" / "server.log"
    assert state() == "not running"
    before = log.read_text()
    run(finished_project, "flows.dvc_command", "repro", "--force", "--single-item", "pair@humbi")
    assert log.read_text() != before, "a server was started"
    assert state() == "not running"


def test_another_mask_ratio_makes_one_pre_training_and_what_follows_stale(finished_project: Path) -> None:
    parameters = finished_project / "params.yaml"
    with edited(parameters, "mask_ratio: 0.75", "mask_ratio: 0.8"):  # the first is croco_body's
        assert stale(finished_project) == {"pretrain@croco_body", "report"}


def test_one_more_seed_makes_only_fine_tuning_stale(finished_project: Path) -> None:
    inits = small_params()["finetune"]["body_mesh"]["headline"]
    with edited(finished_project / "params.yaml", "  seeds:\n  - 0\n", "  seeds:\n  - 2\n  - 0\n"):
        assert stale(finished_project) == {f"finetune_body_mesh@{init}" for init in inits} | {"report"}


def test_real_data_makes_only_what_reads_it_stale(finished_project: Path) -> None:
    arrived = finished_project / "data/raw/3dpw/imageFiles.txt"
    arrived.write_text("as if it were there\n")
    try:
        assert stale(finished_project) == {"standin@3dpw", "index@3dpw", "parse@3dpw"}
    finally:
        arrived.unlink()


@pytest.fixture(scope="module")
def api(finished_project: Path) -> Iterator[str]:
    """Address of a server with all buttons."""
    log = finished_project / ".prefect" / "serve.log"
    with serving(finished_project, environment(finished_project), log):
        address = until(lambda: re.search(r"Prefect UI: (http://127.0.0.1:\d+)", log.read_text()), 300)[1] + "/api"
        until(lambda: deployments(address).get("reproduce"), 300)
        yield address


def press(api: str, button: str) -> str:
    """A run of a deployment, by its id."""
    return ask(f"{api}/deployments/{deployments(api)[button]['id']}/create_flow_run", {})["id"]


def test_the_button_of_the_ui_shows_stages_and_the_headline_table(finished_project: Path, api: str) -> None:
    run_now = ended(api, press(api, "reproduce"))
    assert run_now["state_type"] == "COMPLETED", run_now["state"]["message"]
    found = ask(f"{api}/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_now["id"]]}}})
    tables = {item["key"]: json.loads(item["data"]) for item in found if item["type"] == "table"}
    assert {row["result"] for row in tables["stages"]} == {"up to date"}
    assert "report" in {row["stage"] for row in tables["stages"]}
    assert {row["row_label"] for row in tables["figure-3a"]} >= {"Random"}


def test_cancelling_a_run_in_the_ui_stops_its_stages_and_loses_nothing(finished_project: Path, api: str) -> None:
    def training() -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter(["cmdline", "cwd"])
            if "pipeline.training.pretrain" in (process.info["cmdline"] or ())
            and process.info["cwd"] == str(finished_project.resolve())
        ]

    lock = (finished_project / "dvc.lock").read_text()
    parameters = finished_project / "params.yaml"
    # The first of each are croco_body's. It can not come to its end before the click does.
    with edited(parameters, "mask_ratio: 0.75", "mask_ratio: 0.8"), edited(parameters, "steps: 24", "steps: 100000"):
        flow_run = press(api, "reproduce")
        until(lambda: unfinished(finished_project), 300)
        ask(f"{api}/flow_runs/{flow_run}/set_state", {"state": {"type": "CANCELLING"}})
        assert ended(api, flow_run)["state_type"] == "CANCELLED"
        until(lambda: not training(), 60)
    assert (finished_project / "dvc.lock").read_text() == lock
    force = ["flows.dvc_command", "repro", "--force", "--single-item", "pretrain@croco_body"]
    refused = run(finished_project, *force, check=False).stdout
    assert "pretrain.croco_body.mask_ratio was 0.8, is 0.75 now" in refused
    subprocess.run(shlex.split(re.search(r"`(rm -r .+?)`", refused)[1]), check=True, cwd=finished_project)
    assert not unfinished(finished_project)
    output = run(finished_project, "flows.reproduce").stdout
    assert "is cached" in output, "the checkpoint from before comes back"
    assert (finished_project / "dvc.lock").read_text() == lock


KILLED = {
    "pair@humbi": 4,
    "parse@humbi": 6,
    "index@humbi": 4,
    "finetune_body_mesh@random": 10,
    "train_parser": 8,
    "standin@synthetic": 6,
    "motions": 4,
    "bodies": 6,
}
"""A stage of each kind, what needs others before these, and about how many seconds it takes."""


def test_stages_killed_at_any_moment_give_the_same_bytes_when_run_again(finished_project: Path) -> None:
    before = {stage: made(finished_project, stage) for stage in ("pretrain@croco_body", *KILLED)}
    assert all(before.values())
    killed = forced(finished_project, "pretrain@croco_body")
    until(lambda: unfinished(finished_project) or killed.poll() is not None, 600)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert unfinished(finished_project), "the stage ended before it could be killed"
    for stage, seconds in KILLED.items():
        while not ended_by_kill(finished_project, stage, seconds):  # it was done before: earlier, then
            seconds /= 2

    again = ["flows.dvc_command", "repro", "--force", "--single-item", *reversed(before)]
    assert "going on from step" in run(finished_project, *again).stdout
    for stage, files in before.items():
        assert made(finished_project, stage) == files, stage
    assert not unfinished(finished_project, "")


def test_a_report_killed_while_it_is_written_gives_the_same_bytes_when_run_again(finished_project: Path) -> None:
    again = ["flows.dvc_command", "repro", "--force", "--single-item", "report"]
    run(finished_project, *again)  # it says how long stages took, and other tests ran some of them again
    before, seconds = made(finished_project, "report"), 2.0
    assert before
    while not ended_by_kill(finished_project, "report", seconds):  # it was done before: earlier, then
        seconds /= 2
    run(finished_project, *again)
    assert made(finished_project, "report") == before


def test_make_tables_runs_what_the_other_tables_need_and_puts_it_into_the_report(finished_project: Path) -> None:
    """The last one: it adds to what the others look at."""
    run(finished_project, "flows.reproduce", "--tables")
    metrics, params = finished_project / "reports/metrics/test", small_params()
    runs = [name for names in FURTHER.values() for name in names]
    assert {path.stem for path in (metrics / "pretrain").glob("*.json")} == {*params["pretrain"], *runs}
    tuned = {init for inits in params["finetune"]["body_mesh"].values() for init in inits}
    on_the_way = {f"croco_body@{step}" for step in params["figure_4"]["steps"]}
    assert {path.name for path in (metrics / "body_mesh").iterdir()} == tuned | on_the_way
    tables = finished_project / "reports/out/test/tables"
    for name in ("fig3b", "fig4", "reference_study", "pretraining_seeds"):
        assert (tables / f"{name}.csv").read_text().count("\n") > 2, name
    page = (finished_project / "reports/out/test/index.html").read_text()
    assert page.count("What makes the reference pay") and page.count("Other seeds of pre-training")


def ended_by_kill(project: Path, stage: str, seconds: float) -> bool:
    """Run a stage and kill it, and all it has started, some seconds after DVC has; False when it had ended."""
    log = project / ".scratch" / "killed.log"
    process = forced(project, stage, log)
    until(lambda: f"Running stage '{stage}'" in log.read_text(), 60)
    with suppress(subprocess.TimeoutExpired):
        assert process.wait(seconds) == 0, log.read_text()
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def forced(project: Path, stage: str, log: Path | None = None) -> subprocess.Popen[bytes]:
    """`dvc repro --force` of one stage, in a process group of its own."""
    with (log or Path(os.devnull)).open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.dvc_command", "repro", "--force", "--single-item", stage],
            cwd=project,
            env=environment(project),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
