"""Refreshes, which lists without a type leave out up to Airbyte 2.0: their ends are found by polling as any other."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte.refresh_detection import RefreshDetection
from airbyte_events.errors import ServerError
from airbyte_events.events import EventFilter
from airbyte_events.hub.hub import Hub
from airbyte_events.hub.position import Position
from airbyte_events.monitor.poller import Poller, Ticks
from airbyte_events.simulator import Script, Simulator, serve_simulator
from support.airbyte import Airbyte, client_of
from support.events import CONNECTION
from support.hubs import next_end
from support.monitor import Watched
from support.waiters import Waiters
from support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def old(watched: Watched) -> Any:
    """An Airbyte of up to 2.0."""
    watched.airbyte.hides_refreshes = True
    return watched


def put(watched: Watched, job_id: int, status: str = "running", **values: Any) -> None:
    watched.airbyte.put(job_id, status, job_type="refresh", **values)


class TestWhereListsLeaveThemOut:
    async def test_i4_the_end_of_one_that_is_watched_is_found_by_the_next_poll(self, old: Any) -> None:
        put(old, 1)
        await old.monitor.watch([1])
        poller = Poller(old.monitor)
        await poller.tick()
        put(old, 1, "succeeded")
        await poller.tick()
        assert await old.ends(1) == 1
        # Without reading it once more.
        assert old.airbyte.reads == 1

    async def test_i4_so_is_that_of_one_nobody_watches(self, old: Any) -> None:
        put(old, 1, "succeeded", ago=86_400)
        poller = Poller(old.monitor)
        await poller.tick()
        put(old, 2)
        old.airbyte.put(3, "succeeded")
        await poller.tick()
        put(old, 2, "failed")
        await poller.tick()
        assert await old.events() == [(3, "succeeded"), (2, "running"), (2, "failed")]

    async def test_a_poll_costs_one_request_more(self, old: Any) -> None:
        put(old, 1, "succeeded", ago=86_400)
        poller = Poller(old.monitor)
        await poller.tick()
        lists, before = old.airbyte.lists, old.airbyte.refresh_lists
        for _ in range(5):
            await poller.tick()
        assert (old.airbyte.lists - lists, old.airbyte.refresh_lists - before) == (5, 5)

    async def test_i4_none_is_lost_while_they_can_not_be_listed(self, old: Any) -> None:
        put(old, 1, "succeeded", ago=86_400)
        await old.monitor.poll()
        put(old, 2, "succeeded")
        mark = await old.store.recall("looked_at/default")
        old.airbyte.faults["refresh"] = 503
        with pytest.raises(ServerError):
            await old.monitor.poll()
        assert await old.store.recall("looked_at/default") == mark
        old.airbyte.faults.clear()
        await old.monitor.poll()
        assert await old.ends(2) == 1

    async def test_an_upgrade_of_airbyte_is_noticed(self, old: Any) -> None:
        put(old, 1, "succeeded", ago=86_400)
        await old.monitor.poll()
        old.airbyte.hides_refreshes = False
        put(old, 2, "succeeded")
        await old.monitor.poll()
        before = old.airbyte.refresh_lists
        await old.monitor.poll()
        assert old.airbyte.refresh_lists == before

    async def test_i4_who_follows_connections_is_told_of_those_that_ended_before(
        self, airbyte: Airbyte, http: httpx.AsyncClient
    ) -> None:
        airbyte.hides_refreshes = True
        airbyte.put(1, "succeeded", job_type="refresh", ago=60)
        wanted = EventFilter(connection_ids=frozenset([CONNECTION]), job_types=frozenset(["refresh"]))
        since = utcnow() - timedelta(minutes=10)
        async with Hub(client_of(http, airbyte.url), ticks=Ticks(unproven=0.02, proven=0.02, idle=0.02)) as hub:
            with hub.follow(wanted, Position(since=since, floor=since)) as ends, anyio.fail_after(30):
                assert (await next_end(ends)).ref.job_id == 1
                airbyte.put(2, "failed", job_type="refresh")
                assert (await next_end(ends)).ref.job_id == 2


@pytest.mark.parametrize("release", ["2.0", "2.1"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_refresh_of_the_simulators_release_completes_a_wait(
    http: httpx.AsyncClient, waiters: Waiters, release: str
) -> None:
    async with (
        serve_simulator(Simulator(release=release)) as sim,
        Hub(client_of(http, sim.url), ticks=Ticks(unproven=0.02, proven=0.02, idle=0.02)) as hub,
    ):
        job = sim.world.start_job(sim.world.add_connection(Script.hanging()), "refresh")
        waiters.wait(hub, job.id)
        await until(lambda: sim.traffic.counts["GET /jobs/{id}"])
        sim.world.end_job(job, "succeeded")
        assert (await waiters.result(job.id)).status == "succeeded"
        assert sim.traffic.counts["GET /jobs/{id}"] == 1


class TestWhereListsHaveThem:
    async def test_that_is_found_out_once(self, watched: Watched) -> None:
        put(watched, 1, "succeeded", ago=86_400)
        await watched.monitor.poll()
        assert watched.airbyte.refresh_lists == 2
        for _ in range(5):
            await watched.monitor.poll()
        assert watched.airbyte.refresh_lists == 2

    async def test_one_in_a_list_says_so(self, watched: Watched) -> None:
        put(watched, 1)
        for _ in range(5):
            await watched.monitor.poll()
        assert watched.airbyte.refresh_lists == 0


class TestWhereThereAreNone:
    async def test_it_is_asked_for_now_and_then(self, watched: Watched) -> None:
        for _ in range(5):
            await watched.monitor.poll()
        assert watched.airbyte.refresh_lists == 1

    @pytest.mark.parametrize("status", [400, 404, 422])
    async def test_a_release_that_does_not_know_the_type_is_not_asked_again(
        self, watched: Watched, http: httpx.AsyncClient, status: int
    ) -> None:
        watched.airbyte.faults["refresh"] = status
        refreshes = RefreshDetection(client_of(http, watched.airbyte.url).list_jobs, probe=0.0)
        for _ in range(3):
            assert await refreshes.left_out() == (False, None)
        assert watched.airbyte.refresh_lists == 1

    async def test_i4_trouble_with_the_question_costs_no_poll(self, watched: Watched) -> None:
        watched.airbyte.faults["refresh"] = 500
        watched.airbyte.put(1, "succeeded")
        await watched.monitor.poll()
        assert await watched.ends(1) == 1

    async def test_i4_the_first_of_all_is_found_whenever_it_ended(self, old: Any, http: httpx.AsyncClient) -> None:
        refreshes = RefreshDetection(client_of(http, old.airbyte.url).list_jobs, probe=0.0)
        assert await refreshes.left_out() == (False, None)
        put(old, 1, "succeeded", ago=240)
        left_out, page = await refreshes.left_out()
        assert left_out
        assert page is not None
        assert [job.job_id for job in page.jobs] == [1]

    async def test_what_there_was_before_is_not_told_as_new(self, old: Any, http: httpx.AsyncClient) -> None:
        put(old, 1, "succeeded", ago=86_400)
        refreshes = RefreshDetection(client_of(http, old.airbyte.url).list_jobs, probe=0.0)
        assert await refreshes.left_out() == (True, None)
