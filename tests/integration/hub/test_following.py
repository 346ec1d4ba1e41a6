"""Followers of connections."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.bus.bus import EventBus
from airbyte_events.events import EventFilter
from airbyte_events.hub.catch_up import CatchUp
from airbyte_events.hub.completions import Subscribers
from airbyte_events.hub.position import Position
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.monitor.poller import Ticks
from airbyte_events.store.memory.store import MemoryStore
from support.airbyte import Airbyte, client_of
from support.events import CONNECTION, event_of
from support.feed import ScriptedFeed
from support.hubs import fed, lately, lonely, next_end, told
from support.waiting import in_background

pytestmark = pytest.mark.anyio


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
                async with in_background(catch_up.run):
                    assert await told(ends) == [1]

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
        assert await told(ends) == [1]
        with pytest.raises(anyio.EndOfStream):
            await next_end(ends)
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
