"""The Prefect server of this checkout: started on demand, on the loopback address, with its UI.

`up()` is called by every flow before it runs. State lives in `.prefect/` and holds no result
that matters: it may be deleted at any time.

    python -m flows.local_server up | status | down
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psutil

from flows import own_server
from pipeline.layout import PROJECT

logger = logging.getLogger(__name__)

HOME = Path(os.environ.get("PREFECT_HOME", PROJECT / ".prefect")).absolute()
HOST = "127.0.0.1"
FIRST_PORT = 4200
NUM_PORTS = 20
START_TIMEOUT_S = 300.0


class ServerError(RuntimeError):
    """The server can not be started; the message says where to look and what to do."""


def up() -> str:
    """API address of a healthy server, started here if there is none; sets the environment for it.

    A PREFECT_API_URL that is already set (a server of your own site) is used as it is.
    Callers that start together get one server. Raises ServerError.
    """
    if given := os.environ.get("PREFECT_API_URL"):
        return given
    HOME.mkdir(parents=True, exist_ok=True)
    url = _running()
    if url is None:
        with (HOME / "server.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            url = _wait(_process()) or _start()
    _use(url)
    return url


def down() -> bool:
    """Stop the server that `up` started, and nothing else; False when none runs."""
    process = _process()
    if process is None:
        return False
    process.terminate()
    if not _ends(process):
        process.kill()
        _ends(process)
    _state_file().unlink(missing_ok=True)
    return True


def ui_address(api_url: str) -> str:
    return api_url.removesuffix("/").removesuffix("/api")


def settings(port: int) -> dict[str, str]:
    """Environment of server and clients: loopback only, no contact with the outside."""
    url = f"http://{HOST}:{port}/api"
    return {
        "PREFECT_HOME": str(HOME),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        # Without it the page looks for its server at port 4200 whatever the port is.
        "PREFECT_SERVER_UI_API_URL": url,
        # Prefect would let pages of all sites read the answers; see own_server.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(own_server.origins(port)),
        # Site-packages may be read-only.
        "PREFECT_UI_STATIC_DIRECTORY": str(HOME / "ui"),
        # The newer page asks a host outside for its settings; this one loads from the server alone.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # SQLite refuses a transaction that has read before another one wrote (no timeout helps: it does not
        # wait), and the page shows that as an error. Most often that other one writes events, 20 at a time.
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "1000",
        "PREFECT_LOGGING_LEVEL": os.environ.get("PREFECT_LOGGING_LEVEL", "INFO"),
    }


def _use(url: str) -> None:
    os.environ.update(settings(_port(url)))
    if "prefect" in sys.modules:  # it read its settings when it was imported
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


def note(path: Path, facts: Mapping[str, object]) -> None:
    """Written aside: who reads it meanwhile must not take an unfinished note for that of a process that is gone."""
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(facts))
    aside.replace(path)


def _state_file() -> Path:
    return HOME / "server.json"


def _log_file() -> Path:
    return HOME / "server.log"


def _process() -> psutil.Process | None:
    """The server process of the state file, if it still is that process."""
    try:
        state = json.loads(_state_file().read_text())
        process = psutil.Process(state["pid"])
        # A process id is used again after a reboot; its start time is not.
        return process if abs(process.create_time() - state["started"]) < 1.0 else None
    except (FileNotFoundError, json.JSONDecodeError, KeyError, psutil.NoSuchProcess):
        return None


def _has_ended(process: psutil.Process) -> bool:
    """True also while whoever started it has not taken note, as `flows.serve` and an init that heeds no orphans."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _ends(process: psutil.Process, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not _has_ended(process):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _running() -> str | None:
    if (process := _process()) is None:
        return None
    url = json.loads(_state_file().read_text())["url"]
    return url if _listens(process, _port(url)) and _healthy(url) else None


def _listens(process: psutil.Process, port: int) -> bool:
    """False also while another program has the port: a server of another checkout answers just as ours does."""
    try:
        found = process.net_connections("tcp")
    except psutil.Error:
        return False
    return any(item.status == psutil.CONN_LISTEN and item.laddr.port == port for item in found)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _start() -> str:
    while True:
        before = _log_file().stat().st_size if _log_file().exists() else 0
        if (url := _start_at(_free_port())) is not None:
            return url
        # Another program may take the port while the server is loading, and may have given it back by now.
        if b"already in use" not in _log_file().read_bytes()[before:]:
            raise ServerError(f"the Prefect server did not start; why is in {_log_file()}")


def _start_at(port: int) -> str | None:
    """Address of a server started at a port; None when it stopped or was stopped."""
    environment = {**os.environ, **settings(port)}
    # Its own session and its own output: Ctrl-C does not stop it, and no caller waits for its pipe to close.
    with _log_file().open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.own_server"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=PROJECT,
            start_new_session=True,
        )
    process = psutil.Process(server.pid)
    state = {"pid": server.pid, "started": process.create_time(), "url": environment["PREFECT_API_URL"]}
    note(_state_file(), state)
    return _wait(process)


def _wait(process: psutil.Process | None) -> str | None:
    """Address of the server once it is healthy; None when there is none or it stopped."""
    end = time.monotonic() + START_TIMEOUT_S
    while process is not None and time.monotonic() < end:
        if (url := _running()) is not None:
            return url
        if _has_ended(process):
            return None
        time.sleep(0.25)
    if process is not None:
        # Two servers must not share one database.
        process.terminate()
    return None


def _free_port() -> int:
    port = find_port()
    if port is None:
        raise ServerError(
            f"ports {FIRST_PORT} to {FIRST_PORT + NUM_PORTS - 1} are all taken; stop what listens there, "
            "or set PREFECT_API_URL to a Prefect server that runs"
        )
    if port != FIRST_PORT:
        logger.warning("port %d is taken by another program; the Prefect server takes %d", FIRST_PORT, port)
    return port


def find_port() -> int | None:
    """The port of the running server, else the first from 4200 on that nothing listens on, else None."""
    if (url := _running()) is not None:
        return _port(url)
    return next((port for port in range(FIRST_PORT, FIRST_PORT + NUM_PORTS) if _is_free(port)), None)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _port(url: str) -> int:
    return int(url.removesuffix("/api").rsplit(":", 1)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["up", "status", "down"])
    action = parser.parse_args().action
    logging.basicConfig(format="%(message)s")
    if action == "up":
        print(f"Prefect UI: {ui_address(up())}")
    elif action == "status":
        url = _running()
        print(f"running: {ui_address(url)}" if url else "not running")
    else:
        print("stopped" if down() else "not running")


if __name__ == "__main__":
    try:
        main()
    except ServerError as error:
        sys.exit(f"error: {error}")
