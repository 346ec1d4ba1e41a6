"""A store in memory, for tests, the simulator and triggerers. It removes the oldest rows beyond fixed limits."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from airbyte_events._utils.times import utcnow
from airbyte_events.events import Cursor, JobEvent, JobRef
from airbyte_events.store.base import EventStore
from airbyte_events.store.location import WRITTEN, StoreLocation
from airbyte_events.store.memory.database import MemoryDatabase, at_once
from airbyte_events.store.memory.log import MemoryLog
from airbyte_events.store.records import Appended, Arrival, Lease, Pruned, Receipt, Settle, States, StoreStats
from airbyte_events.store.sqlite.inbox import SQLiteInbox, remove, settle_all
from airbyte_events.store.sqlite.transactions import unwatch

MAX_BYTES = 128 * 1024 * 1024
"""Maximum size of all notifications together."""


class MemoryStore(MemoryLog, SQLiteInbox, EventStore):
    """A store of at most ``capacity`` events, ``capacity`` completed jobs and ``capacity`` notifications.

    All but the log and the latest states is in a SQLite database. The oldest are removed, with their deliveries.
    """

    _file: MemoryDatabase

    def __init__(self, *, capacity: int = 10_000) -> None:
        super().__init__(capacity)
        self._file = MemoryDatabase()
        # Of the notifications, by id, the oldest first.
        self._sizes: dict[int, int] = {}
        self._bytes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
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
        states = {event.ref: state for event in observed if (state := self._state(event.ref)) is not None}
        appended = Appended.after(Cursor(self.epoch, self._tail.head), states, observed, settle)
        for event in appended.events:
            self._append(event)
        if appended.outcomes:
            settle_all(self._file.connection, appended.outcomes, utcnow())
        if appended.events:
            unwatch(self._file.connection, appended.events)
            self._tail.advance(appended.events[-1].sequence, appended.events)
        return appended

    def _stored(self, arrival: Arrival, receipt: Receipt) -> None:
        super()._stored(arrival, receipt)
        if not receipt.duplicate:
            self._sizes[receipt.id] = len(arrival.body)
            self._bytes += len(arrival.body)
            while len(self._sizes) > self._capacity or self._bytes > MAX_BYTES:
                remove(self._file.connection, [oldest := next(iter(self._sizes))])
                self._bytes -= self._sizes.pop(oldest)

    def _states(self, connection: sqlite3.Connection, refs: Collection[JobRef]) -> States:
        return self._states_of(refs)

    def _has_completed(self, connection: sqlite3.Connection, ref: JobRef) -> bool:
        state = self._state(ref)
        return state is not None and state.terminal

    async def prune(self, before: datetime, *, keep: int) -> Pruned:
        pruned = Pruned(events=self._prune_events(before, keep), notifications=await self._prune_notifications(before))
        self._sizes = dict(self._file.connection.execute("SELECT id, length(body) FROM notifications ORDER BY id"))
        self._bytes = sum(self._sizes.values())
        return pruned

    async def stats(self) -> StoreStats:
        return replace(
            await self._stats(0),
            first=self._removed + 1 if self._kept else 0,
            head=self._tail.head,
            events=len(self._kept),
            jobs=len(self._active) + len(self._completed),
        )

    @at_once
    def check(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class MemoryLocation(StoreLocation):
    """``memory:``"""

    kind = "memory"
    durable = False

    @classmethod
    def parse(cls, url: str) -> Self:
        if url != "memory:":
            raise ValueError(WRITTEN)
        return cls()

    def store(self) -> MemoryStore:
        return MemoryStore()

    async def check(self) -> str:
        return "is in memory: a restart of the listener loses it"

    def __str__(self) -> str:
        return "memory:"
