"""The progress of running jobs, read on demand with a few requests a minute, however many jobs are watched."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
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

REMEMBERED = 1_000
"""The most jobs whose progress is remembered."""

_NEVER = float("-inf")


@dataclass(slots=True)
class _Sample:
    """What was last reported of a job; times are those of the event loop.

    :param changed_at: when something of it was first reported as it is.
    :param streams_at: when the streams were last requested.
    :param streams_read_at: when they were last reported.
    :param streams_changed_at: when they were first reported as they are.
    """

    job: Job
    observed_at: datetime
    read_at: float
    changed_at: float
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


class ProgressReader:
    """Reads the progress of one instance's jobs: nothing unless it is asked, nothing while Airbyte backs off.

    :param system: the instance's API; without :class:`~airbyte_events.jobs.ReportsProgress` there is no progress.
    :param kept: the part of :data:`BURST` that is kept for requests of streams while several jobs are wanted.
    """

    def __init__(
        self,
        system: JobSystem,
        *,
        fresh: float = FRESH_SECONDS,
        per_minute: float = REQUESTS_PER_MINUTE,
        kept: int = 0,
    ) -> None:
        self._system = system
        self._source = system if isinstance(system, ReportsProgress) else None
        self._fresh = fresh
        self._bucket = TokenBucket(rate=per_minute / 60, burst=BURST)
        self._kept = kept
        self._samples: OrderedDict[int, _Sample] = OrderedDict()
        self._wanted: OrderedDict[int, float] = OrderedDict()
        self._streams_wanted: OrderedDict[int, float] = OrderedDict()
        self._has_listed = False
        """Whether the last request was a list."""
        self._skip = 0
        """Where the next list begins: at a later page, if the last one left out jobs."""
        self._listed_from = _NEVER
        """When the first page was last requested."""
        self._reading = anyio.Lock()
        self._resumes_at = self._lists_from = _NEVER

    async def read(self, job_ids: Collection[int], *, streams: bool = False) -> dict[int, Progress]:
        """Return the progress of those of these jobs that are active; raise no :class:`AirbyteError`.

        Beyond the budget it is that of an earlier request, see :attr:`Progress.observed_at`. Callers share requests.

        :param streams: also request the streams of the jobs, one request each, where the system reports them.
        """
        if self._source is not None:
            # One at a time: the next caller finds what this one requested.
            async with self._reading:
                try:
                    await self._refresh(self._source, dict.fromkeys(job_ids), streams)
                except AirbyteError as exc:
                    self._resumes_at = anyio.current_time() + PAUSE_SECONDS
                    logger.info("could not read progress, retrying: seconds=%g: %s", PAUSE_SECONDS, exc)
        return {job_id: sample.progress for job_id in job_ids if (sample := self._samples.get(job_id)) is not None}

    def _left(self, streams: bool) -> int:
        """Return the number of requests that may be sent now."""
        if anyio.current_time() < self._resumes_at or self._system.backing_off > 0:
            return 0
        return self._bucket.left - (0 if streams or len(self._wanted) == 1 else self._kept)

    def _take(self, streams: bool) -> bool:
        return self._left(streams) > 0 and bool(self._bucket.take())

    async def _refresh(self, source: ReportsProgress, job_ids: Collection[int], streams: bool) -> None:
        before = anyio.current_time() - self._fresh
        _want(self._wanted, job_ids)
        left = {(False, job_id) for job_id in job_ids if self._read_at(job_id) <= before}
        _want(self._streams_wanted, job_ids if streams else ())
        if streams:
            left |= {(True, job_id) for job_id in job_ids if self._streams_at(job_id) <= before}
        if not left or self._left(streams) <= 0:
            return
        stale = [(at, job_id) for job_id in self._wanted if (at := self._read_at(job_id)) <= before]
        without_streams = [
            (at, job_id) for job_id in self._streams_wanted if (at := self._streams_at(job_id)) <= before
        ]
        may_list = len(stale) > 1 and self._lists_from <= anyio.current_time()
        # In turn: lists alone would use up the budget. Callers that want no streams leave it to those that do.
        scarce = may_list and self._has_listed and self._skip == 0 and self._left(streams) < 2
        streams_first = scarce and any(self._has_streams(job_id) for _, job_id in without_streams)
        unlisted_first = scarce and any(at < self._listed_from for at, _ in stale)
        while may_list and not (streams_first or unlisted_first) and self._take(streams):
            left -= {(False, job_id) for job_id in await self._list(source, before)}
            if not self._skip or all(of_streams for of_streams, _ in left):
                break
        work = [] if streams_first else [(at, False, job_id) for at, job_id in stale]
        work += [(at, True, job_id) for at, job_id in without_streams] if streams else []
        # The oldest first, whoever asked for it: where the budget does not serve all, it serves each in turn.
        for _, of_streams, job_id in sorted(work):
            if not left or self._left(streams) <= 0:
                break
            left.discard((of_streams, job_id))
            if of_streams and self._streams_at(job_id) <= before:
                await self._read_streams(source, job_id)
            elif not of_streams and self._read_at(job_id) <= before and self._take(streams):
                await self._read_one(source, job_id)

    async def _read_one(self, source: ReportsProgress, job_id: int) -> None:
        self._has_listed = False
        job = await source.glance(job_id)
        if job is None:
            self._forget(job_id)
        else:
            self._record(job)

    async def _list(self, source: ReportsProgress, before: float) -> set[int]:
        """Read the next page of running jobs; return which.

        :param before: wanted jobs that were read earlier are to be read.
        """
        self._has_listed = True
        if not self._skip:
            self._listed_from = anyio.current_time()
        try:
            listed = await source.running_jobs(self._skip)
        except AirbyteError as exc:
            self._skip = 0
            self._lists_from = anyio.current_time() + UNLISTED_SECONDS
            logger.info("progress is read job by job: seconds=%g: %s", UNLISTED_SECONDS, exc)
            return set()
        for running in listed:
            self._record(running)
        full = len(listed) >= RUNNING_JOBS
        left_out = full and any(self._read_at(job_id) <= before for job_id in self._wanted)
        self._skip = self._skip + len(listed) if left_out else 0
        return {running.job_id for running in listed}

    def _read_at(self, job_id: int) -> float:
        return self._samples[job_id].read_at if job_id in self._samples else _NEVER

    def _streams_at(self, job_id: int) -> float:
        return self._samples[job_id].streams_at if job_id in self._samples else _NEVER

    def _has_streams(self, job_id: int) -> bool:
        sample = self._samples.get(job_id)
        return sample is not None and sample.job.connection_id is not None and sample.job.status is JobStatus.RUNNING

    async def _read_streams(self, source: ReportsProgress, job_id: int) -> None:
        sample = self._samples.get(job_id)
        connection_id = None if sample is None else sample.job.connection_id
        if sample is None or connection_id is None or not self._has_streams(job_id) or not self._take(True):
            return
        self._has_listed = False
        sample.take_streams(await source.stream_progress(job_id, connection_id))

    def _record(self, job: Job) -> None:
        now, known = anyio.current_time(), self._samples.pop(job.job_id, None)
        if job.status.terminal:
            self._forget(job.job_id)
            return
        sample = self._samples[job.job_id] = _Sample(job, utcnow(), read_at=now, changed_at=now)
        # Another job may have its id now.
        if known is not None and known.job.started_at == job.started_at:
            sample.keep_streams(known)
            if _stamp(known.job) == _stamp(job):
                sample.changed_at = known.changed_at
        if len(self._samples) > REMEMBERED:
            self._samples.popitem(last=False)

    def _forget(self, job_id: int) -> None:
        for table in (self._samples, self._wanted, self._streams_wanted):
            table.pop(job_id, None)


def _want(wanted: OrderedDict[int, float], job_ids: Iterable[int]) -> None:
    """Give these jobs a turn, and take it from those that nobody has asked for in :data:`WANTED_SECONDS`."""
    now = anyio.current_time()
    for job_id in job_ids:
        wanted[job_id] = now
        wanted.move_to_end(job_id)
    while wanted and (len(wanted) > REMEMBERED or next(iter(wanted.values())) < now - WANTED_SECONDS):
        wanted.popitem(last=False)


def _stamp(job: Job) -> tuple[JobStatus, int, int]:
    # What is not reported yet has not moved.
    return job.status, job.records or 0, job.bytes or 0


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
