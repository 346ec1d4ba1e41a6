"""A concurrency limiter with priorities and without starvation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

_FAIR_EVERY = 4


class PriorityLimiter:
    """A limiter that admits the most urgent task first, and every fourth time the one that has waited longest."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._handed_on = 0
        # In the order of arrival: the priority of each waiting task, by the event that admits it.
        self._waiting: dict[anyio.Event, int] = {}

    @asynccontextmanager
    async def place(self, priority: int) -> AsyncIterator[None]:
        """Wait for a place, and hold it for the block.

        :param priority: the lowest number is the most urgent.
        """
        await anyio.lowlevel.checkpoint()
        if self._free:
            self._free -= 1
        else:
            await self._admission(priority)
        try:
            yield
        finally:
            self._leave()

    async def _admission(self, priority: int) -> None:
        admitted = anyio.Event()
        self._waiting[admitted] = priority
        try:
            await admitted.wait()
        except BaseException:
            if self._waiting.pop(admitted, None) is None:
                self._leave()
            raise

    def _leave(self) -> None:
        if not self._waiting:
            self._free += 1
            return
        self._handed_on += 1
        fair = self._handed_on % _FAIR_EVERY == 0
        admitted = next(iter(self._waiting)) if fair else min(self._waiting, key=self._waiting.__getitem__)
        del self._waiting[admitted]
        admitted.set()
