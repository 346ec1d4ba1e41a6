"""A connection's newest jobs, in a bounded number of requests however many it has had."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte.pagination import PAGE
from airbyte_events.errors import AirbyteError, AirbyteProtocolError, Forbidden, NotFound, Unauthorized
from airbyte_events.jobs import Job, JobPage

_RECENT = timedelta(days=1)
_MOST_JOBS = 100 * 2**14
"""More than any connection has: an Airbyte that still returns full pages there ignores the offset."""


ListJobs = Callable[..., Awaitable[JobPage]]
""":meth:`~airbyte_events.airbyte.AirbyteClient.list_jobs`."""


async def newest_jobs(list_jobs: ListJobs, connection_id: str, job_type: str | None = None) -> list[Job]:
    """Return the connection's newest jobs, up to 100, the newest first.

    Some releases respond 500 to ``orderBy`` or ignore it. Then list the last day, and if that is empty find the last
    page by doubling and halving the offset: 30 requests for a million jobs.

    :param job_type: only these. Up to Airbyte 2.0 a list without it leaves out refreshes.
    :raises AirbyteError: if Airbyte does not respond.
    """
    try:
        page = await list_jobs(connection_id=connection_id, job_type=job_type, order_by="createdAt|DESC", once=True)
    except (Unauthorized, Forbidden, NotFound):
        raise
    except AirbyteError:
        jobs = await _last(list_jobs, connection_id, job_type)
    else:
        jobs = list(page.jobs)
        if len(jobs) == PAGE and jobs[0].job_id < jobs[-1].job_id:
            jobs = await _last(list_jobs, connection_id, job_type)
    return sorted(jobs, key=lambda job: job.job_id, reverse=True)


async def _last(list_jobs: ListJobs, connection_id: str, job_type: str | None) -> list[Job]:
    """Return the last page of a list that is in order of creation."""
    for since in (utcnow() - _RECENT, None):

        async def page(offset: int) -> tuple[Job, ...]:
            listed = await list_jobs(
                connection_id=connection_id,
                job_type=job_type,
                created_since=since,  # noqa: B023 -- called within this turn of the loop alone
                offset=offset,
            )
            return listed.jobs

        full, jobs = 0, await page(0)
        if len(jobs) < PAGE:
            if jobs:
                return list(jobs)
            continue
        # The page at `full` is full, the one at `short` is not.
        short = PAGE
        while len(jobs := await page(short)) == PAGE:
            if short > _MOST_JOBS:
                raise AirbyteProtocolError("GET /jobs: Airbyte ignores the offset")
            full, short = short, short * 2
        while not jobs and short - full > PAGE:
            middle = (full + short) // 2 // PAGE * PAGE
            if len(found := await page(middle)) == PAGE:
                full = middle
            else:
                short, jobs = middle, found
        return list(await page(short + len(jobs) - PAGE))
    return []
