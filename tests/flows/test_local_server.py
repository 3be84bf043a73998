"""The server: one per home, on a free port, told apart from other programs, stopped by its own word only."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows import local_server
from tests.flows.server_talk import ask

PROJECT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    command(tmp_path, "down")


def command(home: Path, action: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flows.local_server", action],
        cwd=PROJECT,
        env={**without_prefect(), "PREFECT_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def without_prefect() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}


def test_two_that_start_together_share_one_server_and_its_page_knows_the_port(home: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "flows.local_server", "up"],
            cwd=PROJECT,
            env={**without_prefect(), "PREFECT_HOME": str(home)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = {process.communicate(timeout=400)[0] for process in both}
    assert len(answers) == 1
    address = answers.pop().split()[-1]
    assert address.startswith("http://127.0.0.1:")
    assert ask(f"{address}/ui-settings")["api_url"] == f"{address}/api"
    # With a newer FastAPI than the pinned one this is refused.
    assert ask(f"{address}/api/deployments/filter", {"limit": None, "sort": None}) == []
    assert command(home, "status") == f"running: {address}"
    assert command(home, "down") == "stopped"
    assert command(home, "status") == "not running"


def test_a_server_of_another_checkout_at_the_same_port_is_not_taken_for_ours(
    home: Path, database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shutil.copy(database, home / "prefect.db")
    command(home, "up")
    state = json.loads((home / "server.json").read_text())
    ours = tmp_path_factory.mktemp("ours")
    this_process = {"pid": os.getpid(), "started": psutil.Process().create_time(), "url": state["url"]}
    (ours / "server.json").write_text(json.dumps(this_process))
    monkeypatch.setattr(local_server, "HOME", ours)
    assert local_server._running() is None
    monkeypatch.setattr(local_server, "HOME", home)
    assert local_server._running() == state["url"]


def test_a_port_taken_while_the_server_was_loading_is_given_up_for_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: Path
) -> None:
    shutil.copy(database, tmp_path / "prefect.db")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(local_server, "HOME", tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        first, find = iter([taken]), local_server._free_port
        monkeypatch.setattr(local_server, "_free_port", lambda: next(first, None) or find())
        wait = local_server._wait

        def wait_until_it_is_free_again(process: psutil.Process) -> str | None:
            found = wait(process)
            other.close()
            return found

        monkeypatch.setattr(local_server, "_wait", wait_until_it_is_free_again)
        try:
            assert local_server._port(local_server._start()) != taken
        finally:
            local_server.down()


def test_a_process_id_left_from_before_a_reboot_is_left_alone(home: Path) -> None:
    (home / "server.json").write_text(json.dumps({"pid": os.getpid(), "started": 1.0, "url": "http://127.0.0.1:1/api"}))
    assert command(home, "down") == "not running"


def test_a_port_taken_by_another_program_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_server, "HOME", tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr(local_server, "FIRST_PORT", other.getsockname()[1])
        port = local_server.find_port()
        assert port is not None and port > other.getsockname()[1]
        monkeypatch.setattr(local_server, "NUM_PORTS", 1)
        assert local_server.find_port() is None
        with pytest.raises(
            local_server.ServerError, match="all taken; stop what listens there, or set PREFECT_API_URL"
        ):
            local_server.up() if "PREFECT_API_URL" not in os.environ else local_server._free_port()
