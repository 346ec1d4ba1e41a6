"""What tests put into a store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airbyte_events.events import JobEvent, JobRef, JobStatus, Origin
from airbyte_events.store.base import EventStore
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import Arrival, LogPage, Outcome, Receipt

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
RUNNING, SUCCEEDED, FAILED = JobStatus.RUNNING, JobStatus.SUCCEEDED, JobStatus.FAILED


def event(job_id: int = 1, status: JobStatus = RUNNING, *, instance: str = "default", **values: Any) -> JobEvent:
    values = {"observed_at": NOON, "origin": Origin.POLL, **values}
    return JobEvent(ref=JobRef(instance, job_id), status=status, **values)


def ended(job_id: int, at: datetime | None = NOON, **values: Any) -> JobEvent:
    """A success of a connection."""
    return event(job_id, **{"status": SUCCEEDED, "connection_id": "c", "job_type": "sync", "finished_at": at, **values})


def flips(number: int, job_id: int = 1, **values: Any) -> list[JobEvent]:
    """So many changes of one job."""
    return [event(job_id, (RUNNING, JobStatus.INCOMPLETE)[each % 2], **values) for each in range(number)]


def sequences(events: Any) -> list[int]:
    return [each.cursor.sequence for each in events]


async def received(store: EventStore, body: bytes = b"{}", **values: Any) -> int:
    """Store a notification, and return its id."""
    return (await receipt_of(store, body, **values)).id


async def receipt_of(store: EventStore, body: bytes, **values: Any) -> Receipt:
    """Store a notification, and return its receipt."""
    given: dict[str, Any] = {
        "instance": "default",
        "kind": "success",
        "job_id": 1,
        "outcome": Outcome.PENDING,
        "received_at": NOON,
    }
    return await store.receive(Arrival(body=body, **(given | values)))


class SharedStore(MemoryStore):
    """One for several listeners in this process, as PostgreSQL is for several processes."""

    shared = True


class CountingStore(MemoryStore):
    """One that counts the events that it was made to read."""

    told = 0

    async def read(self, after: int, **options: Any) -> LogPage:
        page = await super().read(after, **options)
        self.told += len(page.events)
        return page
