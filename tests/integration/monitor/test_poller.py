"""The poller: how often, what when Airbyte can't list, and what it costs."""

from __future__ import annotations

from contextlib import suppress

import anyio
import httpx
import pytest

from airbyte_events._utils.token_bucket import TokenBucket, charged
from airbyte_events.airbyte.notifications import reread
from airbyte_events.errors import AirbyteUnreachable, RateLimited, ServerError
from airbyte_events.events import Origin
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.monitor.observation import Received
from airbyte_events.monitor.poller import Poller, Ticks
from support.airbyte import Airbyte, client_of
from support.events import webhook_body
from support.monitor import Watched
from support.servers import serve
from support.waiting import in_background, until

pytestmark = pytest.mark.anyio

FAST = Ticks(unproven=0.02, proven=0.02, idle=0.02)


async def prove_push(watched: Watched) -> None:
    for job_id in (901, 902, 903):
        watched.airbyte.put(job_id, "succeeded", ago=3600)
        stored = await watched.receive(webhook_body(job_id, startedAt=None, finishedAt=None))
        told = {job_id: [Received.of(stored, reread)]}
        await watched.monitor.confirm(told, Origin.WEBHOOK, told)


class TestTicks:
    async def test_while_nothing_is_watched(self, watched: Watched) -> None:
        assert Ticks().due(watched.monitor) == 53

    async def test_while_push_is_unproven_and_proven(self, watched: Watched) -> None:
        watched.airbyte.put(1)
        await watched.monitor.watch([1])
        assert Ticks().due(watched.monitor) == 3
        await prove_push(watched)
        assert Ticks().due(watched.monitor) == 30
        # One that never pushes is one that must be looked for.
        watched.airbyte.put(2, job_type="clear")
        await watched.monitor.watch([2])
        assert Ticks().due(watched.monitor) == 3
        watched.monitor.watches.forget(2)
        assert Ticks().due(watched.monitor) == 30

    async def test_while_somebody_looks(self, watched: Watched) -> None:
        watched.monitor.watches.view(30)
        assert Ticks().due(watched.monitor) == 13
        watched.airbyte.put(1)
        await watched.monitor.watch([1])
        assert Ticks().due(watched.monitor) == 3
        await prove_push(watched)
        assert Ticks().due(watched.monitor) == 13
        watched.monitor.watches.view(0)
        assert Ticks().due(watched.monitor) == 30

    async def test_somebody_who_begins_to_look_brings_the_next_poll_forward(self, watched: Watched) -> None:
        async with in_background(Poller(watched.monitor, Ticks(idle=3600, viewed=0.02)).run):
            await watched.airbyte.until(lambda: watched.airbyte.lists == 1)
            await anyio.wait_all_tasks_blocked()
            watched.monitor.watches.view(3600)
            await watched.airbyte.until(lambda: watched.airbyte.lists > 2)

    async def test_a_new_watch_brings_the_next_look_forward(self, watched: Watched) -> None:
        watched.airbyte.put(1, ago=3600)
        async with in_background(Poller(watched.monitor, Ticks(idle=3600, unproven=0.02)).run):
            await watched.airbyte.until(lambda: watched.airbyte.lists == 1)
            await anyio.wait_all_tasks_blocked()
            assert watched.airbyte.lists == 1
            await watched.monitor.watch([1])
            await watched.airbyte.until(lambda: watched.airbyte.lists > 2)

    async def test_the_watch_of_a_job_that_has_ended_brings_nothing_forward(self, watched: Watched) -> None:
        watched.airbyte.put(1, "succeeded", ago=3600)
        async with in_background(Poller(watched.monitor, Ticks(idle=3600, unproven=0.0)).run):
            await watched.airbyte.until(lambda: watched.airbyte.lists == 1)
            await anyio.wait_all_tasks_blocked()
            await watched.monitor.watch([1])
            await anyio.wait_all_tasks_blocked()
            assert watched.airbyte.lists == 1


class TestCost:
    async def test_a_thousand_watched_jobs_are_one_list_a_tick(self, watched: Watched) -> None:
        for job_id in range(1, 1001):
            watched.airbyte.put(job_id)
        await watched.monitor.watch(range(1, 1001))
        assert (watched.airbyte.lists, watched.airbyte.reads) == (11, 0)
        for job_id in range(1, 1001):
            watched.airbyte.put(job_id, ago=3600)
        poller = Poller(watched.monitor)
        for tick in range(1, 6):
            await poller.tick()
            assert (watched.airbyte.lists, watched.airbyte.reads) == (11 + tick, 0)
        # Pages are of what has changed.
        for job_id in range(1, 121):
            watched.airbyte.put(job_id, "succeeded")
        await poller.tick()
        assert (watched.airbyte.lists, watched.airbyte.reads) == (18, 0)
        assert len(watched.monitor.watches.jobs) == 880

    async def test_jobs_that_could_not_be_asked_for_are_read_by_the_next_tick(self, watched: Watched) -> None:
        watched.airbyte.put(1, "succeeded", ago=86_400)
        watched.airbyte.faults[1] = 503
        with pytest.raises(ServerError):
            await watched.monitor.watch([1])
        watched.airbyte.faults.clear()
        await Poller(watched.monitor).tick()
        assert await watched.ends(1) == 1
        assert (await watched.state(1)).origin is Origin.SUBMIT


class TestTrouble:
    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_backs_off_and_comes_back(self, watched: Watched, status: int) -> None:
        watched.airbyte.put(1)
        await watched.monitor.watch([1])
        watched.airbyte.faults["all"] = status
        poller = Poller(watched.monitor, Ticks(unproven=0.01))
        async with in_background(poller.run):
            await until(lambda: poller.failures >= 4)
            watched.airbyte.faults.clear()
            watched.airbyte.put(1, "succeeded")
            await watched.until_ended(1)
            await until(lambda: not poller.failures)

    async def test_the_wait_doubles_with_each_failure_up_to_a_limit(self, watched: Watched) -> None:
        watched.airbyte.faults["all"] = 503
        poller = Poller(watched.monitor, Ticks(idle=0.005))
        began = anyio.current_time()
        async with in_background(poller.run):
            await watched.airbyte.until(lambda: watched.airbyte.lists == 6)
        # 0.005 s times 2, 4, 8, 16 and 32, less a tenth.
        assert anyio.current_time() - began > 0.27

    async def test_429_is_no_reason_to_ask_more(self, watched: Watched) -> None:
        watched.airbyte.put(1)
        await watched.monitor.watch([1])
        watched.airbyte.faults["list"] = 429
        with pytest.raises(RateLimited):
            await Poller(watched.monitor).tick()
        assert watched.airbyte.reads == 1

    async def test_i4_where_lists_fail_jobs_are_read_a_few_at_a_time(self, watched: Watched) -> None:
        for job_id in range(1, 26):
            watched.airbyte.put(job_id)
        await watched.monitor.watch(range(1, 26))
        watched.airbyte.faults["list"] = 500
        poller = Poller(watched.monitor, unlisted=3600.0, reads=10)
        await poller.tick()
        # Listed once to know the jobs, once by the poller, and once more when reads were answered.
        assert (watched.airbyte.lists, watched.airbyte.reads) == (3, 10)
        for job_id in range(1, 26):
            watched.airbyte.put(job_id, "succeeded")
        # Those whose turn it has not been come first.
        await poller.tick()
        await poller.tick()
        assert (watched.airbyte.lists, watched.airbyte.reads) == (3, 30)
        await poller.tick()
        assert len(watched.monitor.watches.jobs) == 0
        await poller.tick()
        assert watched.airbyte.lists == 3

    async def test_i4_lists_that_failed_are_tried_again_after_a_while(self, watched: Watched) -> None:
        watched.airbyte.put(1)
        await watched.monitor.watch([1])
        watched.airbyte.faults["list"] = 500
        poller = Poller(watched.monitor, unlisted=1.0)
        began = anyio.current_time()
        await poller.tick()
        lists = watched.airbyte.lists
        watched.airbyte.faults.clear()
        with anyio.fail_after(30):
            while watched.airbyte.lists == lists:
                await poller.tick()
        assert anyio.current_time() - began >= 1.0

    async def test_i4_lists_that_take_too_long_do_not_keep_reads(
        self, http: httpx.AsyncClient, watched: Watched
    ) -> None:
        watched.airbyte.put(1)
        await watched.monitor.watch([1])
        impatient = Monitor("default", client_of(http, watched.airbyte.url, timeout=0.5), watched.store)
        await impatient.watch([1])
        watched.airbyte.faults["list"] = "hang"
        watched.airbyte.put(1, "succeeded")
        poller = Poller(impatient)
        await poller.tick()
        assert await watched.ends(1) == 1
        with pytest.raises(AirbyteUnreachable):
            await poller.tick()
        # It may have been a moment's weakness: lists are tried again.
        assert watched.airbyte.lists == 2

    async def test_nothing_watched_and_lists_fail(self, watched: Watched) -> None:
        watched.airbyte.faults["list"] = 500
        with pytest.raises(ServerError):
            await Poller(watched.monitor).tick()

    async def test_i4_a_list_that_leaves_a_job_out_is_found_out(
        self, watched: Watched, caplog: pytest.LogCaptureFixture
    ) -> None:
        for job_id in (1, 2, 3):
            watched.airbyte.put(job_id, ago=3600)
            watched.airbyte.hidden.add(job_id)
        await watched.monitor.watch([1, 2, 3])
        for job_id in (1, 2, 3):
            watched.airbyte.put(job_id, "succeeded")
        poller = Poller(watched.monitor, FAST, stale=0.0, spot_check=0.0)
        async with in_background(poller.run):
            await watched.until_ended(1, 2, 3)
        assert "its list leaves out job" in caplog.text

    @pytest.mark.parametrize("jobs", [1, 250])
    async def test_further_pages_of_many_jobs_delay_no_poll(self, watched: Watched, jobs: int) -> None:
        for job_id in range(1, jobs + 1):
            watched.airbyte.put(job_id)
        bucket = TokenBucket(rate=1e-6, burst=10)
        with charged(bucket):
            await Poller(watched.monitor).tick()
        assert watched.airbyte.lists == 1 + jobs // 100
        # A list, and a search for refreshes.
        assert bucket.left == 8

    async def test_a_spot_check_of_a_job_that_just_ended_accuses_nobody(
        self, watched: Watched, caplog: pytest.LogCaptureFixture
    ) -> None:
        watched.airbyte.put(1, ago=3600)
        await watched.monitor.watch([1])
        watched.airbyte.hidden.add(1)
        await watched.monitor.poll()
        watched.airbyte.hidden.clear()
        watched.airbyte.put(1, "succeeded")
        await Poller(watched.monitor, stale=0.0, spot_check=0.0).tick()
        assert await watched.ends(1) == 1
        assert "leaves out" not in caplog.text

    async def test_a_job_that_airbyte_fails_over_does_not_slow_the_others(self, watched: Watched) -> None:
        watched.airbyte.faults[9] = 500
        with pytest.raises(ServerError):
            await watched.monitor.watch([9])
        watched.airbyte.put(1)
        await watched.monitor.watch([1])
        poller = Poller(watched.monitor, FAST, stale=0.0, spot_check=0.0)
        async with in_background(poller.run):
            await watched.airbyte.until(lambda: watched.airbyte.lists > 3)
            assert poller.failures == 0
            watched.airbyte.put(1, "succeeded")
            await watched.until_ended(1)

    async def test_i4_any_number_of_jobs_that_airbyte_fails_over_leaves_the_others_their_turn(
        self, watched: Watched
    ) -> None:
        for job_id in range(1, 122):
            watched.airbyte.put(job_id, "succeeded", ago=86_400)
        watched.airbyte.faults.update(dict.fromkeys(range(1, 121), 500))
        with suppress(ServerError):
            await watched.monitor.watch(range(1, 122))
        poller = Poller(watched.monitor)
        ticks = 0
        while not await watched.ends(121):
            await poller.tick()
            ticks += 1
        # Jobs are read in random order: each tick reads this one with a probability of at least 8 in 121.
        assert ticks <= 121

    async def test_i4_all_that_ended_while_airbyte_was_down_is_found(
        self, http: httpx.AsyncClient, watched: Watched
    ) -> None:
        jobs = range(1, 131)
        airbyte = Airbyte()
        async with serve(airbyte):
            for job_id in jobs:
                airbyte.put(job_id)
            monitor = Monitor("default", client_of(http, airbyte.url), watched.store)
            await monitor.watch(jobs)
            where = int(airbyte.url.rpartition(":")[2])
        poller = Poller(monitor, Ticks(unproven=0.01))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poller.run)
            await until(lambda: poller.failures >= 3)
            for job_id in jobs:
                airbyte.put(job_id, ("succeeded", "failed", "cancelled")[job_id % 3])
            async with serve(airbyte, where):
                await watched.until_ended(*jobs)
                tasks.cancel_scope.cancel()
        assert monitor.watches.jobs == {}
