"""Connections that no webhook names get their names from the API: once, and never at the cost of an event."""

from __future__ import annotations

import anyio
import httpx
import pytest

from airbyte_events.airbyte.connection_cache import BURST
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.store.memory.store import MemoryStore
from support.airbyte import Airbyte, client_of
from support.events import CONNECTION
from support.monitor import Watched

pytestmark = pytest.mark.anyio


@pytest.fixture
def watched(airbyte: Airbyte, http: httpx.AsyncClient) -> Watched:
    store = MemoryStore()
    return Watched(airbyte, Monitor("default", client_of(http, airbyte.url), store, naming=True), store)


async def test_a_polled_job_has_its_connections_name(watched: Watched) -> None:
    watched.airbyte.names[CONNECTION] = "Orders"
    watched.airbyte.put(1)
    watched.airbyte.put(2, "succeeded")
    await watched.monitor.poll()
    page = await watched.store.read(0)
    assert [event.names for event in page.events] == [{"connection": "Orders"}] * 2
    assert not (await watched.state(1)).unconfirmed


async def test_it_is_requested_once(watched: Watched) -> None:
    watched.airbyte.names[CONNECTION] = "Orders"
    watched.airbyte.put(1)
    await watched.monitor.poll()
    watched.airbyte.put(1, "succeeded")
    watched.airbyte.put(2, "failed")
    await watched.monitor.poll()
    assert [(await watched.state(each)).names for each in (1, 2)] == [{"connection": "Orders"}] * 2
    assert watched.airbyte.asked_names == 1


@pytest.mark.parametrize("fault", [403, 404, 500, "hang"])
async def test_without_an_answer_the_event_has_none_and_nothing_waits_again(watched: Watched, fault: int | str) -> None:
    watched.airbyte.faults["names"] = fault
    for job_id in (1, 2):
        watched.airbyte.put(job_id, "succeeded")
        with anyio.fail_after(10):
            await watched.monitor.poll()
    assert await watched.events() == [(1, "succeeded"), (2, "succeeded")]
    assert watched.airbyte.asked_names == 1


async def test_many_connections_cost_a_bounded_number_of_requests(watched: Watched) -> None:
    for job_id in range(1, BURST + 50):
        connection = f"00000000-0000-0000-0000-{job_id:012}"
        watched.airbyte.names[connection] = f"Connection {job_id}"
        watched.airbyte.put(job_id, "succeeded", connection_id=connection)
    with anyio.fail_after(30):
        await watched.monitor.poll()
    assert len(await watched.events()) == BURST + 49
    assert BURST // 2 <= watched.airbyte.asked_names <= BURST + 20


async def test_a_connection_that_had_no_turn_is_requested_the_next_time(watched: Watched) -> None:
    watched.airbyte.faults["names"] = "hang"
    connections = {job_id: f"00000000-0000-0000-0000-{job_id:012}" for job_id in range(1, 11)}
    for job_id, connection in connections.items():
        watched.airbyte.names[connection] = f"Connection {job_id}"
        watched.airbyte.put(job_id, connection_id=connection)
    await watched.monitor.poll()
    hung = watched.airbyte.asked_names
    assert hung < len(connections)
    del watched.airbyte.faults["names"]
    for job_id in connections:
        watched.airbyte.put(job_id, "succeeded")
    await watched.monitor.poll()
    named = [job_id for job_id in connections if (await watched.state(job_id)).names]
    assert len(named) == len(connections) - hung
