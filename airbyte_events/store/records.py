"""The values that stores take and return, besides events."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from airbyte_events.events import Cursor, JobEvent, JobRef
from airbyte_events.store.reconcile import APPENDED, Verdict, reconcile, succeed


class Outcome(StrEnum):
    """The outcome of a notification."""

    PENDING = "pending"
    """Stored, not yet confirmed by the API."""
    CONFIRMED = "confirmed"
    """The API confirmed it."""
    UNCONFIRMED = "unconfirmed"
    """The API contradicts it: the job is still active, or has another terminal status."""
    UNKNOWN_JOB = "unknown_job"
    """The API has no such job."""
    IGNORED = "ignored"
    """Announces no completion: a test, *queued*, a disabled connection, an unknown kind."""
    REJECTED = "rejected"
    """Empty, or not a JSON object."""


REPEATED_WITHIN = timedelta(minutes=1)
"""A body without a job, such as that of a disabled connection, is a duplicate within this time and a new notification
later. A body that names a job is always a duplicate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A received webhook body.

    :param instance: the instance whose webhook URL received it.
    :param received_at: in UTC.
    :param kind: value of its :class:`~airbyte_events.airbyte.notifications.NotificationKind`; ``rejected`` for none.
    :param job_id: the job that it names, if any.
    :param targets: where to forward it, a :class:`Delivery` to each.
    """

    instance: str
    body: bytes
    kind: str
    job_id: int | None
    outcome: Outcome
    received_at: datetime
    targets: Collection[str] = ()

    @property
    def digest_before(self) -> bytes | None:
        """The digest for the minute before, to compare within :data:`REPEATED_WITHIN`; None if it names a job."""
        if self.job_id is not None:
            return None
        return digest_of(replace(self, received_at=self.received_at - REPEATED_WITHIN))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNotification:
    """A webhook body in the inbox: an :class:`Arrival` with its outcome.

    :param id: increases within the store.
    :param settled_at: when the outcome was stored, in UTC; None while pending.
    """

    id: int
    instance: str
    received_at: datetime
    kind: str
    job_id: int | None
    body: bytes
    outcome: Outcome
    settled_at: datetime | None = None

    @property
    def ref(self) -> JobRef | None:
        """The job that it names, if any."""
        return None if self.job_id is None else JobRef(self.instance, self.job_id)


def digest_of(item: Arrival | StoredNotification) -> bytes:
    """Return the digest that identifies duplicates: includes the minute if the notification names no job."""
    moment, seconds = item.received_at.timestamp(), REPEATED_WITHIN.total_seconds()
    minute = b"" if item.job_id is not None else b"%d\0" % (moment // seconds)
    return hashlib.sha256(item.instance.encode() + b"\0" + minute + item.body).digest()


def first_within(items: Iterable[StoredNotification], max_bytes: int) -> tuple[list[StoredNotification], bool]:
    """Return the first items whose bodies fit into ``max_bytes``, at least one, and whether any were left out."""
    found: list[StoredNotification] = []
    size = 0
    for item in items:
        size += len(item.body)
        if found and size > max_bytes:
            return found, True
        found.append(item)
    return found, False


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The confirmation that a notification is stored. ``duplicate``: the same body was stored before, with this id."""

    id: int
    duplicate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """A page of the log: events in log order, and the last sequence that was read for them."""

    events: Sequence[JobEvent]
    position: int


class States(dict[JobRef, JobEvent]):
    """The latest states of the known jobs among those requested.

    :param versions: row versions by job, for optimistic locking.
    """

    def __init__(
        self,
        states: Mapping[JobRef, JobEvent] | None = None,
        *,
        refs: Collection[JobRef] = (),
        versions: Mapping[JobRef, Any] | None = None,
    ) -> None:
        super().__init__(states or {})
        self.refs = frozenset(refs)
        self.versions: Mapping[JobRef, Any] = versions or {}


class Pending(list[StoredNotification]):
    """A page of pending notifications, ordered by id, with the states of the jobs that they name.

    :param announced: the jobs that have other success or failure notifications.
    :param more: whether more notifications may follow.
    """

    def __init__(
        self,
        notifications: Iterable[StoredNotification] = (),
        *,
        states: States | None = None,
        announced: Collection[JobRef] = (),
        more: bool = False,
    ) -> None:
        super().__init__(notifications)
        self.states = States() if states is None else states
        self.announced = frozenset(announced)
        self.more = more


Settle = Callable[[Sequence[JobEvent]], Mapping[int, Outcome]]
"""Returns the outcomes of notifications, by id, for the events to append. May be called more than once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """The result of :meth:`~airbyte_events.store.base.EventLog.append`.

    :param verdicts: one for each observation, in order.
    :param events: the appended events, in log order, with their cursors.
    :param states: the latest state of each observed job.
    :param outcomes: outcomes of the notifications settled with the events, by id.
    """

    verdicts: Sequence[Verdict]
    events: Sequence[JobEvent]
    states: Mapping[JobRef, JobEvent]
    outcomes: Mapping[int, Outcome]

    @classmethod
    def after(
        cls, head: Cursor, known: Mapping[JobRef, JobEvent], observed: Sequence[JobEvent], settle: Settle | None = None
    ) -> Self:
        """Decide what is to be written.

        :param head: of the log; the events follow it.
        :param known: the states of the observed jobs, and of no others.
        """
        states = dict(known)
        verdicts, events = [], []
        for event in observed:
            before = states.get(event.ref)
            verdict = reconcile(before, event)
            if verdict in APPENDED:
                head = Cursor(head.epoch, head.sequence + 1)
                states[event.ref] = succeed(before, event, head)
                events.append(states[event.ref])
            verdicts.append(verdict)
        outcomes = settle(events) if settle is not None and events else {}
        return cls(verdicts=verdicts, events=events, states=states, outcomes=outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """An exclusive, temporary right to do a named task.

    :param fence: increases with each new holder; writes with an older one are refused.
    """

    name: str
    holder: str
    fence: int


class DeliveryState(StrEnum):
    """The state of forwarding a notification to a target."""

    DUE = "due"
    """To be sent or retried."""
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up; can be made due again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A notification to forward to a target.

    :param id: increases within the store.
    :param target: the target's name, which holds no secret.
    :param due_at: time of the next attempt, in UTC.
    :param fault: why the last attempt failed; holds no secret.
    """

    id: int
    notification: StoredNotification
    target: str
    state: DeliveryState
    attempts: int
    due_at: datetime
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The result of an attempt to deliver.

    :param state: ``due`` to retry at ``due_at``.
    :param sent: whether it was an attempt; if not, the delivery is only postponed.
    """

    delivery: int
    state: DeliveryState
    due_at: datetime
    fault: str | None = None
    sent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """The size of a store.

    :param first: sequence of the oldest retained event; 0 for an empty log.
    :param head: sequence of the newest event.
    :param bytes: size on disk; 0 for a memory store.
    """

    first: int
    head: int
    events: int
    jobs: int
    notifications: int
    pending: int
    due: int
    dead: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Queues:
    """The work that waits for an instance.

    :param pending_since: when the oldest pending notification was received; None if there is none.
    :param due_since: when the next delivery is, or was, due; None if there is none.
    """

    watched: int
    pending_since: datetime | None
    due_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """The numbers of removed rows."""

    events: int
    notifications: int
