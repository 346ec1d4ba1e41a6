"""One shared stream for all asset watchers of an Airbyte, in ack mode (Airflow 3.3).

Airflow hands each item of the stream to all watchers, and acknowledges it once the resulting events are in Airflow's
database. Each item is for one watcher, which has a position of its own: it resumes there whenever it joins, however
long after the others. The position is stored in the asset's state, and moves on only past acknowledged items: so a
triggerer's death loses nothing. It repeats what Airflow had stored and not acknowledged yet, which it does about a
second later (``TriggerRunner.sync_state_to_supervisor`` in 3.3.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Hashable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import anyio
from airflow.providers.common.compat.sdk import conf

from airbyte_events.events import JobEvent
from airbyte_events.hub.position import Bookmark, Position
from airbyte_events_provider.waiting.asset_state import Cursors
from airbyte_events_provider.waiting.shared_hub import HubKey
from airbyte_events_provider.waiting.watch import Watch, watch_on

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer
else:
    try:
        from airflow.triggers.shared_stream import SharedStreamProducer
    except ImportError:  # before Airflow 3.3
        SharedStreamProducer = object

logger = logging.getLogger(__name__)

SHARES_STREAMS = SharedStreamProducer is not object
"""Whether this Airflow has shared streams in ack mode."""

MOST_UNACKNOWLEDGED = 64
"""The unacknowledged items that one watcher may have."""

_SAVE_SECONDS = 60.0
_LEAVING_SECONDS = 1.0
_numbers = count(1)


@dataclass(eq=False, slots=True)
class Item:
    """A completed job, for one watcher.

    :param passed: whether the watcher has fired for it.
    """

    member: Member
    event: JobEvent
    passed: bool = False


class Stream:
    """The queue that Airflow reads for all watchers of one hub."""

    def __init__(self, key: HubKey) -> None:
        self.key = key
        queues = conf.getint("triggerer", "shared_stream_subscriber_queue_size", fallback=1024)
        # Airflow hands each watcher every unacknowledged item, and fails one whose queue is full.
        self._room = asyncio.Semaphore(max(1, queues // 2))
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._saving: set[asyncio.Task[None]] = set()

    def save(self, saving: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Save a position in a task: Airflow advances one watcher at a time, and none may wait for another's asset."""
        # In an empty context: Airflow would route its log lines to some task's log.
        task = contextvars.Context().run(asyncio.create_task, saving, name=name)
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)
        return task

    async def saved(self) -> None:
        """Wait until all positions are saved."""
        await asyncio.gather(*self._saving, return_exceptions=True)

    async def put(self, item: Item) -> None:
        await self._room.acquire()
        if item.member.left:
            # While it waited for room: it has released all of its own, and this would never be.
            self._room.release()
        else:
            self._items.put_nowait(item)

    def put_again(self, item: Item) -> None:
        """Queue an item again that its watcher did not take."""
        self._items.put_nowait(item)

    def done(self) -> None:
        """Make room: an item is acknowledged, or its watcher has left."""
        self._room.release()

    async def get(self) -> Item:
        while True:
            item = await self._items.get()
            if not item.member.left:
                return item


class Member:
    """A watcher that has joined: a task of its own puts its items into the stream.

    :param watch: the watcher's filter.
    :param cursors: where its position is stored.
    """

    def __init__(self, stream: Stream, watch: Watch, cursors: Cursors) -> None:
        self.number = next(_numbers)
        self.left = False
        self._stream = stream
        self._watch = watch
        self._cursors = cursors
        # Unacknowledged items, and the marks between them: all up to there was put into the stream.
        self._pending: deque[Item | Bookmark] = deque()
        self._unacknowledged = 0
        self._room = asyncio.Event()
        self._position = Position()
        self._saved_at = float("-inf")
        self._unsaved = False
        self._saver: asyncio.Task[None] | None = None
        # Unlike a task's own cancellation, that of a scope is repeated until the task ends.
        self._scope = anyio.CancelScope()
        # In an empty context: Airflow would route its log lines to some task's log.
        self._task = contextvars.Context().run(
            asyncio.create_task, self._follow_cancellably(), name=f"watcher {self.number}"
        )

    async def _follow_cancellably(self) -> None:
        with self._scope:
            await self._follow()

    async def _follow(self) -> None:
        # The position of the same watcher, if it was here before.
        await self._stream.saved()
        self._position = await self._cursors.load()
        async with contextlib.aclosing(watch_on(self._watch, self._position.copy())) as items:
            async for item in items:
                if isinstance(item, Bookmark):
                    if self._pending and isinstance(self._pending[-1], Bookmark):
                        self._pending.pop()
                    self._pending.append(item)
                    self._move_on()
                else:
                    await self._offer(Item(self, item))

    async def _offer(self, item: Item) -> None:
        while self._unacknowledged >= MOST_UNACKNOWLEDGED:
            self._room.clear()
            await self._room.wait()
        await self._stream.put(item)
        self._unacknowledged += 1
        self._pending.append(item)

    def leave(self) -> None:
        """Leave. Unacknowledged items are repeated when the watcher comes back."""
        if self.left:
            return
        self.left = True
        self._scope.cancel()
        for _ in range(self._unacknowledged):
            self._stream.done()

    def store(self, items: Sequence[Item]) -> None:
        """Acknowledge the oldest items: Airflow has stored their events."""
        for item in items:
            with contextlib.suppress(ValueError):
                self._pending.remove(item)
                self._position.record(item.event)
                self._unacknowledged -= 1
                self._stream.done()
        self._room.set()
        self._move_on(save=True)

    def _move_on(self, *, save: bool = False) -> None:
        while self._pending and isinstance(mark := self._pending[0], Bookmark):
            self._pending.popleft()
            first = self._position.since is None
            self._position.advance(mark.moment, mark.floor)
            now = asyncio.get_running_loop().time()
            save = save or first or now > self._saved_at + _SAVE_SECONDS
        if save:
            self._saved_at = asyncio.get_running_loop().time()
            self._unsaved = True
            if self._saver is None or self._saver.done():
                self._saver = self._stream.save(self._save(), f"position of watcher {self.number}")

    async def _save(self) -> None:
        while self._unsaved:
            self._unsaved = False
            await self._cursors.save(self._position.copy())


class Producer(SharedStreamProducer):
    """Airflow's side of a stream: it reads items, and acknowledges what it has stored."""

    def __init__(self, key: HubKey) -> None:
        self._key = key

    async def open_stream(self) -> AsyncIterator[tuple[Any, Any]]:
        stream = stream_of(self._key)
        while True:
            item = await stream.get()
            yield item, item

    def get_advance_lane(self, broker_payload: Any) -> Hashable:
        number: int = broker_payload.member.number
        return number

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        member: Member = batch[0].broker_payload.member
        if not all(outcome.is_clean for _, outcome in batch):
            # A watcher has failed. If it was this one, it leaves now.
            await asyncio.sleep(_LEAVING_SECONDS)
        if member.left:
            return
        stored = []
        for item, outcome in batch:
            if outcome.is_clean or item.passed:
                stored.append(item)
            else:
                # The watcher was not there to take it.
                stream_of(self._key).put_again(item)
        member.store(stored)

    async def aclose(self) -> None:
        await stream_of(self._key).saved()


def stream_of(key: HubKey) -> Stream:
    """Return the stream that this event loop has for the key."""
    streams = _streams.setdefault(asyncio.get_running_loop(), {})
    return streams.setdefault(key, Stream(key))


_streams: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[HubKey, Stream]] = WeakKeyDictionary()
