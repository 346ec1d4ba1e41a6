"""Sends webhooks as Airbyte's Java client does: one POST, one attempt, no time-out."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import anyio
import httpx
from anyio.abc import TaskGroup

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.simulator.faults import WEBHOOK_FAULTS, Faults
from airbyte_events.simulator.timers import Timers

MAX_SENDING = 20
"""Webhooks in flight at a time; the others wait, as for Airbyte's workers. More are expensive: httpx searches all
connections of its pool for each request."""
KEPT = 1000
"""Deliveries kept for the control API; a job keeps its own."""
_HELD_SECONDS = 5.0

# Java's java.net.http.HttpClient with version(HTTP_2) sends these over plain HTTP, and its own name.
_HEADERS = {
    "Connection": "Upgrade, HTTP2-Settings",
    "HTTP2-Settings": "AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA",
    "Upgrade": "h2c",
}
_TLS_HEADERS = {"User-Agent": "Java-http-client/21.0.5", "Content-Type": "application/json"}


def java_headers(url: str) -> dict[str, str]:
    """Return the headers of Airbyte's client for a notification to that URL."""
    return _TLS_HEADERS if url.startswith("https:") else {**_HEADERS, **_TLS_HEADERS}


@dataclass(slots=True, kw_only=True, eq=False)
class Delivery:
    """A notification and its receiver's response.

    :param kind: the notification setting, else the kind: ``success``, ``failure``, ``queued``, …
    :param sent_at: when it was sent; None: not yet, or never.
    :param error: why there was no response.
    """

    kind: str
    url: str
    compose: Callable[[], dict[str, Any] | str]
    sent_at: datetime | None = None
    answered_at: datetime | None = None
    status: int | None = None
    error: str | None = None
    fault: str | None = None
    over: anyio.Event = field(default_factory=anyio.Event)

    def data(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "url": self.url,
            "sent_at": format_time(self.sent_at),
            "answered_at": format_time(self.answered_at),
            "status": self.status,
            "error": self.error,
            "fault": self.fault,
        }


class Webhooks:
    """Sends notifications while :meth:`running` is entered; earlier ones wait for that."""

    def __init__(self, timers: Timers, faults: Faults, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.counts: Counter[str] = Counter()
        """``sent``, ``answered`` (with any status), ``refused`` (no 2xx), ``failed`` (no answer), ``lost``."""
        self.recent: deque[Delivery] = deque(maxlen=KEPT)
        self._timers = timers
        self._faults = faults
        self._transport = transport
        self._queue: deque[Delivery] = deque()
        self._held: list[Delivery] = []
        self._sending = 0
        self._tasks: TaskGroup | None = None
        self._client: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send while this is entered; its exit cancels what is in flight."""
        try:
            async with anyio.create_task_group() as self._tasks:
                for _ in range(min(len(self._queue), MAX_SENDING)):
                    self._send_more()
                try:
                    yield
                finally:
                    self._tasks.cancel_scope.cancel()
        finally:
            self._tasks = None
            for delivery in self.recent:
                delivery.over.set()
            if self._client is not None:
                client, self._client = self._client, None
                with anyio.CancelScope(shield=True):
                    await client.aclose()

    def send(self, kind: str, url: str, compose: Callable[[], dict[str, Any] | str]) -> list[Delivery]:
        """Send a notification soon, subject to the faults.

        :param compose: makes the body when it is sent: a dictionary, or any text.
        """
        struck = self._faults.strike(WEBHOOK_FAULTS, kind)
        fault = struck[0].fault if struck else None
        deliveries = [
            Delivery(kind=kind, url=url, compose=compose, fault=fault.kind if fault else None)
            for _ in range(2 if fault and fault.kind == "doubled" else 1)
        ]
        self.recent.extend(deliveries)
        for delivery in deliveries:
            if fault is None or fault.kind == "doubled":
                self._enqueue(delivery)
            elif fault.kind == "lost":
                self.counts["lost"] += 1
                delivery.over.set()
            elif fault.kind == "late":
                self._timers.after(fault.delay or 0.0, self._enqueue, delivery)
            else:
                self._held.append(delivery)
                self._timers.after(_HELD_SECONDS if fault.delay is None else fault.delay, self._release, delivery)
        return deliveries

    def _release(self, delivery: Delivery) -> None:
        if delivery in self._held:
            self._held.remove(delivery)
            self._enqueue(delivery)

    def _enqueue(self, delivery: Delivery) -> None:
        self._queue.append(delivery)
        if self._sending < MAX_SENDING:
            self._send_more()

    def _send_more(self) -> None:
        if self._tasks is not None:
            self._sending += 1
            self._tasks.start_soon(self._empty_queue)

    async def _empty_queue(self) -> None:
        try:
            while self._queue:
                delivery = self._queue.popleft()
                held = list(self._held)
                await self._deliver(delivery)
                for earlier in held:
                    self._release(earlier)
        finally:
            self._sending -= 1

    async def _deliver(self, delivery: Delivery) -> None:
        body = delivery.compose()
        content = body if isinstance(body, str) else json.dumps(body)
        if self._client is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=MAX_SENDING)
            self._client = httpx.AsyncClient(
                transport=self._transport,
                timeout=None,  # noqa: S113 -- as Airbyte
                limits=limits,
                trust_env=False,
            )
        self.counts["sent"] += 1
        delivery.sent_at = utcnow()
        try:
            headers = java_headers(delivery.url)
            # A request of its own, so that none of httpx's default headers is added.
            request = httpx.Request("POST", delivery.url, headers=headers, content=content.encode())
            delivery.status = (await self._client.send(request)).status_code
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            self.counts["failed"] += 1
            delivery.error = type(exc).__name__
        else:
            self.counts["answered"] += 1
            self.counts["refused"] += not 200 <= delivery.status < 300
            delivery.answered_at = utcnow()
        finally:
            delivery.over.set()
