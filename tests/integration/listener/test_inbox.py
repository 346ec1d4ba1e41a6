"""The inbox: every notification is confirmed in the end, and none holds up the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events._utils.token_bucket import TokenBucket
from airbyte_events.listener.inbox import Inbox
from airbyte_events.monitor.monitor import ASKED_PER_SECOND, Monitor
from airbyte_events.store.records import Outcome
from support.airbyte import Airbyte, client_of
from support.events import webhook_body
from support.monitor import Watched
from support.servers import serve
from support.stored import receipt_of
from support.waiting import in_background

pytestmark = pytest.mark.anyio


def inbox_of(watched: Watched, **options: Any) -> Inbox:
    return Inbox(watched.monitor, watched.store, **{"retry": 0.05, **options})


class TestConfirming:
    async def test_all_that_an_earlier_process_left_is_confirmed(self, watched: Watched) -> None:
        for job_id in range(1, 1251):
            watched.airbyte.put(job_id, "succeeded")
        stored = [await watched.receive(webhook_body(job_id)) for job_id in range(1, 1251)]
        async with in_background(inbox_of(watched).run):
            await watched.until_settled(*stored)
        assert {await watched.outcome(each) for each in stored} == {Outcome.CONFIRMED}
        assert watched.airbyte.reads == 0

    @pytest.mark.parametrize(
        ("status", "outcome"),
        [
            ("succeeded", Outcome.CONFIRMED),
            ("failed", Outcome.UNCONFIRMED),
            ("running", Outcome.UNCONFIRMED),
            ("cancelled", Outcome.UNCONFIRMED),
            (None, Outcome.UNKNOWN_JOB),
        ],
    )
    async def test_what_becomes_of_a_success(self, watched: Watched, status: str | None, outcome: Outcome) -> None:
        if status:
            watched.airbyte.put(5, status)
        stored = await watched.receive(webhook_body(5))
        await inbox_of(watched).confirm_pending()
        assert await watched.outcome(stored) is outcome
        reasons = [request for request in watched.airbyte.requests if request.path.endswith("/jobs/get_without_logs")]
        assert len(reasons) == (status == "failed")
        assert len(watched.airbyte.requests) == 1 + len(reasons)
        assert await watched.ends(5) == (status in ("succeeded", "failed", "cancelled"))

    @pytest.mark.parametrize(
        "title", ["[THIS IS A TEST NOTIFICATION] Sync completed", "Sync queued", "Connection disabled", "Hello World!"]
    )
    async def test_i3_what_tells_of_no_end_ends_nothing_even_if_it_gets_here(
        self, watched: Watched, title: str
    ) -> None:
        watched.airbyte.put(10)
        stored = await watched.receive(webhook_body(10, success=False, title=title))
        await inbox_of(watched).confirm_pending()
        assert await watched.outcome(stored) is Outcome.IGNORED
        assert await watched.ends(10) == 0

    async def test_one_that_names_no_job_makes_a_look(self, watched: Watched) -> None:
        watched.airbyte.put(5, "failed")
        stored = await watched.receive(webhook_body(None, success=False))
        await inbox_of(watched).confirm_pending()
        assert await watched.outcome(stored) is Outcome.CONFIRMED
        assert await watched.ends(5) == 1
        assert (watched.airbyte.lists, watched.airbyte.reads) == (1, 0)

    async def test_what_comes_during_a_confirmation_is_the_next_one(self, watched: Watched) -> None:
        inbox = inbox_of(watched)
        watched.airbyte.put(1, "succeeded")
        first = await watched.receive(webhook_body(1))
        watched.airbyte.held = anyio.Event()
        async with in_background(inbox.run):
            await anyio.wait_all_tasks_blocked()
            others = []
            for job_id in range(2, 30):
                watched.airbyte.put(job_id, "succeeded")
                others.append(await watched.receive(webhook_body(job_id)))
            watched.airbyte.release()
            await watched.until_settled(first, *others)
        assert (watched.airbyte.reads, watched.airbyte.lists) == (1, 1)


class TestPriority:
    """Somebody has a thousand jobs watched that are not there, at the same listener."""

    UNKNOWN = range(1_001, 2_001)

    @pytest.fixture
    async def crowded(self, watched: Watched) -> AsyncIterator[Monitor]:
        """What confirms and polls, while none of those jobs has been answered yet."""
        asking = watched.monitor
        watched.airbyte.faults["list"] = 500
        watched.airbyte.held = anyio.Event()
        async with in_background(asking.watch, self.UNKNOWN):
            await anyio.wait_all_tasks_blocked()
            watched.airbyte.release()
            watched.airbyte.held = anyio.Event()
            # The list has failed.
            await watched.airbyte.until(lambda: watched.airbyte.lists == 1)
            await anyio.wait_all_tasks_blocked()
            yield Monitor("default", asking.system, watched.store, beside=asking)

    def others_before(self, watched: Watched, job_id: int) -> int:
        paths = [each.path.rpartition("/")[2] for each in watched.airbyte.requests]
        return len([each for each in paths[: paths.index(str(job_id))] if each != "jobs"])

    async def test_what_webhooks_announce_is_read_before_what_others_begin_to_wait_for(
        self, watched: Watched, crowded: Monitor
    ) -> None:
        watched.airbyte.put(5, "succeeded")
        stored = await watched.receive(webhook_body(5))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Inbox(crowded, watched.store).confirm_pending)
            await anyio.wait_all_tasks_blocked()
            watched.airbyte.release()
            await watched.until_settled(stored)
        assert await watched.outcome(stored) is Outcome.CONFIRMED
        assert self.others_before(watched, 5) <= 8

    async def test_so_is_what_polling_reads(self, watched: Watched, crowded: Monitor) -> None:
        watched.airbyte.put(5, "succeeded")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(crowded.read, [5])
            await anyio.wait_all_tasks_blocked()
            watched.airbyte.release()
            await watched.until_ended(5)
        assert self.others_before(watched, 5) <= 8

    async def test_who_begins_to_wait_is_answered_though_webhooks_keep_coming(
        self, watched: Watched, crowded: Monitor
    ) -> None:
        forged = range(10_001, 10_081)
        for job_id in forged:
            await watched.receive(webhook_body(job_id))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Inbox(crowded, watched.store).confirm_pending)
            await anyio.wait_all_tasks_blocked()
            watched.airbyte.release()
            await watched.airbyte.until(lambda: watched.airbyte.reads_of(forged[-1]) > 0)
            await watched.airbyte.until(lambda: watched.airbyte.reads >= 80)
        asked = [int(each.path.rpartition("/")[2]) for each in watched.airbyte.requests if each.path[-1].isdigit()]
        assert len([job_id for job_id in asked[:80] if job_id in self.UNKNOWN]) >= 15


class TestTrouble:
    async def test_one_that_airbyte_fails_over_holds_up_nobody(self, watched: Watched) -> None:
        watched.airbyte.faults[9] = 500
        inbox = inbox_of(watched, retry=3600)
        poison = await watched.receive(webhook_body(9))
        async with in_background(inbox.run):
            await watched.airbyte.until(lambda: watched.airbyte.reads_of(9) == 1)
            await anyio.wait_all_tasks_blocked()
            for job_id in range(1, 9):
                watched.airbyte.put(job_id, "succeeded")
                stored = await watched.receive(webhook_body(job_id))
                await watched.until_settled(stored)
            nameless = await watched.receive(webhook_body(None))
            await watched.until_settled(nameless)
        assert await watched.outcome(poison) is Outcome.PENDING
        assert watched.airbyte.reads_of(9) == 1

    async def test_one_that_airbyte_fails_over_is_tried_again(self, watched: Watched) -> None:
        watched.airbyte.faults[9] = 500
        watched.airbyte.put(9, "failed")
        poison = await watched.receive(webhook_body(9, success=False))
        async with in_background(inbox_of(watched).run):
            await watched.airbyte.until(lambda: watched.airbyte.reads_of(9) > 2)
            watched.airbyte.faults.clear()
            await watched.until_settled(poison)
        assert await watched.outcome(poison) is Outcome.CONFIRMED
        assert (await watched.state(9)).error is not None

    async def test_more_of_those_than_a_batch_holds_hold_up_nobody(self, watched: Watched) -> None:
        watched.airbyte.faults["list"] = 500
        inbox = inbox_of(watched, retry=3600)
        for number in range(510):
            await watched.receive(webhook_body(None, recordsCommitted=number))
        await inbox.confirm_pending()
        watched.airbyte.put(1, "succeeded")
        stored = await watched.receive(webhook_body(1))
        await inbox.confirm_pending()
        assert await watched.outcome(stored) is Outcome.CONFIRMED

    @pytest.mark.parametrize("fault", [401, 429, 500, 503, "proxy"])
    async def test_while_airbyte_is_down_they_wait(self, watched: Watched, fault: int | str) -> None:
        watched.airbyte.faults["all"] = fault
        # Too few for a request each: jobs are listed.
        watched.monitor.request_bucket = TokenBucket(rate=ASKED_PER_SECOND, burst=5)
        stored = []
        for job_id in range(1, 11):
            watched.airbyte.put(job_id, "succeeded")
            # Long ago: while nothing can be confirmed, nothing is given up.
            stored.append(await watched.receive(webhook_body(job_id), age=7200))
        async with in_background(inbox_of(watched).run):
            await watched.airbyte.until(lambda: watched.airbyte.lists > 2)
            assert {await watched.outcome(each) for each in stored} == {Outcome.PENDING}
            watched.airbyte.faults.clear()
            await watched.until_settled(*stored)
        assert {await watched.outcome(each) for each in stored} == {Outcome.CONFIRMED}

    async def test_an_hour_later_one_is_given_up_where_others_can_be_confirmed(self, watched: Watched) -> None:
        watched.airbyte.faults[9] = 500
        inbox = inbox_of(watched, retry=0.0, give_up_after=timedelta(seconds=3600))
        old = await watched.receive(webhook_body(9), age=3700)
        young = await watched.receive(webhook_body(9, recordsCommitted=1), age=3500)
        await inbox.confirm_pending()
        assert await watched.outcome(old) is Outcome.PENDING
        watched.airbyte.put(1, "succeeded")
        await watched.receive(webhook_body(1))
        await inbox.confirm_pending()
        await inbox.confirm_pending()
        assert await watched.outcome(old) is Outcome.UNCONFIRMED
        assert await watched.outcome(young) is Outcome.PENDING

    async def test_an_instance_that_is_down_does_not_hold_up_another(
        self, watched: Watched, http: httpx.AsyncClient
    ) -> None:
        gone = Airbyte()
        async with serve(gone):
            pass
        down = Monitor("gone", client_of(http, gone.url), watched.store)
        await receipt_of(
            watched.store,
            webhook_body(1),
            instance="gone",
            received_at=(await watched.receive(webhook_body(2))).received_at,
        )
        watched.airbyte.put(2, "succeeded")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Inbox(down, watched.store).run)
            tasks.start_soon(inbox_of(watched).run)
            await watched.until_ended(2)
            tasks.cancel_scope.cancel()
        assert [each.instance for each in await watched.store.pending("gone")] == ["gone"]
