"""The *Test* button of Airflow's connections page, for connections without a port."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PATH = "/api/v2/connections/test"
_TYPES = ("airbyte", "airbyte_events")
_LARGEST = 256 * 1024


class PortlessConnectionTests:
    """Middleware of the API server: a tested connection of our types whose port is 0 has none.

    The page sends 0 for an empty port. Airflow 3.3.1 and 3.3.2 take that for another server than the stored one, and
    respond *Bad Request* (apache/airflow#73298).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith(_PATH):
            receive = await _without_port(receive)
        await self._app(scope, receive, send)


async def _without_port(receive: Receive) -> Receive:
    """Read the request, and return what receives it again. A larger one than a connection's stays as it is."""
    messages: list[Message] = []
    size = 0
    while size <= _LARGEST:
        messages.append(message := await receive())
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            body = _with_null(b"".join(each.get("body", b"") for each in messages))
            if body is not None:
                messages = [{"type": "http.request", "body": body, "more_body": False}]
            break

    async def receive_again() -> Message:
        return messages.pop(0) if messages else await receive()

    return receive_again


def _with_null(body: bytes) -> bytes | None:
    """Return the connection with its port 0 as null; None for any other body."""
    try:
        connection = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(connection, dict) or connection.get("conn_type") not in _TYPES or connection.get("port") != 0:
        return None
    return json.dumps({**connection, "port": None}).encode()
