"""Catching up: lists the completions before a subscriber joined, or that it missed, from Airbyte."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.times import utcnow
from airbyte_events.errors import AirbyteError
from airbyte_events.events import JobEvent
from airbyte_events.hub.completions import Completions, Subscribers
from airbyte_events.jobs import Job
from airbyte_events.monitor.monitor import BURST, OVERLAP, Monitor
from airbyte_events.monitor.observation import event_of

logger = logging.getLogger(__name__)

MAX_PAGES = 300
"""The maximum of pages that are listed for a subscriber. It does not receive later changes."""

_CONCURRENT = 4


@dataclass(eq=False, repr=False)
class CatchUp:
    """Lists completions since the positions of subscribers that have just joined or fallen behind.

    Such subscribers share lists: one for each of their connections, or one of all jobs.

    :param enrich: called before completions are delivered, to add what the listener reports.
    """

    monitor: Monitor
    subscribers: Subscribers
    enrich: Callable[[Sequence[JobEvent]], Awaitable[None]]

    async def run(self) -> None:
        """Catch up subscribers until cancelled; retry while Airbyte does not respond."""
        failures = 0
        while True:
            self.subscribers.overdue.clear()
            overdue = [each for each in self.subscribers if each.overdue]
            if not overdue:
                await self.subscribers.overdue.wait()
                continue
            failures = 0 if await self._serve(overdue) else failures + 1
            if failures:
                await anyio.sleep(pause(failures))

    async def _serve(self, overdue: Sequence[Completions]) -> bool:
        listed: dict[str | None, datetime] = {}
        for each in overdue:
            each.seek()
        named = frozenset[str]().union(*(each.wanted.connection_ids for each in overdue))
        if not all(each.wanted.connection_ids for each in overdue):
            await self._list(None, overdue, listed)
        elif len(named) >= BURST:
            # Limited to as many pages as it saves requests.
            await self._list(None, overdue, listed, pages=len(named))
        if None not in listed:
            limiter = anyio.CapacityLimiter(_CONCURRENT)

            async def list_one(connection_id: str) -> None:
                async with limiter:
                    concerned = [each for each in overdue if connection_id in each.wanted.connection_ids]
                    await self._list(connection_id, concerned, listed)

            async with anyio.create_task_group() as tasks:
                for connection_id in named:
                    tasks.start_soon(list_one, connection_id)
        served = 0
        for each in overdue:
            keys: Collection[str | None] = [None] if None in listed else each.wanted.connection_ids
            if keys and listed.keys() >= set(keys):
                each.caught_up(min(listed[key] for key in keys))
                served += 1
        return served == len(overdue)

    async def _list(
        self,
        connection_id: str | None,
        overdue: Sequence[Completions],
        listed: dict[str | None, datetime],
        *,
        pages: int | None = None,
    ) -> None:
        """List the connection's changed jobs, or all, and record the response's time, by Airbyte's clock.

        :param pages: the maximum to read. A longer list is not recorded.
        """
        since = min(map(_begins, overdue)) - OVERLAP
        served_at: datetime | None = None
        asked_at = utcnow()
        seen = 0
        types = [each.wanted.job_types for each in overdue]
        job_types = frozenset[str]().union(*types) if all(types) else ()
        try:
            async for page in self.monitor.system.list_changed(
                since=since, connection_id=connection_id, job_types=job_types
            ):
                seen += 1
                if pages is not None and seen > pages:
                    return
                if seen > MAX_PAGES:
                    logger.error("too many jobs changed, the newest are not delivered: pages=%d since=%s", seen, since)
                    break
                if served_at is None:
                    served_at = page.served_at or asked_at
                    for each in overdue:
                        each.begin(served_at, anyio.current_time() - each.joined_at)
                await self._take(page.jobs, overdue)
        except AirbyteError as exc:
            whose = f"connection {connection_id}" if connection_id else "all connections"
            logger.warning("could not list the changed jobs of %s, retrying: since=%s: %s", whose, since, exc)
        else:
            listed[connection_id] = served_at or asked_at

    async def _take(self, jobs: Sequence[Job], overdue: Sequence[Completions]) -> None:
        completed = (event_of(self.monitor.instance, job) for job in jobs if job.status.terminal)
        news = [event for event in completed if any(each.lacks(event) for each in overdue)]
        if not news:
            return
        await self.enrich(news)
        job_ids = {event.ref.job_id for event in news}
        for state in await self.monitor.store_jobs([job for job in jobs if job.job_id in job_ids]):
            for each in overdue:
                each.found(state)


def _begins(completions: Completions) -> datetime:
    joined_at = utcnow() - timedelta(seconds=anyio.current_time() - completions.joined_at)
    return completions.position.since or completions.position.floor or joined_at
