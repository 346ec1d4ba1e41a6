"""The jobs that somebody waits for."""

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

WATCH_SECONDS = 30 * 60.0
"""How long a job is watched for somebody who does not ask again."""

MISSES = 3
"""A job that Airbyte did not know so often in a row is not watched any more."""

_NEVER = -math.inf


@dataclass(slots=True)
class Watch:
    """A watched job. Times are by the event loop's clock, but for the first.

    :param began: when somebody first asked for it.
    :param seen: when Airbyte last reported the job, or was asked first.
    :param asked: when Airbyte was last asked for this job alone.
    :param until: when the watch ends.
    :param pushed: whether webhooks announce the completion of such a job.
    :param misses: how often in a row Airbyte did not know the job.
    """

    began: datetime
    seen: float
    asked: float = _NEVER
    until: float = 0.0
    pushed: bool = True
    misses: int = 0


class Watches:
    """The watched jobs of one instance, each until it completes or nobody asks for it any more."""

    def __init__(self) -> None:
        self.changed = Wakeup()
        """Set when a job is watched that was not."""
        self.followers = 0
        """How many subscribe to completions of jobs that may not exist yet."""
        self.elsewhere: set[int] = set()
        """The jobs that were watched elsewhere when that was last asked for."""
        self._watches: dict[int, Watch] = {}

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
    def jobs(self) -> dict[int, bool]:
        """The jobs, and whether webhooks announce the completion of each."""
        now = anyio.current_time()
        for job_id in [job_id for job_id, watch in self._watches.items() if watch.until < now]:
            del self._watches[job_id]
        return {job_id: watch.pushed for job_id, watch in self._watches.items()}

    def add(self, job_ids: Iterable[int]) -> set[int]:
        """Watch these jobs, or go on watching them.

        :return: those that were not watched.
        """
        now = anyio.current_time()
        fresh = set(job_ids) - self._watches.keys()
        for job_id in job_ids:
            self._watches.setdefault(job_id, Watch(began=utcnow(), seen=now)).until = now + WATCH_SECONDS
        return fresh

    def follow(self, watched: Mapping[int, datetime]) -> None:
        """Watch what is watched elsewhere, and nothing that was watched there before.

        :param watched: these jobs, and since when.
        """
        now = anyio.current_time()
        for job_id in self.elsewhere - watched.keys():
            self.forget(job_id)
        # A job that has completed, or is unknown, is not watched again.
        for job_id in watched.keys() - self.elsewhere:
            self._watches[job_id] = Watch(began=watched[job_id], seen=now, until=math.inf)
        self.elsewhere = set(watched)

    def settle(self, fresh: Collection[int], reported: Collection[int]) -> None:
        """Have those that were added and not reported read.

        :param reported: the jobs whose states were returned.
        """
        self.unsee(set(fresh) - set(reported))
        # Only now is it known which of them are worth a poll.
        if self._watches.keys() & fresh:
            self.changed.set()

    def forget(self, job_id: int) -> None:
        """Watch this job no more."""
        self._watches.pop(job_id, None)

    def miss(self, job_id: int) -> None:
        """Note that Airbyte does not know this job: it is read again, and after :data:`MISSES` forgotten."""
        if (watch := self._watches.get(job_id)) is None:
            return
        watch.misses += 1
        watch.seen = _NEVER
        if watch.misses >= MISSES:
            self.forget(job_id)

    def see(self, states: Iterable[JobEvent], *, asked: bool) -> None:
        """Note states; jobs that have completed are not watched any more.

        :param asked: Airbyte reported them just now.
        """
        now = anyio.current_time()
        for state in states:
            if (watch := self._watches.get(state.ref.job_id)) is None:
                continue
            if state.terminal:
                del self._watches[state.ref.job_id]
                # A watch of that number from now on means another job.
                self.elsewhere.discard(state.ref.job_id)
                continue
            if asked:
                watch.seen, watch.misses = now, 0
            watch.pushed = state.job_type in PUSHED_JOB_TYPES

    def ask(self, job_id: int) -> None:
        """Note that Airbyte is asked for this job alone: the others have their turn before it has again."""
        if (watch := self._watches.get(job_id)) is not None:
            watch.asked = anyio.current_time()

    def unsee(self, job_ids: Iterable[int] | None = None) -> None:
        """Have these jobs, or all, read one by one."""
        for job_id in self._watches.keys() & (self._watches.keys() if job_ids is None else set(job_ids)):
            self._watches[job_id].seen = _NEVER

    def never_seen(self) -> list[int]:
        """Return jobs that Airbyte has not reported yet, those first that it was asked for the longest ago."""
        unseen = [(watch.asked, job_id) for job_id, watch in self._watches.items() if watch.seen == _NEVER]
        return [job_id for _, job_id in sorted(unseen)]

    def stale(self, seconds: float) -> list[int]:
        """Return jobs that no response had for so long, those first that were reported or asked for the longest ago."""
        before = anyio.current_time() - seconds
        stale = [
            (max(watch.seen, watch.asked), job_id) for job_id, watch in self._watches.items() if watch.seen <= before
        ]
        return [job_id for _, job_id in sorted(stale)]

    def began(self) -> datetime | None:
        """Return when the first of them was watched."""
        return min((watch.began for watch in self._watches.values()), default=None)
