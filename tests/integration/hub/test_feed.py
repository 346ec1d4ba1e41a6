"""The hub with a feed that misbehaves."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from functools import partial

import anyio
import httpx
import pytest

from airbyte_events._utils.times import parse_time
from airbyte_events.errors import UnknownJob
from airbyte_events.events import JobEvent
from airbyte_events.hub.hub import Hub
from airbyte_events.monitor.watchlist import Watch
from support.airbyte import Airbyte
from support.events import CONNECTION, event_of
from support.feed import ScriptedFeed
from support.hubs import fed, lonely
from support.memory import alive
from support.waiters import Waiters
from support.waiting import in_background, until

pytestmark = pytest.mark.anyio


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
            await until(lambda: feed.watched)
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

    async def test_who_is_cancelled_while_the_last_receipts_are_sent_leaves_nothing_behind(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed
    ) -> None:
        feed.states[7] = event_of(7, "running")

        async def wait() -> None:
            async with fed(http, airbyte, feed) as hub:
                await hub.wait(7)
                feed.held = anyio.Event()

        async with in_background(wait):
            await feed.until(lambda: bool(feed.watched and feed.streams))
            await feed.say(feed.job(event_of(7)))
            await feed.until(lambda: bool(feed.receipts))
        assert alive(Hub) == []

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
                # Time passes, in which a feed that says nothing is down.
                await anyio.sleep(0.5)

        def watched(job_id: int) -> bool:
            return job_id in feed.watched[-1] if feed.watched else False

        async with fed(http, airbyte, feed) as hub, in_background(keep_up):
            for job_id in (1, 2):
                waiters.wait(hub, job_id)
                await feed.until(partial(watched, job_id))
                airbyte.put(job_id, "succeeded")
                assert (await waiters.result(job_id)).status == "succeeded"
            assert hub.following
            feed.held.set()

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
            # Perhaps together with the others: a request may have been on its way when they completed.
            await feed.until(lambda: any(99 in job_ids for job_ids in feed.watched[asked:]))

            async def reported() -> bool:
                await feed.say(feed.job(event_of(99, "failed")))
                return 99 in waiters.results

            await until(reported)
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
