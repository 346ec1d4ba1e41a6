"""What stores keep and tell, beside events."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from airbyte_events.events import JobEvent, JobRef
from airbyte_events.store.reconcile import NEWS, Verdict


class Outcome(StrEnum):
    """What became of a notification."""

    PENDING = "pending"
    """Stored, not yet confirmed by the API."""
    CONFIRMED = "confirmed"
    """The API says the same."""
    UNCONFIRMED = "unconfirmed"
    """The API says otherwise: the job is still active, or has ended in another way."""
    UNKNOWN_JOB = "unknown_job"
    """The API knows no such job."""
    IGNORED = "ignored"
    """Tells of no job's end: a test, *queued*, a disabled connection, a kind that is not known."""
    REJECTED = "rejected"
    """Empty, or not a JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNotification:
    """A webhook body in the inbox.

    :param id: counts up within the store.
    :param instance: whose webhook URL it came to.
    :param received_at: when, in UTC.
    :param kind: its :class:`~airbyte_events.airbyte.notifications.NotificationKind`, by value; ``rejected`` for none.
    :param job_id: the job that it names.
    :param body: as it came.
    :param outcome: what became of it.
    :param settled_at: when that was known.
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
        """The job that it names."""
        return None if self.job_id is None else JobRef(self.instance, self.job_id)


def fitting(items: Iterable[StoredNotification], most: int) -> tuple[list[StoredNotification], bool]:
    """Return the first of them, at least one, whose bodies have no more than that many bytes together.

    :return: those, and whether others were left.
    """
    found: list[StoredNotification] = []
    size = 0
    for item in items:
        size += len(item.body)
        if found and size > most:
            return found, True
        found.append(item)
    return found, False


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A notification is durable. ``duplicate``: the same body came before, under this id."""

    id: int
    duplicate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Events in log order, and the sequence up to which the log was read for them."""

    events: Sequence[JobEvent]
    position: int


class States(dict[JobRef, JobEvent]):
    """The latest states of those jobs that are known, as they were read.

    :param refs: the jobs that were asked for.
    :param versions: by job, by which the store finds out whether it was written since.
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
    """Notifications that wait to be confirmed, by id, with what is known of the jobs that they name.

    :param states: of those jobs.
    :param announced: the jobs of which there are other success or failure notifications.
    :param more: whether there may be notifications behind these.
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
"""Return the outcomes of notifications, by id, given the events that enter the log. May be called more than once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """The result of :meth:`~airbyte_events.store.base.EventLog.append`.

    :param verdicts: one for each observation, in their order.
    :param events: those that entered the log, in log order, with their cursors.
    :param states: the latest state of each observed job.
    :param outcomes: of the notifications that were settled with the events.
    """

    verdicts: Sequence[Verdict]
    events: Sequence[JobEvent]
    states: Mapping[JobRef, JobEvent]
    outcomes: Mapping[int, Outcome]

    @classmethod
    def of(cls, results: Sequence[tuple[Verdict, JobEvent]], outcomes: Mapping[int, Outcome]) -> Self:
        """:param results: each observation's verdict, with the job's latest state by then."""
        return cls(
            verdicts=[verdict for verdict, _ in results],
            events=[state for verdict, state in results if verdict in NEWS],
            states={state.ref: state for _, state in results},
            outcomes=outcomes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to do something alone for a while.

    :param name: what it is the right to.
    :param holder: who has it.
    :param fence: counts up whenever the lease changes hands: who writes with an old one is refused.
    """

    name: str
    holder: str
    fence: int


class DeliveryState(StrEnum):
    """What became of a notification's forwarding to a target."""

    DUE = "due"
    """To be sent, for the first time or again."""
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up; it can be made due again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A notification that is forwarded to a target.

    :param id: counts up within the store.
    :param notification: what is forwarded.
    :param target: where to, by a name that holds no secret.
    :param attempts: how often it was tried.
    :param due_at: when to try (again), in UTC.
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
    """What an attempt to deliver came to.

    :param state: ``due`` to try again at ``due_at``.
    """

    delivery: int
    state: DeliveryState
    due_at: datetime
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """How large a store is.

    :param first: the sequence of the oldest event that is kept, 0 for an empty log.
    :param head: that of the newest.
    :param bytes: on disk (in memory: 0).
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
    """What waits for an instance.

    :param watched: how many jobs somebody waits for.
    :param pending_since: when the oldest notification came that is still to be confirmed; None if there is none.
    :param due_since: from when on the next delivery is, or was, due; None if there is none.
    """

    watched: int
    pending_since: datetime | None
    due_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How much was removed."""

    events: int
    notifications: int


REPEATED_WITHIN = timedelta(minutes=1)
"""A body that names no job, such as that of a disabled connection, and comes again within this is a duplicate; later it
is news, in the same words. What names a job never happens twice."""


def digest_of(instance: str, body: bytes, job_id: int | None, received_at: datetime) -> bytes:
    """What tells a notification that came before: in the same minute, if it names no job."""
    minute = b"" if job_id is not None else b"%d\0" % (received_at.timestamp() // REPEATED_WITHIN.total_seconds())
    return hashlib.sha256(instance.encode() + b"\0" + minute + body).digest()


def digest_before(instance: str, body: bytes, job_id: int | None, received_at: datetime) -> bytes | None:
    """That of the minute before; what has it is the same if it came within :data:`REPEATED_WITHIN`."""
    return digest_of(instance, body, None, received_at - REPEATED_WITHIN) if job_id is None else None
