"""The completions of connections' jobs, whoever started them, as one subscriber gets them."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
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
    """Completions, each once: ``async for event in completions``. It ends when the hub does.

    It joins the bus first; then a list of what has changed since its position is read for it (*catching up*); then it
    goes on with what the bus hands out, and leaves out what its position covers.

    :param events: its subscription of the hub's bus.
    :param position: where to begin; it advances as completions are received here.
    :param overdue: set when it has to catch up.
    """

    def __init__(self, events: Subscription, position: Position, overdue: Wakeup) -> None:
        self.wanted = events.wanted
        self.position = position
        self.late = True
        """Whether it still has to catch up."""
        self.joined_at = anyio.current_time()
        self._events = events
        self._overdue = overdue
        self._found: deque[JobEvent | Bookmark] = deque()
        # When complete lists were served, and the log's sequence behind what they brought.
        self._lists: deque[tuple[datetime, int]] = deque(maxlen=2)
        self._missed = False
        self._closed = False

    @property
    def overdue(self) -> bool:
        """Whether to catch up now: what was found before has been received."""
        return self.late and not self._found

    @property
    def begun(self) -> bool:
        """Whether it is known where it begins: by its position, or since Airbyte's clock was read for it."""
        return self.position.since is not None or self.position.floor is not None

    def lacks(self, event: JobEvent) -> bool:
        """Return whether the completion is wanted and was not delivered."""
        return self.wanted.matches(event) and not self.position.covers(event)

    def bookmark(self, served_at: datetime, sequence: int) -> None:
        """Deliver a bookmark once all up to this sequence of the log is delivered, unless it has to catch up anyway.

        :param served_at: when a list that brought all changed jobs was served.
        """
        if not self.late:
            # The first of those that wait stays: it is reached the soonest.
            if len(self._lists) == 2:
                self._lists.pop()
            self._lists.append((served_at, sequence))
            self._events.wakeup.set()

    def miss(self) -> None:
        """Have it catch up: a list was cut short, or the log no longer has what it did not receive."""
        self.late = self._missed = True
        self._lists.clear()
        self._overdue.set()

    def seek(self) -> None:
        """Begin to catch up: it finds what was missed so far, and not what is missed from now on."""
        self._missed = False

    def begin(self, served_at: datetime, elapsed: float) -> None:
        """Begin at when it joined, by Airbyte's clock, unless its position says otherwise.

        :param served_at: the time in Airbyte.
        :param elapsed: seconds since it joined.
        """
        if not self.begun:
            self.position.floor = max(served_at - timedelta(seconds=elapsed), EARLIEST)

    def found(self, event: JobEvent) -> None:
        """Deliver a completion that was found while catching up, unless it is not wanted or was delivered."""
        if self.lacks(event):
            self.position.record(event)
            self._found.append(event)
            self._events.wakeup.set()

    def caught_up(self, served_at: datetime) -> None:
        """Go on with the bus: all that had completed when the list was served has been found."""
        # What was missed since then may have changed after its page was read.
        self.late = self._missed
        if self.position.since is None or served_at > self.position.since:
            self.position.advance(served_at)
            self._found.append(Bookmark(served_at, self.position.floor))
        self._events.wakeup.set()

    def close(self) -> None:
        """End it, after what it holds is delivered."""
        self._closed = True
        self._events.wakeup.set()

    async def receive(self) -> JobEvent | Bookmark:
        """Wait for the next completion, or for how far all were delivered.

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

    def __aiter__(self) -> Completions:
        return self

    async def __anext__(self) -> JobEvent:
        try:
            while not isinstance(item := await self.receive(), JobEvent):
                pass
        except anyio.EndOfStream:
            raise StopAsyncIteration from None
        return item


class Subscribers:
    """All who subscribe to connections' completions.

    :param bus: the hub's.
    """

    def __init__(self, bus: EventBus) -> None:
        self.overdue = Wakeup()
        """Set when somebody may have to catch up."""
        self._bus = bus
        self._all: set[Completions] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Completions]:
        return iter(list(self._all))

    @contextlib.contextmanager
    def joined(self, wanted: EventFilter, position: Position) -> Iterator[Completions]:
        """Subscribe meanwhile.

        :param wanted: which completions.
        """
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
        """Return whether anybody does."""
        return any(each.wanted.matches(event) for each in self._all)

    @property
    def caught_up(self) -> int:
        """How many have caught up."""
        return sum(not each.late for each in self._all)

    @property
    def who_are_overdue(self) -> Sequence[Completions]:
        return [each for each in self._all if each.overdue]

    def close(self) -> None:
        self._closed = True
        for each in self._all:
            each.close()
