"""The SQL statements for the notifications and deliveries of a SQLite store."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import islice

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.events import JobRef
from airbyte_events.store.base import ANNOUNCEMENTS, ANNOUNCING_KINDS, PENDING_BYTES
from airbyte_events.store.records import (
    REPEATED_WITHIN,
    Attempt,
    Delivery,
    DeliveryState,
    Outcome,
    Receipt,
    StoredNotification,
    digest_before,
    digest_of,
    first_within,
)
from airbyte_events.store.rows import UNREADABLE_FAULT, Row, Unreadable, delivery_of, moment_of, notification_of

PRUNED_AT_ONCE = 1_000

_NOTIFICATION = "n.id, n.instance, n.received_at, n.kind, n.job_id, n.body, n.outcome, n.settled_at"
_SELECT_DELIVERY = (
    f"SELECT d.id, d.target, d.state, d.attempts, d.due_at, d.fault, {_NOTIFICATION}"
    " FROM deliveries AS d LEFT JOIN notifications AS n ON n.id = d.notification"
)


def add(connection: sqlite3.Connection, item: StoredNotification, targets: Collection[str]) -> Receipt:
    """Store a notification with a new id, and its deliveries."""
    identity = item.instance, item.body, item.job_id, item.received_at
    digest, at = digest_of(*identity), format_time(item.received_at)
    if (before := digest_before(*identity)) is not None:
        since = format_time(item.received_at - REPEATED_WITHIN)
        sql = "SELECT id FROM notifications WHERE digest = ? AND received_at > ?"
        if (same := connection.execute(sql, (before, since)).fetchone()) is not None:
            return Receipt(id=same[0], duplicate=True)
    inserted = connection.execute(
        "INSERT INTO notifications (instance, digest, received_at, kind, job_id, body, outcome)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING RETURNING id",
        (item.instance, digest, at, item.kind, item.job_id, item.body, item.outcome.value),
    ).fetchone()
    if inserted is None:
        first = connection.execute("SELECT id FROM notifications WHERE digest = ?", (digest,)).fetchone()
        return Receipt(id=first[0], duplicate=True)
    connection.executemany(
        "INSERT INTO deliveries (notification, instance, target, state, attempts, due_at)"
        " VALUES (?, ?, ?, 'due', 0, ?)",
        [(inserted[0], item.instance, target, at) for target in dict.fromkeys(targets)],
    )
    return Receipt(id=inserted[0], duplicate=False)


def notifications(
    connection: sqlite3.Connection, unreadable: Unreadable, condition: str, *values: object, limit: int
) -> list[StoredNotification]:
    """Return the first readable ones."""
    rows = connection.execute(f"SELECT {_NOTIFICATION} FROM notifications AS n {condition}", values)
    return list(islice(unreadable.sift(rows, "notifications", notification_of), limit))


def pending(
    connection: sqlite3.Connection, unreadable: Unreadable, instance: str, after: int, limit: int
) -> tuple[list[StoredNotification], bool]:
    """Return pending notifications, and whether more may follow. Unreadable ones are rejected."""
    condition = "WHERE outcome = 'pending' AND instance = ? AND id > ? ORDER BY id LIMIT ?"
    sql = f"SELECT {_NOTIFICATION} FROM notifications AS n {condition}"
    while True:
        rejected: dict[int, Outcome] = {}

        def read(row: Row) -> StoredNotification | None:
            item = notification_of(row)
            if item is None:
                rejected[row[0]] = Outcome.REJECTED  # noqa: B023  # called in this iteration
            return item

        rows = connection.execute(sql, (instance, after, limit))
        found, has_more = first_within(unreadable.sift(rows, "notifications", read), PENDING_BYTES)
        rows.close()
        settle(connection, rejected, utcnow())
        if found or not rejected:
            return found, has_more or len(found) + len(rejected) == limit


def pending_since(connection: sqlite3.Connection, instance: str) -> datetime | None:
    """Return when the oldest pending notification was received."""
    row = connection.execute(
        "SELECT received_at FROM notifications WHERE outcome = 'pending' AND instance = ? ORDER BY id LIMIT 1",
        (instance,),
    ).fetchone()
    return None if row is None else moment_of(row[0])


def settle(connection: sqlite3.Connection, outcomes: Mapping[int, Outcome], settled_at: datetime) -> set[str]:
    """Store outcomes and return the instances with notifications queued again."""
    at = format_time(settled_at)
    queued = set()
    for id_, outcome in outcomes.items():
        row = connection.execute(
            "UPDATE notifications SET outcome = ?, settled_at = ? WHERE id = ? RETURNING instance",
            (outcome.value, None if outcome is Outcome.PENDING else at, id_),
        ).fetchone()
        if row is not None and outcome is Outcome.PENDING:
            queued.add(row[0])
    return queued


def announcements(
    connection: sqlite3.Connection, unreadable: Unreadable, refs: Mapping[JobRef, datetime | None]
) -> dict[JobRef, list[StoredNotification]]:
    of_job = "SELECT id FROM notifications WHERE instance = ?1 AND job_id = ?2 AND kind IN (?3, ?4)"
    condition = (
        f"WHERE id IN (SELECT * FROM ({of_job} ORDER BY id LIMIT ?6))"
        f" OR id IN (SELECT * FROM ({of_job} ORDER BY id DESC LIMIT ?6))"
        f" OR id IN (SELECT * FROM ({of_job} AND received_at >= ?5 ORDER BY id LIMIT ?6)) ORDER BY id"
    )
    found = {}
    for ref, since in refs.items():
        values = (*ref, *ANNOUNCING_KINDS, format_time(since), ANNOUNCEMENTS)
        if items := notifications(connection, unreadable, condition, *values, limit=3 * ANNOUNCEMENTS):
            found[ref] = items
    return found


def is_announced(connection: sqlite3.Connection, ref: JobRef, *, but: int) -> bool:
    """Return whether the job has another success or failure notification."""
    row = connection.execute(
        "SELECT 1 FROM notifications WHERE instance = ? AND job_id = ? AND kind IN (?, ?) AND id <> ? LIMIT 1",
        (*ref, *ANNOUNCING_KINDS, but),
    ).fetchone()
    return row is not None


def deliveries(
    connection: sqlite3.Connection, unreadable: Unreadable, condition: str, *values: object, limit: int
) -> list[Delivery]:
    """Return the first readable ones."""
    rows = connection.execute(f"{_SELECT_DELIVERY} {condition}", values)
    return list(islice(unreadable.sift(rows, "deliveries", delivery_of), limit))


def due(
    connection: sqlite3.Connection, unreadable: Unreadable, instance: str, but: Collection[str], limit: int
) -> list[Delivery]:
    """Return due deliveries. Those that are unreadable or lack a notification become dead."""
    condition = f"WHERE d.state = 'due' AND d.instance = ? AND d.due_at <= ? AND {_none_of('d.target', but)}"
    sql = f"{_SELECT_DELIVERY} {condition} ORDER BY d.due_at, d.id LIMIT ?"
    while rows := connection.execute(sql, (instance, format_time(utcnow()), *but, limit)).fetchall():
        found = list(unreadable.sift(rows, "deliveries", delivery_of))
        unreadable_ids = {row[0] for row in rows} - {each.id for each in found}
        connection.executemany(
            "UPDATE deliveries SET state = 'dead', fault = ? WHERE id = ?",
            [(UNREADABLE_FAULT, id_) for id_ in unreadable_ids],
        )
        if found:
            return found
    return []


def next_due(connection: sqlite3.Connection, instance: str, but: Collection[str]) -> datetime | None:
    row = connection.execute(
        f"SELECT min(due_at) FROM deliveries WHERE state = 'due' AND instance = ? AND {_none_of('target', but)}",
        (instance, *but),
    ).fetchone()
    return moment_of(row[0])


def _none_of(column: str, values: Collection[str]) -> str:
    return f"{column} NOT IN ({', '.join('?' * len(values))})"


def attempted(connection: sqlite3.Connection, attempts: Sequence[Attempt]) -> set[str]:
    """Store results and return the instances with deliveries to retry."""
    again = set()
    for attempt in attempts:
        row = connection.execute(
            "UPDATE deliveries SET state = ?, attempts = attempts + 1, due_at = ?, fault = ? WHERE id = ?"
            " RETURNING instance",
            (attempt.state.value, format_time(attempt.due_at), attempt.fault, attempt.delivery),
        ).fetchone()
        if row is not None and attempt.state is DeliveryState.DUE:
            again.add(row[0])
    return again


def prune(connection: sqlite3.Connection, after: int, before: datetime) -> tuple[int, int | None]:
    """Prune a page of notifications after an id; return the number removed and the next id, None at the end."""
    limit = format_time(before) or ""
    rows = connection.execute(
        "SELECT id, received_at, outcome <> 'pending' AND coalesce(settled_at, received_at) < ? AND NOT EXISTS"
        " (SELECT 1 FROM deliveries WHERE notification = notifications.id AND state = 'due')"
        " FROM notifications WHERE id > ? ORDER BY id LIMIT ?",
        (limit, after, PRUNED_AT_ONCE),
    ).fetchall()
    old = [(id_,) for id_, _, removable in rows if removable]
    connection.executemany("DELETE FROM deliveries WHERE notification = ?", old)
    connection.executemany("DELETE FROM notifications WHERE id = ?", old)
    # Ids roughly follow the time: no old notifications follow a page of young ones.
    is_last = len(rows) < PRUNED_AT_ONCE or all(str(received_at) >= limit for _, received_at, _ in rows)
    return len(old), None if is_last else rows[-1][0]
