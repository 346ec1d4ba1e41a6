"""Fill a SQLite store from another store."""

from __future__ import annotations

import json
import sqlite3

from airbyte_events._utils.times import format_time
from airbyte_events.errors import StoreError
from airbyte_events.events import JobEvent
from airbyte_events.store.migration import NOT_EMPTY, Batch
from airbyte_events.store.records import digest_of
from airbyte_events.store.sqlite import log as sqlite_log
from airbyte_events.store.tail import sequence_of

RESTORING = "restoring"
"""The key of the value that marks a store being filled."""

_TABLES = ("watches", "deliveries", "notifications", "jobs", "events")


def begin(connection: sqlite3.Connection) -> None:
    """:raises StoreError: if the store is not empty."""
    if sqlite_log.head(connection) or connection.execute("SELECT 1 FROM notifications LIMIT 1").fetchone():
        raise StoreError(NOT_EMPTY)
    connection.execute("INSERT INTO meta VALUES (?, '1')", (RESTORING,))


def fill(connection: sqlite3.Connection, batch: Batch) -> None:
    """Store rows unchanged."""
    connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", map(_event_row, batch.events))
    connection.executemany(
        "INSERT OR IGNORE INTO jobs (sequence, instance, job_id, connection_id, status, data)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        map(_event_row, batch.states),
    )
    connection.executemany(
        "INSERT INTO notifications VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                *(item.id, item.instance, digest_of(item.instance, item.body, item.job_id, item.received_at)),
                *(format_time(item.received_at), item.kind, item.job_id, item.body, item.outcome.value),
                format_time(item.settled_at),
            )
            for item in batch.notifications
        ),
    )
    connection.executemany(
        "INSERT INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                *(item.id, item.notification.id, item.notification.instance, item.target, item.state.value),
                *(item.attempts, format_time(item.due_at), item.fault),
            )
            for item in batch.deliveries
        ),
    )
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", batch.values.items())


def finish(connection: sqlite3.Connection, epoch: str, head: int) -> None:
    """Continue the copied log."""
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", (head,))
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (epoch,))
    connection.execute("DELETE FROM meta WHERE key = ?", (RESTORING,))


def undo(connection: sqlite3.Connection) -> None:
    """Empty the store after a failure."""
    for table in _TABLES:
        connection.execute(f"DELETE FROM {table}")
    connection.execute("DELETE FROM sqlite_sequence")
    connection.execute("DELETE FROM meta WHERE key <> 'epoch'")


def _event_row(event: JobEvent) -> tuple[object, ...]:
    return (sequence_of(event), *event.ref, event.connection_id, event.status.value, json.dumps(event.data()))
