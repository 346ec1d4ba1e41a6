"""Fill a PostgreSQL store from another store, in one transaction."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Iterable, Sequence

from airbyte_events.errors import StoreError
from airbyte_events.events import JobEvent
from airbyte_events.store.migration import NOT_EMPTY, Batch
from airbyte_events.store.postgres.pool import Connection
from airbyte_events.store.records import digest_of
from airbyte_events.store.tail import sequence_of

_COLUMNS = {
    "events": "sequence, instance, job_id, connection_id, status, data, observed_at",
    "jobs": "sequence, instance, job_id, connection_id, status, data, terminal, revision",
    "notifications": "id, instance, digest, received_at, kind, job_id, body, outcome, settled_at",
    "deliveries": "id, notification, instance, target, state, attempts, due_at, fault",
    "meta": "key, value",
}


async def fill(connection: Connection, schema: str, epoch: str, head: int, batches: AsyncIterable[Batch]) -> None:
    """Store all rows unchanged, or none.

    :param schema: name of the schema, in quotes.
    :raises StoreError: if the store is not empty.
    """
    async with connection.transaction():
        found = await connection.execute(
            f"SELECT head > 0 OR EXISTS (SELECT FROM {schema}.notifications) FROM {schema}.log FOR UPDATE"
        )
        if await found.fetchone() != (False,):
            raise StoreError(NOT_EMPTY)
        await connection.execute(f"DELETE FROM {schema}.meta")
        async for batch in batches:
            for table, rows in _rows(batch).items():
                columns = _COLUMNS[table]
                places = ", ".join(["%s"] * (columns.count(",") + 1))
                # Rows with the same key hold the same state.
                await connection.cursor().executemany(
                    f"INSERT INTO {schema}.{table} ({columns}) VALUES ({places}) ON CONFLICT DO NOTHING", rows
                )
        for table in ("notifications", "deliveries"):
            await connection.execute(
                f"SELECT setval('{schema}.{table}_id_seq', max(id)) FROM {schema}.{table} HAVING max(id) IS NOT NULL"
            )
        await connection.execute(f"UPDATE {schema}.log SET epoch = %s, head = %s", [epoch, head])


def _rows(batch: Batch) -> dict[str, Sequence[tuple[object, ...]]]:
    rows: dict[str, Sequence[tuple[object, ...]]] = {
        "events": [(*row, event.observed_at) for event, row in _event_rows(batch.events)],
        "jobs": [(*row, event.terminal, 0) for event, row in _event_rows(batch.states)],
        "notifications": [
            (
                *(item.id, item.instance, digest_of(item.instance, item.body, item.job_id, item.received_at)),
                *(item.received_at, item.kind, item.job_id, item.body, item.outcome.value, item.settled_at),
            )
            for item in batch.notifications
        ],
        "deliveries": [
            (
                *(item.id, item.notification.id, item.notification.instance, item.target),
                *(item.state.value, item.attempts, item.due_at, item.fault),
            )
            for item in batch.deliveries
        ],
        "meta": list(batch.values.items()),
    }
    return {table: some for table, some in rows.items() if some}


def _event_rows(events: Iterable[JobEvent]) -> list[tuple[JobEvent, tuple[object, ...]]]:
    return [
        (
            event,
            (sequence_of(event), *event.ref, event.connection_id, event.status.value, json.dumps(event.data())),
        )
        for event in events
    ]
