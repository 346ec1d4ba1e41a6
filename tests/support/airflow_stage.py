"""A simulated Airbyte and listeners on real sockets, known to Airflow by environment variables, and tasks that Airflow
runs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk.bases.operator import BaseOperator, ExecutorSafeguard
from airflow.sdk.execution_time import comms
from airflow.triggers.base import BaseTrigger

from airbyte_events.simulator import Script, Simulator
from airbyte_events.simulator.models import Job
from airbyte_events_provider.triggers.airbyte import AirbyteSyncTrigger
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub
from support.listener import API_TOKEN, CLIENT_SECRET, WEBHOOK_TOKEN, Running, instance_of, serve_listener, settings_of
from support.waiting import until


class TaskStates:
    """What the channel to Airflow's supervisor returns: the state of tasks, ``state`` of all, None of such as are gone;
    and the XComs that were stored."""

    def __init__(self) -> None:
        self.state: str | None = "deferred"
        self.asked = 0
        self.xcoms: dict[str, Any] = {}
        self.stored = 0
        self.read = 0
        self.stores = True

    def send(self, message: Any) -> Any:
        if isinstance(message, comms.GetXCom):
            self.read += 1
            return comms.XComResult(key=message.key, value=self.xcoms.get(message.key))
        if isinstance(message, comms.SetXCom):
            if not self.stores:
                raise ConnectionError("the supervisor is away")
            self.xcoms[message.key] = message.value
            self.stored += 1
            return None
        if not isinstance(message, comms.GetTaskStates):
            # A secret to mask: before Airflow 3.1 (3.0.6) those take this way, too.
            return None
        self.asked += 1
        if self.state == "unknown":
            raise ConnectionError("the supervisor is away")
        assert message.run_ids
        assert message.task_ids
        states = {} if self.state is None else {message.run_ids[0]: {message.task_ids[0]: self.state}}
        return comms.TaskStatesResult(task_states=states)


@dataclass(kw_only=True)
class AirflowStage:
    """A served simulator with one connection, whose jobs run until they are ended, and Airflow's view of it.

    :param secrets: what must never be seen.
    """

    sim: Simulator
    connection_id: str
    monkeypatch: pytest.MonkeyPatch
    secrets: tuple[str, ...] = (CLIENT_SECRET, API_TOKEN, WEBHOOK_TOKEN)
    listened: bool = False

    def connect(self, conn_id: str, **fields: Any) -> None:
        """Define an Airflow connection."""
        self.monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    def connect_airbyte(self, conn_id: str = "airbyte_default", **extra: Any) -> None:
        self.connect(
            conn_id,
            conn_type="airbyte",
            host=self.sim.url,
            login="client",
            password=CLIENT_SECRET,
            extra=json.dumps(extra),
        )

    def connect_listener(self, url: str, token: str = API_TOKEN) -> None:
        """Define the listener's connection, and name it in that of the Airbyte."""
        self.connect("listener", conn_type="airbyte_events", host=url, password=token)
        self.connect_airbyte(listener_conn_id="listener")

    def start(self, job_type: str = "sync") -> Job:
        return self.sim.world.start_job(self.sim.world.connections[self.connection_id], job_type)

    def start_elsewhere(self) -> Job:
        """A job of an Airbyte connection of its own."""
        return self.sim.world.start_job(self.sim.world.add_connection(Script.hanging()))

    def end(self, job: Job, status: str = "succeeded", **values: Any) -> Job:
        return self.sim.world.end_job(job, status, **values)

    def requests(self, route: str) -> int:
        return self.sim.traffic.counts[route]

    def reads(self, job: Job) -> int:
        """Requests for that job alone."""
        return sum(1 for _ in self.sim.traffic.recent("GET /jobs/{id}", job.id))

    async def until(self, condition: Callable[[], object]) -> None:
        """Returns when it holds; what happens elsewhere can't tell."""
        await until(condition, within=120)

    async def waited_for(self, count: int = 1) -> None:
        """Returns when so many jobs are waited for by the triggers' hub, and it follows the listener, if it has one."""
        async with shared_hub(HubKey("airbyte_default")) as shared:
            await self.until(lambda: shared.hub.waiting >= count)
            if self.listened:
                await self.until(lambda: shared.hub.following)
            else:
                looks = self.requests("GET /jobs")
                await self.until(lambda: self.requests("GET /jobs") > looks)

    @property
    def hubs(self) -> list[asyncio.Task[Any]]:
        """The tasks of the triggers' hubs."""
        return [task for task in asyncio.all_tasks() if task.get_name().startswith("hub of ")]

    async def end_hubs(self) -> None:
        """End the triggers' hubs, as the end of a triggerer does."""
        for task in self.hubs:
            task.cancel()
            await asyncio.wait([task])

    async def job(self, number: int = 1) -> Job:
        """The job of that number, once it is there."""
        await self.until(lambda: number in self.sim.world.jobs)
        return self.sim.world.jobs[number]

    def trigger(self, job: Job, **values: Any) -> AirbyteSyncTrigger:
        arguments: dict[str, Any] = {
            "job_id": job.id,
            "conn_id": "airbyte_default",
            "end_time": time.time() + 60,
            "poll_interval": 0.1,
            "connection_id": job.connection.id,
        }
        return AirbyteSyncTrigger(**{**arguments, **values})

    async def fire(self, trigger: BaseTrigger) -> dict[str, Any]:
        """Run a trigger as the triggerer does; its one event, which is JSON."""
        (event,) = [event async for event in trigger.run()]
        payload: dict[str, Any] = json.loads(json.dumps(event.payload))
        return payload

    def firing(self, trigger: BaseTrigger) -> asyncio.Task[dict[str, Any]]:
        """The same in a task of its own, as the triggerer does; each must be awaited."""
        return asyncio.get_running_loop().create_task(self.fire(trigger))

    async def completed(
        self, job: Job, status: str = "succeeded", *, trigger: BaseTrigger | None = None, **values: Any
    ) -> dict[str, Any]:
        """End a job once a trigger waits for it; the trigger's event."""
        firing = self.firing(trigger or self.trigger(job))
        await self.waited_for()
        self.end(job, status, **values)
        return await firing

    async def execute(self, task: BaseOperator, method: str = "execute", **values: Any) -> Any:
        """Run a task's method as a worker does, in a thread of its own."""

        def run() -> Any:
            ExecutorSafeguard.tracker.set(task)
            return getattr(task, method)(**{"context": {}} | values)

        return await anyio.to_thread.run_sync(run)

    async def defer(self, task: BaseOperator, **values: Any) -> TaskDeferred:
        """Run a task up to its deferral."""
        with pytest.raises(TaskDeferred) as deferred:
            await self.execute(task, **values)
        return deferred.value

    async def executing(
        self, task: BaseOperator, meanwhile: Callable[[], Awaitable[object]], method: str = "execute"
    ) -> Any:
        """Run a task's method, and something meanwhile; the method's result or error."""
        running = asyncio.get_running_loop().create_task(self.execute(task, method))
        await meanwhile()
        return await running

    @asynccontextmanager
    async def listener(self, *, port: int = 0, **settings: Any) -> AsyncIterator[Running]:
        """A listener for this Airbyte, which sends its webhooks there. It hardly polls: what is told, webhooks told."""
        given = settings_of(instance_of(self.sim.url, secret=CLIENT_SECRET), **settings)

        @asynccontextmanager
        async def listening() -> AsyncIterator[str]:
            async with serve_listener(given, port=port, timeout_graceful_shutdown=1) as served:
                self.sim.workspace.set_webhook(served.webhooks)
                yield served.url

        async with anyio.create_task_group() as tasks:
            listener = await Running.start(tasks, listening())
            yield listener
            await listener.stop()
