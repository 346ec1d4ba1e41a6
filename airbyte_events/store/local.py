"""What stores share: the state that a process keeps beside a store."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import takewhile

import anyio.lowlevel

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import CursorExpired
from airbyte_events.events import EVERYTHING, EventFilter, JobEvent
from airbyte_events.store.base import UNBOUNDED
from airbyte_events.store.identity import REPLACED, KnownLog, LogReplaced, tail_of
from airbyte_events.store.records import Appended, Arrival, LogPage, Outcome
from airbyte_events.store.rows import Row, Unreadable, event_of

CACHED_EVENTS = 200


class LogTail:
    """The log's head, and the newest events that this process appended, which need not be read."""

    def __init__(self) -> None:
        self.head = 0
        self._events: deque[JobEvent] = deque(maxlen=CACHED_EVENTS)
        self._changed = Wakeup()

    def advance(self, head: int, events: Sequence[JobEvent] = ()) -> None:
        """Set the head and wake waiting tasks, if it grew.

        :param events: the newest events, without gaps.
        """
        if head <= self.head:
            return
        if not events or events[0].sequence != self.head + 1:
            self._events.clear()
        self._events.extend(events)
        self.head = head
        self._changed.set()

    def restart(self, head: int) -> None:
        """Continue with another log."""
        self.head = head
        self._events.clear()
        self._changed.set()

    async def changed(self) -> None:
        await self._changed.wait()

    def after(self, sequence: int) -> list[JobEvent]:
        """Return the events after that sequence; empty if they have to be read."""
        if not self._events or self._events[0].sequence > sequence + 1:
            return []
        newest_first = takewhile(lambda event: event.sequence > sequence, reversed(self._events))
        return list(newest_first)[::-1]


class Wakeups:
    """The waiting tasks of each topic. Subscribe, read, then wait: no change in between is missed."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Wakeup]] = {}

    @contextlib.contextmanager
    def subscribe(self, topic: str) -> Iterator[Wakeup]:
        wakeup = Wakeup()
        self._waiting.setdefault(topic, set()).add(wakeup)
        try:
            yield wakeup
        finally:
            self._waiting[topic].discard(wakeup)
            if not self._waiting[topic]:
                del self._waiting[topic]

    def wake(self, topics: Iterable[str] | None = None) -> None:
        """Wake the subscribers of these topics; of all by default."""
        for topic in list(self._waiting) if topics is None else topics:
            for wakeup in self._waiting.get(topic, ()):
                wakeup.set()


class LocalState:
    """The log as this process knows it, its newest events, the waiting tasks, and the unreadable rows."""

    _log: KnownLog

    def __init__(self) -> None:
        self._unreadable = Unreadable()
        self._tail = LogTail()
        self._wakeups = Wakeups()

    @property
    def epoch(self) -> str:
        return self._log.epoch

    @property
    def unreadable(self) -> Mapping[str, int]:
        return self._unreadable.counts

    def news(self, topic: str) -> AbstractContextManager[Wakeup]:
        return self._wakeups.subscribe(topic)

    async def changed(self, after: int, *, epoch: str | None = None) -> Sequence[JobEvent]:
        await anyio.lowlevel.checkpoint()
        while self._tail.head <= after and epoch in (None, self.epoch):
            await self._tail.changed()
        return self._tail.after(after) if epoch in (None, self.epoch) else ()

    async def read(
        self,
        after: int,
        *,
        limit: int = 500,
        size: int = UNBOUNDED,
        wanted: EventFilter = EVERYTHING,
        epoch: str | None = None,
    ) -> LogPage:
        if epoch not in (None, self.epoch):
            raise CursorExpired(REPLACED)
        try:
            return await self._read(self._log, after, limit, size, wanted)
        except LogReplaced:
            await self._renew()
            raise

    @abstractmethod
    async def _read(self, log: KnownLog, after: int, limit: int, size: int, wanted: EventFilter) -> LogPage:
        """Read a page of this log.

        :raises LogReplaced: if it lost events or has another epoch.
        """

    async def _renew(self) -> None:
        """Assign a new epoch if the log lost events, and continue with the log as it is now."""

    def _advance(self, log: KnownLog, appended: Appended) -> None:
        """Note what was appended, unless the log was replaced meanwhile."""
        if appended.events and log is self._log:
            tail = tail_of(appended.events[-1])
            log.advance(tail)
            self._tail.advance(tail.sequence, appended.events)

    def _wake_inbox(self, arrival: Arrival) -> None:
        """Wake the task that confirms what was received."""
        if arrival.outcome is Outcome.PENDING:
            self._wakeups.wake([f"inbox/{arrival.instance}"])

    def _wake_outbox(self, arrival: Arrival) -> None:
        """Wake the tasks that deliver what was received."""
        if arrival.targets:
            self._wakeups.wake([f"deliveries/{arrival.instance}"])

    def _waking(self, topic: str) -> Callable[[Iterable[str]], None]:
        return lambda instances: self._wakeups.wake(f"{topic}/{instance}" for instance in instances)

    def _events(self, rows: Iterable[Row], table: str, epoch: str | None = None) -> Iterator[JobEvent]:
        return self._unreadable.sift(rows, table, lambda row: self._event(row, epoch))

    def _event(self, row: Row, epoch: str | None = None) -> JobEvent | None:
        return event_of(row, epoch or self.epoch)
