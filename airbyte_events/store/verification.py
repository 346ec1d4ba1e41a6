"""Whether what a store holds can be true: sequences without gaps, one end per job, states that agree with the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from airbyte_events.errors import StoreError
from airbyte_events.events import JobEvent, JobRef, JobStatus
from airbyte_events.store import dump
from airbyte_events.store.dump import LogRecord, Record
from airbyte_events.store.records import StoredNotification

FAULTS = 100
"""More are counted but not told."""

_STATUSES = list(JobStatus)


class Verification:
    """Takes the records of a dump in their order, and finds what is wrong with them."""

    def __init__(self) -> None:
        self.records: Counter[str] = Counter()
        """How many there were, by kind."""
        self.faults: list[str] = []
        self.untold = 0
        """Faults beyond :data:`FAULTS`."""
        self._log: LogRecord | None = None
        self._first = 0
        self._sequence = 0
        self._ids: dict[str, int] = {}
        # The newest event of each job: sequence and status in one number, since there may be millions.
        self._newest: dict[JobRef, int] = {}
        self._notifications: set[int] = set()
        self._newest_notification: StoredNotification | None = None

    def take(self, record: Record) -> None:
        """The next record."""
        kind = str(record.get("record"))
        self.records[kind] += 1
        try:
            if self._log is None:
                # Whatever is wrong with it, the others are read.
                self._log = LogRecord(epoch="", head=0, received=0, forwarded=0)
                self._log = dump.read_log(record)
            else:
                self._TAKE[dump.kind_of(record)](self, record)
        except StoreError as exc:
            self._fault(str(exc))
        except (KeyError, TypeError):
            self._fault(f"{dump.name_of(record)} can't be read: it is found by something that is no number")

    def finish(self) -> None:
        """There are no more."""
        if self._log is None:
            self._fault(dump.NOTHING)
        elif self._log.epoch and self._sequence and self._sequence != self._log.head:
            self._fault(f"events {self._sequence + 1} to {self._log.head} are missing")
        if self._newest:
            self._fault(f"{len(self._newest)} jobs have events and no state, such as {next(iter(self._newest))}")

    def _fault(self, text: str) -> None:
        if len(self.faults) < FAULTS:
            self.faults.append(text)
        else:
            self.untold += 1

    def _event(self, record: Record) -> None:
        sequence = record["sequence"]
        if not self._sequence:
            self._first = sequence
        elif sequence != self._sequence + 1:
            missing = f"events {self._sequence + 1} to {sequence - 1} are missing"
            self._fault(missing if sequence > self._sequence else f"event {sequence} is there twice")
        self._sequence = sequence
        event = dump.read_event(record, self._epoch)
        before = self._newest.get(event.ref)
        # Another job that was given the number has none before it.
        reused = event.previous_status is None
        if before is not None and _STATUSES[before % len(_STATUSES)].terminal and not reused:
            self._fault(f"event {sequence} tells of job {event.ref} after its end, event {before // len(_STATUSES)}")
        self._newest[event.ref] = _packed(sequence, event)

    def _job(self, record: Record) -> None:
        state = dump.read_event(record, self._epoch)
        newest = self._newest.pop(state.ref, None)
        sequence = record["sequence"]
        if newest is None:
            if self._first and sequence >= self._first:
                self._fault(f"the state of job {state.ref} is that of event {sequence}, which tells of another job")
        elif newest != _packed(sequence, state):
            status = _STATUSES[newest % len(_STATUSES)].value
            self._fault(
                f"the state of job {state.ref} is {state.status.value} of event {sequence},"
                f" and its newest event is {newest // len(_STATUSES)}, {status}"
            )

    def _notification(self, record: Record) -> None:
        self._rises(record)
        self._notifications.add(record["id"])
        self._newest_notification = dump.read_notification(record)

    def _delivery(self, record: Record) -> None:
        self._rises(record)
        if record["notification"] not in self._notifications:
            self._fault(f"{dump.name_of(record)} forwards notification {record['notification']}, which is not there")
        elif (item := self._newest_notification) is not None:  # which one it is does not matter
            dump.read_delivery(record, lambda _: item)

    def _value(self, record: Record) -> None:
        dump.read_value(record)

    def _rises(self, record: Record) -> None:
        kind, id_ = record["record"], record["id"]
        if id_ <= self._ids.get(kind, 0):
            self._fault(f"{kind} {id_} is there twice, or out of order")
        self._ids[kind] = id_

    @property
    def _epoch(self) -> str:
        return "" if self._log is None else self._log.epoch

    _TAKE: dict[str, Callable[[Verification, Record], None]] = {  # noqa: RUF012
        "event": _event,
        "job": _job,
        "notification": _notification,
        "delivery": _delivery,
        "value": _value,
    }


def _packed(sequence: int, event: JobEvent) -> int:
    return sequence * len(_STATUSES) + _STATUSES.index(event.status)
