"""The hub with a real listener and a simulated Airbyte, and on both event loops with small programs that misbehave."""

from __future__ import annotations

import json
import logging
import random
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from airbyte_events._utils.times import parse_time, utcnow
from airbyte_events.airbyte import AirbyteClient, Credentials
from airbyte_events.bus.bus import EventBus, Subscription
from airbyte_events.errors import HubClosed, UnknownJob, WaitTimeout
from airbyte_events.events import EventFilter, JobError, JobEvent, JobStatus, Origin, Progress
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.catch_up import CatchUp
from airbyte_events.hub.completions import Completions, Subscribers
from airbyte_events.hub.hub import Hub
from airbyte_events.hub.position import Position
from airbyte_events.hub.waiting import WaitingTask
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.monitor.poller import Ticks
from airbyte_events.monitor.watchlist import Watch
from airbyte_events.simulator import Script, Simulator, serve_simulator
from airbyte_events.store.memory.store import MemoryStore
from support.airbyte import Airbyte, client_of
from support.events import CONNECTION, event_of
from support.feed import ScriptedFeed
from support.listener import API_TOKEN
from support.memory import alive
from support.stage import Stage
from support.waiters import Waiters

pytestmark = pytest.mark.anyio

STARTED = utcnow()

FAST = Ticks(unproven=0.02, proven=0.02, idle=0.02)


def lonely(http: httpx.AsyncClient, airbyte: Airbyte, **options: Any) -> Hub:
    """A hub without a listener."""
    return Hub(client_of(http, airbyte.url), **{"ticks": FAST, **options})


def fed(http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, **options: Any) -> Hub:
    client = FeedClient(http, feed.url, API_TOKEN, hello=0.5, silence=5)
    return Hub(client_of(http, airbyte.url), client, **{"ticks": FAST, "grace": 5.0, **options})


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
        began = time.monotonic()
        looks = stage.count("GET /jobs")
        async with stage.hub(stage.feed(url)) as hub:
            (job,) = stage.start()
            waiters.wait(hub, job.id)
            await stage.until(lambda: stage.reads(job) == 1 or stage.count("GET /jobs") > looks)
            # A stream that can't be joined is not waited for, which would take 2 s.
            assert time.monotonic() - began < 2
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

    async def test_i4_a_blind_listener_is_seen_around(self, stage: Stage, waiters: Waiters) -> None:
        (job,) = stage.start()
        async with (
            stage.listener(secret="not the secret", webhooks=False) as url,
            stage.hub(stage.feed(url), grace=30, recheck=0.1) as hub,
        ):
            waiters.wait(hub, job.id)
            await stage.until(lambda: stage.reads(job) + stage.count("GET /jobs") >= 1 and hub.following)
            stage.end([job])
            assert (await waiters.result(job.id)).status == "succeeded"
            assert hub.following

    async def test_i4_a_blind_listener_of_an_airbyte_that_can_not_list(self, stage: Stage, waiters: Waiters) -> None:
        stage.fault("broken-list")
        (job,) = stage.start()
        async with (
            stage.listener(secret="not the secret", webhooks=False) as url,
            stage.hub(stage.feed(url), grace=30, recheck=0.1) as hub,
        ):
            waiters.wait(hub, job.id)
            await stage.until(lambda: stage.reads(job) >= 1 and hub.following)
            stage.end([job])
            assert (await waiters.result(job.id)).status == "succeeded"

    @pytest.mark.parametrize("with_listener", [True, False])
    async def test_an_unknown_job(self, stage: Stage, with_listener: bool) -> None:
        async with AsyncExitStack() as stack:
            feed = None
            if with_listener:
                feed = stage.feed(await stack.enter_async_context(stage.listener()))
            hub = await stack.enter_async_context(stage.hub(feed))
            with pytest.raises(UnknownJob, match="knows no job 404"):
                await hub.wait(404)
            assert hub.waiting == 0

    async def test_a_thousand_waiters_are_one_stream_and_few_calls(self, stage: Stage, waiters: Waiters) -> None:
        jobs = stage.start(1000)
        async with stage.listener() as url, stage.hub(stage.feed(url), grace=30) as hub:
            for job in jobs:
                waiters.wait(hub, job.id)
            await stage.until(lambda: hub.following and stage.count("GET /jobs") >= 11)
            assert stage.count("GET /jobs/{id}") == 0
            looks = stage.count("GET /jobs")
            stage.end(jobs)
            for job in jobs:
                assert (await waiters.result(job.id)).status == "succeeded"
            # A page holds a hundred: how many looks there are depends on how the webhooks fall.
            assert stage.count("GET /jobs") - looks < 200
            assert stage.count("GET /jobs/{id}") < 30
            assert hub.waiting == 0


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


class TestWithAFeedThatMisbehaves:
    async def test_i4_a_stream_that_breaks_again_and_again_is_replaced_by_polling(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        """Each of them begins well, with a hello."""
        airbyte.put(1)
        feed.hello = feed.frame("hello", {"epoch": "e1"}) + b"event: job\ndata: what no listener sends\n\n"
        feed.faults["/v1/watches"] = 503
        async with fed(http, airbyte, feed, grace=0.5) as hub:
            waiters.wait(hub, 1)
            await feed.until(lambda: feed.count("GET /v1/events") > 2)
            airbyte.put(1, "succeeded")
            assert (await waiters.result(1)).status == "succeeded"
            assert airbyte.lists > 0

    async def test_what_a_newer_listener_sends_is_read_as_far_as_it_can_be(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        for job_id in (1, 2, 3):
            airbyte.put(job_id)
        feed.states = {job_id: event_of(job_id, "running") for job_id in (1, 2, 3)}
        async with fed(http, airbyte, feed) as hub:
            for job_id in (1, 2, 3):
                waiters.wait(hub, job_id)
            await feed.until(lambda: bool(feed.watched))
            await anyio.wait_all_tasks_blocked()
            await feed.say(b"event: weather\ndata: sunny\nid: of another kind\n\n")
            newer = json.loads(feed.job(event_of(1)).decode().partition("data: ")[2].replace("\ndata: ", ""))
            newer["data"] |= {
                "origin": "kafka",
                "previous_status": "throttled",
                "error": {"message": None, "origin": "platform", "trace": []},
                "names": {"stream": "orders"},
                "streams": ["orders"] * 500,
            }
            await feed.say(feed.frame("job", newer, newer["id"]))
            event = await waiters.result(1)
            assert (event.status, event.origin) == ("succeeded", "unknown")
            # A state without which nothing can be known: the hub asks.
            asked = len(feed.watched)
            airbyte.put(2, "failed")
            newer["id"] = newer["id"].partition("-")[0] + "-77"
            newer["data"] |= {"job_id": 2, "observed_at": "+10000-01-01"}
            del feed.states[2]
            await feed.say(feed.frame("job", newer, newer["id"]))
            await feed.until(lambda: len(feed.watched) > asked)
            await feed.say(feed.job(event_of(3)))
            assert (await waiters.result(3)).status == "succeeded"
            assert feed.count("GET /v1/events") == 1

    async def test_a_wait_that_begins_with_the_stream_is_asked_for_once(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        feed.states = {job_id: event_of(job_id, "running") for job_id in range(1, 201)}
        async with fed(http, airbyte, feed) as hub:
            for job_id in feed.states:
                waiters.wait(hub, job_id)
            await feed.until(lambda: bool(feed.watched))
            await anyio.wait_all_tasks_blocked()
            for job_id in feed.states:
                await feed.say(feed.job(event_of(job_id)))
            for job_id in feed.states:
                assert (await waiters.result(job_id)).status == "succeeded"
            assert [len(call) for call in feed.watched] == [100, 100]
            assert feed.count("GET /v1/events") == 1
            assert airbyte.requests == []

    async def test_a_reset_has_the_states_read_again(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        feed.states = {1: event_of(1, "running")}
        async with fed(http, airbyte, feed) as hub:
            waiters.wait(hub, 1)
            await feed.until(lambda: len(feed.watched) == 1)
            feed.states = {1: event_of(1, "failed")}
            await feed.say(feed.frame("reset", {"reason": "the cursor is too old"}))
            assert (await waiters.result(1)).status == "failed"

    async def test_i5_a_stream_is_resumed_and_the_states_are_read_again(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        feed.states = {1: event_of(1, "running")}
        async with fed(http, airbyte, feed) as hub:
            waiters.wait(hub, 1)
            await feed.until(lambda: len(feed.watched) == 1)
            await feed.say(feed.job(event_of(7)))
            await feed.say(feed.frame("goaway", {"reason": "drain"}, id=None))
            feed.states = {1: event_of(1, "cancelled")}
            assert (await waiters.result(1)).status == "cancelled"
            assert "last-event-id" not in feed.requests[0].headers
            again = [each for each in feed.requests if each.path == "/v1/events"][1]
            assert again.headers["last-event-id"] == "e1-1"
            assert again.query == {"instance": ["default"]}

    async def test_a_cursor_that_is_refused_is_not_insisted_on(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed
    ) -> None:
        async with fed(http, airbyte, feed):
            await feed.until(lambda: bool(feed.streams))
            feed.faults["/v1/events"] = 400
            await feed.say(feed.frame("goaway", {"reason": "age"}))
            await feed.until(lambda: feed.count("GET /v1/events") == 2)
            feed.faults.clear()
            await feed.until(lambda: feed.count("GET /v1/events") == 3)
            assert ["last-event-id" in each.headers for each in feed.requests] == [False, True, False]

    async def test_one_that_leaves_while_the_listener_is_asked_leaves_nothing_behind(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        airbyte.put(1)
        airbyte.put(2)
        feed.held = anyio.Event()
        async with fed(http, airbyte, feed) as hub:
            await feed.until(lambda: bool(feed.streams))
            leaving = waiters.wait(hub, 1)
            waiters.wait(hub, 2)
            with anyio.fail_after(30):
                while not feed.watched:
                    await anyio.lowlevel.checkpoint()
            leaving.cancel()
            await anyio.wait_all_tasks_blocked()
            feed.held.set()
            # Both were asked for before one left.
            await airbyte.until(lambda: airbyte.reads_of(2) > 0 and len(alive(Watch)) == 1)
            assert hub.waiting == 1

    async def test_a_connections_id_is_the_same_in_capitals(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        airbyte.put(1, "succeeded")
        feed.states = {1: event_of(1, "succeeded", CONNECTION.upper())}
        async with fed(http, airbyte, feed) as hub:
            await feed.until(lambda: bool(feed.streams))
            assert (await hub.wait(1, connection_id=CONNECTION)).status == "succeeded"
            assert hub.following

    @pytest.mark.parametrize("known", [True, False])
    async def test_i3_a_foreign_end_that_came_before_the_wait_is_not_believed(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters, known: bool
    ) -> None:
        airbyte.put(1)
        feed.states = {1: event_of(1, "succeeded", "another-connection")}
        async with fed(http, airbyte, feed) as hub:
            waiters.wait(hub, 1, connection_id=CONNECTION if known else None)
            await airbyte.until(lambda: airbyte.reads >= 1)
            await anyio.wait_all_tasks_blocked()
            assert not waiters.results
            airbyte.put(1, "failed")
            feed.states = {}
            await feed.say(feed.job(event_of(1, "failed")))
            event = await waiters.result(1)
            assert (event.status, event.connection_id) == ("failed", CONNECTION)

    async def test_i3_the_listener_of_another_airbyte_is_left_and_come_back_to(
        self,
        http: httpx.AsyncClient,
        airbyte: Airbyte,
        feed: ScriptedFeed,
        waiters: Waiters,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        airbyte.put(1)
        feed.states = {1: event_of(1, "succeeded", "another-connection")}
        async with fed(http, airbyte, feed, away=0.3) as hub:
            waiters.wait(hub, 1, connection_id=CONNECTION)
            await airbyte.until(lambda: airbyte.lists > 1)
            assert not hub.following
            assert "another-connection" in caplog.text
            # It has been put right.
            feed.states = {1: event_of(1, "failed")}
            event = await waiters.result(1)
            assert (event.status, event.origin) == ("failed", "webhook")
            assert hub.following

    async def test_i3_a_copy_of_airbyte_has_the_same_connection_and_number_and_another_start(
        self,
        http: httpx.AsyncClient,
        airbyte: Airbyte,
        feed: ScriptedFeed,
        waiters: Waiters,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        airbyte.put(1, ago=5)
        started_at = parse_time(airbyte.jobs[1]["startTime"])
        assert started_at is not None
        feed.states = {1: replace(event_of(1, "succeeded"), started_at=started_at + timedelta(seconds=60))}
        async with fed(http, airbyte, feed) as hub:
            waiters.wait(hub, 1, connection_id=CONNECTION, started_at=started_at)
            await airbyte.until(lambda: airbyte.lists > 1)
            assert not waiters.results
            assert not hub.following
            airbyte.put(1, "failed")
            assert (await waiters.result(1)).status == "failed"
        assert "serves another Airbyte" in caplog.text

    @pytest.mark.parametrize("status", [202, 404, 503])
    async def test_the_listener_is_told_who_received_a_completion_and_may_refuse(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, status: int
    ) -> None:
        """A listener of an earlier version has no such route."""
        if status != 202:
            feed.faults["/v1/receipts"] = status
        feed.states[7] = event_of(7, "running")
        page = "https://airflow.example.com/dags/orders/runs/1/tasks/sync"
        async with fed(http, airbyte, feed) as hub:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(hub.wait, 7, task_url=page))
                await feed.until(lambda: bool(feed.watched and feed.streams))
                await feed.say(feed.job(event_of(7)))
            assert hub.following
        # The end of the hub does not wait for the next batch.
        (receipt,) = feed.receipts
        assert (receipt["instance"], receipt["job_id"], receipt["task_url"]) == ("default", 7, page)
        assert receipt["waited_seconds"] >= 0
        assert receipt["seconds_ago"] >= 0

    async def test_i3_a_job_of_another_connection_is_not_the_one_that_is_waited_for(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed
    ) -> None:
        airbyte.put(1, "succeeded")
        async with lonely(http, airbyte) as hub:
            with pytest.raises(UnknownJob, match="of connection mistaken"):
                await hub.wait(1, connection_id="mistaken")
        feed.states = {1: event_of(1)}
        async with fed(http, airbyte, feed) as hub:
            await feed.until(lambda: bool(feed.streams))
            with pytest.raises(UnknownJob, match="of connection mistaken"):
                await hub.wait(1, connection_id="mistaken")
            assert hub.following

    @pytest.mark.parametrize("count", [1, 5])
    async def test_i4_jobs_that_the_listener_does_not_know_are_polled_and_the_others_are_pushed(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters, count: int
    ) -> None:
        unknown = range(1, count + 1)
        for job_id in [*unknown, 9]:
            airbyte.put(job_id)
        feed.unknown = {*unknown}
        async with fed(http, airbyte, feed) as hub:
            await feed.until(lambda: bool(feed.streams))
            for job_id in [*unknown, 9]:
                waiters.wait(hub, job_id, connection_id=CONNECTION)
            await airbyte.until(lambda: airbyte.lists + airbyte.reads > count + 3)
            for job_id in unknown:
                airbyte.put(job_id, "succeeded")
            for job_id in unknown:
                event = await waiters.result(job_id)
                assert (event.status, event.origin) == ("succeeded", "poll" if count > 3 else event.origin)
            assert hub.following
            await feed.say(feed.job(event_of(9, "failed")))
            assert (await waiters.result(9)).origin == "webhook"
            assert airbyte.reads_of(9) <= 1

    @pytest.mark.parametrize("status", [400, 404, 500])
    async def test_i4_a_listener_that_takes_no_watches(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters, status: int
    ) -> None:
        airbyte.put(1)
        feed.faults["/v1/watches"] = status
        async with fed(http, airbyte, feed) as hub:
            waiters.wait(hub, 1)
            await airbyte.until(lambda: airbyte.reads == 1)
            airbyte.put(1, "succeeded")
            assert (await waiters.result(1)).status == "succeeded"
            assert hub.following is (status == 500)

    async def test_i4_a_listener_that_does_not_answer_watches_while_its_feed_is_up(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        """As one that waits for an Airbyte that only the triggerer reaches."""
        feed.held = anyio.Event()
        for job_id in (1, 2):
            airbyte.put(job_id)

        async def keep_up() -> None:
            while True:
                await feed.say(feed.frame("bookmark"))
                await anyio.sleep(0.5)

        def watched(job_id: int) -> bool:
            return job_id in feed.watched[-1] if feed.watched else False

        async with fed(http, airbyte, feed) as hub, anyio.create_task_group() as tasks:
            tasks.start_soon(keep_up)
            for job_id in (1, 2):
                waiters.wait(hub, job_id)
                await feed.until(partial(watched, job_id))
                airbyte.put(job_id, "succeeded")
                assert (await waiters.result(job_id)).status == "succeeded"
            assert hub.following
            feed.held.set()
            tasks.cancel_scope.cancel()

    @pytest.mark.parametrize("count", [1, 60])
    async def test_i4_an_end_before_the_stream_is_found_while_watches_are_refused(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters, count: int
    ) -> None:
        """Their states are known since the feed was down, and an overloaded listener does not say better."""
        job_ids = range(1, count + 1)
        for job_id in [*job_ids, 99]:
            airbyte.put(job_id)
        feed.faults = {"/v1/events": 503, "/v1/watches": 503}
        async with fed(http, airbyte, feed, grace=60) as hub:
            for job_id in [*job_ids, 99]:
                waiters.wait(hub, job_id, connection_id=CONNECTION)
            await airbyte.until(lambda: airbyte.lists + airbyte.reads > 0)
            await anyio.wait_all_tasks_blocked()
            for job_id in job_ids:
                airbyte.put(job_id, "succeeded")
            del feed.faults["/v1/events"]
            for job_id in job_ids:
                assert (await waiters.result(job_id)).status == "succeeded"
            assert hub.following
            # Once it takes the watch of the job that still runs, its reports count again, and Airbyte is not polled.
            asked = len(feed.watched)
            feed.faults.clear()
            await feed.until(lambda: [99] in feed.watched[asked:])
            with anyio.fail_after(30):
                while 99 not in waiters.results:
                    await feed.say(feed.job(event_of(99, "failed")))
                    await anyio.sleep(0.05)
            assert (await waiters.result(99)).origin == "webhook"

    async def test_i4_a_stream_that_comes_and_goes_at_once(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        airbyte.put(1)
        feed.hello = b"garbage: no frame\n\n" + feed.frame("hello") + b"event: job\ndata: {broken\n\n"
        async with fed(http, airbyte, feed, grace=0.1) as hub:
            waiters.wait(hub, 1)
            await feed.until(lambda: feed.count("GET /v1/events") > 2)
            airbyte.put(1, "succeeded")
            feed.states = {1: event_of(1)}
            assert (await waiters.result(1)).status == "succeeded"

    async def test_i4_a_stream_that_is_held_back_is_no_stream(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        airbyte.put(1)
        feed.hello = None
        async with fed(http, airbyte, feed, grace=0.1) as hub:
            waiters.wait(hub, 1)
            await airbyte.until(lambda: airbyte.lists > 1)
            airbyte.put(1, "succeeded")
            assert (await waiters.result(1)).status == "succeeded"
            assert not hub.following

    async def test_i6_events_that_nobody_waits_for_are_not_kept(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        feed.states = {1: event_of(1, "running")}
        async with fed(http, airbyte, feed) as hub:
            waiters.wait(hub, 1)
            await feed.until(lambda: len(feed.watched) == 1)
            for job_id in range(10_001, 10_300):
                await feed.say(feed.job(event_of(job_id, "running")))
            await feed.say(feed.job(event_of(1)))
            assert (await waiters.result(1)).status == "succeeded"
            await feed.say(feed.frame("bookmark"))
            await feed.until(lambda: max(event.ref.job_id for event in alive(JobEvent)) < 10_000)

    async def test_a_missed_end_before_the_first_recheck_is_found_by_it(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        """The listener said *running* and never anything again, though it is alive."""
        airbyte.put(1)
        feed.states = {1: event_of(1, "running")}
        async with fed(http, airbyte, feed, recheck=0.1) as hub:
            waiters.wait(hub, 1)
            await feed.until(lambda: len(feed.watched) == 1)
            airbyte.put(1, "succeeded")
            event = await waiters.result(1)
            assert (event.status, event.origin.value) == ("succeeded", "poll")
            assert hub.following


async def told(ends: Completions, count: int = 1) -> list[int]:
    """The next jobs."""
    with anyio.fail_after(30):
        return [(await anext(ends)).ref.job_id for _ in range(count)]


def lately() -> Position:
    """From ten minutes ago on."""
    moment = utcnow() - timedelta(minutes=10)
    return Position(since=moment, floor=moment)


class TestFollowingConnections:
    """Any job of them, whoever started it."""

    async def test_i4_what_has_ended_since_and_what_ends_then(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        airbyte.put(1, "succeeded", ago=3600)
        airbyte.put(2, "succeeded", ago=60)
        airbyte.put(3, "failed", connection_id="another", ago=60)
        async with lonely(http, airbyte) as hub:
            with hub.follow(EventFilter(connection_ids=frozenset([CONNECTION.upper()])), lately()) as ends:
                assert await told(ends) == [2]
                airbyte.put(4)
                airbyte.put(5, "succeeded", connection_id="another")
                looks = airbyte.lists
                await airbyte.until(lambda: airbyte.lists > looks + 1)
                airbyte.put(4, "cancelled")
                airbyte.put(6, "succeeded")
                assert sorted(await told(ends, 2)) == [4, 6]
            assert hub.followers == 0

    async def test_from_now_on_is_by_airbytes_clock(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        airbyte.ahead = timedelta(hours=2)
        airbyte.put(1, "succeeded", ago=10)
        async with lonely(http, airbyte) as hub:
            with hub.follow(EventFilter(), Position()) as ends:
                await airbyte.until(lambda: airbyte.lists > 2)
                airbyte.put(2, "succeeded")
                assert await told(ends) == [2]
                assert ends.position.floor is not None
                assert abs(ends.position.floor - airbyte.now()) < timedelta(seconds=5)

    async def test_a_place_is_gone_on_from(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        for job_id in range(1, 4):
            airbyte.put(job_id, "succeeded", ago=60)
        async with lonely(http, airbyte) as hub:
            with hub.follow(EventFilter(), lately()) as ends:
                assert await told(ends, 3) == [1, 2, 3]
                looks = airbyte.lists
                await airbyte.until(lambda: airbyte.lists > looks + 2)
                kept = ends.position.data()
            airbyte.put(4, "succeeded")
            with hub.follow(EventFilter(), Position.from_data(kept)) as ends:
                assert await told(ends) == [4]

    async def test_i4_airbyte_that_fails_to_list_is_asked_again(
        self, http: httpx.AsyncClient, airbyte: Airbyte
    ) -> None:
        airbyte.put(1, "succeeded")
        airbyte.faults["list"] = 500
        async with lonely(http, airbyte) as hub:
            with hub.follow(EventFilter(connection_ids=frozenset([CONNECTION])), lately()) as ends:
                await airbyte.until(lambda: airbyte.lists > 1)
                airbyte.faults.clear()
                assert await told(ends) == [1]

    async def test_i5_from_now_on_is_from_when_it_was_said(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        airbyte.put(1, "succeeded", ago=300)

        async def nothing_more(_: Any) -> None:
            pass

        store = MemoryStore()
        bus = EventBus(store)
        subscribers = Subscribers(bus)
        catch_up = CatchUp(Monitor("default", client_of(http, airbyte.url), store), subscribers, nothing_more)
        async with bus:
            with subscribers.joined(EventFilter(), Position()) as ends:
                # As if Airbyte had not responded for ten minutes.
                ends.joined_at -= 600
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(catch_up.run)
                    assert await told(ends) == [1]
                    tasks.cancel_scope.cancel()

    async def test_i6_who_falls_behind_is_told_all_the_same(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        async with lonely(http, airbyte) as hub:
            with hub.follow(EventFilter(), lately()) as ends:
                await airbyte.until(lambda: hub.followers == 1)
                for job_id in range(1, 1201):
                    airbyte.put(job_id, "succeeded")
                looks = airbyte.lists
                await airbyte.until(lambda: airbyte.lists > looks + 13)
                assert sorted(await told(ends, 1200)) == list(range(1, 1201))

    async def test_a_look_that_is_cut_short_loses_nothing(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        async with lonely(http, airbyte, max_listed=100) as hub:
            with hub.follow(EventFilter(), lately()) as ends:
                await airbyte.until(lambda: hub.followers == 1)
                for job_id in range(1, 301):
                    airbyte.put(job_id, "succeeded")
                assert sorted(await told(ends, 300)) == list(range(1, 301))

    async def test_many_who_come_together_share_a_look(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        for job_id in range(1, 51):
            airbyte.put(job_id, "succeeded", connection_id=f"c{job_id}")
        async with lonely(http, airbyte, ticks=Ticks()) as hub, AsyncExitStack() as stack:
            await airbyte.until(lambda: airbyte.lists == 1)
            all_ends = [
                stack.enter_context(hub.follow(EventFilter(connection_ids=frozenset([f"c{job_id}"])), lately()))
                for job_id in range(1, 51)
            ]
            assert [await told(ends) for ends in all_ends] == [[job_id] for job_id in range(1, 51)]
            # One for all, and the poller's, which is no longer idle.
            assert airbyte.lists <= 3

    async def test_a_hub_that_ends_delivers_what_it_holds(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        airbyte.put(1, "succeeded")
        async with lonely(http, airbyte) as hub:
            follow = hub.follow(EventFilter(), lately())
            ends = follow.__enter__()
            await airbyte.until(lambda: hub.followers == 1)
        assert [event.ref.job_id async for event in ends] == [1]
        follow.__exit__(None, None, None)

    async def test_a_push_is_told_and_nobody_looks(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed
    ) -> None:
        for job_id in (9, 10):
            airbyte.put(job_id, "succeeded", ago=3600)
        async with fed(http, airbyte, feed) as hub:
            with hub.follow(EventFilter(connection_ids=frozenset([CONNECTION])), lately()) as ends:
                await airbyte.until(lambda: hub.followers == 1 and airbyte.lists == 2)
                await anyio.wait_all_tasks_blocked()
                await feed.say(feed.job(event_of(8, connection_id="another")))
                await feed.say(feed.job(event_of(9)))
                await feed.say(feed.job(event_of(10)))
                assert await told(ends, 2) == [9, 10]
                # Once for the connection: the listener could be that of a copy of this Airbyte.
                assert (airbyte.lists, airbyte.reads) == (2, 1)

    @pytest.mark.parametrize("frame", ["reset", "goaway"])
    async def test_i5_what_the_feed_leaves_out_is_looked_up(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, frame: str
    ) -> None:
        async with fed(http, airbyte, feed) as hub:
            with hub.follow(EventFilter(), lately()) as ends:
                await airbyte.until(lambda: hub.followers == 1 and airbyte.lists == 2)
                airbyte.put(1, "succeeded")
                feed.states = {1: event_of(1)}
                await feed.say(feed.frame(frame, {"reason": "for some reason"}))
                assert await told(ends) == [1]

    async def test_ends_of_connections_that_nobody_named_are_checked_once_for_each(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed
    ) -> None:
        for job_id in range(1, 5):
            airbyte.put(job_id, "succeeded", ago=3600)
        async with fed(http, airbyte, feed) as hub:
            with hub.follow(EventFilter(), lately()) as ends:
                await airbyte.until(lambda: hub.followers == 1)
                for job_id in range(1, 5):
                    await feed.say(feed.job(event_of(job_id)))
                assert await told(ends, 4) == [1, 2, 3, 4]
                assert airbyte.reads == 1
                assert hub.following

    @pytest.mark.parametrize("there", [True, False])
    async def test_i3_ends_of_another_airbyte_are_not_told(
        self,
        http: httpx.AsyncClient,
        airbyte: Airbyte,
        feed: ScriptedFeed,
        there: bool,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        if there:
            airbyte.put(1, connection_id="ours")
        feed.states = {1: event_of(1)}
        async with fed(http, airbyte, feed) as hub:
            with hub.follow(EventFilter(), lately()) as ends:
                await airbyte.until(lambda: hub.followers == 1)
                for job_id in [1] if there else [1, 2, 3]:
                    await feed.say(feed.job(event_of(job_id)))
                await airbyte.until(lambda: airbyte.reads >= 1 and airbyte.lists > 3)
                airbyte.put(7, "succeeded")
                assert await told(ends) == [7]
                assert not hub.following
        assert "polling instead" in caplog.text

    async def test_i3_ends_of_a_copy_of_our_airbyte_are_not_told(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, caplog: pytest.LogCaptureFixture
    ) -> None:
        airbyte.put(1, ago=600)
        copied = replace(event_of(1), started_at=utcnow() - timedelta(seconds=60))
        feed.states = {1: copied}
        async with fed(http, airbyte, feed) as hub:
            with hub.follow(EventFilter(connection_ids=frozenset([CONNECTION])), lately()) as ends:
                await airbyte.until(lambda: hub.followers == 1)
                await feed.say(feed.job(copied))
                await airbyte.until(lambda: airbyte.reads >= 1 and airbyte.lists > 3)
                assert not hub.following
                airbyte.put(7, "succeeded")
                assert await told(ends) == [7]

    async def test_i4_a_job_that_only_the_listener_may_see_is_no_verdict_about_it(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed
    ) -> None:
        airbyte.put(1, "succeeded", ago=3600)
        async with fed(http, airbyte, feed) as hub:
            with hub.follow(EventFilter(), lately()) as ends:
                await airbyte.until(lambda: hub.followers == 1)
                await feed.say(feed.job(event_of(5, connection_id="hidden")))
                await airbyte.until(lambda: airbyte.reads == 2)
                await feed.say(feed.job(event_of(1)))
                assert await told(ends) == [1]
                assert hub.following


class TestReusedNumbers:
    """Airbyte's database was restored or made anew while a hub is there."""

    async def test_i3_the_new_job_is_not_told_the_end_of_the_one_before(
        self, http: httpx.AsyncClient, airbyte: Airbyte, waiters: Waiters
    ) -> None:
        airbyte.put(1, "succeeded", ago=60)
        async with lonely(http, airbyte) as hub:
            assert (await hub.wait(1)).status == "succeeded"
            del airbyte.jobs[1]
            airbyte.put(1)
            # By its number alone, and by what Airbyte answered to its creation.
            waiters.wait(hub, 1, 1)
            waiters.wait(hub, 1, 2, connection_id=CONNECTION, started_at=parse_time(airbyte.jobs[1]["startTime"]))
            await airbyte.until(lambda: airbyte.reads >= 2)
            await anyio.wait_all_tasks_blocked()
            assert not waiters.results
            airbyte.put(1, "failed")
            assert {(await waiters.result(key)).status for key in (1, 2)} == {"failed"}

    async def test_i3_with_a_listener_that_does_not_know_it_yet(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        old = replace(event_of(1, "succeeded"), started_at=utcnow() - timedelta(hours=1))
        airbyte.put(1)
        started_at = parse_time(airbyte.jobs[1]["startTime"])
        assert started_at is not None
        feed.states = {1: old}
        async with fed(http, airbyte, feed) as hub:
            await feed.until(lambda: bool(feed.streams))
            waiters.wait(hub, 1, connection_id=CONNECTION, started_at=started_at)
            await airbyte.until(lambda: airbyte.reads >= 1)
            feed.states = {1: replace(event_of(1, "running"), started_at=started_at)}
            # What is told late of the old one, too.
            await feed.say(feed.job(old))
            await anyio.wait_all_tasks_blocked()
            assert not waiters.results
            airbyte.put(1, "failed")
            await feed.say(feed.job(replace(event_of(1, "failed"), started_at=started_at)))
            assert (await waiters.result(1)).status == "failed"

    async def test_i4_who_waits_for_the_job_before_learns_that_it_is_gone(
        self, http: httpx.AsyncClient, airbyte: Airbyte, waiters: Waiters
    ) -> None:
        airbyte.put(1, ago=60)
        async with lonely(http, airbyte) as hub:
            waiters.wait(hub, 1, connection_id=CONNECTION)
            await airbyte.until(lambda: airbyte.reads == 1)
            del airbyte.jobs[1]
            airbyte.put(1, "succeeded")
            gone = await waiters.result(1)
            assert isinstance(gone, UnknownJob)
            assert "its database was restored" in str(gone)

    async def test_followers_are_told_of_the_new_job(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        async with lonely(http, airbyte) as hub:
            with hub.follow(EventFilter(), lately()) as ends:
                airbyte.put(1, "succeeded", ago=30)
                assert await told(ends) == [1]
                del airbyte.jobs[1]
                airbyte.put(1, "succeeded")
                assert await told(ends) == [1]


class TestProgress:
    @pytest.mark.parametrize("fault", [None, 500])
    async def test_only_without_the_listener_is_airbyte_asked(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, fault: int | None
    ) -> None:
        airbyte.put(1, rowsSynced=7)
        feed.progress = [Progress(job_id=1, status=JobStatus.RUNNING, observed_at=utcnow(), records=5)]
        feed.faults = {} if fault is None else {"/v1/progress": fault}
        for _ in range(3):
            # Each as a worker of its own.
            async with fed(http, airbyte, feed) as hub:
                with anyio.fail_after(30):
                    while not hub.following:
                        await anyio.lowlevel.checkpoint()
                found = [await hub.progress(1) for _ in range(10)]
            assert {each.records for each in found if each is not None} == {5 if fault is None else 7}
        assert airbyte.reads_of(1) == (0 if fault is None else 3)

    @pytest.mark.parametrize("told", [[], [Progress(job_id=2, status=JobStatus.RUNNING, observed_at=utcnow())]])
    async def test_what_the_listener_does_not_know_airbyte_is_not_asked_for(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, told: list[Progress]
    ) -> None:
        airbyte.put(1, rowsSynced=7)
        feed.progress = told
        async with fed(http, airbyte, feed) as hub:
            with anyio.fail_after(30):
                while not hub.following:
                    await anyio.lowlevel.checkpoint()
            assert await hub.progress(1, streams=True) is None
        assert airbyte.reads_of(1) == 0


class TestReasons:
    """Of failures that were found before the webhook came."""

    def failure(self, **values: Any) -> Any:
        values = {"origin": Origin.POLL, "started_at": STARTED, "observed_at": utcnow(), **values}
        return replace(event_of(1, "failed"), **values)

    async def test_a_reason_that_comes_a_moment_later_is_in_the_result(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        feed.states = {1: self.failure()}
        async with fed(http, airbyte, feed) as hub:
            for key in range(3):
                waiters.wait(hub, 1, key, started_at=STARTED)
            await feed.until(lambda: len(feed.watched) == 2)
            assert not waiters.results
            feed.states = {1: self.failure(error=JobError(message="no such table"))}
            for key in range(3):
                assert (await waiters.result(key)).error.message == "no such table"

    async def test_a_reason_that_does_not_come_is_done_without(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed
    ) -> None:
        feed.states = {1: self.failure()}
        async with fed(http, airbyte, feed) as hub:
            began = anyio.current_time()
            assert (await hub.wait(1, started_at=STARTED)).error is None
            assert anyio.current_time() - began > 1.5
            assert len(feed.watched) < 15

    async def test_another_airbytes_reason_is_none(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed
    ) -> None:
        airbyte.put(1, "failed")
        other = self.failure(connection_id="another", started_at=None, error=JobError(message="another's"))
        async with fed(http, airbyte, feed) as hub:
            await feed.until(lambda: bool(feed.streams))
            feed.faults["/v1/watches"] = 500
            found = await hub.wait(1)
            assert (found.status, found.error) == ("failed", None)
            feed.faults.clear()
            feed.states = {1: other}
            assert (await hub.explain(found)).error is None

    async def test_one_that_the_listener_reports_costs_no_request(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed
    ) -> None:
        airbyte.put(1)
        started_at = parse_time(airbyte.jobs[1]["startTime"])
        feed.states = {1: replace(event_of(1, "running"), started_at=started_at)}
        async with fed(http, airbyte, feed) as hub:
            await feed.until(lambda: bool(feed.streams))
            airbyte.put(1, "failed")
            feed.states = {1: self.failure(started_at=started_at, error=JobError(message="no such table"))}
            await hub.poll()
            found = await hub.wait(1)
        assert (found.origin, str(found.error)) == (Origin.POLL, "no such table")
        assert airbyte.asked_internally == 0

    async def test_one_that_a_blind_listener_does_not_know_is_requested_once(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, waiters: Waiters
    ) -> None:
        airbyte.put(1)
        feed.states = {1: replace(event_of(1, "running"), started_at=parse_time(airbyte.jobs[1]["startTime"]))}
        async with fed(http, airbyte, feed) as hub:
            await feed.until(lambda: bool(feed.streams))
            airbyte.put(1, "failed")
            airbyte.internal[1] = json.dumps(
                {
                    "job": {"id": 1, "status": "failed", "configId": CONNECTION},
                    "attempts": [{"attempt": {"failureSummary": {"failures": [{"externalMessage": "no space"}]}}}],
                }
            ).encode()
            await hub.poll()
            for key in range(3):
                waiters.wait(hub, 1, key)
            for key in range(3):
                assert str((await waiters.result(key)).error) == "no space"
        assert airbyte.asked_internally == 1

    @pytest.mark.parametrize("known", [{"origin": Origin.WEBHOOK}, {"attempts": 2}], ids=["webhook", "internal API"])
    async def test_who_has_none_is_not_waited_for(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, known: dict[str, Any]
    ) -> None:
        feed.states = {1: self.failure(**known)}
        async with fed(http, airbyte, feed) as hub:
            assert (await hub.wait(1, started_at=STARTED)).error is None
            assert len(feed.watched) == 1
        assert airbyte.asked_internally == 0

    async def test_without_a_listener_nobody_is_asked(self, http: httpx.AsyncClient, airbyte: Airbyte) -> None:
        airbyte.put(1, "failed")
        async with lonely(http, airbyte) as hub:
            began = anyio.current_time()
            assert (await hub.wait(1)).status == "failed"
            assert anyio.current_time() - began < 2
