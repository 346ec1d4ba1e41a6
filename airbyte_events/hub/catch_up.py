"""What ended before a follower of connections joined, or while it could not be told: looked up in Airbyte."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.times import utcnow
from airbyte_events.errors import AirbyteError
from airbyte_events.events import PUSHED_JOB_TYPES, JobEvent
from airbyte_events.hub.subscribers import Followers
from airbyte_events.hub.subscription import Ends
from airbyte_events.jobs import Job
from airbyte_events.monitor.monitor import BURST, OVERLAP, Monitor
from airbyte_events.monitor.observation import event_of

logger = logging.getLogger(__name__)

MOST_PAGES = 300
"""Pages of a hundred jobs that are read for a follower. What has changed beyond that is not told."""

_CONCURRENT = 4


class Backlog:
    """Looks up, for those who have just joined and those who have fallen behind, what ended since their place.

    Those who come together are served together: by a look at each of their connections, or by one at all jobs.

    :param monitor: what is found is taken in there.
    :param followers: who is to be told.
    :param learn_more: told of ends that were found, before anybody is: the listener may know more of them.
    """

    def __init__(
        self, monitor: Monitor, followers: Followers, learn_more: Callable[[Sequence[JobEvent]], Awaitable[None]]
    ) -> None:
        self._monitor = monitor
        self._followers = followers
        self._learn_more = learn_more

    async def run(self) -> None:
        """Serve until cancelled; while Airbyte gives no answer, again and again."""
        failures = 0
        while True:
            self._followers.came.clear()
            overdue = self._followers.overdue()
            if not overdue:
                await self._followers.came.wait()
                continue
            failures = 0 if await self._serve(overdue) else failures + 1
            if failures:
                await anyio.sleep(pause(failures))

    async def _serve(self, overdue: Sequence[Ends]) -> bool:
        """Whether all could be served."""
        looked: dict[str | None, datetime] = {}
        for ends in overdue:
            ends.seek()
        named = frozenset[str]().union(*(ends.wanted.connection_ids for ends in overdue))
        if not all(ends.wanted.connection_ids for ends in overdue):
            await self._look(None, overdue, looked)
        elif len(named) >= BURST:
            # Worth as many pages as it saves looks.
            await self._look(None, overdue, looked, pages=len(named))
        if None not in looked:
            limiter = anyio.CapacityLimiter(_CONCURRENT)

            async def look_at(connection_id: str) -> None:
                async with limiter:
                    concerned = [ends for ends in overdue if connection_id in ends.wanted.connection_ids]
                    await self._look(connection_id, concerned, looked)

            async with anyio.create_task_group() as tasks:
                for connection_id in named:
                    tasks.start_soon(look_at, connection_id)
        served = 0
        for ends in overdue:
            keys: Collection[str | None] = [None] if None in looked else ends.wanted.connection_ids
            if keys and looked.keys() >= set(keys):
                ends.catch_up(min(looked[key] for key in keys))
                served += 1
        return served == len(overdue)

    async def _look(
        self,
        connection_id: str | None,
        overdue: Sequence[Ends],
        looked: dict[str | None, datetime],
        *,
        pages: int | None = None,
    ) -> None:
        """Look at the connection, or at all, and take down when that was, by Airbyte's clock.

        :param pages: the most that may be read before it is left to other looks.
        """
        since = min(_begins(ends) for ends in overdue) - OVERLAP
        served_at: datetime | None = None
        asked_at = utcnow()
        seen = 0
        try:
            # Unless refreshes are wanted, nobody need ask where they are.
            job_types = () if any(ends.wanted.refreshes for ends in overdue) else PUSHED_JOB_TYPES
            async for page in self._monitor.system.list_changed(
                since=since, connection_id=connection_id, job_types=job_types
            ):
                seen += 1
                if pages is not None and seen > pages:
                    return
                if seen > MOST_PAGES:
                    logger.error("too many jobs have changed since %s: those created last are not told", since)
                    break
                if served_at is None:
                    served_at = page.served_at or asked_at
                    for ends in overdue:
                        ends.begin(served_at, anyio.current_time() - ends.joined_at)
                await self._take(page.jobs, set(overdue))
        except AirbyteError as exc:
            whose = f"connection {connection_id}" if connection_id else "all connections"
            logger.warning("what jobs of %s have ended since %s is not known yet: %s", whose, since, exc)
        else:
            looked[connection_id] = served_at or asked_at

    async def _take(self, jobs: Sequence[Job], overdue: set[Ends]) -> None:
        news = [
            event
            for event in (event_of(self._monitor.instance, job) for job in jobs if job.status.terminal)
            if any(ends.lacks(event) for ends in self._followers.interested(event) if ends in overdue)
        ]
        if not news:
            return
        await self._learn_more(news)
        job_ids = {event.ref.job_id for event in news}
        for state in await self._monitor.take_in([job for job in jobs if job.job_id in job_ids]):
            for ends in self._followers.interested(state):
                if ends in overdue:
                    ends.offer(state, looked_up=True)


def _begins(ends: Ends) -> datetime:
    """Where a look for this follower begins: for who wants to know of what ends from now on, at when that was said."""
    joined_at = utcnow() - timedelta(seconds=anyio.current_time() - ends.joined_at)
    return ends.place.since or ends.place.floor or joined_at
