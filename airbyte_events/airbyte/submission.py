"""Starting a job, so that one is started at most once: conflicts, and responses that got lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import anyio

from airbyte_events.airbyte import AirbyteClient, Job
from airbyte_events.airbyte.newest import newest_jobs
from airbyte_events.errors import (
    AirbyteError,
    AirbyteStatusError,
    AirbyteUnreachable,
    Conflict,
    MaybeStarted,
    NotSent,
    RateLimited,
    ServerError,
)
from airbyte_events.events import same_job_type

logger = logging.getLogger(__name__)

LOOKS = (0.0, 2.0, 5.0, 10.0)
"""Seconds before each request for a job whose creation got no response: Airbyte may be at it still."""

PATIENCE = 600.0
"""Seconds for which whether a job was started is asked, where the caller has no deadline."""

_PAUSES = (1.0, 3.0, 10.0)


class OnConflict(StrEnum):
    """What a task does when its Airbyte connection is busy with another job."""

    ATTACH = "attach"
    """Wait for that job as for its own, if it is of the same type; otherwise as :attr:`WAIT`."""
    WAIT = "wait"
    """Wait for that job to complete, then start its own."""
    FAIL = "fail"
    SKIP = "skip"


class How(StrEnum):
    """How a job was come by."""

    STARTED = "started"
    ATTACHED = "attached"
    """It was running already: it is somebody else's."""
    FOUND = "found"
    """It was created, and the response that said so was lost."""
    RESUMED = "resumed"
    """An earlier try of the task started it."""
    IN_THE_WAY = "in the way"
    """It is another job, which keeps the wanted one from being started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job to wait for.

    :param owned: whether this submission created the job or may have: only then may its caller cancel it.
    """

    job: Job
    how: How
    owned: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A connection's jobs before one is started.

    :param newest_id: the highest job id, 0 if there is none. What is created from now on has a higher one, whatever
        the clocks say.
    :param active: its active job.
    """

    newest_id: int
    active: Job | None = None


async def take_snapshot(airbyte: AirbyteClient, connection_id: str, job_type: str) -> Snapshot:
    """Return the connection's jobs as they are before a job of this type is started.

    :raises AirbyteError: if Airbyte does not list them.
    """
    # Airbyte refuses a sync while a refresh runs, but cancels the refresh for a clear or reset.
    return _snapshot(await _jobs(airbyte, connection_id, refreshes=job_type != "sync"))


def _snapshot(jobs: Sequence[Job]) -> Snapshot:
    return Snapshot(
        newest_id=max((job.job_id for job in jobs), default=0),
        active=next((job for job in jobs if not job.status.terminal), None),
    )


async def _jobs(airbyte: AirbyteClient, connection_id: str, *, refreshes: bool) -> list[Job]:
    """Return the connection's newest jobs, the newest first.

    :param refreshes: whether to ask for refreshes apart, which a list without a type leaves out up to Airbyte 2.0.
    """
    jobs = await newest_jobs(airbyte, connection_id)
    if refreshes and not any(job.job_type == "refresh" for job in jobs):
        jobs += await newest_jobs(airbyte, connection_id, "refresh")
    return sorted(jobs, key=lambda job: job.job_id, reverse=True)


async def submit(
    airbyte: AirbyteClient,
    connection_id: str,
    job_type: str = "sync",
    on_conflict: OnConflict = OnConflict.ATTACH,
    *,
    before: Snapshot | None = None,
    until: float | None = None,
) -> Submission:
    """Start a job of the connection, or find the one that runs instead.

    A connection has one job at a time. Airbyte refuses a sync while an attempt of another job runs, answers with the
    active job before that, and cancels the active job for a clear or reset: so the active job is asked for first.
    Nothing is created again before Airbyte has answered that the first request created nothing.

    :param connection_id: the Airbyte connection (UUID).
    :param job_type: ``sync``, ``reset`` or ``clear``.
    :param on_conflict: while a job of the same type is active, ``attach`` takes it; for the other policies it is in the
        way, as a job of another type is for all.
    :param before: what :func:`take_snapshot` returned a moment ago.
    :param until: seconds since the epoch until when to ask whether a job was started; :data:`PATIENCE` by default.
    :raises MaybeStarted: if that is not known in the end.
    :raises AirbyteError: if there is no job in the end, and none was created; the message says why.
    """
    if before is None:
        before = await take_snapshot(airbyte, connection_id, job_type)
    submitting = _Submitting(airbyte, connection_id, job_type, on_conflict, before, until or time.time() + PATIENCE)
    if before.active is not None:
        return submitting.taking(before.active)
    for pause in (*_PAUSES, None):
        try:
            return submitting.answered_by(await airbyte.create_job(connection_id, job_type))
        except AirbyteError as exc:
            failure = exc
        if (submission := await submitting.look_after(failure)) is not None:
            return submission
        if pause is None:
            raise submitting.final(failure)
        logger.info("no job started, retrying: seconds=%g error=%s", pause, failure)
        await anyio.sleep(pause)
    raise AssertionError


def _created_nothing(failure: AirbyteError) -> bool:
    """Return whether a request that failed so has surely created no job.

    Releases since 2026-06 answer 409 «Could not fulfill request» after 60 s without news of a job that may come.
    """
    if isinstance(failure, NotSent):
        return True
    if isinstance(failure, Conflict):
        return "could not fulfill" not in str(failure).lower()
    return isinstance(failure, AirbyteStatusError) and not isinstance(failure, ServerError)


@dataclass(slots=True)
class _Submitting:
    airbyte: AirbyteClient
    connection_id: str
    job_type: str
    on_conflict: OnConflict
    before: Snapshot
    until: float
    lost: bool = False
    """Whether a request may have created a job, though none was returned."""

    def taking(self, active: Job) -> Submission:
        """Return what the policy makes of an active job that somebody else started."""
        # A job whose type Airbyte does not say is taken for one of the same type.
        same = active.job_type is None or same_job_type(active.job_type, self.job_type)
        attached = same and self.on_conflict is OnConflict.ATTACH
        return Submission(job=active, how=How.ATTACHED if attached else How.IN_THE_WAY, owned=False)

    def answered_by(self, job: Job) -> Submission:
        """Return what a 2xx response means: until a first attempt has begun, Airbyte answers with the active job."""
        if job.job_id > self.before.newest_id and (job.job_type is None or same_job_type(job.job_type, self.job_type)):
            return Submission(job=job, how=How.STARTED)
        return self.taking(job)

    async def look_after(self, failure: AirbyteError) -> Submission | None:
        """Return the job that there is, though the request for one failed.

        :raises AirbyteError: if there is none, and no other request is of use.
        """
        refused = _created_nothing(failure)
        if refused and not self.lost and not isinstance(failure, Conflict):
            raise failure
        if not refused:
            self.lost = True
            logger.warning("unknown whether a job started, searching for it: error=%s", failure)
        jobs: list[Job] = []
        for seconds in LOOKS[:1] if refused else LOOKS:
            await anyio.sleep(seconds)
            jobs = await self._list(failure)
            if self.lost and (created := _created(jobs, self.job_type, self.before.newest_id)) is not None:
                return Submission(job=created, how=How.FOUND)
        if (active := _snapshot(jobs).active) is not None:
            return self.taking(active)
        if refused and isinstance(failure, Conflict) and failure.type == "state-conflict":
            # Older releases answer so while a job runs: none does.
            hint = f"{failure}; is connection {self.connection_id} enabled in Airbyte?"
            raise self.final(Conflict(409, hint, type=failure.type))
        return None

    async def _list(self, failure: AirbyteError) -> list[Job]:
        """Return the connection's newest jobs; asks until there is a response: no response is not «no job»."""
        while True:
            try:
                return await _jobs(self.airbyte, self.connection_id, refreshes=True)
            except AirbyteError as exc:
                transient = isinstance(exc, (AirbyteUnreachable, ServerError, RateLimited))
                if not transient or time.time() >= self.until:
                    said = f"{failure}; the connection's jobs can't be listed to see whether one started: {exc}"
                    raise self.final(AirbyteError(said)) from exc
                logger.warning("still unknown whether a job started: error=%s", exc)
            # The client has waited between its own attempts.
            await anyio.sleep(1)

    def final(self, failure: AirbyteError) -> AirbyteError:
        """Return what the caller is told in the end."""
        return MaybeStarted(f"{failure}; a job may have been started") if self.lost else failure


async def find_created(
    airbyte: AirbyteClient, connection_id: str, job_type: str, after_id: int, looks: Sequence[float] = LOOKS
) -> Job | None:
    """Return the job that a submission created, or may have created, if there is one.

    :param after_id: :attr:`Snapshot.newest_id` before the submission.
    :param looks: see :data:`LOOKS`.
    :raises AirbyteError: if Airbyte does not list the connection's jobs.
    """
    for seconds in looks:
        await anyio.sleep(seconds)
        created = _created(await newest_jobs(airbyte, connection_id), job_type, after_id)
        if created is not None:
            return created
    return None


def _created(jobs: Sequence[Job], job_type: str, after_id: int) -> Job | None:
    later = [job for job in jobs if job.job_id > after_id and same_job_type(job.job_type, job_type)]
    return min(later, key=lambda job: job.job_id, default=None)
