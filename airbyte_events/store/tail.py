"""A cache of the newest events of a log, in one process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.events import JobEvent

CACHED_EVENTS = 200


class LogTail:
    """The log's head, and the newest events that this process appended, which need not be read."""

    def __init__(self) -> None:
        self.head = 0
        self._events: deque[JobEvent] = deque(maxlen=CACHED_EVENTS)
        self._changed = Wakeup()

    def advance(self, head: int, events: Sequence[JobEvent] = ()) -> None:
        """Set the head and wake waiting tasks, if it grew.

        :param events: the newest events, without gaps.
        """
        if head <= self.head:
            return
        if not events or sequence_of(events[0]) != self.head + 1:
            self._events.clear()
        self._events.extend(events)
        self.head = head
        self._changed.set()

    def restart(self, head: int) -> None:
        """Continue with another log."""
        self.head = head
        self._events.clear()
        self._changed.set()

    async def changed(self) -> None:
        await self._changed.wait()

    def after(self, sequence: int) -> list[JobEvent]:
        """Return the events after that sequence; empty if they have to be read."""
        if not self._events or sequence_of(self._events[0]) > sequence + 1:
            return []
        return [event for event in self._events if sequence_of(event) > sequence]


def sequence_of(event: JobEvent) -> int:
    """Return the event's sequence in the log; 0 if it has none."""
    return event.cursor.sequence if event.cursor is not None else 0
