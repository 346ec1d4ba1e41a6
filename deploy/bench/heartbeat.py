"""A timer on an event loop, and how late it is.

The heartbeat is a timer of 5 ms. Where the loop is blocked, every timer that would have been due meanwhile is late; so
a stall counts once for each of its 5 ms, and the 99th percentile is of a timer at any time, not of the few that were
set. Python's garbage collector stops everything, too, and longest where much is imported and kept: its longest pause
is told beside.

On a busy machine a process also waits for a processor. So an idle thread beats beside the loop: where it is late by
more than the process worked meanwhile, no thread of the process had a processor, and that is no stall of the loop's
own.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

BEAT = 0.005

_WAIT = 0.001
"""Seconds; shorter waits for a processor do not count."""


class Wait(NamedTuple):
    """A wait for a processor: ``seconds`` of the time from ``begun`` to ``ended``."""

    begun: float
    ended: float
    seconds: float


class Heartbeat:
    """Beats in :meth:`beat`, of which one at a time may run. What it has seen may be taken and reset.

    :ivar late: seconds by which each beat was late.
    :ivar blocked: the longest of them, in seconds, less the waits for a processor.
    :ivar collection: seconds of the garbage collector's longest pause.
    """

    def __init__(self) -> None:
        self.late: list[float] = []
        self.blocked = 0.0
        self.collection = 0.0
        self._collecting = 0.0
        self._beaten = time.monotonic()
        # The thread notes a wait when it has a processor again: after the loop, perhaps, so at the next beat.
        self._last = (0.0, 0.0)
        self._waits: deque[Wait] = deque()

    async def beat(self) -> None:
        """Beat until cancelled."""
        gc.callbacks.append(self._note_collection)
        ended = threading.Event()
        threading.Thread(target=self._beat_beside, args=[ended], daemon=True).start()
        try:
            while True:
                self._beaten = time.monotonic()
                await asyncio.sleep(BEAT)
                self.note()
        finally:
            ended.set()
            gc.callbacks.remove(self._note_collection)

    def note(self) -> None:
        """Note how late the beat is that is due."""
        due, now = self._beaten + BEAT, time.monotonic()
        self.late.append(max(0.0, now - due))
        self.judge()
        self._last = (due, now)

    def judge(self) -> None:
        """Note how long the last noted beat was blocked."""
        due, beaten = self._last
        waited = 0.0
        while self._waits and (wait := self._waits[0]).begun < beaten:
            waited += min(wait.seconds, max(0.0, min(wait.ended, beaten) - max(wait.begun, due)))
            if wait.ended > beaten:
                break
            self._waits.popleft()
        self.blocked = max(self.blocked, beaten - due - waited)

    def _beat_beside(self, ended: threading.Event) -> None:
        while not ended.is_set():
            due, worked = time.monotonic() + BEAT, time.process_time()
            time.sleep(BEAT)
            now = time.monotonic()
            if (seconds := now - due - (time.process_time() - worked)) > _WAIT:
                self._waits.append(Wait(due, now, seconds))

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
