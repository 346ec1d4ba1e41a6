"""One shared stream for all asset watchers of a listener, in ack mode (Airflow 3.3).

Airflow hands each item of the stream to all watchers, and tells the stream when what came of it is in Airflow's
database. An item is meant for one watcher: each has a place of its own, at which it goes on whenever it joins, however
long after the others. That place moves on, and is kept in the asset's state, only behind what Airflow has stored: so a
triggerer's death loses nothing. It repeats what Airflow had stored and not confirmed yet, which it does about a second
later, with its next exchange (``TriggerRunner.sync_state_to_supervisor`` in 3.3.2).
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

MOST_UNSTORED = 64
"""Items of one watcher that Airflow has not stored yet."""

_SAVE_SECONDS = 60.0
_LEAVING_SECONDS = 1.0
_numbers = count(1)


@dataclass(eq=False, slots=True)
class Item:
    """An end, meant for one watcher.

    :param passed: the watcher has fired for it, and gone on.
    """

    member: Member
    event: JobEvent
    passed: bool = False


class Stream:
    """What the watchers of one hub share: a queue that Airflow reads.

    :param key: whose hub.
    """

    def __init__(self, key: HubKey) -> None:
        self.key = key
        queues = conf.getint("triggerer", "shared_stream_subscriber_queue_size", fallback=1024)
        # Each watcher is handed every item that is not stored yet, and Airflow fails one whose queue is full.
        self._room = asyncio.Semaphore(max(1, queues // 2))
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._saving: set[asyncio.Task[None]] = set()

    def save(self, saving: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Save a place meanwhile. Airflow advances one watcher at a time, and nobody waits for another's asset."""
        # In an empty context: Airflow would take its log lines for some task's.
        task = contextvars.Context().run(asyncio.create_task, saving, name=name)
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)
        return task

    async def saved(self) -> None:
        """Return when all places are saved that were to be."""
        await asyncio.gather(*self._saving, return_exceptions=True)

    async def put(self, item: Item) -> None:
        await self._room.acquire()
        if item.member.left:
            # As there was room for it: it has given back what it had, and this would never be.
            self._room.release()
        else:
            self._items.put_nowait(item)

    def put_again(self, item: Item) -> None:
        """An item that nobody was there to take."""
        self._items.put_nowait(item)

    def done(self) -> None:
        """An item is stored, or its watcher has left."""
        self._room.release()

    async def get(self) -> Item:
        while True:
            item = await self._items.get()
            if not item.member.left:
                return item


class Member:
    """A watcher that has joined: it has a task of its own, which puts its ends into the stream.

    :param stream: whose member it is.
    :param watch: what it wants.
    :param cursors: where its place is kept.
    """

    def __init__(self, stream: Stream, watch: Watch, cursors: Cursors) -> None:
        self.number = next(_numbers)
        self.left = False
        self._stream = stream
        self._watch = watch
        self._cursors = cursors
        # What is told and not stored yet, and how far all was told in between.
        self._open: deque[Item | Bookmark] = deque()
        self._unstored = 0
        self._room = asyncio.Event()
        self._stored = Position()
        self._saved_at = float("-inf")
        self._unsaved = False
        self._saver: asyncio.Task[None] | None = None
        # Unlike a task's own cancellation, that of a scope is repeated until it is heeded.
        self._telling = anyio.CancelScope()
        # In an empty context: Airflow would take its log lines for some task's.
        self._task = contextvars.Context().run(asyncio.create_task, self._tell(), name=f"watcher {self.number}")

    async def _tell(self) -> None:
        with self._telling:
            await self._tell_all()

    async def _tell_all(self) -> None:
        # That of the same watcher, if it was here before.
        await self._stream.saved()
        self._stored = await self._cursors.load()
        async with contextlib.aclosing(watch_on(self._watch, self._stored.copy())) as items:
            async for item in items:
                if isinstance(item, Bookmark):
                    if self._open and isinstance(self._open[-1], Bookmark):
                        self._open.pop()
                    self._open.append(item)
                    self._move_on()
                else:
                    await self._offer(Item(self, item))

    async def _offer(self, item: Item) -> None:
        while self._unstored >= MOST_UNSTORED:
            self._room.clear()
            await self._room.wait()
        await self._stream.put(item)
        self._unstored += 1
        self._open.append(item)

    def leave(self) -> None:
        """The watcher is gone. What is not stored will be told again when it comes back."""
        if self.left:
            return
        self.left = True
        self._telling.cancel()
        for _ in range(self._unstored):
            self._stream.done()

    def store(self, items: Sequence[Item]) -> None:
        """Airflow has stored what came of these, the oldest ones that it had."""
        for item in items:
            with contextlib.suppress(ValueError):
                self._open.remove(item)
                self._stored.record(item.event)
                self._unstored -= 1
                self._stream.done()
        self._room.set()
        self._move_on(save=True)

    def _move_on(self, *, save: bool = False) -> None:
        while self._open and isinstance(mark := self._open[0], Bookmark):
            self._open.popleft()
            first = self._stored.since is None
            self._stored.advance(mark.moment, mark.floor)
            now = asyncio.get_running_loop().time()
            save = save or first or now > self._saved_at + _SAVE_SECONDS
        if save:
            self._saved_at = asyncio.get_running_loop().time()
            self._unsaved = True
            if self._saver is None or self._saver.done():
                self._saver = self._stream.save(self._save(), f"place of watcher {self.number}")

    async def _save(self) -> None:
        while self._unsaved:
            self._unsaved = False
            await self._cursors.save(self._stored.copy())


class Producer(SharedStreamProducer):
    """What Airflow reads the stream from, and tells what it has stored.

    :param key: whose stream.
    """

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
            # Some watcher has failed. If it was this one, it is told so now, and leaves.
            await asyncio.sleep(_LEAVING_SECONDS)
        if member.left:
            return
        stored = []
        for item, outcome in batch:
            if outcome.is_clean or item.passed:
                stored.append(item)
            else:
                # It was not there to be asked.
                stream_of(self._key).put_again(item)
        member.store(stored)

    async def aclose(self) -> None:
        await stream_of(self._key).saved()


def stream_of(key: HubKey) -> Stream:
    """The stream that this event loop has for the key."""
    streams = _streams.setdefault(asyncio.get_running_loop(), {})
    return streams.setdefault(key, Stream(key))


_streams: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[HubKey, Stream]] = WeakKeyDictionary()
