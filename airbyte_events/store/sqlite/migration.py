"""Fill a SQLite store from another store."""

from __future__ import annotations

import sqlite3

from airbyte_events.errors import StoreError
from airbyte_events.store.migration import NOT_EMPTY, Batch
from airbyte_events.store.sqlite import log as sqlite_log

RESTORING = "restoring"
"""The key of the value that marks a store being filled."""

_POSTGRES_COLUMNS = {"observed_at", "terminal", "revision"}

_TABLES = ("watches", "deliveries", "notifications", "jobs", "events")


def begin(connection: sqlite3.Connection) -> None:
    """:raises StoreError: if the store is not empty."""
    if sqlite_log.head(connection) or connection.execute("SELECT 1 FROM notifications LIMIT 1").fetchone():
        raise StoreError(NOT_EMPTY)
    connection.execute("DELETE FROM meta WHERE key <> 'epoch'")
    connection.execute("INSERT INTO meta VALUES (?, '1')", (RESTORING,))


def fill(connection: sqlite3.Connection, batch: Batch) -> None:
    """Store rows unchanged."""
    for sql, rows in batch.inserts("main", ":{}", _POSTGRES_COLUMNS):
        connection.executemany(sql, rows)


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
