"""A monitor and what its store has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte.notifications import parse
from airbyte_events.events import JobEvent, JobRef
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import Outcome, StoredNotification
from support.airbyte import Airbyte
from support.stored import receipt_of
from support.waiting import a_moment


@dataclass
class Watched:
    """A monitor of the small Airbyte, with what its store has."""

    airbyte: Airbyte
    monitor: Monitor
    store: MemoryStore

    async def events(self) -> list[tuple[int, str]]:
        page = await self.store.read(0, limit=10_000)
        return [(event.ref.job_id, event.status.value) for event in page.events]

    async def ends(self, job_id: int) -> int:
        ended = ("succeeded", "failed", "cancelled")
        return sum(id_ == job_id and status in ended for id_, status in await self.events())

    async def state(self, job_id: int) -> JobEvent:
        ref = JobRef(self.monitor.instance, job_id)
        return (await self.store.states([ref]))[ref]

    async def until_ended(self, *job_ids: int) -> None:
        with anyio.fail_after(30):
            position = 0
            left = set(job_ids)
            while left:
                await self.store.changed(position)
                page = await self.store.read(position)
                position = page.position
                left -= {event.ref.job_id for event in page.events if event.terminal}

    async def receive(self, body: bytes, *, age: float = 0) -> StoredNotification:
        """A notification comes, as the receiver keeps it."""
        notification = parse(body)
        receipt = await receipt_of(
            self.store,
            body,
            instance=self.monitor.instance,
            kind=notification.kind.value,
            job_id=notification.job_id,
            received_at=utcnow() - timedelta(seconds=age),
        )
        return (await self.store.notifications(limit=1, before=receipt.id + 1))[0]

    async def outcome(self, stored: StoredNotification) -> Outcome:
        return (await self.store.notifications(limit=1, before=stored.id + 1))[0].outcome

    async def until_settled(self, *all_stored: StoredNotification) -> None:
        with anyio.fail_after(30):
            for stored in all_stored:
                while await self.outcome(stored) is Outcome.PENDING:
                    await a_moment()
