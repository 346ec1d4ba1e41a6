"""Rows of a database as values. One that can't be read is left out, counted and logged, and stops nobody."""

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
"""Rows that are logged one by one; more are counted."""

REMEMBERED = 10_000
"""Rows of which it is known that they were counted. More are not counted."""

TO_COME = timedelta(days=1)
"""An event that was observed so long after now has a time that keeps nothing."""

GIVEN_UP = "its row in the store can't be read"
"""The fault of a delivery that is given up for that."""

Row = Sequence[Any]


class Unreadable:
    """The rows that can't be read, each noted once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """How many there are, by table."""
        self._known: set[tuple[str, str]] = set()

    def note(self, table: str, key: object) -> None:
        """This row can't be read."""
        row = (table, str(key)[:100])
        if row in self._known or len(self._known) >= REMEMBERED:
            return
        self._known.add(row)
        self.counts[table] += 1
        if len(self._known) <= LOGGED:
            logger.error(
                "skipped a row of the store that can't be read: table=%s key=%s; repair or delete it in the database",
                *row,
            )
        elif len(self._known) == LOGGED + 1:
            logger.error("more than %d rows of the store can't be read: no more of them are logged", LOGGED)

    def sift(self, rows: Iterable[Row], table: str, read: Callable[[Row], T | None]) -> Iterator[T]:
        """Yield what the rows hold, without those that can't be read; a row begins with its key."""
        for row in rows:
            value = read(row)
            if value is None:
                self.note(table, row[0])
            else:
                yield value


def event_of(row: Row, epoch: str) -> JobEvent | None:
    """Return the event or state of a row: sequence, instance, job id, status, data as JSON text; None if the data can't
    be read or are those of another job or status than the row is found by."""
    sequence, instance, job_id, status, data = row
    if type(sequence) is not int or not isinstance(data, str):
        return None
    event = read_event(data, Cursor(epoch, sequence))
    if event is None or tuple(event.ref) != (instance, job_id) or event.status is not parse_status(status):
        return None
    return event


def notification_of(row: Row) -> StoredNotification | None:
    """Return the notification of a row: its fields in their order; None if it can't be read."""
    id_, instance, received_at, kind, job_id, body, outcome, settled_at = row
    try:
        return StoredNotification(
            id=_whole(id_),
            instance=_text(instance),
            received_at=_moment(received_at),
            kind=_text(kind),
            job_id=None if job_id is None else _whole(job_id),
            body=_bytes(body),
            outcome=Outcome(outcome),
            settled_at=None if settled_at is None else _moment(settled_at),
        )
    except (ValueError, OverflowError):
        return None


def delivery_of(row: Row) -> Delivery | None:
    """Return the delivery of a row: id, target, state, attempts, due time, fault and its notification's fields; None if
    it can't be read."""
    id_, target, state, attempts, due_at, fault, *fields = row
    notification = notification_of(fields)
    if notification is None:
        return None
    try:
        return Delivery(
            id=_whole(id_),
            target=_text(target),
            state=DeliveryState(state),
            attempts=_whole(attempts),
            due_at=_moment(due_at),
            fault=None if fault is None else _text(fault),
            notification=notification,
        )
    except (ValueError, OverflowError):
        return None


def moment_of(value: object) -> datetime | None:
    """Return the time that a column holds, aware and in UTC; None if it holds none that can be reckoned with."""
    try:
        return _moment(value)
    except (ValueError, OverflowError):
        return None


def _moment(value: object) -> datetime:
    moment = value.astimezone(UTC) if isinstance(value, datetime) else parse_time(value)
    if moment is None or not is_sane(moment):
        raise ValueError("no time")
    return moment


def _whole(value: object) -> int:
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
