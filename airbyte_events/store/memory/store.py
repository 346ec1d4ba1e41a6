"""A store in memory, for tests, the simulator and triggerers. It removes the oldest rows beyond fixed limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Self

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events.events import JobEvent
from airbyte_events.store.base import PENDING_BYTES, EventStore
from airbyte_events.store.memory.inbox import MemoryInbox
from airbyte_events.store.memory.leases import Leases
from airbyte_events.store.memory.log import MemoryLog
from airbyte_events.store.memory.parts import at_once
from airbyte_events.store.records import (
    Appended,
    DeliveryState,
    Lease,
    Pending,
    Pruned,
    Queues,
    Settle,
    States,
    StoreStats,
    first_within,
)


class MemoryStore(MemoryLog, MemoryInbox, EventStore):
    """A store of at most ``capacity`` events, ``capacity`` completed jobs and ``capacity`` notifications."""

    def __init__(self, *, capacity: int = 10_000) -> None:
        super().__init__(capacity)
        self._values: dict[str, str] = {}
        self._leases = Leases()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        return None

    @at_once
    def append(
        self,
        observed: Sequence[JobEvent],
        *,
        lease: Lease | None = None,
        known: States | None = None,
        settle: Settle | None = None,
    ) -> Appended:
        self._leases.ensure(lease)
        appended = Appended.of([self._append(event) for event in observed], {})
        if settle is not None and appended.events:
            appended = replace(appended, outcomes=settle(appended.events))
            self._settle(appended.outcomes, utcnow())
        return appended

    @at_once
    def pending(self, instance: str, *, after: int = 0, limit: int = 500) -> Pending:
        waiting = islice((item for item in self._pending(instance) if item.id > after), limit)
        found, has_more = first_within(waiting, PENDING_BYTES)
        ids = {item.ref: item.id for item in found if item.ref is not None}
        return Pending(
            found,
            states=self._states(ids),
            announced={ref for ref, id_ in ids.items() if self._is_announced(ref, but=id_)},
            more=has_more or len(found) == limit,
        )

    @at_once
    def recall(self, key: str) -> str | None:
        return self._values.get(key)

    @at_once
    def remember(self, key: str, value: str, *, lease: Lease | None = None) -> None:
        self._leases.ensure(lease)
        self._values[key] = value

    @at_once
    def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        return self._leases.acquire(name, holder, anyio.current_time(), seconds)

    @at_once
    def release(self, lease: Lease) -> None:
        self._leases.release(lease)
        self._wake("leases", [lease.name])

    @at_once
    def holders(self) -> dict[str, str]:
        return self._leases.holders(anyio.current_time())

    @at_once
    def prune(self, before: datetime, *, keep: int) -> Pruned:
        return Pruned(events=self._prune_events(before, keep), notifications=self._prune_notifications(before))

    @at_once
    def stats(self) -> StoreStats:
        return StoreStats(
            first=self._removed + 1 if self._events else 0,
            head=self._head,
            events=len(self._events),
            jobs=len(self._active) + len(self._completed),
            notifications=len(self._items),
            pending=sum(1 for _ in self._pending()),
            due=sum(1 for _ in self._in_state(DeliveryState.DUE)),
            dead=sum(1 for _ in self._in_state(DeliveryState.DEAD)),
            bytes=0,
        )

    @at_once
    def queues(self, instance: str) -> Queues:
        pending = next(self._pending(instance), None)
        due = next(iter(self._to_send(instance)), None)
        return Queues(
            watched=len(self._watched(instance)),
            pending_since=None if pending is None else pending.received_at,
            due_since=None if due is None else due.due_at,
        )

    @at_once
    def check(self) -> None:
        pass
