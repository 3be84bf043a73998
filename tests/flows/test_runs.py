"""Flows through a real server: a deployment's run, its artifacts and its form; a run that is killed."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from tests.flows import browser, server_talk
from tests.flows.server_talk import ask, ended, heed_interrupts, serving, until

PROJECT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def api(server: dict[str, str]) -> str:
    state = json.loads((Path(server["PREFECT_HOME"]) / "server.json").read_text())
    return str(state["url"])


@pytest.fixture(scope="module")
def deployments(server: dict[str, str], api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """`python -m flows.serve` runs; its deployments by name."""
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving(PROJECT, server, log) as serve:
        until(lambda: serve.poll() is not None or len(server_talk.deployments(api)) >= 10, 300)
        assert serve.poll() is None, log.read_text()
        yield server_talk.deployments(api)
        assert "Prefect UI: http://127.0.0.1:" in log.read_text()


def test_a_run_started_as_the_button_does_completes_with_its_tables(api: str, deployments: dict[str, Any]) -> None:
    started = ask(f"{api}/deployments/{deployments['doctor']['id']}/create_flow_run", {})
    run = ended(api, started["id"])
    assert run["state_type"] == "COMPLETED", run["state"]
    artifacts = ask(f"{api}/artifacts/filter", tables(run["id"]))
    found = {item["key"]: json.loads(item["data"]) for item in artifacts if item["type"] == "table"}
    assert {row["dataset"] for row in found["datasets"]} >= {"3dpw", "humbi", "coco"}
    assert {"check", "ok", "found"} == set(found["machine"][0])


def tables(run: str, *keys: str) -> dict[str, Any]:
    """What to ask for the artifacts of a flow run."""
    return {"artifacts": {"flow_run_id": {"any_": [run]}} | ({"key": {"any_": keys}} if keys else {})}


@pytest.mark.skipif(browser.program() is None, reason="needs Chromium")
def test_pressing_run_in_the_page_runs_a_flow_and_shows_its_log_and_tables(
    api: str, deployments: dict[str, Any], tmp_path: Path
) -> None:
    home, deployment = api.removesuffix("/api"), deployments["doctor"]["id"]
    runs = {"deployments": {"id": {"any_": [deployment]}}}
    before = {run["id"] for run in ask(f"{api}/flow_runs/filter", runs)}
    with browser.Browser(tmp_path / "profile") as page:
        page.open(f"{home}/deployments/deployment/{deployment}")
        # A busy server can refuse one press (the page says so), and a menu that still unfolds can miss it.
        for _ in range(5):
            page.click("Run", then="Quick run")
            page.click("Quick run")
            with suppress(AssertionError):
                run = until(lambda: {run["id"] for run in ask(f"{api}/flow_runs/filter", runs)} - before, 15).pop()
                break
        else:
            pytest.fail("no press of the button started a run")
        assert ended(api, run)["state_type"] == "COMPLETED"
        page.open(f"{home}/runs/flow-run/{run}")
        page.shows("Completed")
        page.shows("Finished in state Completed()")
        page.click("Artifacts", then="datasets")
        [table] = ask(f"{api}/artifacts/filter", tables(run, "datasets"))
        page.open(f"{home}/artifacts/artifact/{table['id']}")
        page.shows("coco_part_eft")


def shown_in_form(deployment: dict[str, Any]) -> dict[str, Any]:
    """Fields of the form that are told about; nested ones are told about where they are defined."""
    fields = deployment["parameter_openapi_schema"]["properties"]
    return {name: field for name, field in fields.items() if "$ref" not in field}


def test_the_form_offers_data_sets_and_scales_and_refuses_others(api: str, deployments: dict[str, Any]) -> None:
    fields = deployments["pair"]["parameter_openapi_schema"]["properties"]
    assert "3dpw" in fields["dataset"]["anyOf"][0]["enum"]
    assert fields["params_file"]["enum"] == ["params.yaml", "scales/gpu/params.yaml", "scales/paper/params.yaml"]
    assert fields["params_file"]["title"] == "Scale"
    assert fields["dataset"]["title"] == "Dataset"
    told = {name: field["description"] for flow in deployments.values() for name, field in shown_in_form(flow).items()}
    assert "two CPU cores" in told["params_file"] and "synchronised views" in told["videos"]
    assert told.keys() >= {"dataset", "frames_per_second", "checkpoint", "stage", "tables", "which", "name"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(f"{api}/deployments/{deployments['pair']['id']}/create_flow_run", {"parameters": {"params_file": "mine"}})
    assert "params_file" in refused.value.read().decode()


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({}, True),
        ({"Origin": "{home}"}, True),
        ({"Origin": "http://localhost:{port}"}, True),
        ({"Origin": "http://a.site"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://a.site:{port}", "Host": "a.site:{port}"}, False),
        ({"Host": "a.site:{port}"}, False),
    ],
)
def test_no_page_but_its_own_gets_anything_done(api: str, headers: dict[str, str], taken: bool) -> None:
    home = api.removesuffix("/api")
    headers = {key: value.format(home=home, port=home.rpartition(":")[2]) for key, value in headers.items()}
    # No content type: a browser sends this without asking first.
    host = http.client.HTTPConnection(home.removeprefix("http://"), timeout=90)
    host.request("POST", "/api/flows/", json.dumps({"name": "asked-for"}), headers)
    answer = host.getresponse()
    assert not taken or answer.getheader("content-security-policy") == "frame-ancestors 'self'"
    assert answer.status in ((200, 201) if taken else (403,)), answer.read()
    assert taken or "for its own page" in answer.read().decode()
    host.close()


def test_no_page_but_its_own_hears_what_happens(api: str) -> None:
    address, home = f"{api.replace('http://', 'ws://')}/events/out", api.removesuffix("/api")

    def listen(origin: str) -> None:
        options: Any = {"proxy": None, "open_timeout": server_talk.ANSWER_S}
        connect(address, origin=Origin(origin), subprotocols=[Subprotocol("prefect")], **options).close()

    listen(home)
    with pytest.raises(InvalidStatus, match="403"):
        listen("http://a.site")


def test_runs_started_at_the_same_time_are_all_taken(api: str) -> None:
    flow = ask(f"{api}/flows/", {"name": "asked-for"})
    deployment = ask(f"{api}/deployments/", {"name": "nobody-runs-it", "flow_id": flow["id"]})
    address = f"{api}/deployments/{deployment['id']}/create_flow_run"
    with ThreadPoolExecutor(4) as people:
        runs = list(people.map(lambda _: ask(address, {}), range(20)))
    assert len({run["id"] for run in runs}) == 20
    wanted = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    assert ask(f"{api}/flow_runs/count", wanted) == 20


def test_reproduce_waits_for_its_turn(deployments: dict[str, Any]) -> None:
    assert deployments["reproduce"]["global_concurrency_limit"]["limit"] == 1
    assert deployments["reproduce"]["concurrency_options"]["collision_strategy"] == "ENQUEUE"


SLEEPER = """
import sys, time
from flows import process
from prefect import flow

@flow(name="sleeper", **process.HOOKS)
def sleeper(seconds: float):
    print("asleep", flush=True)
    time.sleep(seconds)

with process.command():
    sleeper(sys.argv[1])
"""


def test_a_run_whose_process_is_killed_is_crashed_at_the_next_start(api: str, server: dict[str, str]) -> None:
    running = subprocess.Popen([sys.executable, "-c", SLEEPER, "300"], cwd=PROJECT, env=server)
    try:
        wanted = {"flows": {"name": {"any_": ["sleeper"]}}}
        run = until(lambda: [r for r in ask(f"{api}/flow_runs/filter", wanted) if r["state_type"] == "RUNNING"], 240)[0]
        until(lambda: list((Path(server["PREFECT_HOME"]) / "processes").glob(f"{run['id']}.json")), 60)
    finally:
        running.kill()
        running.wait()
    assert ask(f"{api}/flow_runs/{run['id']}")["state_type"] == "RUNNING"
    next_start = "from flows import process\nwith process.command(): pass"
    subprocess.run([sys.executable, "-c", next_start], cwd=PROJECT, env=server, check=True)
    assert ask(f"{api}/flow_runs/{run['id']}")["state_type"] == "CRASHED"


def test_a_parameter_that_can_not_be_ends_a_flow_without_a_traceback(server: dict[str, str]) -> None:
    command = [sys.executable, "-c", SLEEPER, "long"]
    done = subprocess.run(command, cwd=PROJECT, env=server, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "error: Flow run received invalid parameters:\n - seconds: Input should be a valid number" in done.stderr


def test_ctrl_c_ends_a_flow_without_a_traceback(server: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER, "300"], cwd=PROJECT, env=server,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts,
    ) as running:  # fmt: skip
        assert running.stdout is not None and running.stdout.readline() == "asleep\n"
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=120)[1]
    assert running.returncode == 130
    assert "Traceback" not in said


READER = """
import builtins, sys
from flows import process
from prefect import flow, task

@task
def read(kind):
    raise getattr(builtins, kind)("the folder is empty")

@flow(name="reader", **process.HOOKS)
def reader(kind):
    read(kind)

with process.command():
    reader(sys.argv[1])
"""


@pytest.mark.parametrize(("kind", "mendable"), [("ValueError", True), ("RuntimeError", False)])
def test_what_its_user_can_mend_ends_a_flow_without_a_traceback(
    server: dict[str, str], kind: str, mendable: bool
) -> None:
    done = subprocess.run([sys.executable, "-c", READER, kind], cwd=PROJECT, env=server, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the folder is empty" in done.stderr
    assert ("Traceback" in done.stderr + done.stdout) == (not mendable)
    if mendable:
        assert "error: the folder is empty" in done.stderr.splitlines()


class Gone(BaseHTTPRequestHandler):
    """`/404` is not there, `/503` is busy."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_error(int(self.path[1:]))

    def log_message(self, *_: object) -> None:
        pass


FETCH_TWO = """
import sys
from pathlib import Path
from prefect import flow
from flows import process
from flows.download import fetch
from pipeline.datasets import SourceFile

@flow
def fetch_two(home, folder):
    once_more = fetch.with_options(retries=1, retry_delay_seconds=0)
    for task, path in ((fetch, "404"), (once_more, "503")):
        assert task(SourceFile(name=path, url=home + path), Path(folder), return_state=True).is_failed()

with process.command():
    fetch_two(*sys.argv[1:])
"""


def test_only_what_may_pass_is_asked_for_again(server: dict[str, str], tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Gone) as host:
        host.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=host.serve_forever, daemon=True).start()
        command = [sys.executable, "-c", FETCH_TWO, f"http://127.0.0.1:{host.server_port}/", str(tmp_path)]
        subprocess.run(command, cwd=PROJECT, env=server, check=True, timeout=120)
        host.shutdown()
        assert host.asked == ["/404", "/503", "/503"]  # type: ignore[attr-defined]
