"""What a store holds as records, JSON objects that any other store can take in.

The first is the log's, then come those of events, jobs, notifications, deliveries and values, in this order, each kind
by rising sequence or id. Leases and watches are not among them: they end by themselves.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from airbyte_events._utils.times import format_time, parse_time
from airbyte_events.errors import StoreError
from airbyte_events.events import Cursor, JobEvent
from airbyte_events.store.records import Delivery, DeliveryState, Outcome, StoredNotification, digest_of
from airbyte_events.store.rows import delivery_of, notification_of

T = TypeVar("T")

Record = dict[str, Any]

FORMAT = 1

NOT_EMPTY = "the store is not empty: something was stored in it before; name a new one"
NOTHING = "not an export of airbyte-events: it is empty"
KINDS = ("log", "event", "job", "notification", "delivery", "value")

NOT_DUMPED = frozenset({"epoch", "checked_by", "room", "restoring", "place"})
"""Values that are the store's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """What a dump begins with.

    :param received: the id of the newest notification that ever came.
    :param forwarded: likewise of deliveries.
    """

    epoch: str
    head: int
    received: int
    forwarded: int


def log_record(*, epoch: str, head: int, received: int, forwarded: int) -> Record:
    return {
        "record": "log",
        "format": FORMAT,
        "epoch": epoch,
        "head": head,
        "received": received,
        "forwarded": forwarded,
    }


def event_record(kind: str, sequence: int, data: object) -> Record:
    """:param kind: ``event``, or ``job`` for the latest state of one.
    :param data: as :meth:`~airbyte_events.events.JobEvent.data` makes it, or that as JSON; what is neither stays text.
    """
    if isinstance(data, (str, bytes)):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError):
            data = str(data)
    return {"record": kind, "sequence": sequence, "data": data}


def notification_record(item: StoredNotification) -> Record:
    digest = digest_of(item.instance, item.body, item.job_id, item.received_at)
    return {
        "record": "notification",
        "id": item.id,
        "instance": item.instance,
        "received_at": format_time(item.received_at),
        "kind": item.kind,
        "job_id": item.job_id,
        "outcome": item.outcome.value,
        "settled_at": format_time(item.settled_at),
        **body_fields(digest, item.body),
    }


def body_fields(digest: object, body: object) -> Record:
    """Those of a notification that are bytes. What is not has no digest."""
    if not isinstance(digest, (bytes, memoryview)) or not isinstance(body, (bytes, memoryview)):
        return {"digest": None, "body": ""}
    return {"digest": digest.hex(), "body": base64.b64encode(body).decode()}


def delivery_record(item: Delivery) -> Record:
    return {
        "record": "delivery",
        "id": item.id,
        "notification": item.notification.id,
        "target": item.target,
        "state": item.state.value,
        "attempts": item.attempts,
        "due_at": format_time(item.due_at),
        "fault": item.fault,
    }


def value_record(key: str, value: str) -> Record:
    return {"record": "value", "key": key, "value": value}


def read_log(record: Record) -> LogRecord:
    """:raises StoreError: if it is not the record of a log."""
    if record.get("record") != "log" or not isinstance(record.get("format"), int):
        raise StoreError("not an export of airbyte-events: it does not begin with the record of a log")
    if record["format"] > FORMAT:
        raise StoreError(f"exported by a newer airbyte-events (format {record['format']}, this one knows {FORMAT})")

    if record.get("epoch") == "":
        raise StoreError("the log has no epoch any more: a listener makes a new one, and clients read the states again")

    def read() -> LogRecord:
        epoch, head = Cursor.parse(f"{record['epoch']}-{record['head']}")
        return LogRecord(epoch=epoch, head=head, received=int(record["received"]), forwarded=int(record["forwarded"]))

    return _read(record, read)


def read_event(record: Record, epoch: str) -> JobEvent:
    """:raises StoreError: if it is not an event's or a job's."""
    return _read(record, lambda: JobEvent.from_data(record["data"], Cursor(epoch, int(record["sequence"]))))


def read_notification(record: Record) -> StoredNotification:
    """:raises StoreError: if it is not a notification's, or the body is not the one that the digest was made of."""

    def read() -> StoredNotification:
        received_at = parse_time(record["received_at"])
        item = StoredNotification(
            id=int(record["id"]),
            instance=str(record["instance"]),
            received_at=received_at if received_at is not None else _missing("received_at"),
            kind=str(record["kind"]),
            job_id=None if record["job_id"] is None else int(record["job_id"]),
            body=base64.b64decode(record["body"], validate=True),
            outcome=Outcome(record["outcome"]),
            settled_at=parse_time(record["settled_at"]),
        )
        if digest_of(item.instance, item.body, item.job_id, item.received_at).hex() != record["digest"]:
            raise ValueError("its body is not the one that came: the digest differs")
        fields = ("id", "instance", "received_at", "kind", "job_id")
        row = [*(record[name] for name in fields), item.body, record["outcome"], record["settled_at"]]
        return _sound(notification_of(row))

    return _read(record, read)


def read_delivery(record: Record, notification: Callable[[int], StoredNotification]) -> Delivery:
    """:param notification: finds it by its id.
    :raises StoreError: if it is not a delivery's.
    """

    def read() -> Delivery:
        item = notification(int(record["notification"]))
        if record["due_at"] is None:
            raise KeyError("due_at")
        DeliveryState(record["state"])
        parse_time(record["due_at"])
        fields = ("id", "target", "state", "attempts", "due_at", "fault")
        of_item = (item.id, item.instance, item.received_at, item.kind, item.job_id, item.body, item.outcome.value)
        return _sound(delivery_of([*(record[name] for name in fields), *of_item, item.settled_at]))

    return _read(record, read)


def read_value(record: Record) -> tuple[str, str]:
    """Key and value.

    :raises StoreError: if it is not a value's.
    """
    return _read(record, lambda: (str(record["key"]), str(record["value"])))


def kind_of(record: Record) -> str:
    """:raises StoreError: if it is of none that may follow the log's."""
    kind = record.get("record")
    if kind not in KINDS[1:]:
        raise StoreError("a record is of no kind that this version knows")
    return str(kind)


def name_of(record: Record) -> str:
    """The record, for an error: it may hold anything."""
    place = next((f" {record[name]}" for name in ("sequence", "id") if isinstance(record.get(name), int)), "")
    kind = record.get("record")
    return f"{kind if kind in KINDS else 'a record'}{place}"


def _read(record: Record, read: Callable[[], T]) -> T:
    try:
        return read()
    except (KeyError, ValueError, TypeError, AttributeError) as exc:
        why = f"has no {exc}" if isinstance(exc, KeyError) else str(exc)
        raise StoreError(f"{name_of(record)} can't be read: {why}") from exc


def _sound(value: T | None) -> T:
    if value is None:
        raise ValueError("a value of it is none that it can have")
    return value


def _missing(name: str) -> Any:
    raise KeyError(name)
