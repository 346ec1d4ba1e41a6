"""Job ids that Airbyte gives again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import anyio
import httpx
import pytest

from airbyte_events._utils.times import parse_time, utcnow
from airbyte_events.errors import UnknownJob
from airbyte_events.events import EventFilter
from support.airbyte import Airbyte
from support.events import CONNECTION, event_of
from support.feed import ScriptedFeed
from support.hubs import fed, lately, lonely, told
from support.waiters import Waiters

pytestmark = pytest.mark.anyio


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
