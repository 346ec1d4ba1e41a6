"""Who is told: readers of the feed, by stream and by long poll, and followers of connections in the triggerer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx

from airbyte_events.errors import FeedError
from airbyte_events.events import Cursor, EventFilter, JobEvent
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.hub import Hub
from airbyte_events.hub.position import Bookmark, Position
from model.virtual.clock import Machine
from model.virtual.network import Network
from model.virtual.program import Program
from model.virtual.secrets import API_TOKEN

_AGAIN_SECONDS = 1.0


@dataclass
class Stretch:
    """What was read of one log without a reset.

    :param after: it begins behind this event.
    :param position: up to here everything was told.
    """

    epoch: str
    after: int
    position: int
    events: list[JobEvent] = field(default_factory=list)


class Reader(Program):
    """Reads the feed and resumes from its cursor, however often it or the listener is interrupted.

    :param after: where to begin; None: with what happens from now on.
    """

    def __init__(self, tasks: Any, network: Network, after: Cursor | None = None) -> None:
        super().__init__(Machine("reader"), tasks)
        self.stretches: list[Stretch] = []
        self.faults: list[str] = []
        self._network = network
        self._after = after
        self._reads = anyio.Event()
        self._reads.set()

    def stall(self) -> None:
        """Read nothing more for now."""
        if self._reads.is_set():
            self._reads = anyio.Event()

    def go_on(self) -> None:
        self._reads.set()

    def at(self, epoch: str, sequence: int) -> bool:
        """Whether it has been told everything up to that event."""
        last = self.stretches[-1] if self.stretches else None
        return last is not None and (last.epoch, last.position) == (epoch, sequence)

    async def run(self, ready: Any) -> None:
        ready()
        async with httpx.AsyncClient(transport=self._network) as http:
            while True:
                with suppress(FeedError, httpx.HTTPError, TimeoutError):
                    await self._read(http)
                await anyio.sleep(_AGAIN_SECONDS)

    async def _read(self, http: httpx.AsyncClient) -> None:
        raise NotImplementedError

    def _begin(self, cursor: Cursor) -> None:
        self._after = cursor
        self.stretches.append(Stretch(cursor.epoch, cursor.sequence, cursor.sequence))

    def _resume(self, cursor: Cursor) -> None:
        """The listener says that it goes on from there."""
        if not self.stretches:
            self._begin(cursor)
        elif cursor != self._after:
            self.faults.append(f"went on at {cursor} instead of {self._after}")

    def _take(self, cursor: Cursor | None, event: JobEvent | None = None) -> None:
        if cursor is None:
            return
        stretch = self.stretches[-1]
        if event is not None:
            stretch.events.append(event)
        if cursor.epoch != stretch.epoch or cursor.sequence < stretch.position:
            self.faults.append(f"went back to {cursor} from {stretch.position}")
        self._after = cursor
        stretch.position = cursor.sequence


class StreamReader(Reader):
    """By server-sent events."""

    async def _read(self, http: httpx.AsyncClient) -> None:
        client = FeedClient(http, "http://listener", API_TOKEN)
        async with client.stream(after=self._after) as frames:
            async for frame in frames:
                if frame.name == "hello":
                    if frame.cursor is not None:
                        self._resume(frame.cursor)
                elif frame.name == "reset":
                    assert frame.cursor is not None
                    self._begin(frame.cursor)
                elif frame.name in ("job", "bookmark"):
                    self._take(frame.cursor, frame.event)
                await self._reads.wait()


class PageReader(Reader):
    """By long poll, three events at a time."""

    async def _read(self, http: httpx.AsyncClient) -> None:
        while True:
            after = {} if self._after is None else {"after": str(self._after)}
            with anyio.fail_after(60):
                response = await http.get(
                    "http://listener/v1/events",
                    params={"wait": 20, "limit": 3, **after},
                    headers={"Authorization": f"Bearer {API_TOKEN}"},
                )
            if response.status_code not in (200, 410):
                return
            answer = response.json()
            cursor = Cursor.parse(answer["cursor"])
            events = [JobEvent.from_envelope(envelope) for envelope in answer.get("events", ())]
            if response.status_code == 410:
                self._begin(cursor)
            elif not self.stretches:
                first = events[0].cursor if events else None
                self._begin(self._after or (cursor if first is None else Cursor(first.epoch, first.sequence - 1)))
            for event in events:
                self._take(event.cursor, event)
            self._take(cursor)
            await self._reads.wait()


class Follower:
    """Follows connections in the triggerer, and goes on from its place in the next life of that.

    :param wanted: which ends.
    """

    def __init__(self, wanted: EventFilter) -> None:
        self.wanted = wanted
        self.told: list[JobEvent] = []
        self.began_at = anyio.current_time()
        self._place = Position()

    async def run(self, hub: Hub) -> None:
        if self._place.since is None:
            # It has no place yet: it is told what ends from now on.
            self.began_at = anyio.current_time()
        with hub.follow(self.wanted, self._place.copy()) as ends:
            while True:
                try:
                    item = await ends.receive()
                except anyio.EndOfStream:
                    return
                if isinstance(item, Bookmark):
                    self._place.advance(item.moment, item.floor)
                    continue
                event = await hub.explain(item)
                self._place.record(event)
                self.told.append(event)
