"""The contracts of a store, by concern. :class:`EventStore` has them all; who uses a store asks for what it needs.

Every method is durable when it returns. A call that is cancelled has no effect or all of its effect, which may come a
moment later: what was begun is finished. All raise :class:`~airbyte_events.errors.StoreError` if the store fails.
Every store passes the same tests.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.events import EVERYTHING, EventFilter, JobEvent, JobRef
from airbyte_events.store.records import (
    Appended,
    Attempt,
    Delivery,
    DeliveryState,
    Lease,
    LogPage,
    Outcome,
    Pending,
    Pruned,
    Queues,
    Receipt,
    Settle,
    States,
    StoredNotification,
    StoreStats,
)

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from airbyte_events.store.migration import Batch

ANNOUNCING_KINDS = ("success", "failure")
"""The kinds of notification that announce a job's completion."""

PENDING_BYTES = 16 * 1024 * 1024
"""See :meth:`NotificationInbox.pending`."""

ANNOUNCEMENTS = 8
"""See :meth:`NotificationInbox.announcements`."""

UNBOUNDED = 2**62
"""Bytes that no page has."""


class EventLog(Protocol):
    """One ordered log of job events, and the latest state of each job."""

    @property
    @abstractmethod
    def epoch(self) -> str:
        """The log's identity, made with the log. It changes when the log has lost events that were read before."""

    @abstractmethod
    async def append(
        self,
        observed: Sequence[JobEvent],
        *,
        lease: Lease | None = None,
        known: States | None = None,
        settle: Settle | None = None,
    ) -> Appended:
        """Reconcile observations with what is known, in order and atomically; those that are news enter the log.

        Another job of a known number (see :func:`~airbyte_events.store.reconcile.reconcile`) is news, and replaces the
        job's latest state: nothing of the job before is kept for it.

        :param lease: write only while this is held.
        :param known: the states as they were read just before: a store may compare instead of reading them again.
        :param settle: the notifications to settle in the same transaction, if an event enters the log.
        :return: the verdicts, and the states as they are now.
        :raises LeaseLost: if somebody else holds the lease; nothing was written.
        """

    @abstractmethod
    async def annotate(self, states: Sequence[JobEvent]) -> None:
        """Fill in what a job's latest state leaves unknown (``error``, ``names``, ``url``, ...) without an event.

        A state of another status than the job's latest one changes nothing, and neither does that of another job which
        had or has its number.
        """

    @abstractmethod
    async def head(self) -> int:
        """The sequence of the newest event; 0 for an empty log."""

    @abstractmethod
    async def read(
        self,
        after: int,
        *,
        limit: int = 500,
        size: int = UNBOUNDED,
        wanted: EventFilter = EVERYTHING,
        epoch: str | None = None,
    ) -> LogPage:
        """The next events behind a sequence, at most ``limit``.

        :param size: no more once these have so many bytes, about.
        :param epoch: which the sequence is of; by default, the log's.
        :raises CursorExpired: if events behind that sequence are no longer kept, it lies beyond the head, or the log
            has another epoch.
        """

    @abstractmethod
    async def changed(self, after: int, *, epoch: str | None = None) -> Sequence[JobEvent]:
        """Wait until the head may lie behind that sequence, or the log has another epoch. It may return for nothing.

        :return: the next events, where this process has just appended them; if none, they have to be read.
        """

    @abstractmethod
    async def states(self, refs: Collection[JobRef]) -> States:
        """The latest state of each of these jobs that is known."""

    @abstractmethod
    async def jobs(
        self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING
    ) -> list[JobEvent]:
        """Latest states, newest first: those whose sequence is below ``before``."""

    @abstractmethod
    async def history(self, ref: JobRef) -> list[JobEvent]:
        """A job's events that are kept, oldest first."""


class Topics(Protocol):
    """Wakes who waits for a change, whichever process made it."""

    @abstractmethod
    def news(self, topic: str) -> AbstractContextManager[Wakeup]:
        """Join before looking: ``with store.news(topic) as wakeup``, look, then ``await wakeup.wait()``.

        :param topic: ``inbox/<instance>`` (a notification waits to be confirmed), ``watches/<instance>`` (other jobs
            are watched), ``deliveries/<instance>`` (something is to be forwarded) or ``leases/<name>`` (it was given
            back), whichever process did it.
        """


class NotificationInbox(Topics, Protocol):
    """Notifications as they were received, and the outcome of each."""

    @abstractmethod
    async def receive(
        self,
        *,
        instance: str,
        body: bytes,
        kind: str,
        job_id: int | None,
        outcome: Outcome,
        received_at: datetime,
        targets: Collection[str] = (),
    ) -> Receipt:
        """Keep a notification. The same body for the same instance is kept once; if it names no job, once in
        :data:`~airbyte_events.store.records.REPEATED_WITHIN`.

        :param targets: where it is to be forwarded, see :class:`Delivery`: due at once, and kept with it or not at all.
        """

    @abstractmethod
    async def pending(self, instance: str, *, after: int = 0, limit: int = 500) -> Pending:
        """The instance's notifications that wait to be confirmed, by id: those whose id is above ``after``.

        At least one, if there is any, and no more than have :data:`PENDING_BYTES` together.
        """

    @abstractmethod
    async def settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> None:
        """Write down what became of notifications, by id; :attr:`Outcome.PENDING` queues one again."""

    @abstractmethod
    async def notifications(self, *, limit: int = 100, before: int | None = None) -> list[StoredNotification]:
        """The inbox, newest first: those whose id is below ``before``."""

    @abstractmethod
    async def announcements(self, refs: Mapping[JobRef, datetime | None]) -> dict[JobRef, list[StoredNotification]]:
        """Return the success and failure notifications of each of these jobs that has any, by id.

        Of many, :data:`ANNOUNCEMENTS` each: the first, the last, and the first that were received from a time on. So
        whoever sends any number of them before the job's end, after it, or both, hides none that came with it.

        :param refs: the jobs, each with that time.
        """


class DeliveryOutbox(Topics, Protocol):
    """Notifications that are forwarded, and the state of each delivery."""

    @abstractmethod
    async def due(self, instance: str, *, but: Collection[str] = (), limit: int = 100) -> list[Delivery]:
        """The instance's deliveries that are due by now, the longest due first.

        :param but: leave out those to these targets, so that one which is slow does not hide the others.
        """

    @abstractmethod
    async def next_due(self, instance: str, *, but: Collection[str] = ()) -> datetime | None:
        """When the next of the instance's deliveries is due; None if none is.

        :param but: leave out those to these targets.
        """

    @abstractmethod
    async def attempted(self, attempts: Sequence[Attempt]) -> None:
        """Write down what attempts to deliver came to."""

    @abstractmethod
    async def deliveries(
        self, *, limit: int = 100, before: int | None = None, state: DeliveryState | None = None
    ) -> list[Delivery]:
        """Deliveries, newest first: those whose id is below ``before``."""


class LeaseTable(Topics, Protocol):
    """Leases: the right of one process to do something alone."""

    shared: bool = False
    """Whether other processes can have the store open, too."""

    @abstractmethod
    async def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        """Take a lease, or renew it, for so long by the store's clock; None while somebody else holds it."""

    @abstractmethod
    async def release(self, lease: Lease) -> None:
        """Give a lease back before its time, so that another can have it at once. One that is lost stays lost."""

    @abstractmethod
    async def holders(self) -> dict[str, str]:
        """Who holds which lease at the moment, by its name."""


class WatchTable(Topics, Protocol):
    """The jobs that tasks wait for."""

    @abstractmethod
    async def watch(self, refs: Collection[JobRef], seconds: float) -> None:
        """Somebody waits for these jobs, for so long from now unless it is said again.

        A job that has ended is not watched any more.
        """

    @abstractmethod
    async def watched(self, instance: str) -> dict[int, datetime]:
        """The instance's jobs that somebody waits for, whichever process was asked, and since when."""


class ValueTable(Protocol):
    """Small values by key, such as how far an instance was polled."""

    @abstractmethod
    async def recall(self, key: str) -> str | None:
        """A value that :meth:`remember` kept."""

    @abstractmethod
    async def remember(self, key: str, value: str, *, lease: Lease | None = None) -> None:
        """Keep a small value, such as how far an instance was looked at.

        :param lease: write only while this is held.
        :raises LeaseLost: if somebody else holds the lease; nothing was written.
        """


class Maintenance(Protocol):
    """What keeps a store small, and shows how it is."""

    @property
    def unreadable(self) -> Mapping[str, int]:
        """The number of rows that were left out because they can't be read, by table, since the store was opened."""
        return {}

    @abstractmethod
    async def prune(self, before: datetime, *, keep: int) -> Pruned:
        """Remove events that were observed, and notifications that were received and settled, before a time.

        Events beyond the ``keep`` newest go, too. Whoever reads on from behind them gets
        :class:`~airbyte_events.errors.CursorExpired`. A job's latest state stays for ever (a job ends once), and so do
        notifications that wait to be confirmed and deliveries that are due. Works in steps that let others write.
        """

    @abstractmethod
    async def stats(self) -> StoreStats:
        """How large it is: estimates where exact counts would take long."""

    @abstractmethod
    async def queues(self, instance: str) -> Queues:
        """Count and date what waits for an instance. However much that is, nobody who writes waits for the answer."""

    @abstractmethod
    async def check(self) -> None:
        """Write and read once, so that a store that is full, read-only or gone raises."""


class EventStore(EventLog, NotificationInbox, DeliveryOutbox, LeaseTable, WatchTable, ValueTable, Maintenance):
    """A store, used as ``async with``."""

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class MovableStore(EventStore):
    """A store that can be filled from another one: see :func:`airbyte_events.store.migration.migrate`."""

    @abstractmethod
    async def values(self) -> dict[str, str]:
        """Return all values, by key."""

    @abstractmethod
    async def fill(self, epoch: str, head: int, batches: AsyncIterable[Batch]) -> None:
        """Store rows as they are, and go on with their log. Nobody else may use the store meanwhile.

        When it fails the store is as empty as it was.

        :param epoch: the log's.
        :param head: the sequence of its newest event.
        :raises StoreError: if a notification or an event ever came to this store.
        """
