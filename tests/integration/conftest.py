"""Two small programs on real sockets, for either event loop: an Airbyte that fails on demand, and a listener's feed
that says what it is told to say. And, for asyncio, a simulator with a real listener."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import certifi
import httpx
import pytest

from airbyte_events.monitor.monitor import Monitor
from airbyte_events.simulator import Script, Simulator, serve_simulator
from airbyte_events.store.memory.store import MemoryStore
from support.airbyte import Airbyte, client_of
from support.feed import ScriptedFeed
from support.listener import CLIENT_SECRET
from support.monitor import Watched
from support.servers import serve
from support.stage import Stage
from support.waiters import Waiters

# An HTTP client takes 25 ms of processor time to read the certificates of all authorities, and tests make thousands of
# clients. No test needs these certificates: they read one. Commands get it from the environment.
_folder = tempfile.TemporaryDirectory(prefix="airbyte-events-tests-")
atexit.register(_folder.cleanup)
_authority = Path(_folder.name) / "authority.pem"
_end = "-----END CERTIFICATE-----"
_authority.write_text(certifi.contents().partition(_end)[0] + _end)
os.environ["SSL_CERT_FILE"] = str(_authority)
certifi.where = lambda: str(_authority)


@pytest.fixture
async def http(anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        yield client


@pytest.fixture
async def airbyte(anyio_backend: str) -> AsyncIterator[Airbyte]:
    program = Airbyte()
    async with serve(program):
        yield program


@pytest.fixture
async def feed(anyio_backend: str) -> AsyncIterator[ScriptedFeed]:
    program = ScriptedFeed()
    async with serve(program):
        yield program


@pytest.fixture
async def watched(airbyte: Airbyte, http: httpx.AsyncClient) -> Watched:
    store = MemoryStore()
    return Watched(airbyte, Monitor("default", client_of(http, airbyte.url), store), store)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """On asyncio."""
    simulator = Simulator(client_id="client", client_secret=CLIENT_SECRET, max_calls=50)
    connection = simulator.world.add_connection(Script.hanging(), name="orders")
    async with (
        serve_simulator(simulator) as sim,
        httpx.AsyncClient(trust_env=False, verify=False, limits=httpx.Limits(max_connections=None)) as http,
    ):
        with anyio.fail_after(60):
            yield Stage(sim=sim, connection_id=connection.id, http=http)


@pytest.fixture
async def waiters(anyio_backend: str) -> AsyncIterator[Waiters]:
    async with anyio.create_task_group() as tasks:
        yield Waiters(tasks)
        tasks.cancel_scope.cancel()
