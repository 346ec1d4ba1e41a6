"""The notifications and deliveries of a SQLite store."""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.events import JobRef
from airbyte_events.store.base import (
    ANNOUNCEMENTS,
    ANNOUNCING_KINDS,
    PENDING_BYTES,
    DeliveryOutbox,
    NotificationInbox,
)
from airbyte_events.store.records import (
    REPEATED_WITHIN,
    Arrival,
    Attempt,
    DeliveryState,
    Outcome,
    Pending,
    Receipt,
    States,
    StoredNotification,
    digest_of,
    first_within,
)
from airbyte_events.store.rows import NOTIFICATION, PRUNED_AT_ONCE, notification_of
from airbyte_events.store.sqlite.transactions import SQLiteTransactions, transaction

_SELECT = f"SELECT {NOTIFICATION} FROM notifications AS n"


class SQLiteInbox(SQLiteTransactions, NotificationInbox, DeliveryOutbox):
    """The notifications and deliveries of a SQLite store."""

    async def receive(self, arrival: Arrival) -> Receipt:
        # Already now: transactions run in the order of their calls, so the inbox reads the notification in the one that
        # stores it, or in a later one.
        self._wake_inbox(arrival)
        return await self._file.transact(lambda c: _add(c, arrival), partial(self._stored, arrival))

    def _stored(self, arrival: Arrival, receipt: Receipt) -> None:
        """Note that a notification is stored."""
        if not receipt.duplicate:
            self._wake_outbox(arrival)

    @transaction
    def pending(self, connection: sqlite3.Connection, instance: str, *, after: int = 0, limit: int = 500) -> Pending:
        found, more = self._pending(connection, instance, after, limit)
        ids = {item.ref: item.id for item in found if item.ref is not None}
        announced = {ref for ref, id_ in ids.items() if _is_announced(connection, ref, but=id_)}
        return Pending(found, states=self._states(connection, ids), announced=announced, more=more)

    @abstractmethod
    def _states(self, connection: sqlite3.Connection, refs: Collection[JobRef]) -> States:
        """Return the latest states of the known jobs among these."""

    def _pending(
        self, connection: sqlite3.Connection, instance: str, after: int, limit: int
    ) -> tuple[list[StoredNotification], bool]:
        """Return pending notifications, and whether more may follow. Unreadable ones are rejected."""
        sql = f"{_SELECT} WHERE outcome = 'pending' AND instance = ? AND id > ? ORDER BY id LIMIT ?"
        while True:
            rejected: list[int] = []
            rows = connection.execute(sql, (instance, after, limit))
            items = self._unreadable.sift(rows, "notifications", notification_of, rejected)
            found, has_more = first_within(items, PENDING_BYTES)
            rows.close()
            settle_all(connection, dict.fromkeys(rejected, Outcome.REJECTED), utcnow())
            if found or not rejected:
                return found, has_more or len(found) + len(rejected) == limit

    async def settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> None:
        await self._file.transact(lambda c: settle_all(c, outcomes, settled_at), self._waking("inbox"))

    @transaction
    def announcements(
        self, connection: sqlite3.Connection, refs: Mapping[JobRef, datetime | None]
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
            rows = connection.execute(f"{_SELECT} {condition}", values)
            if items := list(self._unreadable.sift(rows, "notifications", notification_of)):
                found[ref] = items
        return found

    async def attempted(self, attempts: Sequence[Attempt]) -> None:
        await self._file.transact(lambda c: _attempted(c, attempts), self._waking("deliveries"))

    async def _prune_notifications(self, before: datetime) -> int:
        removed = 0
        position: int | None = 0
        while position is not None:
            count, position = await self._prune_page(position, before)
            removed += count
        return removed

    @transaction
    def _prune_page(self, connection: sqlite3.Connection, after: int, before: datetime) -> tuple[int, int | None]:
        """Prune a page of notifications after an id; return the number removed and the next id, None at the end."""
        limit = format_time(before) or ""
        rows = connection.execute(
            "SELECT id, received_at, outcome <> 'pending' AND coalesce(settled_at, received_at) < ? AND NOT EXISTS"
            " (SELECT 1 FROM deliveries WHERE notification = notifications.id AND state = 'due')"
            " FROM notifications WHERE id > ? ORDER BY id LIMIT ?",
            (limit, after, PRUNED_AT_ONCE),
        ).fetchall()
        old = [id_ for id_, _, removable in rows if removable]
        remove(connection, old)
        # Ids roughly follow the time: no old notifications follow a page of young ones.
        is_last = len(rows) < PRUNED_AT_ONCE or all(str(received_at) >= limit for _, received_at, _ in rows)
        return len(old), None if is_last else rows[-1][0]


def _add(connection: sqlite3.Connection, item: Arrival) -> Receipt:
    digest, at = digest_of(item), format_time(item.received_at)
    if (before := item.digest_before) is not None:
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
        [(inserted[0], item.instance, target, at) for target in dict.fromkeys(item.targets)],
    )
    return Receipt(id=inserted[0], duplicate=False)


def settle_all(connection: sqlite3.Connection, outcomes: Mapping[int, Outcome], settled_at: datetime) -> set[str]:
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


def _attempted(connection: sqlite3.Connection, attempts: Sequence[Attempt]) -> set[str]:
    """Store results and return the instances with deliveries to retry."""
    again = set()
    for attempt in attempts:
        row = connection.execute(
            "UPDATE deliveries SET state = ?, attempts = attempts + ?, due_at = ?, fault = ? WHERE id = ?"
            " RETURNING instance",
            (attempt.state.value, attempt.sent, format_time(attempt.due_at), attempt.fault, attempt.delivery),
        ).fetchone()
        if row is not None and attempt.state is DeliveryState.DUE:
            again.add(row[0])
    return again


def _is_announced(connection: sqlite3.Connection, ref: JobRef, *, but: int) -> bool:
    """Return whether the job has another success or failure notification."""
    row = connection.execute(
        "SELECT 1 FROM notifications WHERE instance = ? AND job_id = ? AND kind IN (?, ?) AND id <> ? LIMIT 1",
        (*ref, *ANNOUNCING_KINDS, but),
    ).fetchone()
    return row is not None


def remove(connection: sqlite3.Connection, ids: Collection[int]) -> None:
    for condition in ("deliveries WHERE notification", "notifications WHERE id"):
        connection.executemany(f"DELETE FROM {condition} = ?", [(id_,) for id_ in ids])
