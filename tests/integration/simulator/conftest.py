"""A simulator on a real socket, and ways to wait for what it does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events.simulator import Script, Simulator, serve_simulator
from airbyte_events.simulator.models import Job
from support.loops import anyio_backend as anyio_backend
from support.waiting import until


@dataclass
class Rehearsal:
    """A served simulator with one connection whose jobs run until they are ended."""

    sim: Simulator
    http: httpx.AsyncClient
    connection_id: str
    ends: dict[int, anyio.Event] = field(default_factory=lambda: defaultdict(anyio.Event))

    async def create(self, job_type: str = "sync", connection_id: str | None = None) -> httpx.Response:
        body = {"connectionId": connection_id or self.connection_id, "jobType": job_type}
        return await self.http.post("/api/public/v1/jobs", json=body)

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.http.get(f"/api/public/v1{path}", params=query)

    async def control(self, method: str, path: str, json: Any = None) -> Any:
        answer = await self.http.request(method, f"/_simulator{path}", json=json)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def fault(self, kind: str, **values: Any) -> None:
        await self.control("POST", "/faults", {"kind": kind, **values})

    async def ended(self, job_id: int) -> Job:
        with anyio.fail_after(30):
            await self.ends[job_id].wait()
        return self.sim.world.jobs[job_id]

    async def delivered(self, job_id: int) -> Job:
        """The job, once each of its webhooks was answered, given up or lost."""
        job = await self.ended(job_id)
        for delivery in job.deliveries:
            with anyio.fail_after(30):
                await delivery.over.wait()
        return job

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        await until(condition)


Rehearse = Callable[..., AbstractAsyncContextManager[Rehearsal]]


@pytest.fixture
def rehearse() -> Rehearse:
    @asynccontextmanager
    async def running(script: Script | None = None, **options: Any) -> AsyncIterator[Rehearsal]:
        simulator = Simulator(**options)
        connection = simulator.world.add_connection(script or Script.hanging(), name="orders")
        async with (
            serve_simulator(simulator) as sim,
            httpx.AsyncClient(base_url=sim.url, trust_env=False, timeout=10) as http,
        ):
            rehearsal = Rehearsal(sim, http, connection.id)
            announce = sim.world.on_end

            def on_end(job: Job) -> None:
                announce(job)
                rehearsal.ends[job.id].set()

            sim.world.on_end = on_end
            yield rehearsal

    return running


@pytest.fixture
async def airbyte(rehearse: Rehearse) -> AsyncIterator[Rehearsal]:
    async with rehearse() as rehearsal:
        yield rehearsal
