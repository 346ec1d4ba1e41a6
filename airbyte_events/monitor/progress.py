"""The progress of running jobs, read on demand with a few requests a minute, however many jobs are watched."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events._utils.token_bucket import TokenBucket
from airbyte_events.errors import AirbyteError
from airbyte_events.events import JobStatus, Progress, StreamProgress
from airbyte_events.jobs import RUNNING_JOBS, Job, JobSystem, ReportsProgress

logger = logging.getLogger(__name__)

REQUESTS_PER_MINUTE = 6
"""The limit of requests for progress, per instance and process."""

BURST = 6
"""The most of them at once."""

PATIENT_SHARE = 0.5
"""The most of the limit for patient callers, such as the log lines of waiting tasks: one request at a time, and none
more until they may send the next one. The rest is for callers who look right now."""

FRESH_SECONDS = 5.0
"""How long a response serves further callers."""

PAUSE_SECONDS = 60.0
"""How long nothing is requested after a request failed."""

UNLISTED_SECONDS = 600.0
"""How long jobs are read one by one after Airbyte failed to list the running ones."""

UNREPORTED_SECONDS = 600.0
"""How long streams count as reported after the last response that had them."""

WANTED_SECONDS = 30.0
"""How long a job keeps its turn after a call: callers that ask for one job each share the budget, too."""

UNLISTED_WANTED_SECONDS = 300.0
"""The same for a patient caller's job that no list had: its turn comes after the last page of a list."""

REMEMBERED = 1_000
"""The most jobs whose progress is remembered."""

_NEVER = float("-inf")


@dataclass(slots=True)
class _Sample:
    """What was last reported of a job; times are those of the event loop.

    :param changed_at: when something of it was first reported as it is.
    :param listed: whether a list had it.
    :param streams_at: when the streams were last requested.
    :param streams_read_at: when they were last reported.
    :param streams_changed_at: when they were first reported as they are.
    """

    job: Job
    observed_at: datetime
    read_at: float
    changed_at: float
    listed: bool
    streams: tuple[StreamProgress, ...] | None = None
    streams_at: float = _NEVER
    streams_read_at: float = _NEVER
    streams_changed_at: float = _NEVER

    def take_streams(self, found: tuple[StreamProgress, ...] | None) -> None:
        """Take a response; None if there was none."""
        now = self.streams_at = anyio.current_time()
        if found is None:
            if now > self.streams_read_at + UNREPORTED_SECONDS:
                self.streams = None
            return
        if found != self.streams:
            if self.streams is not None:
                self.changed_at = now
            self.streams_changed_at = now
        self.streams, self.streams_read_at, self.observed_at = found, now, utcnow()

    def keep_streams(self, before: _Sample) -> None:
        """Keep the streams of an earlier sample of the same job."""
        self.streams, self.streams_at = before.streams, before.streams_at
        self.streams_read_at, self.streams_changed_at = before.streams_read_at, before.streams_changed_at

    @property
    def progress(self) -> Progress:
        job, streams = self.job, self.streams
        running = job.status is JobStatus.RUNNING
        return Progress(
            job_id=job.job_id,
            status=job.status,
            observed_at=self.observed_at,
            started_at=job.started_at,
            connection_id=job.connection_id,
            records=_total([each.records for each in streams or ()]) if job.records is None else job.records,
            bytes=_total([each.bytes for each in streams or ()]) if job.bytes is None else job.bytes,
            streams=streams,
            unchanged_seconds=max(self.read_at, self.streams_read_at) - self.changed_at if running else 0.0,
            streams_unchanged_seconds=self._streams_unchanged if running else 0.0,
        )

    @property
    def _streams_unchanged(self) -> float | None:
        if self.streams_at == _NEVER:
            return 0.0
        return None if self.streams is None else self.streams_read_at - self.streams_changed_at


@dataclass(slots=True)
class _Turns:
    """Callers whose jobs take turns, as they accept responses of about the same age.

    :param bucket: the limit of their requests.
    :param has_listed: whether the last request was a list.
    :param skip: where the next list begins: at a later page, if the last one left out jobs.
    :param listed_from: when the first page was last requested.
    """

    bucket: TokenBucket
    wanted: OrderedDict[int, float] = field(default_factory=OrderedDict)
    streams_wanted: OrderedDict[int, float] = field(default_factory=OrderedDict)
    has_listed: bool = False
    skip: int = 0
    listed_from: float = _NEVER


class ProgressReader:
    """Reads the progress of one instance's jobs: nothing unless it is asked, nothing while Airbyte backs off.

    :param system: the instance's API; without :class:`~airbyte_events.jobs.ReportsProgress` there is no progress.
    :param on_active: called with the id of each active job that Airbyte returned.
    """

    def __init__(
        self,
        system: JobSystem,
        *,
        fresh: float = FRESH_SECONDS,
        per_minute: float = REQUESTS_PER_MINUTE,
        on_active: Callable[[int], object] = lambda job_id: None,
    ) -> None:
        self._system = system
        self._source = system if isinstance(system, ReportsProgress) else None
        self._fresh = fresh
        self._on_active = on_active
        self._patient_seconds = 60 / (per_minute * PATIENT_SHARE)
        self._live = _Turns(TokenBucket(rate=per_minute / 60, burst=BURST))
        self._patient = _Turns(TokenBucket(rate=1 / self._patient_seconds, burst=1))
        self._samples: OrderedDict[int, _Sample] = OrderedDict()
        self._reading = anyio.Lock()
        self._resumes_at = self._lists_from = _NEVER

    async def read(
        self, job_ids: Collection[int], *, streams: bool = False, max_age: float = 0.0
    ) -> dict[int, Progress]:
        """Return the progress of those of these jobs that are active; raise no :class:`AirbyteError`.

        Beyond the budget it is that of an earlier request, see :attr:`Progress.observed_at`. Callers share requests.

        :param streams: also request the streams of the jobs, one request each, where the system reports them.
        :param max_age: nothing is requested while the last response is at most so many seconds old. Callers that accept
            old ones are patient: they have :data:`PATIENT_SHARE` of the budget.
        """
        if self._source is not None:
            turns = self._patient if max_age >= self._patient_seconds and not streams else self._live
            # One at a time: the next caller finds what this one requested.
            async with self._reading:
                try:
                    age = max(self._fresh, max_age)
                    await self._refresh(self._source, turns, dict.fromkeys(job_ids), streams, age)
                except AirbyteError as exc:
                    self._resumes_at = anyio.current_time() + PAUSE_SECONDS
                    logger.info("could not read progress, retrying: seconds=%g: %s", PAUSE_SECONDS, exc)
        return {job_id: sample.progress for job_id in job_ids if (sample := self._samples.get(job_id)) is not None}

    def _left(self, turns: _Turns) -> int:
        """Return the number of requests that may be sent now."""
        if anyio.current_time() < self._resumes_at or self._system.backing_off > 0:
            return 0
        return turns.bucket.left

    def _take(self, turns: _Turns) -> bool:
        if not self._left(turns):
            return False
        turns.bucket.take()
        if turns is self._patient:
            # Even if none is left: others who ask again and again would leave none.
            self._live.bucket.charge()
        return True

    async def _refresh(
        self, source: ReportsProgress, turns: _Turns, job_ids: Collection[int], streams: bool, age: float
    ) -> None:
        before = anyio.current_time() - age
        _want(turns.wanted, job_ids, UNLISTED_WANTED_SECONDS if turns is self._patient else WANTED_SECONDS)
        left = {(False, job_id) for job_id in job_ids if self._read_at(job_id) <= before}
        _want(turns.streams_wanted, job_ids if streams else (), WANTED_SECONDS)
        if streams:
            left |= {(True, job_id) for job_id in job_ids if self._streams_at(job_id) <= before}
        if not left or not self._left(turns):
            return
        stale = [(at, job_id) for job_id in self._wanted(turns) if (at := self._read_at(job_id)) <= before]
        without_streams = [
            (at, job_id) for job_id in turns.streams_wanted if (at := self._streams_at(job_id)) <= before
        ]
        may_list = len(stale) > 1 and self._lists_from <= anyio.current_time()
        # In turn: lists alone would use up the budget. Callers that want no streams leave it to those that do.
        scarce = may_list and turns.has_listed and turns.skip == 0 and self._left(turns) < 2
        streams_first = scarce and any(self._has_streams(job_id) for _, job_id in without_streams)
        unlisted_first = scarce and any(at < turns.listed_from for at, _ in stale)
        while may_list and not (streams_first or unlisted_first) and self._take(turns):
            left -= {(False, job_id) for job_id in await self._list(source, turns, before)}
            if not turns.skip or all(of_streams for of_streams, _ in left):
                break
        work = [] if streams_first else [(at, False, job_id) for at, job_id in stale]
        work += [(at, True, job_id) for at, job_id in without_streams] if streams else []
        # The oldest first, whoever asked for it: where the budget does not serve all, it serves each in turn.
        for _, of_streams, job_id in sorted(work):
            if not left or not self._left(turns):
                break
            left.discard((of_streams, job_id))
            if of_streams and self._streams_at(job_id) <= before:
                await self._read_streams(source, turns, job_id)
            elif not of_streams and self._read_at(job_id) <= before and self._take(turns):
                await self._read_one(source, turns, job_id)

    async def _read_one(self, source: ReportsProgress, turns: _Turns, job_id: int) -> None:
        turns.has_listed = False
        job = await source.glance(job_id)
        if job is None:
            self._forget(job_id)
        else:
            self._record(job, listed=False)

    async def _list(self, source: ReportsProgress, turns: _Turns, before: float) -> set[int]:
        """Read the next page of running jobs; return which.

        :param before: wanted jobs that were read earlier are to be read.
        """
        turns.has_listed = True
        if not turns.skip:
            turns.listed_from = anyio.current_time()
        try:
            listed = await source.running_jobs(turns.skip)
        except AirbyteError as exc:
            turns.skip = 0
            self._lists_from = anyio.current_time() + UNLISTED_SECONDS
            logger.info("progress is read job by job: seconds=%g: %s", UNLISTED_SECONDS, exc)
            return set()
        for running in listed:
            self._record(running, listed=True)
        full = len(listed) >= RUNNING_JOBS
        left_out = full and any(self._read_at(job_id) <= before for job_id in self._wanted(turns))
        turns.skip = turns.skip + len(listed) if left_out else 0
        return {running.job_id for running in listed}

    def _wanted(self, turns: _Turns) -> Iterator[int]:
        since = anyio.current_time() - WANTED_SECONDS
        for job_id, wanted_at in turns.wanted.items():
            if wanted_at >= since or (sample := self._samples.get(job_id)) is None or not sample.listed:
                yield job_id

    def _read_at(self, job_id: int) -> float:
        return self._samples[job_id].read_at if job_id in self._samples else _NEVER

    def _streams_at(self, job_id: int) -> float:
        return self._samples[job_id].streams_at if job_id in self._samples else _NEVER

    def _has_streams(self, job_id: int) -> bool:
        sample = self._samples.get(job_id)
        return sample is not None and sample.job.connection_id is not None and sample.job.status is JobStatus.RUNNING

    async def _read_streams(self, source: ReportsProgress, turns: _Turns, job_id: int) -> None:
        sample = self._samples.get(job_id)
        connection_id = None if sample is None else sample.job.connection_id
        if sample is None or connection_id is None or not self._has_streams(job_id) or not self._take(turns):
            return
        turns.has_listed = False
        sample.take_streams(await source.stream_progress(job_id, connection_id))

    def _record(self, job: Job, *, listed: bool) -> None:
        now, known = anyio.current_time(), self._samples.pop(job.job_id, None)
        if job.status.terminal:
            self._forget(job.job_id)
            return
        self._on_active(job.job_id)
        sample = self._samples[job.job_id] = _Sample(job, utcnow(), now, now, listed)
        # Another job may have its id now.
        if known is not None and known.job.started_at == job.started_at:
            sample.keep_streams(known)
            sample.listed |= known.listed
            if _stamp(known.job) == _stamp(job):
                sample.changed_at = known.changed_at
        if len(self._samples) > REMEMBERED:
            self._samples.popitem(last=False)

    def _forget(self, job_id: int) -> None:
        self._samples.pop(job_id, None)
        for turns in (self._live, self._patient):
            turns.wanted.pop(job_id, None)
            turns.streams_wanted.pop(job_id, None)


def _want(wanted: OrderedDict[int, float], job_ids: Iterable[int], seconds: float) -> None:
    """Give these jobs a turn, and take it from those that nobody has asked for in so many seconds."""
    now = anyio.current_time()
    for job_id in job_ids:
        wanted[job_id] = now
        wanted.move_to_end(job_id)
    while wanted and (len(wanted) > REMEMBERED or next(iter(wanted.values())) < now - seconds):
        wanted.popitem(last=False)


def _stamp(job: Job) -> tuple[JobStatus, int, int]:
    # What is not reported yet has not moved.
    return job.status, job.records or 0, job.bytes or 0


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
