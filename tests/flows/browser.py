"""A real browser without a window, driven over Chromium's own protocol (DevTools)."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import connect

from tests.flows.server_talk import until

NAMES = ("chromium", "chromium-browser", "google-chrome")
SIZE = "1400,1000"


def program() -> str | None:
    """Where a Chromium is, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page. `folder` holds what the browser keeps."""

    def __init__(self, folder: Path) -> None:
        command = [program() or NAMES[0], "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={SIZE}"]
        self._process = subprocess.Popen(
            [*command, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        lines = folder / "DevToolsActivePort"
        until(lambda: lines.is_file() and len(lines.read_text().split()) == 2, 120)
        with urllib.request.urlopen(f"http://127.0.0.1:{lines.read_text().split()[0]}/json/list") as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        self._socket = connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None)
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its answer; events in between are passed over."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv(timeout=60))).get("id") != self._count:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def shows(self, text: str, seconds: float = 60) -> None:
        """Wait until the page shows a text."""
        until(lambda: text in (self.run("document.body ? document.body.innerText : ''") or ""), seconds)

    def click(self, text: str, then: str | None = None, kind: str = "button, a, li") -> None:
        """Press the first thing that may be pressed and says exactly this, as a mouse does.

        With `then`, until the page shows that: a press does nothing while the page is being put together.
        """
        find = (
            f"[...document.querySelectorAll({json.dumps(kind)})]"
            f".find(e => e.innerText.trim() === {json.dumps(text)} && e.getClientRects().length)"
        )
        until(lambda: self.run(f"Boolean({find})"), 60)
        place = self.run(
            f"(() => {{ const e = {find}; e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        for action in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=action, x=place[0], y=place[1], button="left", clickCount=1)
        if then is None:
            return
        try:
            self.shows(then, 5)
        except AssertionError:
            self.click(text, then, kind)
