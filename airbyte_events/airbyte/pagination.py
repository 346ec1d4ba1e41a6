"""Airbyte's jobs, page by page, and a connection's newest ones in a bounded number of requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from datetime import timedelta

from airbyte_events._utils.times import utcnow
from airbyte_events.errors import AirbyteError, AirbyteProtocolError, Forbidden, NotFound, Unauthorized
from airbyte_events.jobs import Job, JobPage

PAGE = 100
"""Airbyte's largest page."""

MOST_PAGES = 100

_RECENT = timedelta(days=1)
_MOST_JOBS = 100 * 2**14
"""More than any connection has: an Airbyte that still returns full pages there ignores the offset."""

ListJobs = Callable[..., Awaitable[JobPage]]
""":meth:`~airbyte_events.airbyte.AirbyteClient.list_jobs`."""


class JobPages(AsyncIterator[JobPage]):
    """Pages of jobs, in order of creation, by offset until a short page.

    Airbyte's ``next`` link is not used: every page that is not empty has one, and it drops most filters and may name an
    internal host. The order is by creation, Airbyte's default, so that concurrent changes hide no job: new jobs come
    last, and a job that begins to match ``updated_since`` shifts others to a later page, so that they are returned
    twice. Ordered by update, a job that changes moves to the end and shifts an unread job to a page that was already
    read. The next list returns jobs that changed after they were read, if it begins at the first page's ``served_at``.

    :param list_page: returns the page at an offset.
    :param rest: returns further pages; called after the last page of the list.
    """

    def __init__(
        self,
        list_page: Callable[[int], Awaitable[JobPage]],
        max_pages: int,
        rest: Callable[[], Awaitable[Iterable[JobPage]]] | None = None,
    ) -> None:
        self._list_page = list_page
        self._max_pages = max_pages
        self._rest = rest
        self._last: Iterator[JobPage] = iter(())
        self._pages = 0
        self._previous: JobPage | None = None

    def __aiter__(self) -> JobPages:
        return self

    async def __anext__(self) -> JobPage:
        previous = self._previous
        if previous is not None and len(previous.jobs) < PAGE:
            if self._rest is not None:
                self._last, self._rest = iter(await self._rest()), None
            for page in self._last:
                return page
            raise StopAsyncIteration
        if self._pages >= self._max_pages:
            raise AirbyteError(f"more than {self._max_pages * PAGE} jobs match: ask for a shorter time")
        page = await self._list_page(self._pages * PAGE)
        if previous is not None and page.jobs and page.jobs == previous.jobs:
            raise AirbyteProtocolError("GET /jobs: Airbyte ignores the offset")
        self._pages += 1
        self._previous = page
        return page


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
