"""Convert database rows to values. Unreadable rows are skipped, counted and logged."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from airbyte_events._utils.times import is_sane, parse_time
from airbyte_events.events import Cursor, JobEvent, parse_status, read_event
from airbyte_events.store.records import Delivery, DeliveryState, Outcome, StoredNotification

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOGGED = 20
"""Unreadable rows that are logged one by one; more are only counted."""

MAX_COUNTED = 10_000
"""Unreadable rows that are counted; more are not."""

MAX_CLOCK_SKEW = timedelta(days=1)
"""An event observed further in the future has a wrong time, which does not keep it from being pruned."""

EVENT = "e.sequence, e.instance, e.job_id, e.status, CAST(e.data AS text)"
"""The columns that :func:`event_of` reads, of a table ``e`` of events or jobs."""

NOTIFICATION = "n.id, n.instance, n.received_at, n.kind, n.job_id, n.body, n.outcome, n.settled_at"
"""The columns that :func:`notification_of` reads, of a table ``n``."""

DELIVERY = f"d.id, d.target, d.state, d.attempts, d.due_at, d.fault, {NOTIFICATION}"
"""The columns that :func:`delivery_of` reads, of a table ``d`` and its notification ``n``."""

PRUNED_AT_ONCE = 1_000
"""Rows that one transaction removes."""

Row = Sequence[Any]


class Unreadable:
    """The unreadable rows, each counted once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """By table."""
        self._seen: set[tuple[str, str]] = set()

    def _add(self, table: str, key: object) -> None:
        row = (table, str(key)[:100])
        if row in self._seen or len(self._seen) >= MAX_COUNTED:
            return
        self._seen.add(row)
        self.counts[table] += 1
        if len(self._seen) <= LOGGED:
            logger.error(
                "skipped a row of the store that can't be read: table=%s key=%s; repair or delete it in the database",
                *row,
            )
        elif len(self._seen) == LOGGED + 1:
            logger.error("more than %d rows of the store can't be read: no more of them are logged", LOGGED)

    def sift(
        self, rows: Iterable[Row], table: str, read: Callable[[Row], T | None], keys: list[Any] | None = None
    ) -> Iterator[T]:
        """Yield the values of the readable rows and count the others; each row begins with its key.

        :param read: returns None, or raises ValueError or OverflowError, if a row is unreadable.
        :param keys: receives the keys of unreadable rows.
        """
        for row in rows:
            try:
                value = read(row)
            except (ValueError, OverflowError):
                value = None
            if value is not None:
                yield value
                continue
            self._add(table, row[0])
            if keys is not None:
                keys.append(row[0])


def event_of(row: Row, epoch: str) -> JobEvent | None:
    """Return the event of a row of :data:`EVENT`; None if unreadable or inconsistent."""
    sequence, instance, job_id, status, data = row
    if type(sequence) is not int or not isinstance(data, str):
        return None
    event = read_event(data, Cursor(epoch, sequence))
    if event is None or tuple(event.ref) != (instance, job_id) or event.status is not parse_status(status):
        return None
    return event


def notification_of(row: Row) -> StoredNotification:
    """Return the notification of a row of :data:`NOTIFICATION`; raises ValueError or OverflowError if unreadable."""
    id_, instance, received_at, kind, job_id, body, outcome, settled_at = row
    return StoredNotification(
        id=_integer(id_),
        instance=_text(instance),
        received_at=_moment(received_at),
        kind=_text(kind),
        job_id=None if job_id is None else _integer(job_id),
        body=_bytes(body),
        outcome=Outcome(outcome),
        settled_at=None if settled_at is None else _moment(settled_at),
    )


def delivery_of(row: Row) -> Delivery:
    """Return the delivery of a row of :data:`DELIVERY`; raises as :func:`notification_of`."""
    id_, target, state, attempts, due_at, fault, *notification = row
    return Delivery(
        id=_integer(id_),
        target=_text(target),
        state=DeliveryState(state),
        attempts=_integer(attempts),
        due_at=_moment(due_at),
        fault=None if fault is None else _text(fault),
        notification=notification_of(notification),
    )


def moment_of(value: object) -> datetime | None:
    """Return the time in a column, in UTC; None if unreadable or out of range."""
    try:
        return _moment(value)
    except (ValueError, OverflowError):
        return None


def _moment(value: object) -> datetime:
    moment = value.astimezone(UTC) if isinstance(value, datetime) else parse_time(value)
    if moment is None or not is_sane(moment):
        raise ValueError("no time")
    return moment


def _integer(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("no number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    value.encode()  # half a surrogate pair is a ValueError, too
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, (bytes, memoryview)):
        raise ValueError("no bytes")
    return bytes(value)
