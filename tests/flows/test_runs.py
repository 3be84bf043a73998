"""Flows through a real server: a deployment's run, its artifacts and its form; a run that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.server_talk import ask, until

PROJECT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def api(server: dict[str, str]) -> str:
    state = json.loads((Path(server["PREFECT_HOME"]) / "server.json").read_text())
    return str(state["url"])


@pytest.fixture(scope="module")
def deployments(server: dict[str, str], api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """`python -m flows.serve` runs; its deployments by name."""
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as out:
        serve = subprocess.Popen(
            [sys.executable, "-m", "flows.serve"], cwd=PROJECT, env=server, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: serve.poll() is not None or len(ask(f"{api}/deployments/filter", {})) >= 10, 120)
        assert serve.poll() is None, log.read_text()
        yield {item["name"]: item for item in ask(f"{api}/deployments/filter", {})}
        assert "Prefect UI: http://127.0.0.1:" in log.read_text()
    finally:
        serve.send_signal(signal.SIGINT)
        serve.wait(60)


def test_a_run_started_as_the_button_does_completes_with_its_tables(api: str, deployments: dict[str, Any]) -> None:
    started = ask(f"{api}/deployments/{deployments['doctor']['id']}/create_flow_run", {})
    run = until(
        lambda: (
            (found := ask(f"{api}/flow_runs/{started['id']}"))["state_type"] in ("COMPLETED", "FAILED", "CRASHED")
            and found
        ),
        180,
    )
    assert run["state_type"] == "COMPLETED", run["state"]
    artifacts = ask(f"{api}/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    tables = {item["key"]: json.loads(item["data"]) for item in artifacts if item["type"] == "table"}
    assert {row["dataset"] for row in tables["datasets"]} >= {"3dpw", "humbi", "coco"}
    assert {"check", "ok", "found"} == set(tables["machine"][0])


def test_the_form_offers_data_sets_and_scales_and_refuses_others(api: str, deployments: dict[str, Any]) -> None:
    fields = deployments["pair"]["parameter_openapi_schema"]["properties"]
    assert "3dpw" in fields["dataset"]["anyOf"][0]["enum"]
    assert fields["params_file"]["enum"] == ["params.yaml", "scales/gpu/params.yaml", "scales/paper/params.yaml"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(f"{api}/deployments/{deployments['pair']['id']}/create_flow_run", {"parameters": {"params_file": "mine"}})
    assert "params_file" in refused.value.read().decode()


def test_reproduce_waits_for_its_turn(deployments: dict[str, Any]) -> None:
    assert deployments["reproduce"]["global_concurrency_limit"]["limit"] == 1
    assert deployments["reproduce"]["concurrency_options"]["collision_strategy"] == "ENQUEUE"


SLEEPER = """
import time
from flows import process
from prefect import flow

@flow(name="sleeper", **process.HOOKS)
def sleeper():
    time.sleep(300)

with process.command():
    sleeper()
"""


def test_a_run_whose_process_is_killed_is_crashed_at_the_next_start(api: str, server: dict[str, str]) -> None:
    running = subprocess.Popen([sys.executable, "-c", SLEEPER], cwd=PROJECT, env=server)
    wanted = {"flows": {"name": {"any_": ["sleeper"]}}}
    run = until(lambda: [r for r in ask(f"{api}/flow_runs/filter", wanted) if r["state_type"] == "RUNNING"], 90)[0]
    until(lambda: list((Path(server["PREFECT_HOME"]) / "processes").glob(f"{run['id']}.json")), 30)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert ask(f"{api}/flow_runs/{run['id']}")["state_type"] == "RUNNING"
    next_start = "from flows import process\nwith process.command(): pass"
    subprocess.run([sys.executable, "-c", next_start], cwd=PROJECT, env=server, check=True)
    assert ask(f"{api}/flow_runs/{run['id']}")["state_type"] == "CRASHED"
