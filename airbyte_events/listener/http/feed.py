"""The feed: job events as a stream (server-sent events) or by long polling."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from airbyte_events._utils.until import until
from airbyte_events.bus.bus import BUFFER, EventBus, Subscription
from airbyte_events.errors import CursorExpired, StoreError
from airbyte_events.events import Cursor, EventFilter, JobEvent
from airbyte_events.feed.sse import Frame
from airbyte_events.listener.http import params
from airbyte_events.store.base import EventStore
from airbyte_events.web.auth import STILL_AUTHORIZED

_BATCH, _BATCH_BYTES = 200, 64 * 1024
"""Events that a stream sends at once; it takes the next ones when its client has read them."""

_FRAMES_BYTES = 8 * 2**20

_OVERLOADED = {"Retry-After": "5", "Connection": "close"}
"""Headers for a refused stream: others need its connection."""


@dataclass(eq=False)
class Feed:
    """``GET /v1/events``."""

    bus: EventBus
    store: EventStore
    urls: Mapping[str, str]
    """Of the instances, the CloudEvents ``source``."""
    _: KW_ONLY
    heartbeat: float = 15.0
    """The longest time between two frames of a stream, in seconds."""
    max_age: float = 3600.0
    """A stream ends after so many seconds and its client reconnects, so that clients spread over replicas."""
    most_streams: int = 1_400
    """The largest number of open streams: fewer than concurrent requests, so that streams are refused first."""
    streams: int = field(default=0, init=False)
    """The number of open streams."""
    resets: int = field(default=0, init=False)
    """How often a reader was sent a reset."""
    _frames: dict[Cursor | None, bytes] = field(default_factory=dict, init=False)
    _frames_bytes: int = field(default=0, init=False)

    async def events(self, request: Request) -> Response:
        """Return a stream to a client that accepts ``text/event-stream``, else a page."""
        query = request.query_params
        params.refuse_unknown(query, params.FILTERS | {"after", "wait", "limit", "signals"})
        wanted = replace(params.event_filter(query), signals=params.flag(query, "signals") or False)
        after, lost = self._resume(request)
        # HEAD gets the headers of a page: a stream would never end.
        if "text/event-stream" in request.headers.get("accept", "") and request.method == "GET":
            if self.streams >= self.most_streams:
                return JSONResponse({"error": "too many streams are open"}, 503, _OVERLOADED)
            return EventStream(self, after, wanted, lost)
        wait = params.number(query, "wait", 0.0, least=0, most=60)
        limit = params.number(query, "limit", 100, least=1, most=1000)
        async with until(partial(_disconnected, request.receive)):
            return await self._page(after, wanted, lost, wait, limit)
        return Response(status_code=204)

    def envelope(self, event: JobEvent) -> dict[str, Any]:
        return event.envelope(self.urls.get(event.ref.instance, event.ref.instance))

    def frame(self, event: JobEvent) -> bytes:
        """Return the event as a frame. It is encoded once for all streams that send it at about the same time."""
        frame = self._frames.get(event.cursor)
        if frame is None:
            frame = Frame(
                event="job" if event.signal is None else "signal",
                id=str(event.cursor),
                data=json.dumps(self.envelope(event)),
            ).encode()
            self._frames[event.cursor] = frame
            self._frames_bytes += len(frame)
            while len(self._frames) > BUFFER or self._frames_bytes > _FRAMES_BYTES:
                self._frames_bytes -= len(self._frames.pop(next(iter(self._frames))))
        return frame

    def _resume(self, request: Request) -> tuple[Cursor, str | None]:
        """Return the cursor to start from, and why the client's own cursor can't be used, if so."""
        text = request.headers.get("last-event-id") or request.query_params.get("after")
        if not text:
            return self.bus.cursor, None
        try:
            cursor = Cursor.parse(text)
        except ValueError as exc:
            raise params.QueryError(f"after: {exc}") from None
        if cursor.epoch != self.store.epoch:
            return self.bus.cursor, "the cursor belongs to another log"
        return cursor, None

    async def _page(self, after: Cursor, wanted: EventFilter, lost: str | None, wait: float, limit: int) -> Response:
        try:
            if lost is not None:
                raise CursorExpired(lost)
            page = await self.store.read(
                after.sequence, limit=limit, size=params.PAGE_BYTES, wanted=wanted, epoch=after.epoch
            )
            found, cursor = list(page.events), Cursor(after.epoch, page.position)
            if not found and wait:
                with self.bus.subscribe(after=cursor, wanted=wanted) as events:
                    with anyio.move_on_after(wait), contextlib.suppress(anyio.EndOfStream):
                        found = await events.receive(limit, params.PAGE_BYTES)
                    cursor = events.cursor
        except CursorExpired as exc:
            self.resets += 1
            body = {"error": "reset", "message": f"{exc}: read the job states again", "cursor": str(self.bus.cursor)}
            return JSONResponse(body, status_code=410)
        return JSONResponse({"events": [self.envelope(event) for event in found], "cursor": str(cursor)})


class EventStream(Response):
    """A client's stream. It ends with a ``goaway`` when the bus closes or its maximum age is reached."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, after: Cursor, wanted: EventFilter, lost: str | None) -> None:
        # The body is sent below. X-Accel-Buffering asks proxies not to buffer it.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._feed = feed
        self._after = after
        self._wanted = wanted
        self._lost = lost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._feed.streams += 1
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with until(partial(_disconnected, receive)):
                await self._stream(send, scope.get(STILL_AUTHORIZED, lambda: True))
        finally:
            self._feed.streams -= 1

    async def _stream(self, send: Send, authorized: Callable[[], bool]) -> None:
        feed, after = self._feed, self._after
        deadline = anyio.current_time() + feed.max_age * random.uniform(0.8, 1.0)  # noqa: S311
        hello = {"epoch": feed.bus.epoch, "head": str(feed.bus.cursor), "heartbeat": feed.heartbeat}
        await _send(send, Frame(event="hello", id=None if self._lost else str(after), data=json.dumps(hello)))
        if self._lost is not None:
            after = await self._reset(send, self._lost)
        reason = None
        while reason is None:
            try:
                with feed.bus.subscribe(after=after, wanted=self._wanted) as events:
                    reason = await self._follow(send, events, deadline, authorized)
            except CursorExpired as exc:
                after = await self._reset(send, str(exc))
            except StoreError:
                reason = "store"
        await _send(send, Frame(event="goaway", data=json.dumps({"reason": reason})))
        await send({"type": "http.response.body", "body": b""})

    async def _follow(self, send: Send, events: Subscription, deadline: float, authorized: Callable[[], bool]) -> str:
        """Send events until the stream has to end, and return the reason."""
        heartbeat = self._feed.heartbeat
        while (left := deadline - anyio.current_time()) > 0:
            batch: list[JobEvent] = []
            try:
                with anyio.move_on_after(min(heartbeat, left)):
                    batch = await events.receive(_BATCH, _BATCH_BYTES)
            except anyio.EndOfStream:
                return "drain"
            if not authorized():
                return "token"
            if batch:
                await _send_bytes(send, b"".join(map(self._feed.frame, batch)))
                # Waits until the client has read: later events stay in the log until then.
                await _send_bytes(send, b"")
            else:
                await _send(send, Frame(event="bookmark", id=str(events.cursor), data="{}"))
        return "age"

    async def _reset(self, send: Send, reason: str) -> Cursor:
        self._feed.resets += 1
        head = self._feed.bus.cursor
        await _send(send, Frame(event="reset", id=str(head), data=json.dumps({"reason": reason})))
        return head


async def _disconnected(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, frame: Frame) -> None:
    await _send_bytes(send, frame.encode())


async def _send_bytes(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
