"""The route for progress, with a simulated Airbyte of each release behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from airbyte_events.events import Usual
from airbyte_events.events.progress import USUAL_OF
from airbyte_events.listener.histories import Histories
from airbyte_events.simulator import Script, Simulator, serve_simulator
from airbyte_events.store.memory.store import MemoryStore
from support.airbyte import client_of
from support.events import CONNECTION, event_of
from support.listener import API_TOKEN, bearer
from support.stage import Stage
from support.waiting import a_moment

pytestmark = pytest.mark.anyio


async def ask(stage: Stage, url: str, **params: Any) -> httpx.Response:
    headers = bearer(API_TOKEN)
    return await stage.http.get(f"{url}/v1/progress", params={"instance": "default", **params}, headers=headers)


async def watch(stage: Stage, url: str, job_id: int) -> None:
    job = {"instance": "default", "job_id": job_id}
    await stage.http.post(f"{url}/v1/watches", json={"jobs": [job]}, headers=bearer(API_TOKEN))


async def test_an_active_jobs_counts_streams_and_what_is_usual(stage: Stage) -> None:
    async with stage.listener() as url:
        connection = stage.sim.world.connections[stage.connection_id]
        done = stage.sim.world.start_job(connection)
        await watch(stage, url, done.id)
        stage.end([done])
        job = stage.sim.world.start_job(connection, script=replace(Script.lasting(3600), records=10**9))
        await stage.until(lambda: bool(job.attempts))
        await watch(stage, url, job.id)

        async def progress() -> dict[str, Any]:
            (found,) = (await ask(stage, url, job_id=job.id, streams="true")).json()["progress"]
            return dict(found)

        found = await progress()
        while not (found["records"] and found["streams"] and found["usual"]):
            found = await progress()
            await a_moment()
        assert (found["instance"], found["job_id"], found["status"]) == ("default", job.id, "running")
        assert [stream["name"] for stream in found["streams"]] == ["orders", "items"]
        # Airbyte's times are whole seconds, of which one may begin in between.
        assert found["usual"].pop("duration_seconds") in (0.0, 1.0)
        assert found["usual"] == {"jobs": 1, "records": 1000, "bytes": 90_000}
        assert (await ask(stage, url, job_id=done.id)).json() == {"progress": []}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"job_id": "x"},
        {"job_id": ",".join(map(str, range(1, 102)))},
        {"job_id": 1, "streams": "yes"},
        {"job_id": 1, "max_age": -1},
        {"x": 1},
    ],
)
async def test_wrong_parameters_are_refused(stage: Stage, params: dict[str, Any]) -> None:
    async with stage.listener() as url:
        assert (await ask(stage, url, **params)).status_code == 400
        assert (await ask(stage, url, job_id=1, instance="another")).status_code == 400


@pytest.mark.parametrize(("release", "has_streams"), [("0.50", False), ("1.0", True), ("2.0", True), ("cloud", True)])
async def test_progress_moves_in_the_simulator_by_release(
    http: httpx.AsyncClient, release: str, has_streams: bool
) -> None:
    simulator = Simulator(release=release)
    connection = simulator.world.add_connection(replace(Script.lasting(3600), records=10**9))
    async with serve_simulator(simulator) as sim:
        job, client = sim.world.start_job(connection), client_of(http, sim.url)
        while not job.attempts:
            await client.get_job(job.id)
            await a_moment()
        first = await client.glance(job.id)
        streams = await client.stream_progress(job.id, connection.id)
        assert first is not None
        assert (streams is not None) is has_streams
        for moved in (client.running_jobs, lambda: client.stream_progress(job.id, connection.id)):
            before = str(await moved())
            while has_streams and str(await moved()) == before:
                await a_moment()
        assert ((await client.running_jobs())[0].records or 0) > (first.records or 0)


async def test_usual_is_the_median_of_the_last_successes() -> None:
    async with MemoryStore() as store:
        states = [
            replace(event_of(job_id), duration_seconds=float(job_id), records=job_id, bytes=None)
            for job_id in range(1, 2 * USUAL_OF)
        ]
        await store.append(states[:-1])
        histories = Histories(store)
        await histories.load()
        await histories.load()
        histories.add(states[-1])
        histories.add(replace(event_of(900, "failed"), duration_seconds=9000.0))
        histories.add(replace(event_of(901), job_type="reset", duration_seconds=9000.0))
        usual = histories.usual("default", CONNECTION.upper(), "sync")
        last = states[-USUAL_OF:]
        assert usual == Usual.of(last)
        assert usual is not None
        assert usual.duration_seconds == (last[0].duration_seconds or 0) + (USUAL_OF - 1) / 2
        assert histories.usual("default", "another", "sync") is None
