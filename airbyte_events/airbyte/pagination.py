"""Airbyte's jobs, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

from airbyte_events.errors import AirbyteError, AirbyteProtocolError
from airbyte_events.jobs import JobPage

PAGE = 100
"""The most jobs that Airbyte gives at a time."""

MOST_PAGES = 100


class JobPages(AsyncIterator[JobPage]):
    """Pages of jobs, in order of creation, by an offset of our own until a short page.

    Airbyte's ``next`` link is not followed: it is on every page that is not empty, drops most filters and may name
    an internal host. The order is Airbyte's default, by creation, because a job's creation never changes: jobs that
    are created meanwhile come at the end, and one that begins to match ``updated_since`` meanwhile pushes others
    towards the end, where they are seen twice rather than never. Ordered by update, a job that changes while one
    pages moves to the end and pulls an unseen job back over the border of a page that was already read. A job that
    changes after its place was read is found by the next look, if that begins at the first page's ``served_at``.
    """

    def __init__(self, look: Callable[[int], Awaitable[JobPage]], max_pages: int) -> None:
        self._look = look
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
        page = await self._look(self._pages * PAGE)
        if previous is not None and page.jobs and page.jobs == previous.jobs:
            raise AirbyteProtocolError("GET /jobs: Airbyte ignores the offset")
        self._pages += 1
        self._previous = page
        return page


class ChangedJobs(AsyncIterator[JobPage]):
    """Pages of changed jobs, then those of the refreshes that the list left out.

    :param refreshes: asked for them when the list has come to its end.
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
