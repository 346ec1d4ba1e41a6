"""The event log of a store in memory, and the latest states of jobs."""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from airbyte_events.errors import CursorExpired
from airbyte_events.events import Cursor, EventFilter, JobEvent, JobRef
from airbyte_events.store.reconcile import NEWS, Verdict, annotate, reconcile, succeed
from airbyte_events.store.records import LogPage


class MemoryLog:
    """:param capacity: how many events, and jobs that have ended, are kept, each; active jobs are never forgotten."""

    def __init__(self, capacity: int) -> None:
        self.epoch = secrets.token_hex(8)
        self.head = 0
        self.events: deque[JobEvent] = deque(maxlen=capacity)
        self._capacity = capacity
        self._active: dict[JobRef, JobEvent] = {}
        # In the order of their end.
        self._ended: OrderedDict[JobRef, JobEvent] = OrderedDict()

    @property
    def forgotten(self) -> int:
        """The sequence up to which events are no longer kept."""
        return self.head - len(self.events)

    def append(self, observed: JobEvent) -> tuple[Verdict, JobEvent]:
        """Return the verdict, and the job's latest state."""
        known = self.state(observed.ref)
        verdict = reconcile(known, observed)
        if known is not None and verdict not in NEWS:
            return verdict, known
        self.head += 1
        stored = succeed(known, observed, Cursor(self.epoch, self.head))
        self.events.append(stored)
        self.keep(stored)
        return verdict, stored

    def annotate(self, told: JobEvent) -> None:
        known = self.state(told.ref)
        if known is not None:
            (self._ended if known.terminal else self._active)[told.ref] = annotate(known, told)

    def read(self, after: int, limit: int, size: int, wanted: EventFilter) -> LogPage:
        forgotten = self.forgotten
        if not forgotten <= after <= self.head:
            raise CursorExpired(f"the log keeps what follows {forgotten} up to {self.head}, not {after}")
        found: list[JobEvent] = []
        for sequence, event in enumerate(islice(self.events, after - forgotten, None), after + 1):
            if wanted.matches(event):
                found.append(event)
                if (size := size - event.weight) <= 0 or len(found) == limit:
                    return LogPage(events=found, position=sequence)
        return LogPage(events=found, position=self.head)

    def state(self, ref: JobRef) -> JobEvent | None:
        return self._active.get(ref) or self._ended.get(ref)

    def states(self) -> Iterator[tuple[int, JobEvent]]:
        """The latest states, each with its sequence, newest first."""
        states = [
            (state.cursor.sequence, state)
            for kept in (self._active, self._ended)
            for state in kept.values()
            if state.cursor is not None
        ]
        return iter(sorted(states, key=lambda item: item[0], reverse=True))

    def keep(self, state: JobEvent) -> None:
        """This is a job's latest state."""
        if not state.terminal:
            self._ended.pop(state.ref, None)
            self._active[state.ref] = state
            return
        self._active.pop(state.ref, None)
        self._ended[state.ref] = state
        self._ended.move_to_end(state.ref)
        if len(self._ended) > self._capacity:
            self._ended.popitem(last=False)

    def prune(self, before: datetime, keep: int) -> int:
        removed = 0
        while self.events and (len(self.events) > keep or self.events[0].observed_at < before):
            self.events.popleft()
            removed += 1
        return removed

    def forget_states(self) -> None:
        self._active.clear()
        self._ended.clear()

    @property
    def jobs(self) -> int:
        """How many are known."""
        return len(self._active) + len(self._ended)
