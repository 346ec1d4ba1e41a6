"""The last completions of every connection, and the active jobs, in memory: for usual durations and signals."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

import anyio

from airbyte_events.events import EventFilter, JobError, JobEvent, JobRef, JobStatus, Usual
from airbyte_events.events.progress import USUAL_OF
from airbyte_events.store.base import EventLog

MOST_JOBS = 20_000
"""The newest jobs that are read at the start."""

MOST_CONNECTIONS = 10_000
MOST_ACTIVE = 10_000

ENOUGH = 10
"""The completed jobs that a connection needs before anything is usual for it."""

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Took:
    """What a completed job took."""

    duration_seconds: float | None
    records: int | None
    bytes: int | None


@dataclass(slots=True)
class History:
    """The completed jobs of a connection.

    :param completed: their number, up to the limit of jobs that are read.
    :param failures: in a row, the last ones; cancelled jobs do not count.
    :param first_at: when the oldest job that is known began.
    """

    last: JobEvent
    completed: int = 0
    failures: int = 0
    succeeded_at: datetime | None = None
    first_at: datetime | None = None
    names: dict[str, str] = field(default_factory=dict)
    error: JobError | None = None
    url: str | None = None
    workspace_id: str | None = None
    successes: dict[str | None, OrderedDict[int, Took]] = field(default_factory=dict)
    """The last :data:`USUAL_OF` by type of job and id, the oldest first."""

    def add(self, event: JobEvent, *, newest: bool) -> None:
        """Add a state: the newest one, or one that is older than all that were added."""
        began = event.started_at or event.observed_at
        self.first_at = began if self.first_at is None else min(self.first_at, began)
        if newest:
            self.last = event
        # Only some events have them.
        if event.names and (newest or not self.names):
            self.names, self.url, self.workspace_id = event.names, event.url, event.workspace_id
        if not event.terminal:
            return
        self.completed += 1
        if event.status is JobStatus.FAILED and (newest or self.succeeded_at is None):
            self.failures += 1
            if newest or self.error is None:
                self.error = event.error
        elif event.status is JobStatus.SUCCEEDED:
            self._succeed(event, newest=newest)

    def _succeed(self, event: JobEvent, *, newest: bool) -> None:
        if newest or self.succeeded_at is None:
            self.succeeded_at = event.finished_at or event.observed_at
        if newest:
            self.failures = 0
        successes = self.successes.setdefault(event.job_type, OrderedDict())
        if not newest and len(successes) >= USUAL_OF:
            return
        successes[event.ref.job_id] = Took(event.duration_seconds, event.records, event.bytes)
        if not newest:
            successes.move_to_end(event.ref.job_id, last=False)
        elif len(successes) > USUAL_OF:
            successes.popitem(last=False)


class Histories:
    """The histories of connections, and the active jobs, of all instances."""

    def __init__(self, store: EventLog) -> None:
        self._store = store
        self.connections: OrderedDict[tuple[str, str], History] = OrderedDict()
        """By instance and connection id, the last changed one at the end."""
        self.active: dict[JobRef, JobEvent] = {}
        """The states of jobs that have not completed."""
        self.loaded = anyio.Event()
        self._early: OrderedDict[int, JobEvent] | None = OrderedDict()
        self._loading = anyio.Lock()
        # What was read may be newer than events that are still to come.
        self._read: dict[JobRef, int] = {}
        self._read_to = 0

    async def load(self) -> None:
        """Read the active jobs, and the newest completed ones, from the store, page by page.

        :raises StoreError: if they can't be read.
        """
        async with self._loading:
            self.connections.clear()
            self.active.clear()
            self._read = {}
            for terminal, most in ((True, MOST_JOBS), (False, MOST_ACTIVE)):
                async for state in newest_states(self._store, EventFilter(terminal=terminal), most):
                    self._read[state.ref] = max(state.sequence, self._read.get(state.ref, 0))
                    self._add(state, newest=False)
            self._read_to = max(self._read.values(), default=0)
            early, self._early = self._early or OrderedDict(), None
            for event in early.values():
                self.add(event)
            self.loaded.set()

    def add(self, event: JobEvent) -> None:
        """Add an event that was just appended; events come in the order of the log."""
        if self._early is None:
            if event.sequence > self._read_to:
                self._read = {}
            if event.sequence > self._read.get(event.ref, -1):
                self._add(event, newest=True)
            return
        self._early[event.sequence] = event
        if len(self._early) > MOST_JOBS:
            self._early.popitem(last=False)

    def of(self, instance: str, connection_id: str | None) -> History | None:
        """Return a connection's history, if one of its jobs is known."""
        return self.connections.get((instance, (connection_id or "").lower()))

    def usual(self, instance: str, connection_id: str | None, job_type: str | None) -> Usual | None:
        """Return what is usual for such jobs of the connection; None without a success."""
        history = self.of(instance, connection_id)
        return None if history is None else Usual.of(history.successes.get(job_type, {}).values())

    def _add(self, event: JobEvent, *, newest: bool) -> None:
        if event.terminal:
            self.active.pop(event.ref, None)
        elif event.ref in self.active or len(self.active) < MOST_ACTIVE:
            self.active[event.ref] = event
        if event.connection_id is None:
            return
        key = (event.ref.instance, event.connection_id.lower())
        history = self.connections.get(key)
        if history is None:
            history = self.connections[key] = History(last=event)
            if not newest:
                self.connections.move_to_end(key, last=False)
        elif newest:
            self.connections.move_to_end(key)
        history.add(event, newest=newest)
        if len(self.connections) > MOST_CONNECTIONS:
            self.connections.popitem(last=False)


async def newest_states(store: EventLog, wanted: EventFilter, most: int) -> AsyncIterator[JobEvent]:
    """Read states from the store page by page, the newest first.

    :param most: their number; with those of the last page it may be exceeded.
    :raises StoreError: if they can't be read.
    """
    before, read = None, 0
    while read < most:
        page = await store.jobs(limit=_PAGE, before=before, wanted=wanted)
        for state in page:
            yield state
        if len(page) < _PAGE:
            return
        before, read = page[-1].sequence, read + len(page)
