"""The hub with a real listener and a simulated Airbyte."""

from __future__ import annotations

import logging
import random
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from airbyte_events.airbyte import AirbyteClient, Credentials
from airbyte_events.errors import UnknownJob
from airbyte_events.hub.hub import Hub
from airbyte_events.simulator import Script, Simulator, serve_simulator
from support.hubs import FAST
from support.stage import Stage
from support.waiters import Waiters

pytestmark = pytest.mark.anyio


class TestWithAListener:
    """Of the real kind; uvicorn's event loop."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def test_a_push_completes_the_wait_with_a_read_at_submit_and_one_to_confirm(
        self, stage: Stage, waiters: Waiters
    ) -> None:
        async with stage.listener() as url, stage.hub(stage.feed(url), grace=30) as hub:
            await stage.ready(hub)
            jobs = stage.start(3)
            for job in jobs:
                waiters.wait(hub, job.id, connection_id=job.connection.id)
            await stage.until(lambda: all(stage.reads(job) == 1 for job in jobs))
            stage.end(jobs)
            for job in jobs:
                event = await waiters.result(job.id)
                assert (event.status, event.origin.value) == ("succeeded", "webhook")
            assert [stage.reads(job) for job in jobs] == [2, 2, 2]
            assert hub.waiting == 0

    async def test_i4_no_end_is_lost_however_it_falls_into_the_join(self, stage: Stage, waiters: Waiters) -> None:
        dice = random.Random(7)
        async with stage.listener() as url, stage.hub(stage.feed(url), grace=30) as hub:
            await stage.until(lambda: hub.following)
            jobs = stage.start(120)

            async def play(job: Any) -> None:
                for act in dice.choice([("end", "wait"), ("wait", "end")]):
                    for _ in range(dice.randrange(60)):
                        await anyio.lowlevel.checkpoint()
                    if act == "wait":
                        waiters.wait(hub, job.id, connection_id=job.connection.id)
                    else:
                        stage.end([job])

            async with anyio.create_task_group() as tasks:
                for job in jobs:
                    tasks.start_soon(play, job)
            for job in jobs:
                assert (await waiters.result(job.id)).status == "succeeded"

    async def test_i4_a_listener_that_is_down_at_the_start_is_done_without(
        self, stage: Stage, waiters: Waiters
    ) -> None:
        async with stage.listener() as url:
            pass
        looks = stage.count("GET /jobs")
        async with stage.hub(stage.feed(url)) as hub:
            (job,) = stage.start()
            waiters.wait(hub, job.id)
            await stage.until(lambda: stage.reads(job) == 1 or stage.count("GET /jobs") > looks)
            stage.end([job])
            assert (await waiters.result(job.id)).status == "succeeded"

    async def test_i4_a_listener_that_dies_is_replaced_by_polling_and_taken_again(
        self, stage: Stage, waiters: Waiters, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "airbyte_events.hub")
        listener = await stage.start_listener(waiters.tasks)
        async with stage.hub(stage.feed(listener.url)) as hub:
            await stage.ready(hub)
            first, second = stage.start(2)
            waiters.wait(hub, first.id)
            waiters.wait(hub, second.id)
            await stage.until(lambda: stage.reads(first) == stage.reads(second) == 1)
            await listener.stop()
            stage.end([first])
            event = await waiters.result(first.id)
            assert (event.status, event.origin.value) == ("succeeded", "poll")
            # It comes back with an empty store, so with another epoch.
            listener = await stage.start_listener(waiters.tasks, port=listener.port)
            await stage.until(lambda: hub.following)
            stage.end([second])
            assert (await waiters.result(second.id)).status == "succeeded"
            await stage.until(lambda: "feed is back" in caplog.text)
            (third,) = stage.start()
            waiters.wait(hub, third.id)
            await stage.until(lambda: stage.reads(third) == 1 and stage.sim.traffic.working == 0)
            looks = stage.count("GET /jobs")
            stage.end([third])
            event = await waiters.result(third.id)
            assert (event.status, event.origin.value) == ("succeeded", "webhook")
            assert stage.count("GET /jobs") == looks

    async def test_an_end_while_the_listener_restarts_with_an_empty_store_is_read_again(
        self, stage: Stage, waiters: Waiters
    ) -> None:
        listener = await stage.start_listener(waiters.tasks)
        async with stage.hub(stage.feed(listener.url), grace=30) as hub:
            await stage.ready(hub)
            (job,) = stage.start()
            waiters.wait(hub, job.id)
            await stage.until(lambda: stage.reads(job) == 1)
            await listener.stop()
            stage.end([job])
            await stage.start_listener(waiters.tasks, port=listener.port)
            assert (await waiters.result(job.id)).status == "succeeded"
            # Once by the new listener; twice if it is asked again before it knows.
            assert stage.reads(job) <= 3

    async def test_i4_a_wrong_token_is_told_and_polled_around(
        self, stage: Stage, waiters: Waiters, caplog: pytest.LogCaptureFixture
    ) -> None:
        (job,) = stage.start()
        async with stage.listener(webhooks=False) as url, stage.hub(stage.feed(url, "wrong-token")) as hub:
            waiters.wait(hub, job.id)
            await stage.until(lambda: stage.reads(job) == 1)
            stage.end([job])
            assert (await waiters.result(job.id)).status == "succeeded"
            assert not hub.following
        assert "refuses the API token" in caplog.text
        assert "wrong-token" not in caplog.text

    async def test_i3_the_listener_of_another_airbyte_is_not_believed(
        self, stage: Stage, waiters: Waiters, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve_simulator(Simulator(client_id="c", client_secret="s")) as here:
            airbyte = AirbyteClient(
                stage.http, here.url, credentials=Credentials(client_id="c", client_secret="s"), attempts=1
            )
            job = here.world.start_job(here.world.add_connection(Script.hanging()))
            (foreign,) = stage.start()
            assert job.id == foreign.id
            stage.end([foreign])
            async with stage.listener() as url, Hub(airbyte, stage.feed(url), ticks=FAST) as hub:
                await stage.until(lambda: hub.following)
                waiters.wait(hub, job.id, connection_id=job.connection.id.upper())
                await stage.until(lambda: here.traffic.counts["GET /jobs"] > 1)
                assert not waiters.results
                assert not hub.following
                here.world.end_job(job, "failed")
                event = await waiters.result(job.id)
                assert (event.status, event.connection_id) == ("failed", job.connection.id)
        assert "serves another Airbyte" in caplog.text

    @pytest.mark.parametrize("lists", [True, False])
    async def test_i4_a_blind_listener_is_seen_around(self, stage: Stage, waiters: Waiters, lists: bool) -> None:
        if not lists:
            stage.fault("broken-list")
        (job,) = stage.start()
        async with (
            stage.listener(secret="not the secret", webhooks=False) as url,
            stage.hub(stage.feed(url), grace=30, recheck=0.1) as hub,
        ):
            waiters.wait(hub, job.id)
            await stage.until(lambda: stage.reads(job) + lists * stage.count("GET /jobs") >= 1 and hub.following)
            stage.end([job])
            assert (await waiters.result(job.id)).status == "succeeded"
            assert hub.following or not lists

    @pytest.mark.parametrize("with_listener", [True, False])
    async def test_an_unknown_job(self, stage: Stage, with_listener: bool) -> None:
        async with AsyncExitStack() as stack:
            feed = None
            if with_listener:
                feed = stage.feed(await stack.enter_async_context(stage.listener()))
            hub = await stack.enter_async_context(stage.hub(feed))
            with pytest.raises(UnknownJob, match="has no job 404"):
                await hub.wait(404)
            assert hub.waiting == 0

    async def test_hundreds_of_waiters_are_one_stream_and_few_calls(self, stage: Stage, waiters: Waiters) -> None:
        jobs = stage.start(300)
        async with stage.listener() as url, stage.hub(stage.feed(url), grace=30) as hub:
            for job in jobs:
                waiters.wait(hub, job.id)
            await stage.until(lambda: hub.following and stage.count("GET /jobs") >= 4)
            assert stage.count("GET /jobs/{id}") == 0
            looks = stage.count("GET /jobs")
            stage.end(jobs)
            for job in jobs:
                assert (await waiters.result(job.id)).status == "succeeded"
            # A page holds a hundred: how many looks there are depends on how the webhooks fall.
            assert stage.count("GET /jobs") - looks < 60
            assert stage.count("GET /jobs/{id}") < 10
            assert hub.waiting == 0
