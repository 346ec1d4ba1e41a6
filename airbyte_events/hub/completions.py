"""Subscriptions to the completions of connections' jobs, however the jobs were started."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import anyio
import anyio.lowlevel

from airbyte_events._utils.times import EARLIEST
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.bus.bus import EventBus, Subscription
from airbyte_events.errors import CursorExpired
from airbyte_events.events import EventFilter, JobEvent
from airbyte_events.hub.position import Bookmark, Position


class Completions:
    """A subscription to completions, each delivered once: ``await completions.receive()``. It ends with the hub.

    It subscribes to the bus first. Then the hub lists the completions since its position for it. Then it continues with
    the bus, without the events that its position covers.

    :param events: a subscription of the hub's bus.
    :param position: where to begin; it advances as completions are received.
    :param overdue: set when this has to catch up.
    """

    def __init__(self, events: Subscription, position: Position, overdue: Wakeup) -> None:
        self.wanted = events.wanted
        self.position = position
        self.late = True
        """Whether it has not caught up yet."""
        self.joined_at = anyio.current_time()
        self._events = events
        self._overdue = overdue
        self._found: deque[JobEvent | Bookmark] = deque()
        # The times of complete lists, and the log's sequence after their events.
        self._lists: deque[tuple[datetime, int]] = deque(maxlen=2)
        self._missed = False
        self._closed = False

    @property
    def overdue(self) -> bool:
        """Whether to catch up now: all completions that were found before have been received."""
        return self.late and not self._found

    @property
    def begun(self) -> bool:
        """Whether its beginning is known: from its position, or since Airbyte's clock was read."""
        return self.position.since is not None or self.position.floor is not None

    def lacks(self, event: JobEvent) -> bool:
        """Return whether the completion is wanted and was not delivered yet."""
        return self.wanted.matches(event) and not self.position.covers(event)

    def bookmark(self, served_at: datetime, sequence: int) -> None:
        """Deliver a bookmark after the events up to this sequence of the log; ignored until it has caught up.

        :param served_at: the time of a complete list of changed jobs, by Airbyte's clock.
        """
        if not self.late:
            # The first one stays: its sequence is reached first.
            if len(self._lists) == 2:
                self._lists.pop()
            self._lists.append((served_at, sequence))
            self._events.wakeup.set()

    def miss(self) -> None:
        """Require catching up: a list was incomplete, or the log no longer has events that were not received."""
        self.late = self._missed = True
        self._lists.clear()
        self._overdue.set()

    def seek(self) -> None:
        """Begin to catch up: with events that were missed so far, but not with those missed from now on."""
        self._missed = False

    def begin(self, served_at: datetime, elapsed: float) -> None:
        """Begin when it joined, by Airbyte's clock, unless its position has a beginning.

        :param served_at: the present time, by Airbyte's clock.
        :param elapsed: seconds since it joined.
        """
        if not self.begun:
            self.position.floor = max(served_at - timedelta(seconds=elapsed), EARLIEST)

    def found(self, event: JobEvent) -> None:
        """Deliver a completion that a list returned, unless it is not wanted or was delivered."""
        if self.lacks(event):
            self.position.record(event)
            self._found.append(event)
            self._events.wakeup.set()

    def caught_up(self, served_at: datetime) -> None:
        """Continue with the bus: all completions before the list's time were found."""
        # Jobs that were missed since then may have changed after their page was read.
        self.late = self._missed
        if self.position.since is None or served_at > self.position.since:
            self.position.advance(served_at)
            self._found.append(Bookmark(served_at, self.position.floor))
        self._events.wakeup.set()

    def close(self) -> None:
        """End the subscription after its events are delivered."""
        self._closed = True
        self._events.wakeup.set()

    async def receive(self) -> JobEvent | Bookmark:
        """Wait for the next completion, or for a bookmark.

        :raises anyio.EndOfStream: when the hub has ended and everything was delivered.
        """
        await anyio.lowlevel.checkpoint()
        while True:
            if (item := await self._next()) is not None:
                return item
            if self._closed:
                raise anyio.EndOfStream
            if self.late:
                self._overdue.set()
            await self._events.wakeup.wait()

    async def _next(self) -> JobEvent | Bookmark | None:
        if self._found:
            return self._found.popleft()
        while self.begun:
            if self._lists and self._events.position >= self._lists[0][1]:
                served_at, _ = self._lists.popleft()
                if self.position.since is not None and served_at <= self.position.since:
                    continue
                self.position.advance(served_at)
                return Bookmark(served_at, self.position.floor)
            try:
                events = await self._events.take(1)
            except CursorExpired:
                self._events.skip()
                self.miss()
                return None
            if not events:
                return None
            if self.lacks(events[0]):
                self.position.record(events[0])
                return events[0]
        return None


class Subscribers:
    """All subscriptions to completions."""

    def __init__(self, bus: EventBus) -> None:
        self.overdue = Wakeup()
        """Set when a subscriber may have to catch up."""
        self._bus = bus
        self._all: set[Completions] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Completions]:
        return iter(list(self._all))

    @contextlib.contextmanager
    def joined(self, wanted: EventFilter, position: Position) -> Iterator[Completions]:
        with self._bus.subscribe(wanted=replace(wanted, terminal=True)) as events:
            completions = Completions(events, position, self.overdue)
            if self._closed:
                completions.close()
            self._all.add(completions)
            self.overdue.set()
            try:
                yield completions
            finally:
                self._all.discard(completions)

    def want(self, event: JobEvent) -> bool:
        return any(each.wanted.matches(event) for each in self._all)

    @property
    def caught_up(self) -> int:
        return sum(not each.late for each in self._all)

    def close(self) -> None:
        self._closed = True
        for each in self._all:
            each.close()
