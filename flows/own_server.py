"""Prefect's server, but for the programs of this machine and its own page alone; `flows.local_server` starts it.

Any web page that a browser here has open can send to a server on the loopback address, and what it asks this one for
may be a run, which is a command. Prefect takes it: JSON that does not say so, which a browser sends without asking
first, and web sockets, which it never asks for. Here a request from a page of another origin is refused, and so is one
to another name, which a site may have led to this machine. Nor may another page have this one in a frame.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

NAMES = ("127.0.0.1", "localhost")
ALONE = (b"content-security-policy", b"frame-ancestors 'self'")


def origins(port: int) -> list[str]:
    """Where a page of the server comes from, as browsers say it."""
    return [f"http://{name}:{port}" for name in NAMES]


class OwnPageOnly:
    """An ASGI application, behind a door for requests and web sockets; programs that are no browser name no origin."""

    def __init__(self, app: App, port: int) -> None:
        self._app, self._origins = app, origins(port)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        from fastapi.responses import PlainTextResponse

        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", ())}
        origin, name = headers.get(b"origin"), headers.get(b"host", "").rpartition(":")[0]

        async def unframed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), ALONE]
            await send(message)

        if scope["type"] == "lifespan" or (name in NAMES and origin in (None, *self._origins)):
            await self._app(scope, receive, unframed)
        else:
            refused = f"this server is for its own page, {' or '.join(self._origins)}, and for programs of its machine"
            await PlainTextResponse(refused, 403)(scope, receive, send)


def main() -> None:
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    # As `prefect server start`; a port that is taken is said before anything is loaded.
    settings = get_current_settings().server
    port = settings.api.port
    config = uvicorn.Config(
        lambda: OwnPageOnly(create_app(final=True), port),
        factory=True,
        host=settings.api.host,
        port=port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )
    socket = config.bind_socket()
    print(f"{datetime.now():%Y-%m-%d %H:%M:%S} Prefect's server at {origins(port)[0]}", flush=True)
    uvicorn.Server(config).run([socket])


if __name__ == "__main__":
    main()
