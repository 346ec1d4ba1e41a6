"""A listener with a crowd around it, some trouble, and what must hold afterwards, whatever the trouble was."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx

from airbyte_events._utils.times import utcnow
from airbyte_events.events import JobEvent, JobRef, JobStatus, Origin
from airbyte_events.simulator import Simulator
from airbyte_events.simulator.models import Job
from airbyte_events.store.base import EventStore
from airbyte_events.store.registry import store_location
from soak.crowd import Crowd, Verdict, first_cursor, judge, until_confirmed, until_known
from soak.listening import Listener

RUNNING = JobStatus.RUNNING


@dataclass(frozen=True, kw_only=True)
class Ways:
    """The addresses that each reaches the other by, where something stands in between.

    :param webhooks: by which Airbyte reaches the listener.
    :param airbyte: by which the listener reaches Airbyte.
    :param feed: by which followers and hubs reach the listener.
    :param hub_airbyte: by which hubs reach Airbyte.
    """

    webhooks: str | None = None
    airbyte: str | None = None
    feed: str | None = None
    hub_airbyte: str | None = None


class Scene:
    """One simulated Airbyte, one listener on a port of its own, a crowd.

    :param settings: the listener's.
    """

    def __init__(
        self,
        airbyte: Simulator,
        http: httpx.AsyncClient,
        folder: Path,
        dice: random.Random,
        *,
        ways: Ways | None = None,
        port: int | None = None,
        **settings: str,
    ) -> None:
        ways = ways or Ways()
        self.listener = Listener(folder, ways.airbyte or airbyte.url, port=port, **settings)
        self.crowd = Crowd(airbyte, [ways.feed or self.listener.url], http, dice, ways.hub_airbyte or "")
        self._http = http
        path = self.listener.webhooks.removeprefix(self.listener.url)
        airbyte.workspace.set_webhook((ways.webhooks or self.listener.url) + path)

    def store(self) -> EventStore:
        """The listener's store, yet to be opened."""
        return store_location(self.listener.store).store()

    async def fill(self, megabytes: int) -> int:
        """Let the log begin with so much, before anybody starts: more than the buffers on the way to a client hold.

        :return: the head.
        """
        url = "http://airbyte/" + "x" * 10_000
        now = utcnow()
        events = [
            JobEvent(ref=JobRef("earlier", 1 + number), status=RUNNING, observed_at=now, origin=Origin.POLL, url=url)
            for number in range(100 * megabytes)
        ]
        async with self.store() as store:
            await store.append(events)
            return await store.head()

    async def until_told(self, jobs: list[Job]) -> int:
        """Returns when the listener has told the end of each of these jobs; the head of its log is returned."""
        return await until_known(self._http, self.listener.url, jobs)

    async def play(self, trouble: Callable[[Listener], Awaitable[None]], *, each_second: int = 40) -> Verdict:
        """Let it run under trouble, then until all is quiet.

        :param trouble: goes on for as long as it likes; a listener runs, or starts, when it is over.
        :param each_second: how many jobs start meanwhile.
        """
        crowd, listener = self.crowd, self.listener
        async with listener, crowd.hub(grace=1) as eager, crowd.hub() as patient, anyio.create_task_group() as tasks:
            listener.start()
            await listener.ready()
            self.first = await first_cursor(self._http, listener.url)
            crowd.follow(tasks, 5, self.first)
            tasks.start_soon(crowd.work, tasks, [eager, patient], each_second)
            await trouble(listener)
            crowd.rest()
            await listener.ready()
            await crowd.settled()
            head = await self.until_told(crowd.jobs)
            await until_confirmed(self._http, listener.url, crowd.rotten)
            for follower in crowd.followers:
                await follower.reached(head)
            code, _ = await listener.stop()
            tasks.cancel_scope.cancel()
        assert code == 0
        async with self.store() as store:
            return await judge(store, crowd)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the tests with a scene need.

    :param rounds: ``rounds(100, 2)`` are 100 if there is time for all, else 2.
    :param report: puts a row into the table.
    """

    airbyte: Simulator
    http: httpx.AsyncClient
    folder: Path
    dice: random.Random
    rounds: Callable[[int, int], int]
    report: Callable[..., None]

    def scene(self, **options: Any) -> Scene:
        return Scene(self.airbyte, self.http, self.folder, self.dice, **options)
