"""Starting a job, so that one is started at most once: conflicts, and answers that got lost."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

import anyio

from airbyte_events.airbyte import AirbyteClient, Job
from airbyte_events.errors import AirbyteError, AirbyteProtocolError, AirbyteUnreachable, Conflict, NotSent, ServerError
from airbyte_events.events import utcnow

logger = logging.getLogger(__name__)

LOOKS = (0.0, 2.0, 5.0, 10.0)
"""Seconds before each look for a job whose creation got no answer: Airbyte may be at it still."""

_PAUSES = (1.0, 3.0, 10.0)
_RECENT = timedelta(days=1)
_CLOCKS = timedelta(hours=1)
_SLACK = timedelta(seconds=2)


class OnConflict(str, Enum):
    """What a task does when its Airbyte connection is busy with another job."""

    ATTACH = "attach"
    """Wait for that job as for its own, if it is of the same type; otherwise as :attr:`WAIT`."""
    WAIT = "wait"
    """Wait for that job's end, then start its own."""
    FAIL = "fail"
    SKIP = "skip"


class How(str, Enum):
    """How a job was come by."""

    STARTED = "started"
    ATTACHED = "attached"
    """It was running already."""
    FOUND = "found"
    """It was created, and the answer that said so was lost."""
    RESUMED = "resumed"
    """An earlier try of the task started it."""
    IN_THE_WAY = "in the way"
    """It is another job, which keeps the wanted one from being started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job to wait for."""

    job: Job
    how: How


async def submit(
    airbyte: AirbyteClient,
    connection_id: str,
    job_type: str = "sync",
    on_conflict: OnConflict = OnConflict.ATTACH,
) -> Submission:
    """Start a job of the connection, or find the one that is there instead.

    A connection has one job at a time. Nothing is created again before a look has shown that the first request created
    nothing.

    :param connection_id: the Airbyte connection (UUID).
    :param job_type: ``sync``, ``reset`` or ``clear``.
    :param on_conflict: while one of the same type runs, ``attach`` takes that; for the others it is in the way, as one
        of another type is for all.
    :raises AirbyteError: if there is no job in the end; the message says why.
    """
    began = utcnow()
    if on_conflict is not OnConflict.ATTACH and (running := await find_active(airbyte, connection_id)) is not None:
        # Airbyte would not refuse: until a job has begun its first attempt, it answers with that same job.
        return Submission(job=running, how=How.IN_THE_WAY)
    for pause in (*_PAUSES, None):
        try:
            return Submission(job=await airbyte.create_job(connection_id, job_type), how=How.STARTED)
        except Conflict as exc:
            if exc.type == "state-conflict":
                raise Conflict(409, f"{exc}; is connection {connection_id} enabled in Airbyte?", type=exc.type) from exc
            running = await _look(find_active(airbyte, connection_id), exc)
            if running is not None:
                attached = on_conflict is OnConflict.ATTACH and running.job_type in (None, job_type)
                return Submission(job=running, how=How.ATTACHED if attached else How.IN_THE_WAY)
            failure: AirbyteError = exc
        except NotSent:
            raise
        except (AirbyteUnreachable, ServerError, AirbyteProtocolError) as exc:
            logger.warning("whether Airbyte has started a job is not known, looking for it: %s", exc)
            created = await _look(find_created(airbyte, connection_id, job_type, began), exc)
            if created is not None:
                return Submission(job=created, how=How.FOUND)
            failure = exc
        if pause is None:
            raise failure
        logger.info("Airbyte has started no job, trying again in %g s: %s", pause, failure)
        await anyio.sleep(pause)
    raise AssertionError


async def _look(look: Awaitable[Job | None], failure: AirbyteError) -> Job | None:
    try:
        return await look
    except AirbyteError as exc:
        raise AirbyteError(
            f"{failure}; whether a job runs is not known, as the connection's jobs can't be listed: {exc}"
        ) from exc


async def find_active(airbyte: AirbyteClient, connection_id: str) -> Job | None:
    """The connection's newest active job.

    Its status is not asked for in the list: some releases can't do that.
    """
    for since in (utcnow() - _RECENT, None):
        active = [job async for job in _jobs(airbyte, connection_id, since) if not job.status.terminal]
        if active:
            return max(active, key=lambda job: job.job_id)
    return None


async def find_created(
    airbyte: AirbyteClient, connection_id: str, job_type: str, began: datetime, looks: Sequence[float] = LOOKS
) -> Job | None:
    """The connection's newest job of this type that was created since then.

    :param began: by this machine's clock; how Airbyte's differs is taken from its answers.
    :param looks: see :data:`LOOKS`.
    """
    for seconds in looks:
        await anyio.sleep(seconds)
        asked = utcnow()
        created: list[Job] = []
        async for page in airbyte.find_jobs(
            connection_id=connection_id, job_type=job_type, created_since=began - _CLOCKS
        ):
            ahead = page.served_at - asked if page.served_at is not None else timedelta(0)
            created += [
                job for job in page.jobs if job.started_at is not None and job.started_at >= began + ahead - _SLACK
            ]
        if created:
            return max(created, key=lambda job: job.job_id)
    return None


async def _jobs(airbyte: AirbyteClient, connection_id: str, created_since: datetime | None) -> AsyncIterator[Job]:
    async for page in airbyte.find_jobs(connection_id=connection_id, created_since=created_since):
        for job in page.jobs:
            yield job
