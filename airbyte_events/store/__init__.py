"""Where events and notifications are kept. :class:`EventStore` is the contract; every store passes the same tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING

from airbyte_events.events import EVERYTHING, EventFilter, JobEvent, JobRef, Verdict

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class Outcome(str, Enum):
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
    :param kind: its :class:`~airbyte_events.notifications.NotificationKind`, by value; ``rejected`` for none.
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


class EventStore(ABC):
    """One ordered log of job events, the latest state of each job, and the inbox of notifications.

    Used as ``async with``. Every method is durable when it returns and has no effect, or all of it, when it is
    cancelled. All raise :class:`~airbyte_events.errors.StoreError` where the store can't do what was asked.
    """

    epoch: str
    """The log's identity, made with the log."""

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    @abstractmethod
    async def append(self, observed: Sequence[JobEvent]) -> list[Verdict]:
        """Reconcile observations with what is known, in order and atomically; those that are new enter the log.

        :return: a verdict for each observation.
        """

    @abstractmethod
    async def annotate(self, states: Sequence[JobEvent]) -> None:
        """Fill in what a job's latest state leaves unknown (``error``, ``names``, ``url``, ...) without an event.

        A state of another status than the job's latest one changes nothing.
        """

    @abstractmethod
    async def head(self) -> int:
        """The sequence of the newest event; 0 for an empty log."""

    @abstractmethod
    async def read(self, after: int, *, limit: int = 500, wanted: EventFilter = EVERYTHING) -> LogPage:
        """The next events behind a sequence, at most ``limit``.

        :raises CursorExpired: if events behind that sequence are no longer kept, or it lies beyond the head.
        """

    @abstractmethod
    async def changed(self, after: int) -> None:
        """Return once the head may lie behind that sequence. Returning for nothing is allowed."""

    @abstractmethod
    async def states(self, refs: Collection[JobRef]) -> dict[JobRef, JobEvent]:
        """The latest state of each of these jobs that is known."""

    @abstractmethod
    async def jobs(
        self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING
    ) -> list[JobEvent]:
        """Latest states, newest first: those whose sequence is below ``before``."""

    @abstractmethod
    async def history(self, ref: JobRef) -> list[JobEvent]:
        """A job's events that are kept, oldest first."""

    @abstractmethod
    async def receive(
        self, *, instance: str, body: bytes, kind: str, job_id: int | None, outcome: Outcome, received_at: datetime
    ) -> Receipt:
        """Keep a notification. The same body for the same instance is kept once."""

    @abstractmethod
    async def pending(self, instance: str, *, limit: int = 500) -> list[StoredNotification]:
        """The instance's notifications that wait to be confirmed, oldest first."""

    @abstractmethod
    async def settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> None:
        """Write down what became of notifications, by id; :attr:`Outcome.PENDING` queues one again."""

    @abstractmethod
    async def notifications(self, *, limit: int = 100, before: int | None = None) -> list[StoredNotification]:
        """The inbox, newest first: those whose id is below ``before``."""

    @abstractmethod
    async def announcements(self, refs: Collection[JobRef]) -> dict[JobRef, StoredNotification]:
        """The newest success or failure notification of each of these jobs that has one."""

    @abstractmethod
    async def recall(self, key: str) -> str | None:
        """A value that :meth:`remember` kept."""

    @abstractmethod
    async def remember(self, key: str, value: str) -> None:
        """Keep a small value, such as how far an instance was looked at."""

    @abstractmethod
    async def check(self) -> None:
        """Write and read once, so that a store that is full, read-only or gone raises."""


ANNOUNCING_KINDS = ("success", "failure")
"""The kinds of notification that tell of a job's end."""
