"""The watched jobs of an instance."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.events import PUSHED_JOB_TYPES, JobEvent
from airbyte_events.monitor.outlook import Kind, Outlook, UsualDurations

WATCH_SECONDS = 30 * 60.0
"""How long a job is watched after a subscriber last requested it."""

TOGETHER_SECONDS = 30.0
"""How long after the completion of a watched job the next one is to be expected."""

MISSES = 3
"""The number of responses in a row that a job is unknown, after which it is no longer watched."""

_NEVER = -math.inf


@dataclass(slots=True)
class Watch:
    """A watched job. Times are of the event loop's clock, except the first.

    :param reported: when Airbyte last reported the job; at first, when it was watched.
    :param requested: when this job alone was last requested.
    :param pushed: whether webhooks announce the completion of such a job.
    :param misses: how often in a row Airbyte did not know the job.
    :param kind: for its usual duration.
    :param started: when it began; None if unknown.
    """

    began: datetime
    reported: float
    requested: float = _NEVER
    until: float = 0.0
    pushed: bool = True
    misses: int = 0
    kind: Kind | None = None
    started: float | None = None


class Watches:
    """The watched jobs of one instance, each until it completes or its watch expires."""

    def __init__(self) -> None:
        self.changed = Wakeup()
        """Set when another job is watched, or the first viewer comes."""
        self.followers = 0
        """The number of subscribers to completions of jobs that may not exist yet."""
        self._viewed_until = _NEVER
        self.elsewhere: set[int] = set()
        """The jobs that other processes watched when :meth:`follow` was last called."""
        self._watches: dict[int, Watch] = {}
        self._durations = UsualDurations()
        self._completed = _NEVER

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._watches

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Count a subscriber to completions of jobs that may not exist yet."""
        self.followers += 1
        self.changed.set()
        try:
            yield
        finally:
            self.followers -= 1

    @property
    def viewed(self) -> bool:
        return anyio.current_time() < self._viewed_until

    def view(self, seconds: float) -> None:
        """Count a viewer of the instance's jobs, watched or not, for so many seconds."""
        if not self.viewed:
            self.changed.set()
        self._viewed_until = anyio.current_time() + seconds

    @property
    def jobs(self) -> dict[int, bool]:
        """The jobs, and whether webhooks announce the completion of each."""
        now = anyio.current_time()
        for job_id in [job_id for job_id, watch in self._watches.items() if watch.until < now]:
            del self._watches[job_id]
        return {job_id: watch.pushed for job_id, watch in self._watches.items()}

    @property
    def outlook(self) -> Outlook:
        """Whether the completion of a watched job is to be expected: jobs often complete together."""
        now = anyio.current_time()
        together = now < self._completed + TOGETHER_SECONDS
        found = Outlook.FAR if self._watches else Outlook.UNKNOWN
        for watch in self._watches.values():
            each = Outlook.UNKNOWN
            if watch.started is not None:
                each = self._durations.outlook(watch.kind, now - watch.started)
            if each is Outlook.NEAR or (each is Outlook.UNKNOWN and together):
                return Outlook.NEAR
            if each is Outlook.UNKNOWN:
                found = each
        return found

    def add(self, job_ids: Iterable[int]) -> set[int]:
        """Watch these jobs, or extend their watches.

        :return: those that were not watched before.
        """
        now = anyio.current_time()
        fresh = set(job_ids) - self._watches.keys()
        for job_id in job_ids:
            self._watches.setdefault(job_id, Watch(began=utcnow(), reported=now)).until = now + WATCH_SECONDS
        return fresh

    def follow(self, watched: Mapping[int, datetime]) -> None:
        """Watch the jobs that other processes watch, and no longer those that they watched before.

        :param watched: these jobs, and since when.
        """
        now = anyio.current_time()
        for job_id in self.elsewhere - watched.keys():
            self.forget(job_id)
        # A job that has completed, or is unknown, is not watched again.
        for job_id in watched.keys() - self.elsewhere:
            self._watches[job_id] = Watch(began=watched[job_id], reported=now, until=math.inf)
        self.elsewhere = set(watched)

    def settle(self, fresh: Collection[int], reported: Collection[int]) -> None:
        """Mark the added jobs without a state as unread, and wake the poller if any is still watched.

        :param fresh: the jobs that :meth:`add` returned.
        :param reported: the jobs whose states were returned.
        """
        self.mark_unread(set(fresh) - set(reported))
        if self._watches.keys() & fresh:
            self.changed.set()

    def forget(self, job_id: int) -> None:
        self._watches.pop(job_id, None)

    def miss(self, job_id: int) -> None:
        """Count a response that this job is unknown: it is read again, and after :data:`MISSES` no longer watched."""
        if (watch := self._watches.get(job_id)) is None:
            return
        watch.misses += 1
        watch.reported = _NEVER
        if watch.misses >= MISSES:
            self.forget(job_id)

    def update(self, states: Iterable[JobEvent], *, polled: bool) -> None:
        """Update the watches with these states; completed jobs are no longer watched.

        :param polled: Airbyte reported them just now.
        """
        now = anyio.current_time()
        for state in states:
            if state.terminal:
                self._durations.record(state)
            if (watch := self._watches.get(state.ref.job_id)) is None:
                continue
            if state.terminal:
                del self._watches[state.ref.job_id]
                self._completed = now
                # A later watch of that id means another job.
                self.elsewhere.discard(state.ref.job_id)
                continue
            if polled:
                watch.reported, watch.misses = now, 0
            watch.pushed = state.job_type in PUSHED_JOB_TYPES
            watch.kind = Kind.of(state)
            if state.started_at is not None:
                watch.started = now - (utcnow() - state.started_at).total_seconds()

    def confirm(self, job_id: int) -> None:
        """Store that Airbyte reported the job as active just now."""
        if (watch := self._watches.get(job_id)) is not None:
            watch.reported, watch.misses = anyio.current_time(), 0

    def ask(self, job_id: int) -> None:
        """Store that this job is requested alone: all others precede it the next time."""
        if (watch := self._watches.get(job_id)) is not None:
            watch.requested = anyio.current_time()

    def mark_unread(self, job_ids: Iterable[int] | None = None) -> None:
        """Mark these jobs, or all, to be read one by one."""
        for job_id in self._watches.keys() & (self._watches.keys() if job_ids is None else set(job_ids)):
            self._watches[job_id].reported = _NEVER

    def unread(self) -> list[int]:
        """Return the jobs to be read one by one, the least recently requested first."""
        unread = [(watch.requested, job_id) for job_id, watch in self._watches.items() if watch.reported == _NEVER]
        return [job_id for _, job_id in sorted(unread)]

    def stale(self, seconds: float) -> list[int]:
        """Return jobs that no response had for so long, the least recently reported or requested first."""
        before = anyio.current_time() - seconds
        stale = [
            (max(watch.reported, watch.requested), job_id)
            for job_id, watch in self._watches.items()
            if watch.reported <= before
        ]
        return [job_id for _, job_id in sorted(stale)]

    def began(self) -> datetime | None:
        """Return when the first of the watched jobs was watched."""
        return min((watch.began for watch in self._watches.values()), default=None)
