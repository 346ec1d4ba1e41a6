"""Airbyte's jobs, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

from airbyte_events.errors import AirbyteError, AirbyteProtocolError
from airbyte_events.jobs import JobPage

PAGE = 100
"""Airbyte's largest page."""

MOST_PAGES = 100


class JobPages(AsyncIterator[JobPage]):
    """Pages of jobs, in order of creation, by offset until a short page.

    Airbyte's ``next`` link is not used: every page that is not empty has one, and it drops most filters and may name an
    internal host. The order is by creation, Airbyte's default, so that concurrent changes hide no job: new jobs come
    last, and a job that begins to match ``updated_since`` shifts others to a later page, so that they are returned
    twice. Ordered by update, a job that changes moves to the end and shifts an unread job to a page that was already
    read. The next list returns jobs that changed after they were read, if it begins at the first page's ``served_at``.

    :param list_page: returns the page at an offset.
    """

    def __init__(self, list_page: Callable[[int], Awaitable[JobPage]], max_pages: int) -> None:
        self._list_page = list_page
        self._max_pages = max_pages
        self._pages = 0
        self._previous: JobPage | None = None

    def __aiter__(self) -> JobPages:
        return self

    async def __anext__(self) -> JobPage:
        previous = self._previous
        if previous is not None and len(previous.jobs) < PAGE:
            raise StopAsyncIteration
        if self._pages >= self._max_pages:
            raise AirbyteError(f"more than {self._max_pages * PAGE} jobs match: ask for a shorter time")
        page = await self._list_page(self._pages * PAGE)
        if previous is not None and page.jobs and page.jobs == previous.jobs:
            raise AirbyteProtocolError("GET /jobs: Airbyte ignores the offset")
        self._pages += 1
        self._previous = page
        return page


class ChangedJobs(AsyncIterator[JobPage]):
    """Pages of changed jobs, then of the refreshes that the list left out.

    :param refreshes: returns those pages; called after the last page of the list.
    """

    def __init__(self, listed: JobPages, refreshes: Callable[[], Awaitable[Iterable[JobPage]]]) -> None:
        self._listed = listed
        self._refreshes = refreshes
        self._rest: Iterator[JobPage] | None = None

    def __aiter__(self) -> ChangedJobs:
        return self

    async def __anext__(self) -> JobPage:
        if self._rest is None:
            try:
                return await anext(self._listed)
            except StopAsyncIteration:
                self._rest = iter(await self._refreshes())
        if (page := next(self._rest, None)) is None:
            raise StopAsyncIteration
        return page
