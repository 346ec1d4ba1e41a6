"""A timer on an event loop, and how late it is.

The heartbeat is a timer of 5 ms. Where the loop is blocked, every timer that would have been due meanwhile is late; so
a stall counts once for each of its 5 ms, and the 99th percentile is of a timer at any time, not of the few that were
set. Python's garbage collector stops everything, too, and longest where much is imported and kept: its longest pause is
told beside. On a busy machine a process also waits for a processor: what it has worked from one beat to the next tells
its own stalls from those.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

BEAT = 0.005


class Heartbeat:
    """Beats in :meth:`beat`, of which one at a time may run. What it has seen may be taken and reset.

    :ivar late: seconds by which each beat was late.
    :ivar collection: seconds of the garbage collector's longest pause.
    :ivar worked: the most processor time of this process from one beat to the next, in seconds.
    """

    def __init__(self) -> None:
        self.late: list[float] = []
        self.collection = 0.0
        self.worked = 0.0
        self._collecting = 0.0
        self._beaten = time.monotonic()
        self._worked_before = time.process_time()

    async def beat(self) -> None:
        """Beat until cancelled."""
        gc.callbacks.append(self._note_collection)
        try:
            while True:
                self._beaten = time.monotonic()
                self._worked_before = time.process_time()
                await asyncio.sleep(BEAT)
                self.note()
        finally:
            gc.callbacks.remove(self._note_collection)

    def note(self) -> None:
        """Note how late the beat is that is due."""
        self.late.append(max(0.0, time.monotonic() - self._beaten - BEAT))
        self.worked = max(self.worked, time.process_time() - self._worked_before)

    def _note_collection(self, phase: str, _: object) -> None:
        if phase == "start":
            self._collecting = time.monotonic()
        else:
            self.collection = max(self.collection, time.monotonic() - self._collecting)


def stalls(late: Collection[float]) -> dict[str, float]:
    """The longest lateness of a timer and the 99th percentile, in seconds.

    :param late: of each beat.
    """
    at_any_time = []
    for seconds in late:
        while seconds > 0:
            at_any_time.append(seconds)
            seconds -= BEAT
    # Beats that were in time are in the list by their few microseconds.
    at_any_time.sort()
    return {
        "longest": max(late, default=0.0),
        "p99": at_any_time[int(len(at_any_time) * 0.99)] if at_any_time else 0.0,
        "beats": len(late),
    }
