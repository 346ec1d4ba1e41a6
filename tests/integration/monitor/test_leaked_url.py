"""What somebody who knows the webhook URL can have Airbyte asked: counted in HTTP requests that reach it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events._utils.token_bucket import TokenBucket
from airbyte_events.airbyte import Credentials
from airbyte_events.events import JobRef
from airbyte_events.listener.inbox import Inbox
from airbyte_events.monitor.monitor import (
    ASKED_AT_ONCE,
    ASKED_PER_SECOND,
    NAMELESS_PAGES,
    PUSHED_BURST,
    Monitor,
)
from airbyte_events.monitor.recorder import REQUESTS_OF_ONE
from airbyte_events.store.records import Outcome
from support.airbyte import client_of
from support.events import webhook_body
from support.monitor import Watched
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio

CHANGED = 3_000
"""Jobs that have changed just now: thirty pages."""


@pytest.fixture
def busy(watched: Watched) -> Any:
    """An Airbyte where thousands of jobs have just changed."""
    for job_id in range(1, CHANGED + 1):
        watched.airbyte.put(job_id, "succeeded")
    return watched


def long_ago(index: int) -> str:
    return "2024-01-01T01:00:00Z"


def now(index: int) -> str:
    return utcnow().isoformat()


async def forge(watched: Watched, job_ids: Iterable[int], finished_at: Callable[[int], str]) -> list[Any]:
    return [await watched.receive(webhook_body(job_id, finishedAt=finished_at(job_id))) for job_id in job_ids]


class TestOfJobsThatAreNotThere:
    @pytest.mark.parametrize("finished_at", [long_ago, now])
    async def test_a_forged_webhook_costs_little_more_than_a_request(
        self, busy: Any, finished_at: Callable[[int], str]
    ) -> None:
        """However many jobs have changed, and whatever it says when the job has ended."""
        inbox = Inbox(busy.monitor, busy.store)
        forged = 0
        for first in range(1_000_000, 1_000_064, PUSHED_BURST):
            await forge(busy, range(first, first + PUSHED_BURST), finished_at)
            forged += PUSHED_BURST
            await inbox.confirm_pending()
        assert forged < len(busy.airbyte.requests) <= forged * REQUESTS_OF_ONE

    async def test_a_flood_is_so_many_requests_at_once_and_few_for_each(self, busy: Any) -> None:
        stored = await forge(busy, range(1_000_000, 1_001_900), long_ago)
        began = anyio.current_time()
        await Inbox(busy.monitor, busy.store).confirm_pending()
        assert len(busy.airbyte.requests) <= ASKED_AT_ONCE + ASKED_PER_SECOND * (anyio.current_time() - began)
        assert {await busy.outcome(each) for each in stored} == {Outcome.UNKNOWN_JOB}

    async def test_one_that_names_no_job_costs_few_pages(self, busy: Any) -> None:
        await busy.receive(webhook_body(None))
        await Inbox(busy.monitor, busy.store).confirm_pending()
        assert (busy.airbyte.lists, busy.airbyte.reads) == (NAMELESS_PAGES, 0)

    async def test_in_the_long_run_it_is_so_many_requests_a_second(self, busy: Any) -> None:
        """Pages count, too."""
        await busy.monitor.poll()
        before = len(busy.airbyte.requests)
        inbox = Inbox(busy.monitor, busy.store)
        began = anyio.current_time()
        for number in range(12):
            # Without the job's id each is a list of its own.
            await busy.receive(webhook_body(None, finishedAt=f"2024-01-01T01:00:{number:02}Z"))
            await inbox.confirm_pending()
        passed = anyio.current_time() - began
        assert len(busy.airbyte.requests) - before <= ASKED_AT_ONCE + ASKED_PER_SECOND * passed + 1


class TestOfRealJobs:
    async def test_those_that_have_just_ended_are_confirmed_though_thousands_have_changed(self, busy: Any) -> None:
        await busy.monitor.poll()
        before = len(busy.airbyte.requests)
        ended = range(CHANGED + 1, CHANGED + 21)
        for job_id in ended:
            busy.airbyte.put(job_id, "succeeded")
        stored = await forge(busy, ended, now)
        await Inbox(busy.monitor, busy.store).confirm_pending()
        assert {await busy.outcome(each) for each in stored} == {Outcome.CONFIRMED}
        assert len(busy.airbyte.requests) - before <= len(ended) * REQUESTS_OF_ONE

    async def test_what_a_flood_leaves_unasked_is_found_by_polling(self, busy: Any) -> None:
        busy.monitor.request_bucket.take(ASKED_AT_ONCE)
        await forge(busy, range(1_000_000, 1_000_300), long_ago)
        await forge(busy, [CHANGED], now)
        await Inbox(busy.monitor, busy.store).confirm_pending()
        await busy.monitor.poll()
        assert await busy.ends(CHANGED) == 1
        # With what only its webhook knew.
        assert (await busy.state(CHANGED)).names["connection"] == "orders"


class TestRefunds:
    """Requests that confirm completions are not counted, so that Airbyte's own webhooks never wait."""

    async def spent(self, watched: Watched, *bodies: bytes) -> int:
        """Confirm notifications, and return the number of tokens that it took."""
        bucket = watched.monitor.request_bucket = TokenBucket(rate=1e-6, burst=ASKED_AT_ONCE)
        for body in bodies:
            await watched.receive(body)
        before = len(watched.airbyte.requests)
        await Inbox(watched.monitor, watched.store).confirm_pending()
        assert len(watched.airbyte.requests) > before
        return ASKED_AT_ONCE - bucket.left

    @pytest.mark.parametrize("found_by_polling", [False, True])
    @pytest.mark.parametrize("job_id", [7, None])
    async def test_a_webhook_of_a_completion_costs_nothing(
        self, watched: Watched, found_by_polling: bool, job_id: int | None
    ) -> None:
        watched.airbyte.put(7, "succeeded")
        if found_by_polling:
            await watched.monitor.poll()
        costs = found_by_polling and job_id is None
        assert await self.spent(watched, webhook_body(job_id)) == costs

    async def test_a_completion_counts_once_however_often_it_is_announced(self, watched: Watched) -> None:
        watched.airbyte.put(7, "succeeded")
        assert await self.spent(watched, webhook_body(7)) == 0
        assert await self.spent(watched, webhook_body(7, finishedAt=now(0))) == 1
        watched.airbyte.put(8, "succeeded")
        await watched.monitor.poll()
        assert await self.spent(watched, webhook_body(8), webhook_body(8, finishedAt=now(0))) == 1

    @pytest.mark.parametrize("status", ["running", None])
    async def test_a_job_that_has_not_completed_costs_a_request(self, watched: Watched, status: str | None) -> None:
        if status is not None:
            watched.airbyte.put(7, status)
        assert await self.spent(watched, webhook_body(7)) == 1

    async def test_jobs_that_completed_long_ago_cost_a_request_each(self, watched: Watched) -> None:
        """Somebody who counts up job ids finds many of them."""
        watched.airbyte.put(7, "succeeded", ago=3600)
        await watched.monitor.poll()
        await watched.monitor.watch([7])
        state = await watched.state(7)
        earlier = replace(state, ref=JobRef("default", 8), observed_at=utcnow() - timedelta(minutes=2))
        await watched.store.append([earlier])
        watched.airbyte.put(8, "succeeded", ago=3600)
        assert await self.spent(watched, webhook_body(8)) == 1

    @pytest.mark.parametrize("fault", [None, 500], ids=["listed", "no lists"])
    async def test_a_burst_of_hundreds_is_confirmed_at_once(self, watched: Watched, fault: int | None) -> None:
        """Read one by one, if Airbyte can't list them."""
        if fault:
            watched.airbyte.faults["list"] = fault
        for job_id in range(1, 301):
            watched.airbyte.put(job_id, "succeeded")
        stored = await forge(watched, range(1, 301), now)
        await Inbox(watched.monitor, watched.store).confirm_pending()
        assert {await watched.outcome(each) for each in stored} == {Outcome.CONFIRMED}
        assert watched.monitor.request_bucket.left >= ASKED_AT_ONCE - 1
        assert watched.airbyte.reads == (300 if fault else 0)

    async def test_a_steady_stream_is_confirmed_though_it_is_more_than_the_limit(self, watched: Watched) -> None:
        inbox = Inbox(watched.monitor, watched.store)
        for job_id in range(1, 301):
            watched.airbyte.put(job_id, "succeeded")
            stored = await watched.receive(webhook_body(job_id))
            await inbox.confirm_pending()
            assert await watched.outcome(stored) is Outcome.CONFIRMED
            assert watched.monitor.request_bucket.left == ASKED_AT_ONCE
        assert watched.airbyte.reads == 300

    async def test_a_flood_among_which_completions_are_spends_what_it_would_alone(self, watched: Watched) -> None:
        for job_id in range(1, 21):
            watched.airbyte.put(job_id, "succeeded")
        watched.airbyte.faults["list"] = 500
        await forge(watched, [*range(1, 21), *range(1_000_000, 1_001_000)], long_ago)
        began = anyio.current_time()
        await Inbox(watched.monitor, watched.store).confirm_pending()
        passed = anyio.current_time() - began
        assert len(watched.airbyte.requests) <= ASKED_AT_ONCE + ASKED_PER_SECOND * passed + 20 * REQUESTS_OF_ONE


class TestWhereAirbyteFails:
    async def test_repeated_requests_count(self, busy: Any, http: httpx.AsyncClient) -> None:
        airbyte = client_of(http, busy.airbyte.url, attempts=5)
        monitor = Monitor("default", airbyte, busy.store)
        busy.airbyte.faults["all"] = 503
        await forge(busy, range(1, PUSHED_BURST + 1), now)
        assert monitor.request_bucket.left == ASKED_AT_ONCE
        began = anyio.current_time()
        await Inbox(monitor, busy.store).confirm_pending()
        regained = ASKED_PER_SECOND * (anyio.current_time() - began)
        assert ASKED_AT_ONCE - monitor.request_bucket.left >= len(busy.airbyte.requests) - regained
        assert busy.airbyte.lists > 1

    async def test_requests_for_tokens_count(
        self, server: ScriptedServer, http: httpx.AsyncClient, watched: Watched
    ) -> None:
        server.on("POST /api/public/v1/applications/token", server.reply(200, {"access_token": "t0ken"}))
        server.on("GET /api/public/v1/jobs/7", server.reply(401, {"message": "Unauthorized"}))
        credentials = Credentials(client_id="client", client_secret="secret")
        airbyte = client_of(http, server.url, credentials=credentials)
        monitor = Monitor("default", airbyte, watched.store)
        await forge(watched, [7], now)
        assert monitor.request_bucket.left == ASKED_AT_ONCE
        began = anyio.current_time()
        await Inbox(monitor, watched.store).confirm_pending()
        assert len(server.requests) == 4
        regained = ASKED_PER_SECOND * (anyio.current_time() - began)
        assert ASKED_AT_ONCE - monitor.request_bucket.left >= 4 - regained

    async def test_what_is_asked_for_somebody_who_waits_does_not_count(self, busy: Any) -> None:
        await busy.monitor.watch(range(1, 50))
        assert busy.monitor.request_bucket.left == ASKED_AT_ONCE
