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
