"""A limit on what runs at the same time, where some go before others and none waits for ever."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

_FAIR_EVERY = 4


class PriorityLimiter:
    """Lets so many in at a time: the most urgent first, and every fourth time the one that has waited longest.

    :param total: how many may be in at the same time.
    """

    def __init__(self, total: int) -> None:
        self._free = total
        self._handed_on = 0
        self._arrivals = 0
        # By priority, in the order of arrival: when each arrived, and what lets it in.
        self._waiting: dict[int, OrderedDict[int, anyio.Event]] = {}

    @asynccontextmanager
    async def place(self, priority: int) -> AsyncIterator[None]:
        """Wait to be let in, and stay until the block is left.

        :param priority: the lowest number goes first.
        """
        await self._enter(priority)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, priority: int) -> None:
        await anyio.lowlevel.checkpoint()
        if self._free:
            self._free -= 1
            return
        self._arrivals += 1
        arrival, let_in = self._arrivals, anyio.Event()
        self._waiting.setdefault(priority, OrderedDict())[arrival] = let_in
        try:
            await let_in.wait()
        except BaseException:
            if let_in.is_set():
                self._leave()
            else:
                self._forget(priority, arrival)
            raise

    def _leave(self) -> None:
        if not self._waiting:
            self._free += 1
            return
        self._handed_on += 1
        # Within a priority the first is the one that has waited longest.
        first = {priority: next(iter(queue)) for priority, queue in self._waiting.items()}
        fair = self._handed_on % _FAIR_EVERY == 0
        priority = min(first, key=first.__getitem__) if fair else min(first)
        arrival = first[priority]
        let_in = self._waiting[priority][arrival]
        self._forget(priority, arrival)
        let_in.set()

    def _forget(self, priority: int, arrival: int) -> None:
        del self._waiting[priority][arrival]
        if not self._waiting[priority]:
            del self._waiting[priority]
