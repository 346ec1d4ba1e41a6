"""A store in PostgreSQL: durable, for several processes at once. Requires asyncio, as psycopg does."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import AsyncIterable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel
import psycopg

from airbyte_events._utils.batching import Batcher
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import CursorExpired, StoreError
from airbyte_events.events import EVERYTHING, EventFilter, JobEvent, JobRef
from airbyte_events.store.base import UNBOUNDED, MovableStore
from airbyte_events.store.identity import REPLACED, LogReplaced, Tail, tail_of
from airbyte_events.store.migration import Batch
from airbyte_events.store.notify import Wakeups, topics_of
from airbyte_events.store.postgres import schema
from airbyte_events.store.postgres.identity import Identity, State
from airbyte_events.store.postgres.inbox import Arrival, Inbox
from airbyte_events.store.postgres.listen import PostgresListener
from airbyte_events.store.postgres.log import Log
from airbyte_events.store.postgres.migration import fill
from airbyte_events.store.postgres.pool import Connection, PostgresPool, T, Work, connect, translated
from airbyte_events.store.postgres.url import PostgresURL
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
from airbyte_events.store.tail import LogTail, sequence_of

logger = logging.getLogger(__name__)

_OPEN_SECONDS = 30.0
"""To create or migrate the schema, which may wait for another process."""

_RECEIVE_SECONDS = 1.8
"""The webhook receiver times out after two."""

_PRUNE_SECONDS = 30.0

_BATCH_ITEMS = 256
"""Notifications that are stored by one statement."""

_BATCH_BYTES = 4 * 2**20
"""The bodies of these."""


class PostgresStore(MovableStore):
    """A store in PostgreSQL.

    :param url: ``postgresql://user:password@host/database``; the option ``schema`` names the tables' schema.
    :raises ValueError: if the URL is invalid.
    """

    shared = True

    def __init__(self, url: str | PostgresURL) -> None:
        self._url = PostgresURL.parse(url) if isinstance(url, str) else url
        self._schema = f'"{self._url.schema}"'
        self._tail = LogTail()
        self._wakeups = Wakeups()
        self._unreadable = Unreadable()
        self._inbox = Inbox(self._schema, self._unreadable)
        self._identity = Identity(self._url.schema)
        # A permanent failure.
        self._fault: str | None = None

    def __repr__(self) -> str:
        return f"PostgresStore({str(self._url)!r})"

    @property
    def epoch(self) -> str:
        return self._log.epoch

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._pool = await stack.enter_async_context(PostgresPool(self._url))
            await self._pool.run(self._open, seconds=_OPEN_SECONDS)
            stack.callback(self._close)
            receiving = Batcher(
                self._receive, max_items=_BATCH_ITEMS, size=lambda arrival: len(arrival.body), max_size=_BATCH_BYTES
            )
            self._receiving = await stack.enter_async_context(receiving)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            listener = PostgresListener(self._url, self._poll, self._wakeups.wake, self._pool.has_backend)
            tasks.start_soon(listener.run)
            # Runs before the task group waits for the listener.
            stack.callback(listener.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        # Without the exception, which a task group would wrap.
        await self._stack.__aexit__(None, None, None)

    async def append(
        self,
        observed: Sequence[JobEvent],
        *,
        lease: Lease | None = None,
        known: States | None = None,
        settle: Settle | None = None,
    ) -> Appended:
        log = self._log

        async def work(connection: Connection) -> Appended:
            appended = await log.append(connection, observed, lease, known, settle)
            # Here, so that readers are woken even if the caller was cancelled.
            if appended.events and log is self._log:
                log.advance(tail_of(appended.events[-1]))
                self._tail.advance(sequence_of(appended.events[-1]), appended.events)
            return appended

        return await self._run(work)

    async def annotate(self, states: Sequence[JobEvent]) -> None:
        await self._run(lambda c: self._log.annotate(c, states))

    async def head(self) -> int:
        return await self._run(self._log.head)

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
            page = await self._run(lambda c: log.read(c, after, limit, size, wanted))
        except LogReplaced:
            await self._run(self._poll)
            raise
        if log is self._log:
            self._tail.advance(log.tail.sequence)
        return page

    async def changed(self, after: int, *, epoch: str | None = None) -> Sequence[JobEvent]:
        await anyio.lowlevel.checkpoint()
        while self._tail.head <= after and epoch in (None, self.epoch):
            await self._tail.changed()
        return self._tail.after(after) if epoch in (None, self.epoch) else ()

    async def states(self, refs: Collection[JobRef]) -> States:
        return await self._run(lambda c: self._log.states(c, refs))

    async def jobs(
        self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING
    ) -> list[JobEvent]:
        return await self._run(lambda c: self._log.jobs(c, limit, before, wanted))

    async def history(self, ref: JobRef) -> list[JobEvent]:
        return await self._run(lambda c: self._log.history(c, ref))

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
        if self._fault is not None:
            raise StoreError(self._fault)
        try:
            arrival = Arrival(instance, body, kind, job_id, outcome, received_at, targets)
            return await self._receiving.submit(arrival)
        except anyio.ClosedResourceError:
            raise StoreError("the store is closed") from None

    async def _receive(self, arrivals: Sequence[Arrival]) -> Sequence[Receipt]:
        try:
            receipts = await self._run(lambda c: self._inbox.receive(c, arrivals), seconds=_RECEIVE_SECONDS)
        except StoreError:
            # They may have been committed, and a process ignores its own database notifications.
            self._wakeups.wake()
            raise
        for arrival, receipt in zip(arrivals, receipts, strict=True):
            if not receipt.duplicate:
                self._wakeups.wake(topics_of(arrival.instance, arrival.outcome, arrival.targets))
        return receipts

    async def pending(self, instance: str, *, after: int = 0, limit: int = 500) -> Pending:
        return await self._run(lambda c: self._inbox.pending(c, self._log, instance, after, limit))

    async def settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> None:
        await self._run(self._waking("inbox", lambda c: self._inbox.settle(c, outcomes, settled_at)))

    async def notifications(self, *, limit: int = 100, before: int | None = None) -> list[StoredNotification]:
        condition = "WHERE id < %s ORDER BY id DESC LIMIT %s"
        return await self._run(lambda c: self._inbox.find(c, condition, _before(before), limit))

    async def announcements(self, refs: Mapping[JobRef, datetime | None]) -> dict[JobRef, list[StoredNotification]]:
        return await self._run(lambda c: self._inbox.announcements(c, refs))

    async def recall(self, key: str) -> str | None:
        return await self._run(lambda c: self._log.recall(c, key))

    async def remember(self, key: str, value: str, *, lease: Lease | None = None) -> None:
        await self._run(lambda c: self._log.remember(c, key, value, lease))

    def news(self, topic: str) -> AbstractContextManager[Wakeup]:
        return self._wakeups.subscribe(topic)

    async def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        return await self._run(lambda c: self._log.acquire(c, name, holder, seconds))

    async def release(self, lease: Lease) -> None:
        await self._run(lambda c: self._log.release(c, lease))
        self._wakeups.wake([f"leases/{lease.name}"])

    async def holders(self) -> dict[str, str]:
        return await self._run(self._log.holders)

    async def watch(self, refs: Collection[JobRef], seconds: float) -> None:
        await self._run(self._waking("watches", lambda c: self._log.watch(c, refs, seconds)))

    async def watched(self, instance: str) -> dict[int, datetime]:
        return await self._run(lambda c: self._log.watched(c, instance))

    async def due(self, instance: str, *, but: Collection[str] = (), limit: int = 100) -> list[Delivery]:
        return await self._run(lambda c: self._inbox.due(c, instance, but, limit))

    async def next_due(self, instance: str, *, but: Collection[str] = ()) -> datetime | None:
        return await self._run(lambda c: self._inbox.next_due(c, instance, but))

    async def attempted(self, attempts: Sequence[Attempt]) -> None:
        await self._run(self._waking("deliveries", lambda c: self._inbox.attempted(c, attempts)))

    async def deliveries(
        self, *, limit: int = 100, before: int | None = None, state: DeliveryState | None = None
    ) -> list[Delivery]:
        # A literal, so that the partial indexes apply.
        matches = "" if state is None else f"AND d.state = '{state.value}'"
        condition = f"WHERE d.id < %s {matches} ORDER BY d.id DESC LIMIT %s"
        return await self._run(lambda c: self._inbox.deliveries(c, condition, _before(before), limit))

    async def prune(self, before: datetime, *, keep: int) -> Pruned:
        events = notifications = 0
        last = await self._run(lambda c: self._log.prunable(c, before, keep), seconds=_PRUNE_SECONDS)
        while removed := await self._run(lambda c: self._log.prune(c, last), seconds=_PRUNE_SECONDS):
            events += removed
        while removed := await self._run(lambda c: self._inbox.prune(c, before), seconds=_PRUNE_SECONDS):
            notifications += removed
        return Pruned(events=events, notifications=notifications)

    @property
    def unreadable(self) -> Mapping[str, int]:
        return self._unreadable.counts

    async def stats(self) -> StoreStats:
        return await self._run(lambda c: schema.stats(c, self._url.schema))

    async def queues(self, instance: str) -> Queues:
        return await self._run(lambda c: schema.queues(c, self._url.schema, instance))

    async def check(self) -> None:
        await self.remember("checked_by", secrets.token_hex(4))

    async def values(self) -> dict[str, str]:
        return await self._run(self._log.values)

    async def fill(self, epoch: str, head: int, batches: AsyncIterable[Batch]) -> None:
        connection = await connect(self._url)
        try:
            with translated(self._url):
                await fill(connection, self._schema, epoch, head, batches)
        finally:
            connection.pgconn.finish()
        await self._run(self._poll)

    async def _open(self, connection: Connection) -> None:
        await schema.migrate(connection, self._url.schema)
        self._continue_with(await self._identity.current(connection))

    async def _run(self, work: Work[T], *, seconds: float | None = None) -> T:
        if self._fault is not None:
            raise StoreError(self._fault)
        return await (self._pool.run(work) if seconds is None else self._pool.run(work, seconds=seconds))

    def _close(self) -> None:
        self._fault = "the store is closed"

    def _waking(self, kind: str, work: Work[list[str]]) -> Work[None]:
        """Wake waiting tasks of this process, which ignores its own database notifications."""

        async def waking(connection: Connection) -> None:
            self._wakeups.wake(f"{kind}/{instance}" for instance in await work(connection))

        return waking

    async def _poll(self, connection: Connection) -> None:
        log = self._log
        state = await self._identity.current(connection, log.epoch, self._tail.head, log.tail)
        if state.compatible_with > schema.VERSION:
            self._fault = schema.too_new(self._url.schema, schema.VERSION, state.version)
        if state.read_only:
            # Another server may have newer events.
            raise psycopg.errors.ReadOnlySqlTransaction("the server is read-only")
        if state.epoch != self.epoch:
            logger.warning("the log has another epoch than before: clients read the states again")
            self._continue_with(state)
            self._wakeups.wake()
        self._log.advance(Tail(state.head, state.head_mark))
        self._tail.advance(state.head)

    def _continue_with(self, state: State) -> None:
        self._log = Log(self._schema, state.epoch, Tail(state.head, state.head_mark), self._unreadable)
        self._tail.restart(state.head)


def _before(id_: int | None) -> int:
    return 2**62 if id_ is None else id_
