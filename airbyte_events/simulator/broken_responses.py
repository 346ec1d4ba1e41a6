"""Responses that break off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_TRANSPORT = "simulator.transport"


class BreakableProtocol(H11Protocol):
    """uvicorn's h11 protocol, which gives the application the connection, to break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, _TRANSPORT: transport}
        super().connection_made(transport)


class BrokenResponse(Response):
    """A reset connection, or a response that breaks off.

    :param whole: send the first half of this one, and end the connection as if it were over; None: reset it at once.
    """

    def __init__(self, whole: Response | None) -> None:
        super().__init__()
        self._whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: Any = scope.get("state", {}).get(_TRANSPORT)
        if transport is None:
            raise ConnectionResetError("a connection can only be broken where serve_simulator serves it")
        if self._whole is None:
            # Lingering for 0 s makes the kernel send RST instead of FIN.
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
        else:
            whole = bytes(self._whole.body) or b"{}"
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(whole))]
            await send({"type": "http.response.start", "status": self._whole.status_code, "headers": headers})
            await send({"type": "http.response.body", "body": whole[: len(whole) // 2], "more_body": True})
            transport.close()
        while (await receive())["type"] != "http.disconnect":
            pass
