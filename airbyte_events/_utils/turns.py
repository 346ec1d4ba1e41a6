"""Turns of the event loop, for many tasks that wake at the same moment."""

from __future__ import annotations

import time
from collections import deque

import anyio.lowlevel

TURN_SECONDS = 0.010
"""How long tasks continue in one turn: everything else on the event loop waits for as long."""


class Turns:
    """Lets tasks continue one after the other, in as many turns of the event loop as their work needs.

    By time, not by number: what a task does next, such as writing a log line, takes microseconds or milliseconds.
    """

    def __init__(self, seconds: float = TURN_SECONDS) -> None:
        self._seconds = seconds
        self._waiting: deque[object] = deque()
        self._over_at = 0.0

    async def wait(self) -> None:
        """Wait for the tasks that came before, and for a turn with time left."""
        me, over = object(), False
        self._waiting.append(me)
        try:
            while True:
                await anyio.lowlevel.checkpoint()
                if self._waiting[0] is not me:
                    continue
                if over:
                    # The turn that was over when this task was the first has ended with the checkpoint.
                    self._over_at = time.perf_counter() + self._seconds
                    return
                if time.perf_counter() < self._over_at:
                    return
                over = True
        finally:
            self._waiting.remove(me)
