"""A simulated Airbyte, and a client that starts jobs there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.airbyte.submission import OnConflict, Submission, submit
from airbyte_events.simulator import Fault, Script, Simulator, serve_simulator


@dataclass(kw_only=True)
class Scene:
    """A simulated Airbyte with one connection, whose jobs run until they are ended, and a client of it."""

    sim: Simulator
    http: httpx.AsyncClient
    airbyte: AirbyteClient
    connection_id: str

    @property
    def connection(self) -> Any:
        return self.sim.world.connections[self.connection_id]

    def start(self, job_type: str = "sync", **values: Any) -> Any:
        return self.sim.world.start_job(self.connection, job_type, **values)

    def history(self, jobs: int, *, days: float = 40) -> None:
        """So many syncs that succeeded, the first of them so long ago."""
        for number in range(jobs):
            job = self.start(created_at=utcnow() - timedelta(days=days, seconds=-number))
            self.sim.world.end_job(job, "succeeded")

    async def submit(self, job_type: str = "sync", on_conflict: str = "attach", **values: Any) -> Submission:
        return await submit(self.airbyte, self.connection_id, job_type, OnConflict(on_conflict), **values)

    def requests(self, route: str) -> int:
        return self.sim.traffic.counts[route]

    def fault(self, kind: str, **values: Any) -> None:
        self.sim.add_fault(Fault(kind=kind, **values))


@asynccontextmanager
async def staged(**options: Any) -> AsyncIterator[Scene]:
    simulator = Simulator(**options)
    connection = simulator.world.add_connection(Script.hanging())
    async with serve_simulator(simulator) as sim, httpx.AsyncClient() as http:
        airbyte = AirbyteClient(http, sim.url, random=lambda: 0.0, attempts=2, timeout=5, create_timeout=0.5)
        yield Scene(sim=sim, http=http, airbyte=airbyte, connection_id=connection.id)


@pytest.fixture
async def scene(anyio_backend: str) -> AsyncIterator[Scene]:
    """On asyncio."""
    async with staged() as scene:
        yield scene
