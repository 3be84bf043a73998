"""Patience with a server that says `503, ask again`, and with that alone."""

from __future__ import annotations

import threading
import urllib.error
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.flows.server_talk import ask


class Answers(BaseHTTPRequestHandler):
    """Gives the statuses in `to_give` one after the other, the last one for ever."""

    to_give: list[int]
    asked: int

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status = self.to_give[min(type(self).asked, len(self.to_give) - 1)]
        type(self).asked += 1
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(b'"done"')

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Answers.asked = 0
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_busy_server_is_asked_again(address: str) -> None:
    Answers.to_give = [503, 429, 503, 200]
    assert ask(address, {}) == "done"
    assert Answers.asked == 4


def test_a_refusal_is_passed_on_at_once(address: str) -> None:
    Answers.to_give = [409, 200]
    with pytest.raises(urllib.error.HTTPError, match="409"):
        ask(address, {})
    assert Answers.asked == 1


def test_patience_ends(address: str) -> None:
    Answers.to_give = [503]
    with pytest.raises(urllib.error.HTTPError, match="503"):
        ask(address, {}, patience_s=0.5)
    assert 2 <= Answers.asked <= 5
