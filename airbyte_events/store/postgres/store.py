"""A store in PostgreSQL: durable, for several processes at once. Requires asyncio, as psycopg does."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterable, Sequence
from datetime import datetime
from typing import Self

import anyio

from airbyte_events._utils.batching import Batcher
from airbyte_events.errors import StoreError
from airbyte_events.store.base import MovableStore
from airbyte_events.store.migration import NOT_EMPTY, Batch
from airbyte_events.store.postgres import schema
from airbyte_events.store.postgres.inbox import PostgresInbox
from airbyte_events.store.postgres.listen import PostgresListener
from airbyte_events.store.postgres.pool import Connection, PostgresPool, connect, fetch_one, translated
from airbyte_events.store.postgres.url import PostgresURL
from airbyte_events.store.records import Arrival, Pruned, Receipt, StoreStats

_OPEN_SECONDS = 30.0
"""To create or migrate the schema, which may wait for another process."""

_RECEIVE_SECONDS = 1.8
"""The webhook receiver times out after two."""

_PRUNE_SECONDS = 30.0

_BATCH_ITEMS = 256
"""Notifications that are stored by one statement."""

_BATCH_BYTES = 4 * 2**20
"""The bodies of these."""


_COUNTED = 50_000
"""For tables with more rows the count is an estimate."""


class PostgresStore(PostgresInbox, MovableStore):
    """A store in PostgreSQL.

    :param url: ``postgresql://user:password@host/database``; the option ``schema`` names the tables' schema.
    :raises ValueError: if the URL is invalid.
    """

    def __init__(self, url: str | PostgresURL) -> None:
        super().__init__(PostgresURL.parse(url) if isinstance(url, str) else url)

    def __repr__(self) -> str:
        return f"PostgresStore({str(self._url)!r})"

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

    async def __aexit__(self, *_: object) -> None:
        # Without the exception, which a task group would wrap.
        await self._stack.__aexit__(None, None, None)

    async def receive(self, arrival: Arrival) -> Receipt:
        if self._fault is not None:
            raise StoreError(self._fault)
        try:
            return await self._receiving.submit(arrival)
        except anyio.ClosedResourceError:
            raise StoreError("the store is closed") from None

    async def _receive(self, arrivals: Sequence[Arrival]) -> Sequence[Receipt]:
        try:
            receipts = await self._run(lambda c: self._receive_all(c, arrivals), seconds=_RECEIVE_SECONDS)
        except StoreError:
            # They may have been committed, and a process ignores its own database notifications.
            self._wakeups.wake()
            raise
        for arrival, receipt in zip(arrivals, receipts, strict=True):
            if not receipt.duplicate:
                self._wake_inbox(arrival)
                self._wake_outbox(arrival)
        return receipts

    async def prune(self, before: datetime, *, keep: int) -> Pruned:
        events = notifications = 0
        last = await self._run(lambda c: self._prunable(c, before, keep), seconds=_PRUNE_SECONDS)
        while removed := await self._run(lambda c: self._prune_events(c, last), seconds=_PRUNE_SECONDS):
            events += removed
        while removed := await self._run(lambda c: self._prune_notifications(c, before), seconds=_PRUNE_SECONDS):
            notifications += removed
        return Pruned(events=events, notifications=notifications)

    async def stats(self) -> StoreStats:
        tables = await self._query(
            "SELECT relname, reltuples, pg_total_relation_size(oid) FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = to_regnamespace(?)",
            [self._s],
            list,
        )
        estimates = {name: int(count) for name, count, _ in tables if count > _COUNTED}
        return await self._stats(sum(size for _, _, size in tables), estimates)

    async def check(self) -> None:
        await self.remember("checked_by", secrets.token_hex(4))

    async def fill(self, epoch: str, head: int, batches: AsyncIterable[Batch]) -> None:
        connection = await connect(self._url)
        try:
            with translated(self._url):
                await self._fill(connection, epoch, head, batches)
        finally:
            connection.pgconn.finish()
        await self._renew()

    async def _fill(self, connection: Connection, epoch: str, head: int, batches: AsyncIterable[Batch]) -> None:
        """Store all rows unchanged, or none."""
        async with connection.transaction():
            sql = f"SELECT head > 0 OR EXISTS (SELECT FROM {self._s}.notifications) FROM {self._s}.log FOR UPDATE"
            if await fetch_one(connection, sql) != (False,):
                raise StoreError(NOT_EMPTY)
            await connection.execute(f"DELETE FROM {self._s}.meta")
            async for batch in batches:
                for sql, rows in batch.inserts(self._s, "%({})s"):
                    await connection.cursor().executemany(sql, rows)
            for table in ("notifications", "deliveries"):
                await connection.execute(
                    f"SELECT setval('{self._s}.{table}_id_seq', max(id)) FROM {self._s}.{table}"
                    " HAVING max(id) IS NOT NULL"
                )
            await connection.execute(f"UPDATE {self._s}.log SET epoch = %s, head = %s", [epoch, head])

    async def _open(self, connection: Connection) -> None:
        await schema.migrate(connection, self._url.schema)
        self._continue_with(await self._identity.current(connection))

    def _close(self) -> None:
        self._fault = "the store is closed"
