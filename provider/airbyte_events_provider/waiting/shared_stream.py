"""One shared stream for all asset watchers of an Airbyte, in ack mode (Airflow 3.3).

Airflow delivers each item of the stream to all watchers, and acknowledges it once the resulting events are in Airflow's
database. Each item is for one watcher, which resumes from its own position. The position is stored in the asset's
state, and advances only past acknowledged items, so the crash of a triggerer loses none. It repeats items that Airflow
had stored but not acknowledged, which takes about a second (``TriggerRunner.sync_state_to_supervisor`` in 3.3.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import anyio
from airflow.providers.common.compat.sdk import conf

from airbyte_events.events import JobEvent
from airbyte_events.hub.position import Bookmark, Position
from airbyte_events_provider.waiting.asset_state import StoredPosition
from airbyte_events_provider.waiting.shared_hub import HubKey
from airbyte_events_provider.waiting.watch import Watch, follow

logger = logging.getLogger(__name__)

MAX_UNACKNOWLEDGED = 64
"""The maximum of unacknowledged items of one watcher."""

_SAVE_SECONDS = 60.0
_numbers = count(1)


@dataclass(eq=False, slots=True)
class Item:
    """A completed job, for one watcher.

    :param fired: whether the watcher has fired for it.
    """

    subscriber: Subscriber
    event: JobEvent
    fired: bool = False


class Stream:
    """The queue of items for all watchers of one hub."""

    def __init__(self, key: HubKey) -> None:
        self.key = key
        queues = conf.getint("triggerer", "shared_stream_subscriber_queue_size", fallback=1024)
        # Airflow queues every unacknowledged item for each watcher, and fails a watcher whose queue is full.
        self._room = asyncio.Semaphore(max(1, queues // 2))
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._saving: set[asyncio.Task[None]] = set()

    def save(self, saving: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Save a position in a new task: Airflow advances one watcher at a time, and none may block the others."""
        # In an empty context: Airflow routes log lines to tasks by context.
        task = contextvars.Context().run(asyncio.create_task, saving, name=name)
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)
        return task

    async def saved(self) -> None:
        await asyncio.gather(*self._saving, return_exceptions=True)

    async def put(self, item: Item) -> None:
        await self._room.acquire()
        if item.subscriber.left:
            # It left while it waited here, and has released its other items already.
            self._room.release()
        else:
            self._items.put_nowait(item)

    def requeue(self, item: Item) -> None:
        """Queue an item again that its watcher did not receive."""
        self._items.put_nowait(item)

    def done(self) -> None:
        """Make room after an item was acknowledged, or its watcher left."""
        self._room.release()

    async def get(self) -> Item:
        while True:
            item = await self._items.get()
            if not item.subscriber.left:
                return item


class Subscriber:
    """A watcher that has subscribed: its own task puts items into the stream.

    :param watch: the watcher's filter.
    :param stored: the watcher's stored position.
    """

    def __init__(self, stream: Stream, watch: Watch, stored: StoredPosition) -> None:
        self.number = next(_numbers)
        self.left = False
        self._stream = stream
        self._watch = watch
        self._stored = stored
        # Unacknowledged items, and the bookmarks between them.
        self._pending: deque[Item | Bookmark] = deque()
        self._room = asyncio.Semaphore(MAX_UNACKNOWLEDGED)
        self._position = Position()
        self._saved_at = float("-inf")
        self._unsaved = False
        self._saver: asyncio.Task[None] | None = None
        # Unlike a task, a scope repeats the cancellation until the task ends.
        self._scope = anyio.CancelScope()
        # In an empty context, as above.
        self._task = contextvars.Context().run(asyncio.create_task, self._follow(), name=f"watcher {self.number}")

    async def _follow(self) -> None:
        with self._scope:
            # The position of the same watcher may be about to be saved.
            await self._stream.saved()
            self._position = await self._stored.load()
            async with contextlib.aclosing(follow(self._watch, self._position.copy())) as items:
                async for item in items:
                    if not isinstance(item, Bookmark):
                        await self._offer(Item(self, item))
                        continue
                    if self._pending and isinstance(self._pending[-1], Bookmark):
                        self._pending.pop()
                    self._pending.append(item)
                    self._advance()

    async def _offer(self, item: Item) -> None:
        await self._room.acquire()
        await self._stream.put(item)
        self._pending.append(item)

    def leave(self) -> None:
        """Unsubscribe. Unacknowledged items are repeated when the watcher subscribes again."""
        if self.left:
            return
        self.left = True
        self._scope.cancel()
        for pending in self._pending:
            if isinstance(pending, Item):
                self._stream.done()

    def acknowledge(self, items: Sequence[Item]) -> None:
        """Advance past items whose events Airflow has stored."""
        for item in items:
            with contextlib.suppress(ValueError):
                self._pending.remove(item)
                self._position.record(item.event)
                self._room.release()
                self._stream.done()
        self._advance(save=True)

    def _advance(self, *, save: bool = False) -> None:
        while self._pending and isinstance(bookmark := self._pending[0], Bookmark):
            self._pending.popleft()
            first = self._position.since is None
            self._position.advance(bookmark.moment, bookmark.floor)
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
            await self._stored.save(self._position.copy())


def stream_of(key: HubKey) -> Stream:
    """Return the event loop's stream for the key."""
    streams = _streams.setdefault(asyncio.get_running_loop(), {})
    return streams.setdefault(key, Stream(key))


_streams: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[HubKey, Stream]] = WeakKeyDictionary()
