"""The end of a log, as one process knows it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.events import JobEvent

AT_HAND = 200
"""Events that were appended last."""


class LogTail:
    """How far the log reaches, and the newest events where this process appended them: they need not be read."""

    def __init__(self) -> None:
        self.head = 0
        self._events: deque[JobEvent] = deque(maxlen=AT_HAND)
        self._changed = Wakeup()

    def advance(self, head: int, events: Sequence[JobEvent] = ()) -> None:
        """Wake who waits, if the log reaches further than was known.

        :param events: the newest ones, with no gap between them.
        """
        if head <= self.head:
            return
        if not events or sequence_of(events[0]) != self.head + 1:
            self._events.clear()
        self._events.extend(events)
        self.head = head
        self._changed.set()

    def restart(self, head: int) -> None:
        """Go on with another log."""
        self.head = head
        self._events.clear()
        self._changed.set()

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    def behind(self, sequence: int) -> list[JobEvent]:
        """Return the events behind that sequence, or none if they have to be read."""
        if not self._events or sequence_of(self._events[0]) > sequence + 1:
            return []
        return [event for event in self._events if sequence_of(event) > sequence]


def sequence_of(event: JobEvent) -> int:
    """Return the event's place in the log; 0 if it has none."""
    return event.cursor.sequence if event.cursor is not None else 0
