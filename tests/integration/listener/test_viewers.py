"""Who looks at a listener: while somebody does, it polls more often."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import httpx
import pytest

from airbyte_events.feed.client import FeedClient
from airbyte_events.simulator import Simulator, serve_simulator
from support.listener import API_TOKEN, Served, instance_of, serve_listener, settings_of
from support.loops import anyio_backend as anyio_backend
from support.waiting import until

pytestmark = pytest.mark.anyio

FIRST = 2


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with serve_simulator(Simulator()) as sim:
        yield sim


@pytest.fixture
async def served(sim: Simulator) -> AsyncIterator[Served]:
    settings = settings_of(instance_of(sim.url), poll_interval=0.1, poll_interval_viewed=0.1)
    async with serve_listener(settings) as served:
        # The first poll also asks for refreshes.
        await until(lambda: lists(sim) == FIRST and not sim.traffic.working)
        yield served


def lists(sim: Simulator) -> int:
    return sim.traffic.counts["GET /jobs"]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/status", "/v1/events"])
async def test_a_request_has_it_poll_more_often(
    sim: Simulator, served: Served, http: httpx.AsyncClient, path: str
) -> None:
    (await http.get(f"{served.url}{path}", headers=served.headers)).raise_for_status()
    await until(lambda: lists(sim) > FIRST + 2)


async def test_so_does_a_stream(sim: Simulator, served: Served, http: httpx.AsyncClient) -> None:
    async with FeedClient(http, served.url, API_TOKEN).stream() as frames:
        await anext(aiter(frames))
        await until(lambda: lists(sim) > FIRST + 2)


async def test_health_checks_metrics_and_strangers_do_not(
    sim: Simulator, served: Served, http: httpx.AsyncClient
) -> None:
    statuses = [
        (await http.get(f"{served.url}{path}")).status_code
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/", "/v1/jobs")
    ]
    assert statuses == [200, 200, 200, 200, 200, 401]
    await http.post(served.webhooks, json={"data": {}})
    await anyio.wait_all_tasks_blocked()
    assert lists(sim) == FIRST
