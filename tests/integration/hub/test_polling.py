"""The hub without a listener."""

from __future__ import annotations

import time
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events.bus.bus import Subscription
from airbyte_events.errors import HubClosed, UnknownJob, WaitTimeout
from airbyte_events.hub.hub import Hub
from airbyte_events.hub.waiting import WaitingTask
from airbyte_events.monitor.poller import Ticks
from airbyte_events.monitor.watchlist import Watch
from support.airbyte import Airbyte, client_of
from support.hubs import lonely
from support.memory import alive
from support.waiters import Waiters

pytestmark = pytest.mark.anyio


class TestWithoutAListener:
    async def test_i4_ends_are_found_by_shared_looks(
        self, http: httpx.AsyncClient, airbyte: Airbyte, waiters: Waiters
    ) -> None:
        for job_id in range(1, 6):
            airbyte.put(job_id, ago=3600)
        async with lonely(http, airbyte) as hub:
            for job_id in range(1, 6):
                waiters.wait(hub, job_id)
            await airbyte.until(lambda: airbyte.reads == 5)
            ends = ("succeeded", "failed", "cancelled", "succeeded", "failed")
            for job_id, end in enumerate(ends, 1):
                airbyte.put(job_id, end)
            for job_id, end in enumerate(ends, 1):
                assert (await waiters.result(job_id)).status == end
            assert airbyte.reads == 5

    async def test_several_wait_for_one_job(self, http: httpx.AsyncClient, airbyte: Airbyte, waiters: Waiters) -> None:
        airbyte.put(1)
        async with lonely(http, airbyte) as hub:
            for key in range(10):
                waiters.wait(hub, 1, key)
            await airbyte.until(lambda: airbyte.reads == 1)
            airbyte.put(1, "succeeded")
            for key in range(10):
                assert (await waiters.result(key)).status == "succeeded"
            assert airbyte.reads == 1

    async def test_i4_all_who_wait_for_an_unknown_job_are_told(
        self, http: httpx.AsyncClient, airbyte: Airbyte, waiters: Waiters
    ) -> None:
        async with lonely(http, airbyte) as hub:
            # Some come while others are just being answered.
            for key in range(30):
                waiters.wait(hub, 5, key)
                for _ in range(key % 7):
                    await anyio.lowlevel.checkpoint()
            for key in range(30):
                assert isinstance(await waiters.result(key), UnknownJob)
            assert hub.waiting == 0

    async def test_i3_a_proxys_404_makes_no_job_unknown(
        self, http: httpx.AsyncClient, airbyte: Airbyte, waiters: Waiters
    ) -> None:
        airbyte.put(1)
        airbyte.faults["all"] = "proxy"
        async with lonely(http, airbyte) as hub:
            waiters.wait(hub, 1)
            await airbyte.until(lambda: airbyte.reads > 1)
            airbyte.faults.clear()
            airbyte.put(1, "succeeded")
            assert (await waiters.result(1)).status == "succeeded"

    async def test_a_job_that_airbyte_could_not_tell_of_at_first_can_turn_out_unknown(
        self, http: httpx.AsyncClient, airbyte: Airbyte, waiters: Waiters
    ) -> None:
        airbyte.faults[5] = 503
        async with lonely(http, airbyte, recheck=0.1) as hub:
            waiters.wait(hub, 5)
            await airbyte.until(lambda: airbyte.reads > 1)
            assert not waiters.results
            airbyte.faults.clear()
            assert isinstance(await waiters.result(5), UnknownJob)

    async def test_i3_a_job_that_is_there_after_all_is_waited_for(
        self, http: httpx.AsyncClient, airbyte: Airbyte, waiters: Waiters
    ) -> None:
        airbyte.put(1, ago=3600)
        airbyte.unready.add(1)
        async with lonely(http, airbyte) as hub:
            waiters.wait(hub, 1)
            await airbyte.until(lambda: airbyte.reads >= 2)
            looks = airbyte.lists
            await airbyte.until(lambda: airbyte.lists > looks + 1)
            assert not waiters.results
            airbyte.put(1, "succeeded")
            assert (await waiters.result(1)).status == "succeeded"

    async def test_the_status_is_read_before_giving_up(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        airbyte.put(1)
        async with lonely(http, airbyte) as hub:
            with pytest.raises(WaitTimeout, match="job 1 is running"):
                await hub.wait(1, until=time.time() + 0.1)
            assert airbyte.reads == 2
            assert hub.waiting == 0

    async def test_i3_a_job_that_ended_while_nobody_looked_is_no_time_out(
        self, http: httpx.AsyncClient, airbyte: Airbyte
    ) -> None:
        airbyte.put(1, "succeeded", ago=7200)
        airbyte.put(2, "failed", ago=7200)
        async with lonely(http, airbyte) as hub:
            assert (await hub.wait(1, until=time.time() - 3600)).status == "succeeded"
            assert (await hub.wait(2, until=0)).status == "failed"

    async def test_an_unknown_job_past_the_deadline(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        async with lonely(http, airbyte) as hub:
            with pytest.raises(UnknownJob):
                await hub.wait(1, until=0)

    async def test_i4_airbyte_is_down_at_the_deadline(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        airbyte.put(1)
        async with lonely(http, airbyte) as hub, anyio.create_task_group() as tasks:

            async def break_down() -> None:
                await airbyte.until(lambda: airbyte.reads == 1)
                airbyte.faults["all"] = 503

            tasks.start_soon(break_down)
            with pytest.raises(WaitTimeout, match=r"does not respond: .*503"):
                await hub.wait(1, until=time.time() + 0.3)

    async def test_cancelled_waiters_leave_nothing_behind(
        self, http: httpx.AsyncClient, airbyte: Airbyte, waiters: Waiters
    ) -> None:
        airbyte.held = anyio.Event()
        async with lonely(http, airbyte) as hub:
            scopes = [waiters.wait(hub, job_id, job_id, connection_id="c") for job_id in range(1, 50)]
            for job_id in range(1, 50):
                airbyte.put(job_id)
            await anyio.wait_all_tasks_blocked()
            assert hub.waiting == 49
            for scope in scopes[::2]:
                scope.cancel()
            await anyio.wait_all_tasks_blocked()
            # The answer comes for some who are gone.
            airbyte.held.set()
            airbyte.held = None
            await airbyte.until(lambda: airbyte.lists > 2)
            for scope in scopes:
                scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert hub.waiting == 0
            # A list that was requested for them may still be on its way.
            kinds = (Watch, WaitingTask, Subscription)
            await airbyte.until(lambda: all(len(alive(kind)) < 20 for kind in kinds))

    async def test_i4_a_source_that_fails_is_begun_again_and_ends_nobodys_wait(
        self, http: httpx.AsyncClient, airbyte: Airbyte, waiters: Waiters, caplog: pytest.LogCaptureFixture
    ) -> None:
        airbyte.put(1)
        failures: list[object] = []

        class Broken(Ticks):
            def due(self, monitor: Any) -> float:
                if 1 in monitor.watches.jobs and not failures:
                    failures.append(1)
                    raise RuntimeError("canary")
                return 0.02

        async with Hub(client_of(http, airbyte.url), ticks=Broken()) as hub:
            waiters.wait(hub, 1, 0)
            waiters.wait(hub, 1, 1)
            await airbyte.until(lambda: airbyte.reads > 0)
            airbyte.put(1, "succeeded")
            assert [(await waiters.result(each)).status for each in (0, 1)] == ["succeeded"] * 2
            assert (await hub.wait(1)).status == "succeeded"
        assert caplog.text.count("failed, restarting: error=RuntimeError") == 1

    async def test_a_hub_that_ends_tells_every_waiter(
        self, http: httpx.AsyncClient, airbyte: Airbyte, waiters: Waiters
    ) -> None:
        airbyte.put(1)
        async with lonely(http, airbyte) as hub:
            waiters.wait(hub, 1)
            waiters.wait(hub, 2)
            await airbyte.until(lambda: airbyte.reads > 0)
        assert isinstance(await waiters.result(1), HubClosed)

    async def test_the_body_of_the_hub_raises_what_it_raises(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        with pytest.raises(ZeroDivisionError):
            async with lonely(http, airbyte):
                raise ZeroDivisionError
