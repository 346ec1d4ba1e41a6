"""Start a job at most once, in spite of conflicts and lost responses."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import anyio

from airbyte_events.airbyte.refresh_detection import REFRESH
from airbyte_events.errors import (
    AirbyteError,
    AirbyteStatusError,
    AirbyteUnreachable,
    Conflict,
    MaybeStarted,
    NotSent,
    RateLimited,
    ServerError,
    UnknownStream,
    Unsupported,
)
from airbyte_events.events import JobStatus, Usual, same_job_type
from airbyte_events.events.progress import USUAL_OF
from airbyte_events.jobs import Job, JobSystem, Refresh

logger = logging.getLogger(__name__)

SEARCH_DELAYS = (0.0, 2.0, 5.0, 10.0)
"""Seconds before each search for a job whose creation got no response: Airbyte may still be creating it."""

PATIENCE = 600.0
"""Seconds for which to search for such a job if the caller has no deadline."""

_PAUSES = (1.0, 3.0, 10.0)


class OnConflict(StrEnum):
    """The policy of a task while its Airbyte connection has another active job."""

    ATTACH = "attach"
    """Wait for that job as for its own, if it is of the same type; otherwise as :attr:`WAIT`."""
    WAIT = "wait"
    """Wait for that job to complete, then start its own."""
    CANCEL = "cancel"
    """Cancel that job, wait for it to complete, then start its own."""
    FAIL = "fail"
    SKIP = "skip"


class How(StrEnum):
    """The result of a submission."""

    STARTED = "started"
    ATTACHED = "attached"
    """The job was active already; another client started it."""
    FOUND = "found"
    """The job was created, and the response was lost."""
    RESUMED = "resumed"
    """An earlier try of the task started the job."""
    BLOCKED = "in the way"
    """Nothing was started: the job is another active one of the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job to wait for.

    :param owned: whether this submission created the job, or may have; only then may its caller cancel it.
    """

    job: Job
    how: How
    owned: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A connection's jobs before one is started.

    :param newest_id: the highest job id, 0 if there is none. Later jobs have a higher one, whatever the clocks show.
    :param usual_seconds: the median duration of its latest successes of the job's type; None if there is none.
    """

    newest_id: int
    active: Job | None = None
    usual_seconds: float | None = None


async def take_snapshot(airbyte: JobSystem, connection_id: str, job_type: str) -> Snapshot:
    """Return the connection's jobs before a job of this type is started.

    :raises AirbyteError: if Airbyte can't list them.
    """
    # Airbyte refuses a sync while a refresh runs, but cancels the refresh for a clear or reset.
    jobs = await _jobs(airbyte, connection_id, refreshes=job_type != "sync")
    return Snapshot(
        newest_id=max((job.job_id for job in jobs), default=0),
        active=_active(jobs),
        usual_seconds=_usual_seconds(jobs, job_type),
    )


def _active(jobs: Sequence[Job]) -> Job | None:
    return next((job for job in jobs if not job.status.terminal), None)


def _usual_seconds(jobs: Sequence[Job], job_type: str) -> float | None:
    successes = [job for job in jobs if job.status is JobStatus.SUCCEEDED and same_job_type(job.job_type, job_type)]
    usual = Usual.of(successes[:USUAL_OF])
    return None if usual is None else usual.duration_seconds


async def _jobs(airbyte: JobSystem, connection_id: str, *, refreshes: bool) -> list[Job]:
    """Return the connection's newest jobs, the newest first.

    :param refreshes: also list refreshes, which Airbyte up to 2.0 leaves out of lists without a type.
    """
    jobs = await airbyte.newest_jobs(connection_id)
    if refreshes and not any(job.job_type == "refresh" for job in jobs):
        jobs += await airbyte.newest_jobs(connection_id, "refresh")
    return sorted(jobs, key=lambda job: job.job_id, reverse=True)


async def submit(
    airbyte: JobSystem,
    connection_id: str,
    job_type: str = "sync",
    on_conflict: OnConflict = OnConflict.ATTACH,
    *,
    refresh: Refresh | None = None,
    before: Snapshot | None = None,
    until: float | None = None,
    delays: Sequence[float] = SEARCH_DELAYS,
) -> Submission:
    """Start a job of the connection, or return the active one.

    A connection has one active job at a time. Airbyte refuses a sync while an attempt of another job runs, returns the
    active job before its first attempt, and cancels it for a clear or reset: so the active job is requested first. A
    job is not created again until Airbyte's jobs show that the first request created none.

    :param connection_id: the Airbyte connection (UUID).
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``.
    :param on_conflict: ``attach`` returns an active job of the same type as attached, except for a refresh, whose
        streams are unknown. Any other active job, and with another policy every one, blocks the submission.
    :param until: the time in seconds since the epoch until which to search for a job that may have been started;
        :data:`PATIENCE` by default.
    :raises MaybeStarted: if it is still unknown then.
    :raises AirbyteError: if no job was created; the message has the reason.
    """
    if before is None:
        before = await take_snapshot(airbyte, connection_id, job_type)
    until = until or time.time() + PATIENCE
    submitting = _Submitting(airbyte, connection_id, job_type, on_conflict, before, until, delays)
    if before.active is not None:
        return submitting.conflict(before.active)
    for pause in (*_PAUSES, None):
        try:
            return submitting.accept(await airbyte.create_job(connection_id, job_type, refresh))
        except AirbyteError as exc:
            failure = exc
        if (submission := await submitting.recover(failure)) is not None:
            return submission
        if pause is None:
            raise submitting.final(failure)
        logger.info("no job started, retrying: seconds=%g error=%s", pause, failure)
        await anyio.sleep(pause)
    raise AssertionError


def _created_nothing(failure: AirbyteError) -> bool:
    """Return whether a failed request surely created no job.

    Releases since 2026-06 respond 409 «Could not fulfill request» after 60 s, though a job may still be created.
    """
    if isinstance(failure, (NotSent, UnknownStream, Unsupported)):
        return True
    if isinstance(failure, Conflict):
        return "could not fulfill" not in str(failure).lower()
    return isinstance(failure, AirbyteStatusError) and not isinstance(failure, ServerError)


@dataclass(slots=True)
class _Submitting:
    airbyte: JobSystem
    connection_id: str
    job_type: str
    on_conflict: OnConflict
    before: Snapshot
    until: float
    delays: Sequence[float]
    lost: bool = False
    """Whether the response of a request that may have created a job was lost."""

    def conflict(self, active: Job) -> Submission:
        """Apply the policy to an active job of another client. An unknown type counts as the same type."""
        attachable = self._same_type(active) and self.job_type != REFRESH
        attached = attachable and self.on_conflict is OnConflict.ATTACH
        return Submission(job=active, how=How.ATTACHED if attached else How.BLOCKED, owned=False)

    def accept(self, job: Job) -> Submission:
        """Return the submission of a 2xx response. Before its first attempt, Airbyte returns the active job."""
        if job.job_id > self.before.newest_id and self._same_type(job):
            return Submission(job=job, how=How.STARTED)
        return self.conflict(job)

    def _same_type(self, job: Job) -> bool:
        return job.job_type is None or same_job_type(job.job_type, self.job_type)

    async def recover(self, failure: AirbyteError) -> Submission | None:
        """Search for a job after a failed request; None if another request may succeed.

        :raises AirbyteError: if there is no job, and another request is pointless.
        """
        refused = _created_nothing(failure)
        # The client repeats other requests by itself, but no refresh.
        passing = self.job_type == REFRESH and isinstance(failure, (NotSent, RateLimited))
        if refused and not self.lost and not isinstance(failure, Conflict) and not passing:
            raise failure
        if not refused:
            self.lost = True
            logger.warning("unknown whether a job started, searching for it: error=%s", failure)
        jobs: list[Job] = []
        for seconds in self.delays[:1] if refused else self.delays:
            await anyio.sleep(seconds)
            jobs = await self._list(failure)
            if self.lost and (created := _created(jobs, self.job_type, self.before.newest_id)) is not None:
                return Submission(job=created, how=How.FOUND)
        if (active := _active(jobs)) is not None:
            return self.conflict(active)
        if refused and not isinstance(failure, (Conflict, NotSent, RateLimited)):
            raise self.final(failure)
        if refused and isinstance(failure, Conflict) and failure.type == "state-conflict":
            # Older releases respond so while a job runs, but none does.
            hint = f"{failure}; is connection {self.connection_id} enabled in Airbyte?"
            raise self.final(Conflict(409, hint, type=failure.type))
        return None

    async def _list(self, failure: AirbyteError) -> list[Job]:
        """Return the connection's newest jobs; retry until there is a response: no response does not mean no job."""
        while True:
            try:
                return await _jobs(self.airbyte, self.connection_id, refreshes=True)
            except AirbyteError as exc:
                transient = isinstance(exc, (AirbyteUnreachable, ServerError, RateLimited))
                if not transient or time.time() >= self.until:
                    said = f"{failure}; the connection's jobs can't be listed to see whether one started: {exc}"
                    raise self.final(AirbyteError(said)) from exc
                logger.warning("still unknown whether a job started: error=%s", exc)
            await anyio.sleep(1)

    def final(self, failure: AirbyteError) -> AirbyteError:
        return MaybeStarted(f"{failure}; a job may have been started") if self.lost else failure


async def find_created(
    airbyte: JobSystem, connection_id: str, job_type: str, after_id: int, delays: Sequence[float] = SEARCH_DELAYS
) -> Job | None:
    """Return the job that a submission created, or may have created; None if there is none.

    :param after_id: :attr:`Snapshot.newest_id` before the submission.
    :raises AirbyteError: if Airbyte can't list the connection's jobs.
    """
    for seconds in delays:
        await anyio.sleep(seconds)
        created = _created(await _jobs(airbyte, connection_id, refreshes=job_type == REFRESH), job_type, after_id)
        if created is not None:
            return created
    return None


def _created(jobs: Sequence[Job], job_type: str, after_id: int) -> Job | None:
    later = [job for job in jobs if job.job_id > after_id and same_job_type(job.job_type, job_type)]
    return min(later, key=lambda job: job.job_id, default=None)
