"""All that a PostgreSQL store holds: told as records, filled from records, checked. Over one connection of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from airbyte_events._utils.times import format_time
from airbyte_events.errors import StoreError
from airbyte_events.events import Cursor, JobEvent
from airbyte_events.store import dump
from airbyte_events.store.dump import LogRecord, Record
from airbyte_events.store.postgres.inbox import Inbox
from airbyte_events.store.postgres.pool import Connection
from airbyte_events.store.records import Delivery, StoredNotification, digest_of
from airbyte_events.store.rows import Unreadable

PAGE = 1_000
"""Records that are read or written at once."""

_COUNTED = ("notifications", "deliveries")
"""Tables that number their rows."""

_COLUMNS = {
    "event": "events (sequence, instance, job_id, connection_id, status, observed_at, data)",
    "job": "jobs (sequence, instance, job_id, connection_id, status, terminal, revision, data)",
    "notification": "notifications (id, instance, digest, received_at, kind, job_id, body, outcome, settled_at)",
    "delivery": "deliveries (id, notification, instance, target, state, attempts, due_at, fault)",
    "value": "meta (key, value)",
}


_TABLE = {"notification": "notifications", "delivery": "deliveries"}

_NOTIFICATION = ("id", "instance", "received_at", "kind", "job_id", "outcome", "settled_at")
_DELIVERY = ("id", "notification", "target", "state", "attempts", "due_at", "fault")


class Dump:
    """:param schema: what holds the tables, in quotes."""

    def __init__(self, schema: str) -> None:
        self._s = schema
        self._inbox = Inbox(schema, Unreadable())

    async def records(self, connection: Connection) -> AsyncGenerator[Record, None]:
        """All of one moment."""
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = await self._one(connection, f"SELECT epoch, head FROM {self._s}.log") or ("", 0)
        received, forwarded = [await self._newest(connection, table) for table in _COUNTED]
        yield dump.log_record(epoch=row[0], head=row[1], received=received, forwarded=forwarded)
        for kind in ("event", "job"):
            sql = (
                f"SELECT sequence, data::text FROM {self._s}.{kind}s WHERE sequence > %s ORDER BY sequence LIMIT {PAGE}"
            )
            after = 0
            while rows := await (await connection.execute(sql, [after])).fetchall():
                for sequence, data in rows:
                    yield dump.event_record(kind, sequence, data)
                after = rows[-1][0]
        async for record in self._inbox_records(connection):
            yield record
        for key, value in await (
            await connection.execute(f"SELECT key, value FROM {self._s}.meta ORDER BY key")
        ).fetchall():
            if key not in dump.NOT_DUMPED:
                yield dump.value_record(key, value)

    async def _inbox_records(self, connection: Connection) -> AsyncGenerator[Record, None]:
        for kind, columns in (("notification", _NOTIFICATION), ("delivery", _DELIVERY)):
            bodies = ", digest, body" if kind == "notification" else ""
            after = 0
            sql = (
                f"SELECT {', '.join(columns)}{bodies} FROM {self._s}.{_TABLE[kind]} WHERE id > %s"
                f" ORDER BY id LIMIT {PAGE}"
            )
            while rows := await (await connection.execute(sql, [after])).fetchall():
                for row in rows:
                    fields = {name: _plain(value) for name, value in zip(columns, row, strict=False)}
                    yield {"record": kind, **fields, **(dump.body_fields(*row[-2:]) if bodies else {})}
                after = rows[-1][0]

    async def restore(self, connection: Connection, records: AsyncIterable[Record]) -> None:
        """Take in what :meth:`records` told, all of it or nothing.

        :raises StoreError: if the store is not empty, or a record can't be read.
        """
        async with connection.transaction():
            head = (await self._one(connection, f"SELECT head FROM {self._s}.log FOR UPDATE"))[0]
            if head or await self._newest(connection, "notifications"):
                raise StoreError(dump.NOT_EMPTY)
            await connection.execute(f"DELETE FROM {self._s}.meta")
            known: LogRecord | None = None
            waiting: list[Record] = []
            async for record in records:
                if known is None:
                    known = dump.read_log(record)
                    continue
                waiting.append(record)
                if len(waiting) == PAGE:
                    await self._fill(connection, waiting, known.epoch)
                    waiting = []
            if known is None:
                raise StoreError(dump.NOTHING)
            await self._fill(connection, waiting, known.epoch)
            for table, newest in zip(_COUNTED, (known.received, known.forwarded), strict=True):
                await connection.execute(
                    f"SELECT setval('{self._s}.{table}_id_seq', %s, %s)", [max(newest, 1), newest > 0]
                )
            await connection.execute(f"UPDATE {self._s}.log SET epoch = %s, head = %s", [known.epoch, known.head])

    async def compact(self, connection: Connection) -> None:
        for columns in (*_COLUMNS.values(), "watches", "leases", "log"):
            await connection.execute(f"VACUUM (FULL, ANALYZE) {self._s}.{columns.partition(' ')[0]}")

    async def damage(self, connection: Connection) -> list[str]:
        """What is filed as something else than it is. Whether blocks and indexes are whole amcheck tells, an extension
        that a database need not have."""
        faults = []
        for table in ("events", "jobs"):
            found = await connection.execute(
                f"SELECT sequence FROM {self._s}.{table} WHERE (instance, job_id::text, connection_id, status)"
                " IS DISTINCT FROM"
                " (data ->> 'instance', data ->> 'job_id', data ->> 'connection_id', data ->> 'status')"
                " ORDER BY sequence LIMIT 20"
            )
            faults += [
                f"{table[:-1]} {sequence} is filed as something else than it is"
                for (sequence,) in await found.fetchall()
            ]
        found = await connection.execute(
            f"SELECT max(sequence) FROM {self._s}.events HAVING max(sequence) > (SELECT head FROM {self._s}.log)"
        )
        return faults + [f"event {sequence} lies beyond the head" for (sequence,) in await found.fetchall()]

    async def _fill(self, connection: Connection, records: Sequence[Record], epoch: str) -> None:
        for kind, some in groupby(records, key=dump.kind_of):
            rows = await self._rows(connection, kind, list(some), epoch)
            async with connection.cursor().copy(f"COPY {self._s}.{_COLUMNS[kind]} FROM STDIN") as copy:
                for row in rows:
                    await copy.write_row(row)

    async def _rows(
        self, connection: Connection, kind: str, records: list[Record], epoch: str
    ) -> list[tuple[object, ...]]:
        if kind == "event":
            return [_event_row(dump.read_event(record, epoch)) for record in records]
        if kind == "job":
            return [_job_row(dump.read_event(record, epoch)) for record in records]
        if kind == "notification":
            return [_notification_row(dump.read_notification(record)) for record in records]
        if kind == "value":
            return [dump.read_value(record) for record in records]
        wanted = [number for record in records if isinstance(number := record.get("notification"), int)]
        items = {each.id: each for each in await self._inbox.find(connection, "WHERE id = ANY (%s)", wanted)}

        def find(id_: int) -> StoredNotification:
            if id_ not in items:
                raise StoreError(f"there is no notification {id_} to forward")
            return items[id_]

        return [_delivery_row(dump.read_delivery(record, find)) for record in records]

    async def _newest(self, connection: Connection, table: str) -> int:
        row = await self._one(
            connection, f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {self._s}.{table}_id_seq"
        )
        return int(row[0])

    async def _one(self, connection: Connection, sql: str) -> Any:
        return await (await connection.execute(sql)).fetchone()


def _plain(value: object) -> object:
    try:
        return format_time(value) if isinstance(value, datetime) else value
    except OverflowError:
        return str(value)


def _event_row(event: JobEvent) -> tuple[object, ...]:
    filed = _filed(event)
    return (*filed, event.observed_at, json.dumps(event.data()))


def _job_row(event: JobEvent) -> tuple[object, ...]:
    filed = _filed(event)
    return (*filed, event.terminal, 0, json.dumps(event.data()))


def _filed(event: JobEvent) -> tuple[object, ...]:
    sequence = (event.cursor or Cursor("", 0)).sequence
    return (sequence, *event.ref, event.connection_id, event.status.value)


def _notification_row(item: StoredNotification) -> tuple[object, ...]:
    digest = digest_of(item.instance, item.body, item.job_id, item.received_at)
    return (
        *(item.id, item.instance, digest, item.received_at, item.kind, item.job_id),
        *(item.body, item.outcome.value, item.settled_at),
    )


def _delivery_row(item: Delivery) -> tuple[object, ...]:
    return (
        *(item.id, item.notification.id, item.notification.instance, item.target),
        *(item.state.value, item.attempts, item.due_at, item.fault),
    )
