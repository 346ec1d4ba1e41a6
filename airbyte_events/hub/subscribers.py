"""All who follow connections, and the store that tells them what is news."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from airbyte_events._utils.times import parse_time
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.events import JobEvent
from airbyte_events.hub.subscription import Ends
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import Appended, Lease


class Followers:
    """All who follow connections, found by these."""

    def __init__(self) -> None:
        self.came = Wakeup()
        """Set when a look may be due for somebody."""
        self._anyone: set[Ends] = set()
        self._by_connection: dict[str, set[Ends]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> set[Ends]:
        return self._anyone.union(*self._by_connection.values())

    @contextlib.contextmanager
    def joined(self, ends: Ends) -> Iterator[Ends]:
        """Somebody follows meanwhile."""
        if self._closed:
            ends.close()
        for connection_id in ends.wanted.connection_ids:
            self._by_connection.setdefault(connection_id, set()).add(ends)
        if not ends.wanted.connection_ids:
            self._anyone.add(ends)
        ends.on_overdue = self._call
        self._call()
        try:
            yield ends
        finally:
            self._anyone.discard(ends)
            for connection_id in ends.wanted.connection_ids:
                self._by_connection[connection_id].discard(ends)
                if not self._by_connection[connection_id]:
                    del self._by_connection[connection_id]

    def _call(self) -> None:
        self.came.set()

    def wants(self, event: JobEvent) -> bool:
        """Whether anybody does."""
        return any(ends.wanted.matches(event) for ends in self.interested(event))

    def names(self, connection_id: str | None) -> bool:
        """Whether somebody follows that connection by its id."""
        return connection_id is not None and connection_id.lower() in self._by_connection

    def interested(self, event: JobEvent) -> Iterable[Ends]:
        """Those who follow the event's connection."""
        return chain(self._anyone, self._by_connection.get((event.connection_id or "").lower(), ()))

    def offer(self, event: JobEvent) -> None:
        for ends in self.interested(event):
            ends.offer(event)

    def complete(self, moment: datetime) -> None:
        """A look has found all that changed before that moment."""
        for ends in self._all():
            ends.complete(moment)

    def miss(self) -> None:
        """A look was cut short: each has to be looked for."""
        for ends in self._all():
            ends.miss()
        self._call()

    @property
    def settled(self) -> int:
        """How many have been served what had ended before they came."""
        return sum(not ends.late for ends in self._all())

    def overdue(self) -> Sequence[Ends]:
        return [ends for ends in self._all() if ends.overdue]

    def close(self) -> None:
        self._closed = True
        for ends in self._all():
            ends.close()


class FollowedStore(MemoryStore):
    """A store whose news of ends followers are told of.

    :param looked: called when a monitor's look has been taken in, with the time that it was made.
    """

    def __init__(self, followers: Followers, looked: Callable[[datetime], object]) -> None:
        super().__init__()
        self._followers = followers
        self._looked = looked

    async def append(self, observed: Sequence[JobEvent], **options: Any) -> Appended:
        appended = await super().append(observed, **options)
        for event in appended.events:
            if event.terminal:
                self._followers.offer(event)
        return appended

    async def remember(self, key: str, value: str, *, lease: Lease | None = None) -> None:
        await super().remember(key, value, lease=lease)
        moment = parse_time(value) if key.startswith("looked_at/") else None
        if moment is not None:
            self._looked(moment)
