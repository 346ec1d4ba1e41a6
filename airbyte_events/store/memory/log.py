"""The event log of a store in memory, the latest states of jobs, and the watches."""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import islice

import anyio
import anyio.lowlevel

from airbyte_events._utils.times import utcnow
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import CursorExpired
from airbyte_events.events import EVERYTHING, Cursor, EventFilter, JobEvent, JobRef
from airbyte_events.store.base import UNBOUNDED, EventLog, WatchTable, below
from airbyte_events.store.identity import REPLACED
from airbyte_events.store.memory.parts import MemoryPart, at_once
from airbyte_events.store.reconcile import APPENDED, Verdict, annotate, reconcile, succeed
from airbyte_events.store.records import LogPage, States
from airbyte_events.store.tail import sequence_of


class MemoryLog(MemoryPart, EventLog, WatchTable):
    """A log of at most ``capacity`` events and ``capacity`` completed jobs. Active jobs are never removed."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._epoch = secrets.token_hex(8)
        self._head = 0
        self._events: deque[JobEvent] = deque(maxlen=capacity)
        self._appended = Wakeup()
        self._active: dict[JobRef, JobEvent] = {}
        # In the order of completion.
        self._completed: OrderedDict[JobRef, JobEvent] = OrderedDict()
        # When the watch began, and when it expires by the event loop's clock.
        self._watches: dict[JobRef, tuple[datetime, float]] = {}

    @property
    def epoch(self) -> str:
        return self._epoch

    @property
    def _removed(self) -> int:
        """The sequence up to which events were removed."""
        return self._head - len(self._events)

    def _append(self, observed: JobEvent) -> tuple[Verdict, JobEvent]:
        """Return the verdict and the job's resulting state."""
        known = self._state(observed.ref)
        verdict = reconcile(known, observed)
        if known is not None and verdict not in APPENDED:
            return verdict, known
        self._head += 1
        stored = succeed(known, observed, Cursor(self.epoch, self._head))
        self._events.append(stored)
        if stored.terminal:
            self._watches.pop(stored.ref, None)
            self._active.pop(stored.ref, None)
            self._completed[stored.ref] = stored
            self._completed.move_to_end(stored.ref)
            if len(self._completed) > self._capacity:
                self._completed.popitem(last=False)
        else:
            self._completed.pop(stored.ref, None)
            self._active[stored.ref] = stored
        self._appended.set()
        return verdict, stored

    @at_once
    def annotate(self, states: Sequence[JobEvent]) -> None:
        for report in states:
            if (known := self._state(report.ref)) is not None:
                (self._completed if known.terminal else self._active)[report.ref] = annotate(known, report)

    @at_once
    def head(self) -> int:
        return self._head

    @at_once
    def read(
        self,
        after: int,
        *,
        limit: int = 500,
        size: int = UNBOUNDED,
        wanted: EventFilter = EVERYTHING,
        epoch: str | None = None,
    ) -> LogPage:
        if epoch not in (None, self.epoch):
            raise CursorExpired(REPLACED)
        removed = self._removed
        if not removed <= after <= self._head:
            raise CursorExpired(f"the log keeps what follows {removed} up to {self._head}, not {after}")
        found: list[JobEvent] = []
        for sequence, event in enumerate(islice(self._events, after - removed, None), after + 1):
            if wanted.matches(event):
                found.append(event)
                if (size := size - event.weight) <= 0 or len(found) == limit:
                    return LogPage(events=found, position=sequence)
        return LogPage(events=found, position=self._head)

    async def changed(self, after: int, *, epoch: str | None = None) -> Sequence[JobEvent]:
        while self._head <= after and epoch in (None, self.epoch):
            await self._appended.wait()
        await anyio.lowlevel.checkpoint()
        return ()

    @at_once
    def states(self, refs: Collection[JobRef]) -> States:
        return self._states(refs)

    def _states(self, refs: Collection[JobRef]) -> States:
        return States({ref: state for ref in refs if (state := self._state(ref)) is not None}, refs=refs)

    def _state(self, ref: JobRef) -> JobEvent | None:
        return self._active.get(ref) or self._completed.get(ref)

    @at_once
    def jobs(self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING) -> list[JobEvent]:
        states = [*self._active.values(), *self._completed.values()]
        older = (state for state in states if sequence_of(state) < below(before) and wanted.matches(state))
        return sorted(older, key=sequence_of, reverse=True)[:limit]

    @at_once
    def history(self, ref: JobRef) -> list[JobEvent]:
        return [event for event in self._events if event.ref == ref]

    def forget_states(self) -> int:
        """Forget the latest state of every job, keep the log, and return its head."""
        self._active.clear()
        self._completed.clear()
        return self._head

    def _prune_events(self, before: datetime, keep: int) -> int:
        removed = 0
        while self._events and (len(self._events) > keep or self._events[0].observed_at < before):
            self._events.popleft()
            removed += 1
        return removed

    @at_once
    def watch(self, refs: Collection[JobRef], seconds: float) -> None:
        self._expire_watches()
        until = anyio.current_time() + seconds
        fresh = set()
        for ref in refs:
            if (state := self._state(ref)) is not None and state.terminal:
                continue
            if ref not in self._watches:
                fresh.add(ref.instance)
            since, longest = self._watches.get(ref, (utcnow(), until))
            self._watches[ref] = since, max(longest, until)
        self._wake("watches", fresh)

    @at_once
    def watched(self, instance: str) -> dict[int, datetime]:
        return self._watched(instance)

    def _watched(self, instance: str) -> dict[int, datetime]:
        self._expire_watches()
        return {ref.job_id: since for ref, (since, _) in self._watches.items() if ref.instance == instance}

    def _expire_watches(self) -> None:
        now = anyio.current_time()
        for ref in [ref for ref, (_, until) in self._watches.items() if until <= now]:
            del self._watches[ref]
