"""Targets of outgoing notifications, and an outbox for them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import anyio
from pydantic import SecretStr

from airbyte_events._utils.times import utcnow
from airbyte_events.events import Cursor, JobError
from airbyte_events.jobs import DescribesConnections
from airbyte_events.listener.forwarding.forwarder import Forwarder
from airbyte_events.listener.forwarding.sender import RetryPolicy
from airbyte_events.listener.notify.targets import body_of, notify_targets
from airbyte_events.listener.settings.notify import NotifySettings
from airbyte_events.store.base import COMPLETION, EventStore
from airbyte_events.store.records import Delivery, DeliveryState, Outcome
from support.events import event_of
from support.servers import ScriptedServer
from support.stored import receipt_of
from support.waiting import a_moment, in_background, until

AIRBYTE = "https://airbyte.example.com/api/public/v1"
SIGNING_KEY = "whsec_" + "c2VjcmV0" * 5


def table(name: str = "events", *, url: str = "https://example.com/canary", **values: Any) -> NotifySettings:
    """Return a table ``[[notify]]``: of a target of CloudEvents, unless a ``type`` is given."""
    if "type" not in values:
        values |= {"type": "cloudevents", "secret": SecretStr(SIGNING_KEY)}
    return NotifySettings(name=name, url=SecretStr(url), **values)


@dataclass
class Outbox:
    """Completions in the outbox, and the server that they go to."""

    server: ScriptedServer
    store: EventStore
    tables: Sequence[NotifySettings] = ()
    stored: int = 0
    connections: DescribesConnections | None = None
    policy: RetryPolicy = field(default_factory=lambda: RetryPolicy(timeout=5, base=0.002))

    async def put(self, connection: str, id_: str) -> None:
        """A completion of a connection."""
        self.stored += 1
        await self.put_body(json.dumps({"id": id_, "data": {"connection_id": connection, "job_id": self.stored}}))

    async def put_event(
        self, status: str = "failed", reason: str | None = None, *, age: float = 0, **values: Any
    ) -> None:
        """A completion with all that an event has.

        :param age: the hours since it was announced.
        """
        self.stored += 1
        error = None if reason is None else JobError(message=reason, type="system_error", origin="source")
        event = replace(event_of(self.stored, status), error=error, cursor=Cursor("a", self.stored), **values)
        await self.put_body(body_of(event, AIRBYTE).decode(), age=age)

    async def put_body(self, body: str, *, age: float = 0) -> None:
        await receipt_of(
            self.store,
            body.encode(),
            kind=COMPLETION,
            job_id=self.stored,
            outcome=Outcome.CONFIRMED,
            received_at=utcnow() - timedelta(hours=age),
            targets=list(notify_targets(self.tables)),
        )

    async def until(self, state: DeliveryState, count: int) -> list[Delivery]:
        with anyio.fail_after(30):
            while len(found := await self.store.deliveries(limit=1000, state=state)) < count:
                await a_moment()
        return found

    async def until_requested(self, count: int) -> None:
        await until(lambda: len(self.server.requests) >= count)

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        targets = notify_targets(self.tables, connections=self.connections)
        forwarder = Forwarder("default", targets, self.store, retry_policy=self.policy)
        async with in_background(forwarder.run):
            yield

    @property
    def sent(self) -> list[str]:
        return [request.json()["id"] for request in self.server.requests]
