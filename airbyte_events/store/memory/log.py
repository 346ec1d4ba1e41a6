"""The event log of a store in memory, and the latest states of jobs."""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import islice

from airbyte_events.events import EVERYTHING, EventFilter, JobEvent, JobRef
from airbyte_events.store.base import EventLog, below
from airbyte_events.store.identity import UNSEEN, KnownLog, ensure_kept
from airbyte_events.store.local import LocalState
from airbyte_events.store.memory.database import at_once
from airbyte_events.store.reconcile import annotate
from airbyte_events.store.records import LogPage, States


class MemoryLog(LocalState, EventLog):
    """A log of at most ``capacity`` events and ``capacity`` completed jobs. Active jobs are never removed."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._log = KnownLog(secrets.token_hex(8), UNSEEN)
        self._capacity = capacity
        self._kept: deque[JobEvent] = deque(maxlen=capacity)
        self._active: dict[JobRef, JobEvent] = {}
        # In the order of completion.
        self._completed: OrderedDict[JobRef, JobEvent] = OrderedDict()

    @property
    def _removed(self) -> int:
        """The sequence up to which events were removed."""
        return self._tail.head - len(self._kept)

    def _append(self, stored: JobEvent) -> None:
        self._kept.append(stored)
        if stored.terminal:
            self._active.pop(stored.ref, None)
            self._completed[stored.ref] = stored
            self._completed.move_to_end(stored.ref)
            if len(self._completed) > self._capacity:
                self._completed.popitem(last=False)
        else:
            self._completed.pop(stored.ref, None)
            self._active[stored.ref] = stored

    @at_once
    def annotate(self, states: Sequence[JobEvent]) -> None:
        for report in states:
            if (known := self._state(report.ref)) is not None:
                (self._completed if known.terminal else self._active)[report.ref] = annotate(known, report)

    @at_once
    def head(self) -> int:
        return self._tail.head

    @at_once
    def _read(self, log: KnownLog, after: int, limit: int, size: int, wanted: EventFilter) -> LogPage:
        removed = ensure_kept(after, self._removed + 1, self._tail.head)
        found: list[JobEvent] = []
        for sequence, event in enumerate(islice(self._kept, after - removed, None), after + 1):
            if wanted.matches(event):
                found.append(event)
                if (size := size - event.weight) <= 0 or len(found) == limit:
                    return LogPage(events=found, position=sequence)
        return LogPage(events=found, position=self._tail.head)

    @at_once
    def states(self, refs: Collection[JobRef]) -> States:
        return self._states_of(refs)

    def _states_of(self, refs: Collection[JobRef]) -> States:
        return States({ref: state for ref in refs if (state := self._state(ref)) is not None}, refs=refs)

    def _state(self, ref: JobRef) -> JobEvent | None:
        return self._active.get(ref) or self._completed.get(ref)

    @at_once
    def jobs(self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING) -> list[JobEvent]:
        states = [*self._active.values(), *self._completed.values()]
        older = (state for state in states if state.sequence < below(before) and wanted.matches(state))
        return sorted(older, key=lambda state: state.sequence, reverse=True)[:limit]

    @at_once
    def history(self, ref: JobRef) -> list[JobEvent]:
        return [event for event in self._kept if event.ref == ref]

    def forget_states(self) -> int:
        """Forget the latest state of every job, keep the log, and return its head."""
        self._active.clear()
        self._completed.clear()
        return self._tail.head

    def _prune_events(self, before: datetime, keep: int) -> int:
        removed = 0
        while self._kept and (len(self._kept) > keep or self._kept[0].observed_at < before):
            self._kept.popleft()
            removed += 1
        return removed
