"""A store in one SQLite file: durable, for one process."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import CursorExpired, StoreError
from airbyte_events.events import EVERYTHING, EventFilter, JobEvent, JobRef
from airbyte_events.store.base import UNBOUNDED, MovableStore
from airbyte_events.store.identity import REPLACED, LogReplaced, tail_of
from airbyte_events.store.memory.leases import Leases
from airbyte_events.store.migration import Batch
from airbyte_events.store.notify import Wakeups, topics_of
from airbyte_events.store.records import (
    Appended,
    Attempt,
    Delivery,
    DeliveryState,
    Lease,
    LogPage,
    Outcome,
    Pending,
    Pruned,
    Queues,
    Receipt,
    Settle,
    States,
    StoredNotification,
    StoreStats,
)
from airbyte_events.store.rows import Unreadable
from airbyte_events.store.sqlite import inbox, migration
from airbyte_events.store.sqlite import log as sqlite_log
from airbyte_events.store.sqlite.connection import Connect, SQLiteFile
from airbyte_events.store.sqlite.log import Log
from airbyte_events.store.tail import LogTail

logger = logging.getLogger(__name__)


class SQLiteStore(MovableStore):
    """A store in one SQLite file.

    :param path: the database file; its folder is created. A ``.lock`` file next to it keeps other processes out.
    :param read_only: read a snapshot of the file, even if another process has it open.
    """

    def __init__(self, path: Path, *, read_only: bool = False, connect: Connect | None = None) -> None:
        self._path = path
        self._read_only = read_only
        self._unreadable = Unreadable()
        self._file = SQLiteFile(path, read_only=read_only, connect=connect)
        self._tail = LogTail()
        self._wakeups = Wakeups()
        # Not in the file: the holders of a previous process are gone.
        self._leases = Leases()

    @property
    def epoch(self) -> str:
        return self._log.epoch

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

    def _open(self, connection: sqlite3.Connection) -> Log:
        if not sqlite_log.epoch(connection) and not self._read_only:
            logger.error("the store %s had no epoch any more: it has a new one", self._path)
            sqlite_log.renew_epoch(connection)
        return Log(sqlite_log.epoch(connection), sqlite_log.tail(connection), self._unreadable)

    async def append(
        self,
        observed: Sequence[JobEvent],
        *,
        lease: Lease | None = None,
        known: States | None = None,
        settle: Settle | None = None,
    ) -> Appended:
        log = self._log

        def run(connection: sqlite3.Connection) -> Appended:
            self._leases.ensure(lease)
            if sqlite_log.is_replaced(connection, log.epoch, log.tail):
                raise LogReplaced(REPLACED)
            appended = Appended.of([log.append(connection, event) for event in observed], {})
            if settle is not None and appended.events:
                appended = replace(appended, outcomes=settle(appended.events))
                inbox.settle(connection, appended.outcomes, utcnow())
            return appended

        try:
            return await self._file.transact(run, partial(self._advance, log))
        except LogReplaced:
            await self._renew()
            raise

    def _advance(self, log: Log, appended: Appended) -> None:
        if appended.events and log is self._log:
            log.advance(tail_of(appended.events[-1]))
            self._tail.advance(log.tail.sequence, appended.events)

    async def _renew(self) -> None:
        """Assign a new epoch if the log lost events."""
        log = self._log

        def run(connection: sqlite3.Connection) -> Log | None:
            if not sqlite_log.is_replaced(connection, log.epoch, log.tail):
                log.advance(sqlite_log.tail(connection))
                return None
            if sqlite_log.epoch(connection) in ("", log.epoch):
                sqlite_log.renew_epoch(connection)
            return Log(sqlite_log.epoch(connection), sqlite_log.tail(connection), self._unreadable)

        await self._file.transact(run, self._continue_with)

    def _continue_with(self, log: Log | None) -> None:
        if log is None or log.epoch == self.epoch:
            return
        logger.error("the log %s has lost events: it has a new epoch, and clients read the states again", self._path)
        self._log = log
        # So that the next holders read the log anew.
        self._leases.revoke()
        self._tail.restart(log.tail.sequence)
        self._wakeups.wake()

    async def annotate(self, states: Sequence[JobEvent]) -> None:
        def run(connection: sqlite3.Connection) -> None:
            for state in states:
                self._log.annotate(connection, state)

        await self._file.transact(run)

    async def head(self) -> int:
        return await self._file.transact(sqlite_log.head)

    async def read(
        self,
        after: int,
        *,
        limit: int = 500,
        size: int = UNBOUNDED,
        wanted: EventFilter = EVERYTHING,
        epoch: str | None = None,
    ) -> LogPage:
        log = self._log
        if epoch not in (None, log.epoch):
            raise CursorExpired(REPLACED)
        try:
            return await self._file.read(lambda c: log.read(c, after, limit, size, wanted))
        except LogReplaced:
            await self._renew()
            raise

    async def changed(self, after: int, *, epoch: str | None = None) -> Sequence[JobEvent]:
        while self._tail.head <= after and epoch in (None, self.epoch):
            await self._tail.changed()
        return self._tail.after(after) if epoch in (None, self.epoch) else ()

    async def states(self, refs: Collection[JobRef]) -> States:
        return await self._file.transact(lambda c: self._log.states(c, refs))

    async def jobs(
        self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING
    ) -> list[JobEvent]:
        return await self._file.read(lambda c: self._log.jobs(c, limit, before, wanted))

    async def history(self, ref: JobRef) -> list[JobEvent]:
        return await self._file.read(lambda c: self._log.history(c, ref))

    async def receive(
        self,
        *,
        instance: str,
        body: bytes,
        kind: str,
        job_id: int | None,
        outcome: Outcome,
        received_at: datetime,
        targets: Collection[str] = (),
    ) -> Receipt:
        item = StoredNotification(
            id=0, instance=instance, received_at=received_at, kind=kind, job_id=job_id, body=body, outcome=outcome
        )

        def announce(receipt: Receipt) -> None:
            if not receipt.duplicate:
                self._wakeups.wake(topics_of(instance, outcome, targets))

        return await self._file.transact(lambda c: inbox.add(c, item, targets), announce)

    async def pending(self, instance: str, *, after: int = 0, limit: int = 500) -> Pending:
        def run(connection: sqlite3.Connection) -> Pending:
            found, more = inbox.pending(connection, self._unreadable, instance, after, limit)
            ids = {item.ref: item.id for item in found if item.ref is not None}
            announced = {ref for ref, id_ in ids.items() if inbox.is_announced(connection, ref, but=id_)}
            return Pending(found, states=self._log.states(connection, ids), announced=announced, more=more)

        return await self._file.transact(run)

    async def settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> None:
        await self._file.transact(lambda c: inbox.settle(c, outcomes, settled_at), self._waking("inbox"))

    async def notifications(self, *, limit: int = 100, before: int | None = None) -> list[StoredNotification]:
        condition = "WHERE id < ? ORDER BY id DESC"
        return await self._file.read(
            lambda c: inbox.notifications(c, self._unreadable, condition, _before(before), limit=limit)
        )

    async def announcements(self, refs: Mapping[JobRef, datetime | None]) -> dict[JobRef, list[StoredNotification]]:
        return await self._file.transact(lambda c: inbox.announcements(c, self._unreadable, refs))

    async def recall(self, key: str) -> str | None:
        def run(connection: sqlite3.Connection) -> str | None:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return None if row is None else str(row[0])

        return await self._file.transact(run)

    async def remember(self, key: str, value: str, *, lease: Lease | None = None) -> None:
        def run(connection: sqlite3.Connection) -> None:
            self._leases.ensure(lease)
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

        await self._file.transact(run)

    def news(self, topic: str) -> AbstractContextManager[Wakeup]:
        return self._wakeups.subscribe(topic)

    def _waking(self, topic: str) -> Callable[[Iterable[str]], None]:
        return lambda instances: self._wakeups.wake(f"{topic}/{instance}" for instance in instances)

    # Leases change within transactions, so that no guarded transaction loses its lease while it runs.

    async def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        now = anyio.current_time()
        return await self._file.transact(lambda _: self._leases.acquire(name, holder, now, seconds))

    async def release(self, lease: Lease) -> None:
        wake = partial(self._wakeups.wake, [f"leases/{lease.name}"])
        await self._file.transact(lambda _: self._leases.release(lease), lambda _: wake())

    async def holders(self) -> dict[str, str]:
        now = anyio.current_time()
        return await self._file.transact(lambda _: self._leases.holders(now))

    async def watch(self, refs: Collection[JobRef], seconds: float) -> None:
        await self._file.transact(lambda c: sqlite_log.watch(c, refs, seconds), self._waking("watches"))

    async def watched(self, instance: str) -> dict[int, datetime]:
        return await self._file.transact(lambda c: sqlite_log.watched(c, instance))

    async def due(self, instance: str, *, but: Collection[str] = (), limit: int = 100) -> list[Delivery]:
        return await self._file.transact(lambda c: inbox.due(c, self._unreadable, instance, but, limit))

    async def next_due(self, instance: str, *, but: Collection[str] = ()) -> datetime | None:
        return await self._file.transact(lambda c: inbox.next_due(c, instance, but))

    async def attempted(self, attempts: Sequence[Attempt]) -> None:
        await self._file.transact(lambda c: inbox.attempted(c, attempts), self._waking("deliveries"))

    async def deliveries(
        self, *, limit: int = 100, before: int | None = None, state: DeliveryState | None = None
    ) -> list[Delivery]:
        # A literal, so that the partial indexes apply.
        matches = "" if state is None else f"AND d.state = '{state.value}'"
        condition = f"WHERE d.id < ? {matches} ORDER BY d.id DESC"
        return await self._file.read(
            lambda c: inbox.deliveries(c, self._unreadable, condition, _before(before), limit=limit)
        )

    async def prune(self, before: datetime, *, keep: int) -> Pruned:
        events = notifications = 0
        while removed := await self._file.transact(lambda c: sqlite_log.prune(c, before, keep)):
            events += removed
        position: int | None = 0
        while position is not None:
            step = partial(inbox.prune, after=position, before=before)
            removed, position = await self._file.transact(step)
            notifications += removed
        return Pruned(events=events, notifications=notifications)

    @property
    def unreadable(self) -> Mapping[str, int]:
        return self._unreadable.counts

    async def stats(self) -> StoreStats:
        def run(connection: sqlite3.Connection) -> StoreStats:
            def count(table: str) -> int:
                return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

            first, head = sqlite_log.first(connection), sqlite_log.head(connection)
            return StoreStats(
                first=first or 0,
                head=head,
                events=0 if first is None else head - first + 1,
                jobs=count("jobs"),
                notifications=count("notifications"),
                pending=count("notifications WHERE outcome = 'pending'"),
                due=count("deliveries WHERE state = 'due'"),
                dead=count("deliveries WHERE state = 'dead'"),
                bytes=self._file.size,
            )

        return await self._file.read(run)

    async def queues(self, instance: str) -> Queues:
        def run(connection: sqlite3.Connection) -> Queues:
            return Queues(
                watched=len(sqlite_log.watched(connection, instance)),
                pending_since=inbox.pending_since(connection, instance),
                due_since=inbox.next_due(connection, instance, ()),
            )

        return await self._file.read(run)

    async def check(self) -> None:
        await self.remember("checked_by", secrets.token_hex(4))
        await self._renew()

    async def values(self) -> dict[str, str]:
        return dict(await self._file.transact(lambda c: c.execute("SELECT key, value FROM meta").fetchall()))

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


def _before(id_: int | None) -> int:
    return 2**62 if id_ is None else id_
