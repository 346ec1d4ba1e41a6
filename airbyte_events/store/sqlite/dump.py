"""All that a SQLite store holds: told as records, filled from records, checked. Functions over its connection."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from airbyte_events._utils.times import format_time
from airbyte_events.errors import StoreError
from airbyte_events.events import Cursor, JobEvent
from airbyte_events.store import dump
from airbyte_events.store.dump import LogRecord, Record
from airbyte_events.store.records import Delivery, StoredNotification, digest_of
from airbyte_events.store.rows import Unreadable
from airbyte_events.store.sqlite import inbox
from airbyte_events.store.sqlite import log as sqlite_log

PAGE = 1_000
"""Records that are read or written in one transaction."""

PARTS = ("events", "jobs", "notifications", "deliveries")
"""What is read page by page, in the order of a dump."""

RESTORING = "restoring"
"""The value that a store has while it is being filled."""

_NOTIFICATION = ("id", "instance", "received_at", "kind", "job_id", "outcome", "settled_at")
_DELIVERY = ("id", "notification", "target", "state", "attempts", "due_at", "fault")

_TABLES = ("watches", "deliveries", "notifications", "jobs", "events")


def log(connection: sqlite3.Connection) -> Record:
    return dump.log_record(
        epoch=sqlite_log.epoch(connection),
        head=sqlite_log.head(connection),
        received=_newest(connection, "notifications"),
        forwarded=_newest(connection, "deliveries"),
    )


def page(connection: sqlite3.Connection, part: str, after: int) -> tuple[list[Record], int | None]:
    """The next records of a part, and where to go on, None at the end.

    :param after: the sequence or id behind which to begin.
    """
    if part in {"events", "jobs"}:
        rows = connection.execute(
            f"SELECT sequence, data FROM {part} WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, PAGE)
        ).fetchall()
        found = [dump.event_record(part[:-1], *row) for row in rows]
    elif part == "notifications":
        rows = connection.execute(
            f"SELECT {', '.join(_NOTIFICATION)}, digest, body FROM notifications WHERE id > ? ORDER BY id LIMIT ?",
            (after, PAGE),
        ).fetchall()
        found = [
            {"record": "notification", **_fields(_NOTIFICATION, row), **dump.body_fields(*row[-2:])} for row in rows
        ]
    else:
        rows = connection.execute(
            f"SELECT {', '.join(_DELIVERY)} FROM deliveries WHERE id > ? ORDER BY id LIMIT ?", (after, PAGE)
        ).fetchall()
        found = [{"record": "delivery", **_fields(_DELIVERY, row)} for row in rows]
    return found, rows[-1][0] if len(rows) == PAGE else None


def values(connection: sqlite3.Connection) -> list[Record]:
    rows = connection.execute("SELECT key, value FROM meta ORDER BY key")
    return [dump.value_record(key, str(value)) for key, value in rows if key not in dump.NOT_DUMPED]


def _fields(names: Sequence[str], row: Sequence[object]) -> Record:
    # A column can hold anything, also what is no JSON.
    values = ({"bytes": value.hex()} if isinstance(value, bytes) else value for value in row)
    return dict(zip(names, values, strict=False))


def begin(connection: sqlite3.Connection) -> None:
    """:raises StoreError: if it is not empty."""
    if sqlite_log.head(connection) or _newest(connection, "notifications"):
        raise StoreError(dump.NOT_EMPTY)
    connection.execute("INSERT INTO meta VALUES (?, '1')", (RESTORING,))


def fill(connection: sqlite3.Connection, records: Sequence[Record], epoch: str) -> None:
    """Take in what :func:`page` and :func:`values` told."""
    for record in records:
        kind = dump.kind_of(record)
        if kind == "event":
            row = _event_row(dump.read_event(record, epoch))
            connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
        elif kind == "job":
            row = _event_row(dump.read_event(record, epoch))
            connection.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?)", (*row[1:5], row[0], row[5]))
        elif kind == "notification":
            _fill_notification(connection, dump.read_notification(record))
        elif kind == "delivery":
            _fill_delivery(connection, dump.read_delivery(record, lambda id_: _notification(connection, id_)))
        else:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", dump.read_value(record))


def finish(connection: sqlite3.Connection, known: LogRecord) -> None:
    """All is there."""
    for table, newest in (("events", known.head), ("notifications", known.received), ("deliveries", known.forwarded)):
        connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, newest))
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (known.epoch,))
    connection.execute("DELETE FROM meta WHERE key = ?", (RESTORING,))


def undo(connection: sqlite3.Connection) -> None:
    """Remove what was filled in."""
    for table in _TABLES:
        connection.execute(f"DELETE FROM {table}")
    connection.execute("DELETE FROM sqlite_sequence")
    connection.execute("DELETE FROM meta WHERE key <> 'epoch'")


def damage(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong, and rows that are found by something else than what they hold."""
    faults: list[str] = []
    try:
        faults += (row[0] for row in connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok")
        for table in ("events", "jobs"):
            rows = connection.execute(
                f"SELECT sequence FROM {table} WHERE json_valid(data) AND (instance, job_id, connection_id, status)"
                " IS NOT (json_extract(data, '$.instance'), json_extract(data, '$.job_id'),"
                " json_extract(data, '$.connection_id'), json_extract(data, '$.status')) ORDER BY sequence LIMIT 20"
            )
            faults += (f"{table[:-1]} {sequence} is filed as something else than it is" for (sequence,) in rows)
    except sqlite3.DatabaseError as exc:
        # It can be so bad that SQLite does not get to the end.
        faults.append(str(exc))
    return faults


def _newest(connection: sqlite3.Connection, table: str) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return 0 if row is None else int(row[0])


def _event_row(event: JobEvent) -> tuple[object, ...]:
    sequence = (event.cursor or Cursor("", 0)).sequence
    return (sequence, *event.ref, event.connection_id, event.status.value, json.dumps(event.data()))


def _fill_notification(connection: sqlite3.Connection, item: StoredNotification) -> None:
    connection.execute(
        "INSERT INTO notifications VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            item.id,
            item.instance,
            digest_of(item.instance, item.body, item.job_id, item.received_at),
            format_time(item.received_at),
            item.kind,
            item.job_id,
            item.body,
            item.outcome.value,
            format_time(item.settled_at),
        ),
    )


def _fill_delivery(connection: sqlite3.Connection, item: Delivery) -> None:
    connection.execute(
        "INSERT INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            item.id,
            item.notification.id,
            item.notification.instance,
            item.target,
            item.state.value,
            item.attempts,
            format_time(item.due_at),
            item.fault,
        ),
    )


def _notification(connection: sqlite3.Connection, id_: int) -> StoredNotification:
    found = inbox.notifications(connection, Unreadable(), "WHERE id = ?", id_, limit=1)
    if not found:
        raise StoreError(f"there is no notification {id_} to forward")
    return found[0]
