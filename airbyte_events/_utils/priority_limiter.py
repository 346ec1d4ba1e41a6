"""A concurrency limiter with priorities and without starvation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

_FAIR_EVERY = 4


class PriorityLimiter:
    """A limiter that admits the most urgent task first, and every fourth time the one that has waited longest.

    :param total: the number of tasks at the same time.
    """

    def __init__(self, total: int) -> None:
        self._free = total
        self._handed_on = 0
        self._arrivals = 0
        # By priority, in the order of arrival: the number of each arrival, and the event that admits it.
        self._waiting: dict[int, OrderedDict[int, anyio.Event]] = {}

    @asynccontextmanager
    async def place(self, priority: int) -> AsyncIterator[None]:
        """Wait for a place, and hold it for the block.

        :param priority: the lowest number is the most urgent.
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
        arrival, admitted = self._arrivals, anyio.Event()
        self._waiting.setdefault(priority, OrderedDict())[arrival] = admitted
        try:
            await admitted.wait()
        except BaseException:
            if admitted.is_set():
                self._leave()
            else:
                self._forget(priority, arrival)
            raise

    def _leave(self) -> None:
        if not self._waiting:
            self._free += 1
            return
        self._handed_on += 1
        first = {priority: next(iter(queue)) for priority, queue in self._waiting.items()}
        fair = self._handed_on % _FAIR_EVERY == 0
        priority = min(first, key=first.__getitem__) if fair else min(first)
        arrival = first[priority]
        admitted = self._waiting[priority][arrival]
        self._forget(priority, arrival)
        admitted.set()

    def _forget(self, priority: int, arrival: int) -> None:
        del self._waiting[priority][arrival]
        if not self._waiting[priority]:
            del self._waiting[priority]
