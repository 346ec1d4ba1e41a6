"""The event log of a store in memory, and the latest states of jobs."""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from airbyte_events.errors import CursorExpired
from airbyte_events.events import Cursor, EventFilter, JobEvent, JobRef
from airbyte_events.store.reconcile import APPENDED, Verdict, annotate, reconcile, succeed
from airbyte_events.store.records import LogPage


class MemoryLog:
    """A log of at most ``capacity`` events and ``capacity`` completed jobs. Active jobs are never removed."""

    def __init__(self, capacity: int) -> None:
        self.epoch = secrets.token_hex(8)
        self.head = 0
        self.events: deque[JobEvent] = deque(maxlen=capacity)
        self._capacity = capacity
        self._active: dict[JobRef, JobEvent] = {}
        # In the order of completion.
        self._completed: OrderedDict[JobRef, JobEvent] = OrderedDict()

    @property
    def removed(self) -> int:
        """The sequence up to which events were removed."""
        return self.head - len(self.events)

    def append(self, observed: JobEvent) -> tuple[Verdict, JobEvent]:
        """Return the verdict and the job's resulting state."""
        known = self.state(observed.ref)
        verdict = reconcile(known, observed)
        if known is not None and verdict not in APPENDED:
            return verdict, known
        self.head += 1
        stored = succeed(known, observed, Cursor(self.epoch, self.head))
        self.events.append(stored)
        self._set_state(stored)
        return verdict, stored

    def annotate(self, report: JobEvent) -> None:
        known = self.state(report.ref)
        if known is not None:
            (self._completed if known.terminal else self._active)[report.ref] = annotate(known, report)

    def read(self, after: int, limit: int, size: int, wanted: EventFilter) -> LogPage:
        removed = self.removed
        if not removed <= after <= self.head:
            raise CursorExpired(f"the log keeps what follows {removed} up to {self.head}, not {after}")
        found: list[JobEvent] = []
        for sequence, event in enumerate(islice(self.events, after - removed, None), after + 1):
            if wanted.matches(event):
                found.append(event)
                if (size := size - event.weight) <= 0 or len(found) == limit:
                    return LogPage(events=found, position=sequence)
        return LogPage(events=found, position=self.head)

    def state(self, ref: JobRef) -> JobEvent | None:
        return self._active.get(ref) or self._completed.get(ref)

    def states(self) -> Iterator[tuple[int, JobEvent]]:
        """Return sequences and latest states, newest first."""
        states = [
            (state.cursor.sequence, state)
            for jobs in (self._active, self._completed)
            for state in jobs.values()
            if state.cursor is not None
        ]
        return iter(sorted(states, key=lambda item: item[0], reverse=True))

    def _set_state(self, state: JobEvent) -> None:
        if not state.terminal:
            self._completed.pop(state.ref, None)
            self._active[state.ref] = state
            return
        self._active.pop(state.ref, None)
        self._completed[state.ref] = state
        self._completed.move_to_end(state.ref)
        if len(self._completed) > self._capacity:
            self._completed.popitem(last=False)

    def prune(self, before: datetime, keep: int) -> int:
        removed = 0
        while self.events and (len(self.events) > keep or self.events[0].observed_at < before):
            self.events.popleft()
            removed += 1
        return removed

    def forget_states(self) -> None:
        self._active.clear()
        self._completed.clear()

    @property
    def jobs(self) -> int:
        """The number of known jobs."""
        return len(self._active) + len(self._completed)
