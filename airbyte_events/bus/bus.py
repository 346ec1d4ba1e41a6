"""The event bus: delivers the log's events to every subscriber, in log order; no subscriber can block it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Sequence
from typing import Self

import anyio
import anyio.abc
import anyio.lowlevel

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import CursorExpired, StoreError
from airbyte_events.events import EVERYTHING, WHOLE_LOG, Cursor, EventFilter, JobEvent, JobRef
from airbyte_events.store.base import UNBOUNDED, EventLog

logger = logging.getLogger(__name__)

BUFFER = 1_000
"""The maximum of buffered events for one subscriber, and of the newest events in memory. A subscriber further behind
reads the log from its position."""

BUFFER_BYTES = 2 * 2**20
"""The approximate maximum in bytes of one subscriber's buffer."""

BUFFERED_BYTES = 64 * 2**20
"""The same for all subscribers together. A subscriber without room drops its buffer, and reads the log from its
position."""

RECENT_BYTES = 16 * 2**20
"""The maximum in bytes of the newest events in memory."""

_PAGE, _PAGE_BYTES = 1_000, 4 * 2**20
_STEP, _STEP_BYTES = 200, 128 * 1024
"""Events that a subscriber far behind reads at a time, so that others get their turns."""

_RETRY_SECONDS = 1.0


class EventBus:
    """Follows a store's log and publishes new events to subscribers.

    The log is the truth: the bus reads it in order, whichever process appended. Every subscriber sees the same order,
    and resumes from its position in the log alone.
    """

    def __init__(self, store: EventLog) -> None:
        self._store = store
        # By job or connection: with thousands of subscribers, matching one by one would be too slow.
        self._subscribers: dict[JobRef | str | None, set[Subscription]] = {}
        self._advanced = Wakeup()
        self.recent: deque[JobEvent] = deque()
        """The newest events: a thousand subscribers that reconnect need not read the log."""
        self._recent_after = 0
        self._recent_bytes = 0
        self.buffered_bytes = 0
        """The approximate size of the events in the buffers of all subscriptions."""
        self.position = 0
        """The sequence up to which the log was published."""
        self.epoch = ""
        """The log's epoch at that position."""
        self.healthy = True
        """False while the log can't be read."""
        self.closed = False

    async def __aenter__(self) -> Self:
        self.epoch, self.position = await self._head()
        await self._load_recent()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._follow)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        self._tasks.cancel_scope.cancel()
        # Without the body's error: a task group would wrap it.
        await self._tasks.__aexit__(None, None, None)

    def subscribe(
        self, *, after: Cursor | int | None = None, wanted: EventFilter = EVERYTHING, own: bool = False
    ) -> Subscription:
        """Return a subscription.

        :param after: the position to begin after, as a cursor or a sequence; by default the newest.
        :param own: whether this process itself subscribes; such a subscription is not counted.
        """
        cursor = self.cursor if after is None else Cursor(self.epoch, after) if isinstance(after, int) else after
        return Subscription(self, self._store, cursor, wanted, own)

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.position)

    @property
    def subscriptions(self) -> int:
        """The number of subscriptions, without the process's own."""
        return sum(not each.own for each in self._subscriptions())

    @property
    def lag(self) -> int:
        """The number of events that the slowest subscription is behind."""
        # Positions in another log do not compare.
        positions = (each.position for each in self._subscriptions() if each.cursor.epoch == self.epoch)
        return self.position - min(positions, default=self.position)

    def close(self) -> None:
        """End every subscription once it has delivered its buffer."""
        self.closed = True
        for subscription in self._subscriptions():
            subscription.wakeup.set()
        self._advanced.set()

    async def reached(self, sequence: int) -> None:
        """Wait until the log was published up to this sequence, or the bus closes."""
        while self.position < sequence and not self.closed:
            await self._advanced.wait()

    def _subscriptions(self) -> set[Subscription]:
        return set().union(*self._subscribers.values())

    async def _head(self) -> Cursor:
        while True:
            epoch = self._store.epoch
            head = await self._store.head()
            if epoch == self._store.epoch:
                return Cursor(epoch, head)

    async def _load_recent(self) -> None:
        self._recent_after = self.position
        after = max(0, self.position - BUFFER)
        try:
            while after < self.position:
                page = await self._store.read(after, limit=BUFFER, size=_PAGE_BYTES, wanted=WHOLE_LOG, epoch=self.epoch)
                if not self.recent:
                    self._recent_after = after
                self._cache(page.events)
                after = page.position
            self.position = after
        except CursorExpired:
            self._clear_cache()

    def _cache(self, events: Sequence[JobEvent]) -> None:
        for event in events:
            self.recent.append(event)
            self._recent_bytes += event.weight
            while len(self.recent) > BUFFER or self._recent_bytes > RECENT_BYTES:
                oldest = self.recent.popleft()
                self._recent_bytes -= oldest.weight
                self._recent_after = oldest.sequence

    def _clear_cache(self) -> None:
        self.recent.clear()
        self._recent_bytes = 0
        self._recent_after = self.position

    def _has_cached(self, cursor: Cursor) -> bool:
        """Return whether all events from the cursor to the bus's position are in memory."""
        return cursor.epoch == self.epoch and self._recent_after <= cursor.sequence <= self.position

    def _cached(self, sequence: int) -> list[JobEvent]:
        return [event for event in self.recent if event.sequence > sequence]

    async def _follow(self) -> None:
        while True:
            try:
                events = await self._store.changed(self.position, epoch=self.epoch) if self.healthy else ()
                if events:
                    self._publish(events, events[-1].sequence)
                else:
                    await self._read_page()
            except Exception as exc:  # no content of a log may end the listener
                if self.healthy:
                    trace = None if isinstance(exc, StoreError) else exc
                    logger.error("can't read the event log, trying again each second: %s", exc, exc_info=trace)
                self.healthy = False
                await anyio.sleep(_RETRY_SECONDS)

    async def _read_page(self) -> None:
        try:
            page = await self._store.read(
                self.position, limit=_PAGE, size=_PAGE_BYTES, wanted=WHOLE_LOG, epoch=self.epoch
            )
        except CursorExpired:
            head = await self._head()
            # Subscribers detect that by reading, too.
            for subscription in self._subscriptions():
                subscription._fall_behind()
            self.epoch, self.position = head
            self._advanced.set()
            self._clear_cache()
            return
        self.healthy = True
        if page.position > self.position:
            self._publish(page.events, page.position)

    def _publish(self, events: Sequence[JobEvent], position: int) -> None:
        self.position = position
        self._advanced.set()
        self._cache(events)
        for event in events:
            for key in (event.ref, (event.connection_id or "").lower(), None):
                for subscription in self._subscribers.get(key, ()):
                    subscription._offer(event)

    def _join(self, subscription: Subscription) -> None:
        for key in _keys(subscription.wanted):
            self._subscribers.setdefault(key, set()).add(subscription)

    def _leave(self, subscription: Subscription) -> None:
        for key in _keys(subscription.wanted):
            same_key = self._subscribers.get(key, set())
            same_key.discard(subscription)
            if not same_key:
                self._subscribers.pop(key, None)


class Subscription:
    """A subscription of the bus: ``with bus.subscribe() as events: async for event in events``.

    It begins at a position in the log and ends when the bus closes. When its reader falls more than :data:`BUFFER`
    events behind, it reads the log: it loses no event, and its buffer is bounded.
    """

    __slots__ = (
        "_behind",
        "_bus",
        "_epoch",
        "_held",
        "_position",
        "_store",
        "buffered_bytes",
        "own",
        "wakeup",
        "wanted",
    )

    def __init__(self, bus: EventBus, store: EventLog, after: Cursor, wanted: EventFilter, own: bool) -> None:
        self._bus = bus
        self.own = own
        self._store = store
        # Up to here the log was delivered or buffered.
        self._epoch, self._position = after
        self.wanted = wanted
        # Not a deque, which takes 600 bytes when it is empty: one for each waiting task.
        self._held: list[JobEvent] = []
        self.buffered_bytes = 0
        """The approximate size of the events in the buffer."""
        self._behind = False
        self.wakeup = Wakeup()
        """Set when there may be new events, and when the bus closes."""

    def __enter__(self) -> Self:
        self._bus._join(self)
        self._behind = (self._epoch, self._position) != self._bus.cursor
        return self

    def __exit__(self, *_: object) -> None:
        self._bus._leave(self)
        self._take(len(self._held))

    @property
    def cursor(self) -> Cursor:
        """:attr:`position`, in the log that is read."""
        return Cursor(self._epoch, self.position)

    @property
    def position(self) -> int:
        """The sequence to resume from: every wanted event up to it was delivered."""
        if self._held:
            return self._held[0].sequence - 1
        return self._position if self._behind else max(self._position, self._bus.position)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobEvent:
        try:
            return (await self.receive(1))[0]
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def receive(self, limit: int, size: int = UNBOUNDED) -> list[JobEvent]:
        """Wait for the next events, at least one and at most ``limit``.

        :param size: the approximate maximum in bytes; one event is always returned.
        :raises anyio.EndOfStream: when the bus has closed and everything was delivered.
        :raises CursorExpired: if the log no longer keeps the events after this position.
        :raises StoreError: if the log can't be read.
        """
        while not (events := await self.take(limit, size)):
            if self._bus.closed:
                raise anyio.EndOfStream
            await self.wakeup.wait()
        return events

    async def take(self, limit: int, size: int = UNBOUNDED) -> list[JobEvent]:
        """Return the next events without waiting; parameters and errors as for :meth:`receive`."""
        await anyio.lowlevel.checkpoint()
        while self._behind and not self._held:
            await self._catch_up()
        count = 0
        for event in self._held:
            count += 1
            if count == limit or (size := size - event.weight) <= 0:
                break
        return self._take(count)

    def skip(self) -> None:
        """Drop undelivered events, and continue with the newest."""
        self._take(len(self._held))
        self._epoch, self._position = self._bus.cursor
        self._behind = False

    def _take(self, count: int) -> list[JobEvent]:
        taken = self._held[:count]
        del self._held[:count]
        self._count_bytes(-sum(event.weight for event in taken))
        return taken

    def _hold(self, event: JobEvent) -> None:
        self._held.append(event)
        self._count_bytes(event.weight)

    def _count_bytes(self, bytes: int) -> None:
        self.buffered_bytes += bytes
        self._bus.buffered_bytes += bytes

    async def _catch_up(self) -> None:
        cursor = Cursor(self._epoch, self._position)
        if self._bus._has_cached(cursor):
            # Raises CursorExpired if the store no longer keeps them.
            await self._store.read(self._position, limit=1, epoch=self._epoch)
            if self._bus._has_cached(cursor):
                most = BUFFER_BYTES if self._bus.buffered_bytes < BUFFERED_BYTES else _STEP_BYTES
                for event in self._bus._cached(self._position):
                    if self.buffered_bytes >= most:
                        return
                    if self.wanted.matches(event):
                        self._hold(event)
                    self._position = event.sequence
                self._position = self._bus.position
                self._behind = False
                return
        page = await self._store.read(
            self._position, limit=_STEP, size=_STEP_BYTES, wanted=self.wanted, epoch=self._epoch
        )
        # No await from here on: nothing is published meanwhile.
        for event in page.events:
            if self.wanted.matches(event):
                self._hold(event)
        self._position = page.position
        self._behind = self._epoch != self._bus.epoch or page.position < self._bus.position

    def _offer(self, event: JobEvent) -> None:
        # The subscription may have read this event from the log already.
        if self._behind or event.sequence <= self._position or not self.wanted.matches(event):
            return
        if self._held and (len(self._held) >= BUFFER or self.buffered_bytes + event.weight > BUFFER_BYTES):
            self._fall_behind()
        elif self._held and self._bus.buffered_bytes > BUFFERED_BYTES:
            self._position = self.position
            self._take(len(self._held))
            self._behind = True
            self.wakeup.set()
        else:
            self._hold(event)
            self._position = event.sequence
            self.wakeup.set()

    def _fall_behind(self) -> None:
        # The reader takes the buffer, then reads the log.
        if not self._held:
            self._position = self.position
        self._behind = True
        self.wakeup.set()


def _keys(wanted: EventFilter) -> Collection[JobRef | str | None]:
    return [wanted.only_job] if wanted.only_job is not None else wanted.connection_ids or [None]
