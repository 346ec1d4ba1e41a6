"""What the connections of a server may take: bounds on their number, and on the time that strangers hold them.

uvicorn bounds neither. Its ``limit_concurrency`` would refuse the health check and the webhooks along with the rest.
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

from airbyte_events.web.security_headers import ELSEWHERE

MAX_CONNECTIONS = 3_072
"""Connections that a server has open. Beyond it one makes way for a new one: the one that has taken nothing for
longest, if that is longer than :data:`SPARED_SECONDS`, else the one that has waited longest for its request to be
complete. So who sends a request at once is served, whoever else holds connections."""

URGENT = ("/webhooks/", "/healthz", "/readyz")
"""Where the paths of requests begin that find a connection before all others, and have turns of their own."""

REQUEST_SECONDS = 20.0
"""A request is complete, headers and body, so long after its connection was made or the answer before it was sent."""

STALLED_SECONDS = 60.0
"""Who does not read what was sent is left after so long."""

SPARED_SECONDS = 3.0
"""Or after so long, where the connection is wanted for another."""

NEW_SECONDS = 0.5
"""A connection without a request has so long before another's request, if that is not urgent, has it make way."""

UNREAD_BYTES = 128 * 2**20
"""What is sent and not read, over all of a server's connections. Beyond it the one that has not read for longest is
left."""

BUFFERED_BYTES = 16 * 1024
"""What is sent and not read over one connection before the application waits."""

READ_BYTES = 64 * 1024
"""What is read at once of a connection; asyncio's own 256 KiB are much for thousands of them."""

TURNS_AT_ONCE = (20, 250)
"""Requests that are begun in one round of the event loop, and urgent ones. A crowd that asks at once would else make a
round of seconds, and a webhook takes several rounds to be stored; but those that come together are stored together."""

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
_CROWDED = JSONResponse({"error": "too many connections"}, 503, {"Retry-After": "5", "Connection": "close"})
_INVALID = _answer("400 Bad Request", "this is no HTTP request")


@dataclass(kw_only=True)
class ConnectionLimits:
    """Limits of one server's connections, and the state that they need. Times are those of its event loop."""

    most: int = MAX_CONNECTIONS
    reserve: int = 0
    """How many of them are for urgent requests alone."""
    unread_bytes: int = UNREAD_BYTES
    request_seconds: float = REQUEST_SECONDS
    stalled_seconds: float = STALLED_SECONDS
    spared_seconds: float = SPARED_SECONDS
    waiting: dict[BoundedProtocol, float] = field(default_factory=dict)
    """Connections without a complete request, and since when; the longest first."""
    stalled: dict[BoundedProtocol, float] = field(default_factory=dict)
    """Connections whose peer does not read, and since when; the longest first."""
    leaving: dict[BoundedProtocol, float] = field(default_factory=dict)
    """Connections that were refused or left, and since when; the longest first. They do not count."""
    open: int = 0
    """How many there are, those that are leaving included."""
    unread: int = 0
    """Bytes that those have not read whose peer does not read."""
    _turns: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = field(
        default_factory=lambda: (deque(), deque())
    )

    @property
    def taken(self) -> int:
        """How many connections count."""
        return self.open - len(self.leaving)

    def make_room(self, now: float, *, new: float = 0.0) -> bool:
        """Have the connection make way that is missed least.

        :param new: seconds for which one that has no complete request is spared.
        :return: whether there was one.
        """
        for those, seconds in ((self.stalled, self.spared_seconds), (self.waiting, new)):
            if those and (first := next(iter(those.items())))[1] + seconds <= now:
                first[0].make_way()
                return True
        return False

    async def turn(self, *, urgent: bool) -> None:
        """Wait until a request may be begun: so many in each round of the event loop, those that came first first."""
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
        """Leave those that are over time."""
        for those, seconds in (
            (self.waiting, self.request_seconds),
            (self.stalled, self.stalled_seconds),
            (self.leaving, LEAVING_SECONDS),
        ):
            while those and (first := next(iter(those.items())))[1] + seconds < now:
                first[0].leave()


class _Connection(h11.Connection):
    """Refuses a request that tells its length in two ways: a proxy in front may read the other one, and take what
    follows for somebody else's request (RFC 9112, 6.3 and 11.2)."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request) and {b"content-length", b"transfer-encoding"} <= dict(event.headers).keys():
            raise h11.RemoteProtocolError("Content-Length and Transfer-Encoding")
        return event


class BoundedProtocol(H11Protocol):
    """Keeps the limits, and no access log, also where that has handlers of its own: webhook tokens are in URLs.

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
            self._limits.make_room(self.loop.time())

    def connection_lost(self, exc: Exception | None) -> None:
        self._limits.open -= 1
        self._limits.waiting.pop(self, None)
        self._limits.leaving.pop(self, None)
        self._has_read()
        super().connection_lost(exc)

    async def _begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, once it is its turn, or say that there is no room."""
        limits, urgent = self._limits, scope["path"].startswith(URGENT)
        full = not urgent and limits.taken > limits.most - limits.reserve
        if full and not limits.make_room(self.loop.time(), new=NEW_SECONDS):
            await _CROWDED(scope, receive, send)
            return
        await limits.turn(urgent=urgent)
        await self._application(scope, receive, send)

    def make_way(self) -> None:
        """Leave for another, with an answer if that is possible."""
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
        """End the connection as it is."""
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
            # h11 bounds what is incomplete; what comes whole in one piece it takes at any size.
            data = data[: LARGEST_HEAD + 1]
        super().data_received(data)
        if self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) > LARGEST_HEAD:
            # So much behind a request that is being answered is no pipeline but a load.
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
        """The peer reads, or there is nothing more to read."""
        if self._limits.stalled.pop(self, None) is not None:
            self._limits.unread -= self._unread

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(DRAIN_SECONDS, self._leave)

    def _leave(self) -> None:
        # What the application is at, is given longer.
        if self in self._limits.waiting or self in self._limits.stalled or self.transport.is_closing():
            self.leave()
