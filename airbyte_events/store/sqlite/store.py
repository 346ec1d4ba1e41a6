"""A store in one SQLite file: durable, for one process."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import AsyncIterable
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self

import anyio

from airbyte_events.errors import StoreError
from airbyte_events.store.base import MovableStore
from airbyte_events.store.migration import Batch
from airbyte_events.store.records import Lease, Pending, Pruned, Queues, StoreStats
from airbyte_events.store.sqlite import migration
from airbyte_events.store.sqlite.inbox import SQLiteInbox, is_announced, next_due, pending_since
from airbyte_events.store.sqlite.log import SQLiteLog, first, head, watched
from airbyte_events.store.sqlite.transactions import reading, transaction


class SQLiteStore(SQLiteLog, SQLiteInbox, MovableStore):
    """A store in one SQLite file.

    :param path: the database file; its folder is created. A ``.lock`` file next to it keeps other processes out.
    :param read_only: read a snapshot of the file, even if another process has it open.
    """

    async def __aenter__(self) -> Self:
        await self._file.__aenter__()
        try:
            self._log = await self._file.transact(self._open)
            self._tail.restart(self._log.tail.sequence)
            if await self.recall(migration.RESTORING) is not None:
                raise StoreError(
                    f"{self._path} holds a migration that was cut off: remove the file, then migrate again"
                )
        except BaseException:
            await self._file.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._file.__aexit__(exc_type, exc, tb)

    @transaction
    def pending(self, connection: sqlite3.Connection, instance: str, *, after: int = 0, limit: int = 500) -> Pending:
        found, more = self._pending(connection, instance, after, limit)
        ids = {item.ref: item.id for item in found if item.ref is not None}
        announced = {ref for ref, id_ in ids.items() if is_announced(connection, ref, but=id_)}
        return Pending(found, states=self._states(connection, ids), announced=announced, more=more)

    @transaction
    def recall(self, connection: sqlite3.Connection, key: str) -> str | None:
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    @transaction
    def remember(self, connection: sqlite3.Connection, key: str, value: str, *, lease: Lease | None = None) -> None:
        self._leases.ensure(lease)
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @transaction
    def values(self, connection: sqlite3.Connection) -> dict[str, str]:
        return dict(connection.execute("SELECT key, value FROM meta").fetchall())

    # Leases change within transactions, so that no guarded transaction loses its lease while it runs.

    async def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        now = anyio.current_time()
        return await self._file.transact(lambda _: self._leases.acquire(name, holder, now, seconds))

    async def release(self, lease: Lease) -> None:
        topics = [f"leases/{lease.name}"]
        await self._file.transact(lambda _: self._leases.release(lease), lambda _: self._wakeups.wake(topics))

    async def holders(self) -> dict[str, str]:
        now = anyio.current_time()
        return await self._file.transact(lambda _: self._leases.holders(now))

    async def prune(self, before: datetime, *, keep: int) -> Pruned:
        events = notifications = 0
        while removed := await self._prune_events(before, keep):
            events += removed
        position: int | None = 0
        while position is not None:
            removed, position = await self._prune_notifications(position, before)
            notifications += removed
        return Pruned(events=events, notifications=notifications)

    @reading
    def stats(self, connection: sqlite3.Connection) -> StoreStats:
        def count(table: str) -> int:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

        oldest, newest = first(connection), head(connection)
        return StoreStats(
            first=oldest or 0,
            head=newest,
            events=0 if oldest is None else newest - oldest + 1,
            jobs=count("jobs"),
            notifications=count("notifications"),
            pending=count("notifications WHERE outcome = 'pending'"),
            due=count("deliveries WHERE state = 'due'"),
            dead=count("deliveries WHERE state = 'dead'"),
            bytes=self._file.size,
        )

    @reading
    def queues(self, connection: sqlite3.Connection, instance: str) -> Queues:
        return Queues(
            watched=len(watched(connection, instance)),
            pending_since=pending_since(connection, instance),
            due_since=next_due(connection, instance),
        )

    async def check(self) -> None:
        await self.remember("checked_by", secrets.token_hex(4))
        await self._renew()

    async def fill(self, epoch: str, head: int, batches: AsyncIterable[Batch]) -> None:
        with anyio.CancelScope(shield=True):
            await self._file.transact(migration.begin)
        try:
            async for batch in batches:
                await self._file.transact(partial(migration.fill, batch=batch))
            await self._file.transact(partial(migration.finish, epoch=epoch, head=head))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._file.transact(migration.undo)
            raise
        self._continue_with(await self._file.transact(self._open))
