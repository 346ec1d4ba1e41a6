"""The reasons of failures."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events._utils.times import parse_time, utcnow
from airbyte_events.events import JobError, Origin
from support.airbyte import Airbyte
from support.events import CONNECTION, event_of
from support.feed import ScriptedFeed
from support.hubs import fed
from support.waiters import Waiters

pytestmark = pytest.mark.anyio

STARTED = utcnow()


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
