"""The triggerer, with a hub in which tasks wait."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import anyio
import httpx
from anyio.abc import TaskGroup

from airbyte_events.airbyte import AirbyteClient, Credentials
from airbyte_events.errors import HubClosed, UnknownJob, WaitTimeout
from airbyte_events.events import JobEvent
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.hub import Hub
from airbyte_events.simulator.models import Job
from model.virtual.clock import Machine
from model.virtual.network import Network
from model.virtual.program import Program
from model.virtual.secrets import API_TOKEN, CLIENT_SECRET


@dataclass(eq=False)
class Wait:
    """A task that waits for a job. It begins anew when the triggerer does.

    :param until: when to give up, by the triggerer's wall clock.
    :param ended_at: by the virtual clock.
    """

    job: Job
    began_at: float
    until: float | None = None
    result: JobEvent | Exception | None = None
    ended_at: float | None = None
    abandoned: bool = False

    async def run(self, hub: Hub) -> None:
        try:
            self.result = await hub.wait(self.job.id, connection_id=self.job.connection.id, until=self.until)
        except (HubClosed, UnknownJob, WaitTimeout) as exc:
            self.result = exc
        self.ended_at = anyio.current_time()


class Triggerer(Program):
    """What Airflow's triggerer runs: a hub, and what waits in it."""

    def __init__(self, machine: Machine, tasks: TaskGroup, network: Network, *, listens: bool = True) -> None:
        super().__init__(machine, tasks)
        self.waits: list[Wait] = []
        self.hub: Hub | None = None
        self._network = network
        self._listens = listens
        self._running: TaskGroup | None = None
        self.others: list[Callable[[Hub], Coroutine[None, None, None]]] = []
        """What else is to run in every life of the hub."""

    async def run(self, ready: Callable[[], None]) -> None:
        async with httpx.AsyncClient(transport=self._network) as http:
            credentials = Credentials(client_id="client", client_secret=CLIENT_SECRET)
            airbyte = AirbyteClient(http, "http://airbyte", credentials=credentials)
            feed = FeedClient(http, "http://listener", API_TOKEN) if self._listens else None
            async with Hub(airbyte, feed) as self.hub, anyio.create_task_group() as self._running:
                for wait in self.waits:
                    if wait.ended_at is None and not wait.abandoned:
                        self._running.start_soon(wait.run, self.hub)
                for other in self.others:
                    self._running.start_soon(other, self.hub)
                ready()
                await anyio.sleep_forever()

    def wait(self, job: Job, *, until: float | None = None) -> Wait:
        """Somebody waits for the job, in this life of the hub and the next ones."""
        wait = Wait(job, anyio.current_time(), until)
        self.waits.append(wait)
        if self.running and self._running is not None and self.hub is not None:
            self.machine.run(self._running.start_soon, wait.run, self.hub)
        return wait

    def run_in_hub(self, other: Callable[[Hub], Coroutine[None, None, None]]) -> None:
        """The same for anything else."""
        self.others.append(other)
        if self.running and self._running is not None and self.hub is not None:
            self.machine.run(self._running.start_soon, other, self.hub)
