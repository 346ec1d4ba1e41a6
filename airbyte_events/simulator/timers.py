"""Delayed calls: one task and a heap for any number of jobs."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

import anyio

from airbyte_events._utils.wakeup import Wakeup

_BATCH = 100
"""Calls in a row before other tasks run."""


class Timers:
    """Calls functions after a delay, while :meth:`run` runs."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = count()
        self._sooner = Wakeup()

    def after(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Call ``call(*args)`` after so many seconds, and never before this method has returned."""
        due = anyio.current_time() + seconds
        if not self._heap or due < self._heap[0][0]:
            self._sooner.set()
        heapq.heappush(self._heap, (due, next(self._order), call, args))

    async def run(self) -> None:
        """Make the calls that are due, until cancelled."""
        while True:
            self._sooner.clear()
            for _ in range(_BATCH):
                if not self._heap or self._heap[0][0] > anyio.current_time():
                    break
                _, _, call, args = heapq.heappop(self._heap)
                call(*args)
            wait = self._heap[0][0] - anyio.current_time() if self._heap else float("inf")
            # With a wait of 0 or less, this is only a checkpoint.
            with anyio.move_on_after(wait):
                await self._sooner.wait()
