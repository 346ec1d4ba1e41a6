"""A simulated Airbyte and listeners on real sockets, known to Airflow by environment variables."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.to_thread
import pytest
from airflow.sdk.execution_time import task_runner

from airbyte_events.simulator import Script, Simulator, serve_simulator
from airbyte_events_provider.connections.clients import held_token
from airbyte_events_provider.triggers.importing import imported
from support.airflow_stage import AirflowStage, TaskStates
from support.listener import CLIENT_SECRET, Running
from support.loops import anyio_backend as anyio_backend


@pytest.fixture
def task_states(monkeypatch: pytest.MonkeyPatch) -> TaskStates:
    states = TaskStates()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", states, raising=False)
    return states


@pytest.fixture
async def stage(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AirflowStage]:
    """Known to Airflow as ``airbyte_default``, without a listener, and polled often. The first trigger has run."""
    for name in ("job_wait", "job_start", "connection_wait", "watcher_run"):
        await imported(f"airbyte_events_provider.triggers.{name}")
    # Of a simulator that had the same port.
    held_token.cache_clear()
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__POLL_INTERVAL", "0.1")
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__FALLBACK_AFTER", "0.1")
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__MIN_DEFERRAL", "0")
    simulator = Simulator(client_id="client", client_secret=CLIENT_SECRET)
    connection = simulator.world.add_connection(Script.hanging(), name="orders")
    async with serve_simulator(simulator) as sim:
        stage = AirflowStage(sim=sim, connection_id=connection.id, monkeypatch=monkeypatch)
        stage.connect_airbyte()
        with anyio.fail_after(60):
            yield stage
        # While the simulator still answers: httpcore leaves a connection open when an event loop ends just as it closes
        # one that the server has left.
        await stage.end_hubs()


@pytest.fixture
async def listener(stage: AirflowStage) -> AsyncIterator[Running]:
    """Known to Airflow, and named by the Airbyte's connection."""
    async with stage.listener() as served:
        stage.connect_listener(served.url)
        stage.listened = True
        yield served


@pytest.fixture(params=["pushed", "polled"])
def source(request: pytest.FixtureRequest) -> str:
    """How ends are told."""
    if request.param == "pushed":
        request.getfixturevalue("listener")
    return str(request.param)
