"""What the connections of a server may take: bounds on their number, and on the time that strangers hold them.

uvicorn bounds neither. Its ``limit_concurrency`` would refuse the health check and the webhooks along with the rest.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from airbyte_events.headers import ELSEWHERE

MOST = 3_072
"""Connections that a server has open. Beyond it the one that has waited longest for its request to be complete makes
way for a new one: who sends a request at once is served, whoever else holds connections."""

REQUEST_SECONDS = 20.0
"""A request is complete, headers and body, so long after its connection was made or the answer before it was sent."""

STALLED_SECONDS = 60.0
"""Who does not read what was sent is left after so long."""

DRAIN_SECONDS = 2.0
"""The same two when the server ends."""

LEAVING_SECONDS = 1.0
"""Who is refused has so long to read so: a connection that is closed while its request still comes in takes the answer
back."""

LARGEST_HEAD = 16 * 1024
"""Bytes of request line and headers."""


def _answer(status: str, error: str, *headers: tuple[bytes, bytes]) -> bytes:
    """What is said where the application is not asked."""
    body = b'{"error":"%s"}\n' % error.encode()
    about = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *headers,
        *ELSEWHERE,
    ]
    return b"HTTP/1.1 %s\r\n%s\r\n%s" % (status.encode(), b"".join(b"%s: %s\r\n" % each for each in about), body)


_FULL = _answer("503 Service Unavailable", "too many connections", (b"retry-after", b"5"))
_INVALID = _answer("400 Bad Request", "this is no HTTP request")


@dataclass(kw_only=True)
class Bounds:
    """Bounds of one server's connections, and what it has to know to keep them. Seconds are those of its event loop."""

    most: int = MOST
    request_seconds: float = REQUEST_SECONDS
    stalled_seconds: float = STALLED_SECONDS
    waiting: dict[BoundedProtocol, float] = field(default_factory=dict)
    """Connections without a complete request, and since when; the longest first."""
    stalled: dict[BoundedProtocol, float] = field(default_factory=dict)
    """Connections whose peer does not read, and since when; the longest first."""
    leaving: dict[BoundedProtocol, float] = field(default_factory=dict)
    """Connections that were refused, and since when; the longest first. They do not count."""

    def sweep(self, now: float) -> None:
        """Leave those that are over time."""
        for those, seconds in (
            (self.waiting, self.request_seconds),
            (self.stalled, self.stalled_seconds),
            (self.leaving, LEAVING_SECONDS),
        ):
            while those and (first := next(iter(those.items())))[1] + seconds < now:
                del those[first[0]]
                first[0].transport.abort()


class _Connection(h11.Connection):
    """Refuses a request that tells its length in two ways: a proxy in front may read the other one, and take what
    follows for somebody else's request (RFC 9112, 6.3 and 11.2)."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request) and {b"content-length", b"transfer-encoding"} <= dict(event.headers).keys():
            raise h11.RemoteProtocolError("Content-Length and Transfer-Encoding")
        return event


class BoundedProtocol(H11Protocol):
    """Keeps the bounds, and no access log, also where that has handlers of its own: webhook tokens are in URLs.

    :param bounds: of all connections of the server.
    """

    def __init__(self, *args: Any, bounds: Bounds, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False
        self.conn = _Connection(h11.SERVER, self.config.h11_max_incomplete_event_size or LARGEST_HEAD)
        self._bounds = bounds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._bounds.waiting[self] = self.loop.time()
        if len(self.connections) - len(self._bounds.leaving) > self._bounds.most:
            next(iter(self._bounds.waiting))._make_way()

    def connection_lost(self, exc: Exception | None) -> None:
        self._bounds.waiting.pop(self, None)
        self._bounds.stalled.pop(self, None)
        self._bounds.leaving.pop(self, None)
        super().connection_lost(exc)

    def _make_way(self) -> None:
        del self._bounds.waiting[self]
        if self.conn.their_state is not h11.IDLE or len(self._bounds.leaving) >= self._bounds.most:
            self.transport.abort()
            return
        self._bounds.leaving[self] = self.loop.time()
        self.transport.write(_FULL)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_INVALID)
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self in self._bounds.leaving:
            return
        if len(data) > LARGEST_HEAD and self.conn.their_state is h11.IDLE and b"\n\r\n" not in data[:LARGEST_HEAD]:
            # h11 bounds what is incomplete; what comes whole in one piece it takes at any size.
            data = data[: LARGEST_HEAD + 1]
        super().data_received(data)
        self._sort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._sort()

    def _sort(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE or self.conn.their_state is h11.SEND_BODY:
            self._bounds.waiting.setdefault(self, self.loop.time())
        else:
            self._bounds.waiting.pop(self, None)

    def pause_writing(self) -> None:
        self._bounds.stalled.setdefault(self, self.loop.time())
        super().pause_writing()

    def resume_writing(self) -> None:
        self._bounds.stalled.pop(self, None)
        super().resume_writing()

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(DRAIN_SECONDS, self._leave)

    def _leave(self) -> None:
        # What the application is at, is given longer.
        if self in self._bounds.waiting or self in self._bounds.stalled or self.transport.is_closing():
            self.transport.abort()
