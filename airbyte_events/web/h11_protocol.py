"""Limits for the connections of a server: their number, and how long a client may hold one without using it.

uvicorn has neither. Its ``limit_concurrency`` would also refuse health checks and webhooks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import h11
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from airbyte_events.web.security_headers import NO_PAGE

MAX_CONNECTIONS = 3_072
"""The largest number of open connections. A new one beyond it evicts another: the one whose client has not read for
longest, if that is longer than ``spared_seconds``, else the one that has waited longest for a complete request.
So a client that sends its request at once is served, whoever else holds connections."""

URGENT = ("/webhooks/", "/healthz", "/readyz")
"""The path prefixes of urgent requests: they have reserved connections and turns of their own."""

NEW_SECONDS = 0.5
"""A connection without a request is kept this long before a request that is not urgent evicts it."""

BUFFERED_BYTES = 16 * 1024
"""Unread bytes of one connection before the application waits."""

READ_BYTES = 64 * 1024
"""Bytes read at once from a connection; asyncio's default of 256 KiB is a lot for thousands of them."""

TURNS_AT_ONCE = (20, 250)
"""The requests, and urgent requests, that start in one iteration of the event loop. Without a limit, a burst makes an
iteration of seconds, and a webhook needs several iterations. Webhooks of one iteration are stored together."""

DRAIN_SECONDS = 2.0
"""The time that unfinished requests and slow readers have when the server shuts down."""

LEAVING_SECONDS = 1.0
"""A refused client has this time to read the response: closing a connection while a request arrives discards it."""

LARGEST_HEAD = 16 * 1024
"""Bytes of request line and headers."""


def _response(status: str, error: str, *headers: tuple[bytes, bytes]) -> bytes:
    """Return a response that does not come from the application."""
    body = b'{"error":"%s"}\n' % error.encode()
    about = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *headers,
        *NO_PAGE,
    ]
    return b"HTTP/1.1 %s\r\n%s\r\n%s" % (status.encode(), b"".join(b"%s: %s\r\n" % each for each in about), body)


_FULL = _response("503 Service Unavailable", "too many connections", (b"retry-after", b"5"))
_CROWDED = JSONResponse({"error": "too many connections"}, 503, {"Retry-After": "5", "Connection": "close"})
_INVALID = _response("400 Bad Request", "not a valid HTTP request")


@dataclass(kw_only=True)
class ConnectionLimits:
    """Limits of one server's connections, and the state that they need. Times are those of its event loop."""

    most: int = MAX_CONNECTIONS
    reserve: int = 0
    """The connections that are reserved for urgent requests."""
    unread_bytes: int = 128 * 2**20
    """The largest total of unread bytes. Beyond it, the client that has not read for longest is disconnected."""
    request_seconds: float = 20.0
    """For a complete request, headers and body, after the connection was made or the previous response sent."""
    stalled_seconds: float = 60.0
    """A client that does not read is disconnected after this time."""
    spared_seconds: float = 3.0
    """Or after this time, if another client needs the connection."""
    waiting: dict[BoundedProtocol, float] = field(default_factory=dict)
    """Connections without a complete request, with the time since when; the oldest first."""
    stalled: dict[BoundedProtocol, float] = field(default_factory=dict)
    """Connections whose client does not read, likewise."""
    leaving: dict[BoundedProtocol, float] = field(default_factory=dict)
    """Connections that are being closed, likewise. They do not count."""
    open: int = 0
    """The number of open connections, including those in ``leaving``."""
    unread: int = 0
    """The unread bytes of the connections in ``stalled``."""
    _turns: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = field(
        default_factory=lambda: (deque(), deque())
    )

    @property
    def taken(self) -> int:
        """The number of connections that count."""
        return self.open - len(self.leaving)

    def evict_one(self, now: float, *, new: float = 0.0) -> bool:
        """Evict the least useful connection.

        :param new: the seconds for which a connection without a complete request is spared.
        :return: whether one was evicted.
        """
        for those, seconds in ((self.stalled, self.spared_seconds), (self.waiting, new)):
            if those and (first := next(iter(those.items())))[1] + seconds <= now:
                first[0].evict()
                return True
        return False

    async def turn(self, *, urgent: bool) -> None:
        """Wait until a request may start: a limited number per iteration of the event loop, in order of arrival."""
        loop = asyncio.get_running_loop()
        if not any(self._turns):
            loop.call_soon(self._next_turns, loop)
        turn = loop.create_future()
        self._turns[urgent].append(turn)
        await turn

    def _next_turns(self, loop: asyncio.AbstractEventLoop) -> None:
        for most, turns in zip(TURNS_AT_ONCE, self._turns, strict=True):
            for _ in range(min(most, len(turns))):
                if not (turn := turns.popleft()).done():
                    turn.set_result(None)
        if any(self._turns):
            loop.call_soon(self._next_turns, loop)

    def sweep(self, now: float) -> None:
        """Disconnect clients that have exceeded a time limit."""
        for those, seconds in (
            (self.waiting, self.request_seconds),
            (self.stalled, self.stalled_seconds),
            (self.leaving, LEAVING_SECONDS),
        ):
            while those and (first := next(iter(those.items())))[1] + seconds < now:
                first[0].leave()


class _Connection(h11.Connection):
    """Refuse a request with two lengths: a proxy may use the other one and take the rest for another request (RFC
    9112, 6.3 and 11.2)."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request) and {b"content-length", b"transfer-encoding"} <= dict(event.headers).keys():
            raise h11.RemoteProtocolError("Content-Length and Transfer-Encoding")
        return event


class BoundedProtocol(H11Protocol):
    """Enforce the limits, and write no access log, as webhook tokens are in URLs.

    :param limits: of all connections of the server.
    """

    def __init__(self, *args: Any, limits: ConnectionLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False
        self.conn = _Connection(h11.SERVER, self.config.h11_max_incomplete_event_size or LARGEST_HEAD)
        self._limits = limits
        self._unread = 0
        self._application = self.app
        self.app = self._begin

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=BUFFERED_BYTES)
        if hasattr(transport, "max_size"):
            transport.max_size = READ_BYTES
        self._limits.open += 1
        self._limits.waiting[self] = self.loop.time()
        if self._limits.taken > self._limits.most:
            self._limits.evict_one(self.loop.time())

    def connection_lost(self, exc: Exception | None) -> None:
        self._limits.open -= 1
        self._limits.waiting.pop(self, None)
        self._limits.leaving.pop(self, None)
        self._has_read()
        super().connection_lost(exc)

    async def _begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request in its turn, or refuse it if the server is full."""
        limits, urgent = self._limits, scope["path"].startswith(URGENT)
        full = not urgent and limits.taken > limits.most - limits.reserve
        if full and not limits.evict_one(self.loop.time(), new=NEW_SECONDS):
            await _CROWDED(scope, receive, send)
            return
        await limits.turn(urgent=urgent)
        await self._application(scope, receive, send)

    def evict(self) -> None:
        """Close the connection for another one, with a response if that is possible."""
        limits = self._limits
        if self in limits.stalled or self.conn.their_state is not h11.IDLE or len(limits.leaving) >= limits.most:
            self.leave()
            return
        del limits.waiting[self]
        limits.leaving[self] = self.loop.time()
        self.transport.write(_FULL)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def leave(self) -> None:
        self._limits.waiting.pop(self, None)
        self._has_read()
        self._limits.leaving[self] = self.loop.time()
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_INVALID)
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self in self._limits.leaving:
            return
        if len(data) > LARGEST_HEAD and self.conn.their_state is h11.IDLE and b"\n\r\n" not in data[:LARGEST_HEAD]:
            # h11 limits incomplete heads; a head that arrives in one piece it accepts at any size.
            data = data[: LARGEST_HEAD + 1]
        super().data_received(data)
        if self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) > LARGEST_HEAD:
            # So much data behind a request in progress is an attack, not pipelining.
            self.leave()
        self._sort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._sort()

    def _sort(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE or self.conn.their_state is h11.SEND_BODY:
            self._limits.waiting.setdefault(self, self.loop.time())
        else:
            self._limits.waiting.pop(self, None)

    def pause_writing(self) -> None:
        super().pause_writing()
        limits = self._limits
        if self in limits.leaving:
            return
        limits.stalled[self] = self.loop.time()
        self._unread = self.transport.get_write_buffer_size()
        limits.unread += self._unread
        while limits.unread > limits.unread_bytes:
            next(iter(limits.stalled)).leave()

    def resume_writing(self) -> None:
        self._has_read()
        super().resume_writing()

    def _has_read(self) -> None:
        """Note that the client has read, or that nothing is left to read."""
        if self._limits.stalled.pop(self, None) is not None:
            self._limits.unread -= self._unread

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(DRAIN_SECONDS, self._leave)

    def _leave(self) -> None:
        # Requests that the application handles have more time.
        if self in self._limits.waiting or self in self._limits.stalled or self.transport.is_closing():
            self.leave()
