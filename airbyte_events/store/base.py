"""The contracts of a store, by concern. :class:`EventStore` combines them; callers depend on the parts they need.

Every write is durable when its method returns. A cancelled call has no effect or its whole effect, which may follow a
moment later: a started operation completes. All methods raise :class:`~airbyte_events.errors.StoreError` if the store
fails. Every store passes the same tests.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, Self

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.events import EVERYTHING, EventFilter, JobEvent, JobRef
from airbyte_events.store.records import (
    Appended,
    Arrival,
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
    from airbyte_events.store.migration import Batch

ANNOUNCING_KINDS = ("success", "failure")
"""The kinds of notification that announce a job's completion."""

COMPLETION = "completion"
"""The kind of the bodies that outgoing notifications are made of: events of completed jobs, which nobody sent to us."""

PENDING_BYTES = 16 * 1024 * 1024
"""Maximum size of a page of :meth:`NotificationInbox.pending`."""

ANNOUNCEMENTS = 8
"""Limit of each selection of :meth:`NotificationInbox.announcements`."""

UNBOUNDED = 2**62
"""No limit, in bytes or of a sequence or id."""


def below(before: int | None) -> int:
    """Return the limit of a page: without one, all is below it."""
    return UNBOUNDED if before is None else before


class EventLog(Protocol):
    """An ordered log of job events, and the latest state of each job."""

    @property
    @abstractmethod
    def epoch(self) -> str:
        """The log's identity. It changes when the log lost events that were read before."""

    @abstractmethod
    async def append(
        self,
        observed: Sequence[JobEvent],
        *,
        lease: Lease | None = None,
        known: States | None = None,
        settle: Settle | None = None,
    ) -> Appended:
        """Reconcile observations with the jobs' states, in order and atomically, and append those that are new.

        A different job that reuses a number (see :func:`~airbyte_events.store.reconcile.reconcile`) is new and replaces
        the state of the former job completely.

        :param lease: write only while this lease is held.
        :param known: the states just read; a store may compare their versions instead of reading them again.
        :param settle: returns the outcomes to store in the same transaction; called if an event is appended.
        :raises LeaseLost: if the lease has another holder; nothing was written.
        """

    @abstractmethod
    async def annotate(self, states: Sequence[JobEvent]) -> None:
        """Fill in unknown fields of a job's latest state (``error``, ``names``, ``url``, ...) without an event.

        ``receipts`` are added to those of a terminal state. States of another job with the same number are ignored,
        and all but ``task_url`` of states with another status than the latest.
        """

    @abstractmethod
    async def head(self) -> int:
        """Return the sequence of the newest event; 0 for an empty log."""

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
        """Return the next events after a sequence, at most ``limit``.

        :param size: stop after about so many bytes.
        :param epoch: the sequence's epoch; the log's by default.
        :raises CursorExpired: if later events were removed, the sequence is beyond the head, or the epoch differs.
        """

    @abstractmethod
    async def changed(self, after: int, *, epoch: str | None = None) -> Sequence[JobEvent]:
        """Wait until the head may be after that sequence, or the epoch changed. Wake-ups may be spurious.

        :return: the next events if this process just appended them; if empty, read them.
        """

    @abstractmethod
    async def states(self, refs: Collection[JobRef]) -> States:
        """Return the latest states of the known jobs among these."""

    @abstractmethod
    async def jobs(
        self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING
    ) -> list[JobEvent]:
        """Return latest states with sequences below ``before``, newest first."""

    @abstractmethod
    async def history(self, ref: JobRef) -> list[JobEvent]:
        """Return a job's retained events, oldest first."""


class Topics(Protocol):
    """The wake-ups after changes made by any process."""

    @abstractmethod
    def news(self, topic: str) -> AbstractContextManager[Wakeup]:
        """Subscribe to a topic. Enter the context, read the store, then ``await wakeup.wait()``.

        :param topic: ``inbox/<instance>`` (a notification is pending), ``watches/<instance>`` (a job is newly watched),
            ``deliveries/<instance>`` (a delivery is due) or ``leases/<name>`` (the lease was released).
        """


class NotificationInbox(Topics, Protocol):
    """The received notifications and their outcomes."""

    @abstractmethod
    async def receive(self, arrival: Arrival) -> Receipt:
        """Store a notification and its deliveries, due at once, in one transaction. The same body for the same
        instance is stored once; if it names no job, once per :data:`~airbyte_events.store.records.REPEATED_WITHIN`.
        """

    @abstractmethod
    async def pending(self, instance: str, *, after: int = 0, limit: int = 500) -> Pending:
        """Return the instance's pending notifications with ids above ``after``, ordered by id.

        Returns at least one if there is any, and at most :data:`PENDING_BYTES` together.
        """

    @abstractmethod
    async def settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> None:
        """Store the outcomes of notifications, by id; :attr:`Outcome.PENDING` queues one again."""

    @abstractmethod
    async def notifications(
        self, *, limit: int = 100, before: int | None = None, outgoing: bool = False
    ) -> list[StoredNotification]:
        """Return notifications with ids below ``before``, newest first.

        :param outgoing: also those of the kind :data:`COMPLETION`.
        """

    @abstractmethod
    async def announcements(self, refs: Mapping[JobRef, datetime | None]) -> dict[JobRef, list[StoredNotification]]:
        """Return the success and failure notifications of these jobs, ordered by id.

        At most :data:`ANNOUNCEMENTS` of each: the first, the last, and the first since a time. So a flood before or
        after a job's completion can't hide those sent with it.

        :param refs: the jobs, each with that time.
        """


class DeliveryOutbox(Topics, Protocol):
    """The deliveries of notifications to targets, and their states."""

    @abstractmethod
    async def due(
        self, instance: str, *, to: str | None = None, but: Collection[str] = (), limit: int = 100, skip: int = 0
    ) -> list[Delivery]:
        """Return the instance's due deliveries, the longest due first.

        :param to: the only target, by default any.
        :param but: targets to leave out.
        :param skip: the number of first ones to leave out.
        """

    @abstractmethod
    async def next_due(self, instance: str, *, to: str | None = None, but: Collection[str] = ()) -> datetime | None:
        """Return when the instance's next delivery of these is due; None if there is none."""

    @abstractmethod
    async def attempted(self, attempts: Sequence[Attempt]) -> None:
        """Store the results of delivery attempts."""

    @abstractmethod
    async def deliveries(
        self, *, limit: int = 100, before: int | None = None, state: DeliveryState | None = None
    ) -> list[Delivery]:
        """Return deliveries with ids below ``before``, newest first."""


class LeaseTable(Topics, Protocol):
    """The leases for leader election among processes."""

    shared: bool = False
    """Whether several processes can have the store open."""

    @abstractmethod
    async def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        """Take or renew a lease for so many seconds by the store's clock; return None while another holds it."""

    @abstractmethod
    async def release(self, lease: Lease) -> None:
        """Release a lease early, so that another process can take it at once. Does nothing if it was lost."""

    @abstractmethod
    async def holders(self) -> dict[str, str]:
        """Return the current holders, by lease name."""


class WatchTable(Topics, Protocol):
    """The jobs that tasks wait for."""

    @abstractmethod
    async def watch(self, refs: Collection[JobRef], seconds: float) -> None:
        """Watch these jobs for so many seconds from now, or extend their watches. Completed jobs are ignored."""

    @abstractmethod
    async def watched(self, instance: str) -> dict[int, datetime]:
        """Return the instance's watched jobs, of all processes, with the times when their watches began."""


class ValueTable(Protocol):
    """A table of small values by key, such as how far an instance was polled."""

    @abstractmethod
    async def recall(self, key: str) -> str | None:
        """Return the value that :meth:`remember` stored; None if there is none."""

    @abstractmethod
    async def remember(self, key: str, value: str, *, lease: Lease | None = None) -> None:
        """Store a small value.

        :param lease: write only while this lease is held.
        :raises LeaseLost: if the lease has another holder; nothing was written.
        """


class Maintenance(Protocol):
    """The operations for pruning, statistics and health checks."""

    @property
    def unreadable(self) -> Mapping[str, int]:
        """The number of unreadable rows skipped since the store was opened, by table."""
        return {}

    @abstractmethod
    async def prune(self, before: datetime, *, keep: int) -> Pruned:
        """Remove events observed, and notifications received and settled, before a time.

        Also removes events beyond the ``keep`` newest; reading from a removed sequence raises
        :class:`~airbyte_events.errors.CursorExpired`. Latest states (a job completes once), pending notifications and
        due deliveries are never removed. Works in small transactions, so that other writers are not blocked.
        """

    @abstractmethod
    async def stats(self) -> StoreStats:
        """Return the store's size; large counts may be estimates."""

    @abstractmethod
    async def queues(self, instance: str) -> Queues:
        """Return counts and ages of an instance's waiting work, without blocking writers."""

    @abstractmethod
    async def check(self) -> None:
        """Write and read once, to raise if the store is full, read-only or gone."""


class EventStore(EventLog, NotificationInbox, DeliveryOutbox, LeaseTable, WatchTable, ValueTable, Maintenance):
    """A store, used as ``async with``."""

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(self, *_: object) -> None: ...


class MovableStore(EventStore):
    """A store that can be filled from another one by :func:`airbyte_events.store.migration.migrate`."""

    @abstractmethod
    async def values(self) -> dict[str, str]:
        """Return all values, by key."""

    @abstractmethod
    async def fill(self, epoch: str, head: int, batches: AsyncIterable[Batch]) -> None:
        """Store rows unchanged and continue their log. The store may not be used meanwhile; a failure leaves it empty.

        :param epoch: the log's epoch.
        :param head: the sequence of its newest event.
        :raises StoreError: if the store ever held an event or a notification.
        """
