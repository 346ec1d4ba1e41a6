"""A simulated Airbyte, and listeners that can be started and stopped, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from anyio.abc import TaskGroup

from airbyte_events.airbyte import AirbyteClient, Credentials
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.hub import Hub
from airbyte_events.monitor.poller import Ticks
from airbyte_events.simulator import Fault, Script, Simulator
from airbyte_events.simulator.models import Job
from support.airbyte import client_of
from support.listener import API_TOKEN, CLIENT_SECRET, Running, instance_of, serve_listener, settings_of
from support.waiting import until


@dataclass(kw_only=True)
class Stage:
    """A simulator, where listeners can be started and stopped."""

    sim: Simulator
    connection_id: str
    http: httpx.AsyncClient

    @property
    def airbyte(self) -> AirbyteClient:
        credentials = Credentials(client_id="client", client_secret=CLIENT_SECRET)
        return client_of(self.http, self.sim.url, credentials=credentials)

    def start(self, count: int = 1, job_type: str = "sync", script: Script | None = None) -> list[Job]:
        """Jobs, each of a connection of its own."""
        world = self.sim.world
        connections = [world.add_connection(script or Script.hanging()) for _ in range(count)]
        return [world.start_job(connection, job_type) for connection in connections]

    def end(self, jobs: Iterable[Job], status: str = "succeeded") -> None:
        for job in jobs:
            self.sim.world.end_job(job, status)

    def fault(self, kind: str, **values: Any) -> None:
        self.sim.add_fault(Fault(kind=kind, **values))

    def count(self, route: str) -> int:
        return self.sim.traffic.counts[route]

    def reads(self, job: Job) -> int:
        """Requests for that job alone that were answered."""
        return sum(each.status is not None for each in self.sim.traffic.recent("GET /jobs/{id}", job.id))

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition)

    async def ready(self, hub: Hub) -> None:
        """Returns when the hub follows a listener that has had its first look."""
        await self.until(lambda: hub.following and any(each.status for each in self.sim.traffic.recent("GET /jobs")))

    def feed(self, url: str, token: str = API_TOKEN, **options: Any) -> FeedClient:
        return FeedClient(self.http, url, token, **options)

    @asynccontextmanager
    async def listener(
        self, *, port: int = 0, secret: str = CLIENT_SECRET, webhooks: bool = True, **given: Any
    ) -> AsyncIterator[str]:
        """A listener that hardly polls; its address."""
        settings = settings_of(instance_of(self.sim.url, secret=secret), **given)
        async with serve_listener(settings, port=port, timeout_graceful_shutdown=1) as served:
            if webhooks:
                self.sim.workspace.set_webhook(served.webhooks)
            yield served.url

    async def start_listener(self, tasks: TaskGroup, **given: Any) -> Running:
        """A listener that can be stopped at any time."""
        return await Running.start(tasks, self.listener(**given))

    def hub(self, feed: FeedClient | None = None, **options: Any) -> Hub:
        ticks = Ticks(unproven=0.05, proven=0.05, idle=0.05)
        return Hub(self.airbyte, feed, **{"ticks": ticks, "grace": 0.05, **options})
