"""The monitor against a small Airbyte: what it asks, what becomes an event, and what does not."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte import Credentials
from airbyte_events.airbyte.notifications import reread
from airbyte_events.errors import AirbyteError, AirbyteUnreachable, LeaseLost, ServerError
from airbyte_events.events import JobRef, JobStatus, Origin
from airbyte_events.monitor.monitor import FAILURES, Monitor
from airbyte_events.monitor.observation import Received
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import States
from airbyte_events.store.sqlite.store import SQLiteStore
from support.airbyte import Airbyte, client_of
from support.events import event_of, status_of, webhook_body
from support.monitor import Watched
from support.servers import serve
from support.waiting import in_background

pytestmark = pytest.mark.anyio


async def hint(watched: Watched, body: bytes) -> Any:
    """Confirm a notification alone, as the inbox does."""
    received = Received.of(await watched.receive(body), reread)
    job_id = received.notification.job_id
    assert job_id is not None
    told = {job_id: [received]}
    return (await watched.monitor.confirm(told, Origin.WEBHOOK, told)).get(job_id)


class CountingStore(MemoryStore):
    """Notes the jobs whose states are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []

    async def states(self, refs: Collection[JobRef]) -> States:
        self.reads += [ref.job_id for ref in refs]
        return await super().states(refs)


class TestConfirming:
    async def test_a_true_hint_becomes_an_event_with_what_the_webhook_knows(self, watched: Watched) -> None:
        watched.airbyte.put(5, "failed")

        state = await hint(watched, webhook_body(5, success=False))

        assert (state.status, state.origin) == (JobStatus.FAILED, Origin.WEBHOOK)
        assert str(state.error) == "no such table (type config_error, origin destination)"
        assert (state.records, state.bytes, state.workspace_id) == (45, 90, "w1")
        assert state.names == {"workspace": "Team", "connection": "orders"}
        assert (watched.airbyte.reads, watched.airbyte.lists) == (1, 0)
        assert watched.monitor.counters.announced == 1

    @pytest.mark.parametrize("status", ["pending", "running", "incomplete", "succeeded", "cancelled"])
    async def test_i3_a_hint_that_the_api_does_not_share_changes_nothing(self, watched: Watched, status: str) -> None:
        watched.airbyte.put(5, status)

        state = await hint(watched, webhook_body(5, success=False))

        assert state.status == status
        assert state.error is None
        assert state.names == {}
        assert len(watched.airbyte.requests) == 1
        assert watched.monitor.counters.announced == 0

    async def test_i3_a_hint_of_no_job_changes_nothing_and_costs_one_request(self, watched: Watched) -> None:
        assert await hint(watched, webhook_body(404)) is None
        assert await watched.events() == []
        assert len(watched.airbyte.requests) == 1

    async def test_i3_a_forged_end_does_not_prove_that_push_works(self, watched: Watched) -> None:
        for job_id in range(1, 4):
            watched.airbyte.put(job_id)
            await watched.receive(webhook_body(job_id))
            await hint(watched, webhook_body(job_id))
            watched.airbyte.put(job_id, "failed")
        await watched.monitor.poll()

        assert not watched.monitor.push_proven
        assert (watched.monitor.counters.announced, watched.monitor.counters.missed) == (0, 3)

    async def test_a_burst_of_hints_is_one_list(self, watched: Watched) -> None:
        for job_id in range(1, 41):
            watched.airbyte.put(job_id, "succeeded")
        told = {job_id: [Received.of(await watched.receive(webhook_body(job_id)), reread)] for job_id in range(1, 41)}

        states = await watched.monitor.confirm(told, Origin.WEBHOOK, told)

        assert {status_of(state) for state in states.values()} == {JobStatus.SUCCEEDED}
        assert {state.origin for state in states.values() if state} == {Origin.WEBHOOK}
        assert len(states) == 40
        assert (watched.airbyte.lists, watched.airbyte.reads) == (1, 0)

    async def test_the_list_of_a_burst_ends_with_the_last_of_its_jobs(self, watched: Watched) -> None:
        for job_id in range(1, 351):
            watched.airbyte.put(job_id, "succeeded")

        states = await watched.monitor.confirm(range(81, 121), Origin.WEBHOOK)

        assert {status_of(state) for state in states.values()} == {JobStatus.SUCCEEDED}
        assert (watched.airbyte.lists, watched.airbyte.reads) == (2, 0)

    async def test_what_the_list_of_a_burst_has_beside_it_waits_for_its_own_hint(self, watched: Watched) -> None:
        for job_id in range(1, 42):
            watched.airbyte.put(job_id, "failed")
        told: dict[int, list[Received]] = {job_id: [] for job_id in range(1, 41)}

        await watched.monitor.confirm(told, Origin.WEBHOOK, told)
        assert {job_id for job_id, _ in await watched.events()} == set(range(1, 41))
        state = await hint(watched, webhook_body(41, success=False, errorMessage="no disk"))

        assert state.error.message == "no disk"
        published = (await watched.store.read(0)).events[-1]
        assert (published.ref.job_id, published.error) == (41, state.error)

    async def test_three_hints_are_three_reads(self, watched: Watched) -> None:
        for job_id in (1, 2, 3):
            watched.airbyte.put(job_id, "succeeded")

        await watched.monitor.confirm([1, 2, 3], Origin.WEBHOOK)

        assert (watched.airbyte.lists, watched.airbyte.reads) == (0, 3)

    async def test_of_a_burst_only_what_the_list_does_not_have_is_read(self, watched: Watched) -> None:
        for job_id in range(1, 6):
            watched.airbyte.put(job_id, "succeeded")
        watched.airbyte.put(6, "succeeded", ago=86_400)

        states = await watched.monitor.confirm(range(1, 8), Origin.SUBMIT)

        assert states.pop(7) is None
        assert {status_of(state) for state in states.values()} == {JobStatus.SUCCEEDED}
        assert (watched.airbyte.lists, watched.airbyte.reads_of(6), watched.airbyte.reads_of(7)) == (1, 1, 1)
        assert watched.airbyte.reads == 2

    async def test_a_burst_where_lists_fail_is_read_one_by_one(self, watched: Watched) -> None:
        watched.airbyte.faults["list"] = 500
        for job_id in range(1, 6):
            watched.airbyte.put(job_id, "succeeded")

        assert len(await watched.monitor.confirm(range(1, 6), Origin.WEBHOOK)) == 5
        assert watched.airbyte.reads == 5

    async def test_one_job_that_airbyte_fails_over_does_not_keep_a_bursts_others(self, watched: Watched) -> None:
        for job_id in range(1, 6):
            watched.airbyte.put(job_id, "succeeded")
        watched.airbyte.faults[9] = 500

        states = await watched.monitor.confirm([1, 2, 3, 4, 5, 9], Origin.WEBHOOK)

        assert sorted(states) == [1, 2, 3, 4, 5]

    async def test_nothing_to_be_had_is_an_error(self, watched: Watched) -> None:
        watched.airbyte.put(1)
        watched.airbyte.faults["all"] = 503
        with pytest.raises(ServerError):
            await watched.monitor.confirm([1, 2], Origin.WEBHOOK)
        with pytest.raises(ServerError):
            await watched.monitor.confirm(range(10), Origin.WEBHOOK)

    async def test_i4_jobs_that_airbyte_fails_over_keep_nobody_waiting(
        self, watched: Watched, airbyte: Airbyte, http: httpx.AsyncClient
    ) -> None:
        """Patience is for an Airbyte that is in trouble. A job's own trouble costs a request now and then."""
        for job_id in range(1, 41):
            airbyte.put(job_id)
            airbyte.faults[job_id] = 500
        patient = client_of(http, airbyte.url, attempts=5, base_delay=600.0, max_delay=600.0, random=lambda: 1.0)
        monitor = Monitor("default", patient, watched.store)
        with anyio.fail_after(30):
            with pytest.raises(ServerError):
                await monitor.read(range(1, 41))
            assert airbyte.reads < 2 * FAILURES
            airbyte.put(41, "succeeded")
            assert 41 in await monitor.poll()
            assert (await monitor.read([1, 2, 41])).keys() == {41}
            assert airbyte.reads_of(1) <= 2

    @pytest.mark.parametrize("status", [401, 408, 422, 425, 429, 500, 502])
    async def test_i3_only_airbytes_own_words_make_a_job_unknown(self, watched: Watched, status: int) -> None:
        watched.airbyte.faults[1] = status
        with pytest.raises(AirbyteError):
            await watched.monitor.watch([1])
        assert watched.monitor.watches.unread() == [1]

    @pytest.mark.parametrize("status", [403, 404, 409])
    async def test_a_job_that_airbyte_does_not_know_is_not_watched(self, watched: Watched, status: int) -> None:
        watched.airbyte.faults[1] = status
        assert await watched.monitor.watch([1]) == {1: None}
        # It was asked twice, and is once more.
        assert watched.monitor.watches.unread() == [1]
        await watched.monitor.read([1])
        assert watched.monitor.watches.jobs == {}

    async def test_i3_refused_credentials_make_no_job_unknown(self, airbyte: Airbyte, http: httpx.AsyncClient) -> None:
        airbyte.put(1)
        client = client_of(http, airbyte.url, credentials=Credentials(client_id="a", client_secret="b"))
        for status in (401, 403, 404):
            airbyte.faults["list"] = status  # the token's route has no number in it
            with pytest.raises(AirbyteError):
                await Monitor("default", client, MemoryStore()).watch([1])

    async def test_known_states_are_told_though_airbyte_is_down(self, watched: Watched) -> None:
        watched.airbyte.put(1)
        await watched.monitor.watch([1])
        watched.airbyte.faults["all"] = 503

        assert list(await watched.monitor.watch([1, 2])) == [1]
        with pytest.raises(ServerError):
            await watched.monitor.watch([2])
        assert sorted(watched.monitor.watches.jobs) == [1, 2]


class TestReading:
    async def test_i4_what_is_answered_does_not_wait_for_what_is_not(self, watched: Watched) -> None:
        for job_id in (1, 2, 3):
            watched.airbyte.put(job_id, "succeeded")
        watched.airbyte.faults[2] = "hang"
        async with in_background(watched.monitor.read, [1, 2, 3]):
            await watched.until_ended(1, 3)
        assert await watched.ends(2) == 0

    async def test_what_can_not_be_kept_is_the_readers_error(self, watched: Watched, http: httpx.AsyncClient) -> None:
        lost = await watched.store.acquire("sources/default", "this one", 3600)
        assert lost is not None
        await watched.store.release(lost)
        monitor = Monitor("default", watched.monitor.system, watched.store, lease=lost)
        for job_id in (1, 2, 3):
            watched.airbyte.put(job_id, "succeeded")
        with pytest.raises(LeaseLost):
            await monitor.read([1, 2, 3])


class TestOneEnd:
    async def test_i2_poll_and_webhook_at_once_are_one_event(self, watched: Watched) -> None:
        for round_ in range(10):
            job_id = round_ + 1
            watched.airbyte.put(job_id)
            await watched.monitor.watch([job_id])
            watched.airbyte.put(job_id, "succeeded")
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(watched.monitor.poll)
                    tasks.start_soon(hint, watched, webhook_body(job_id))
                    tasks.start_soon(watched.monitor.read, [job_id])
            assert await watched.ends(job_id) == 1

    async def test_a_late_webhook_annotates_without_a_second_event(self, watched: Watched) -> None:
        watched.airbyte.put(5, "failed")
        await watched.monitor.poll()
        assert (await watched.state(5)).error is None

        await hint(watched, webhook_body(5, success=False))

        state = await watched.state(5)
        assert str(state.error) == "no such table (type config_error, origin destination)"
        assert state.origin is Origin.POLL
        assert await watched.ends(5) == 1

    async def test_i3_a_late_forged_webhook_annotates_nothing(self, watched: Watched) -> None:
        watched.airbyte.put(5, "succeeded")
        await watched.monitor.poll()
        before = await watched.state(5)

        await hint(watched, webhook_body(5, success=False))

        assert await watched.state(5) == before

    async def test_polling_that_is_first_takes_what_waits_in_the_inbox(self, watched: Watched) -> None:
        watched.airbyte.put(5, "failed")
        await watched.receive(webhook_body(5, success=False))

        await watched.monitor.poll()

        assert (await watched.state(5)).error is not None
        assert watched.monitor.counters.announced == 1

    async def test_a_contradiction_is_counted_and_changes_nothing(
        self, watched: Watched, caplog: pytest.LogCaptureFixture
    ) -> None:
        watched.airbyte.put(5, "succeeded")
        await watched.monitor.poll()
        watched.airbyte.put(5, "failed")

        await watched.monitor.poll()

        assert (await watched.state(5)).status is JobStatus.SUCCEEDED
        assert watched.monitor.counters.contradictions == 1
        assert "has completed with another status" in caplog.text

        await watched.monitor.poll()  # looks overlap: it is told again

        assert watched.monitor.counters.contradictions == 1
        assert caplog.text.count("has completed with another status") == 1

    async def test_i2_failed_again_is_a_repeat(self, watched: Watched) -> None:
        for _ in range(2):
            watched.airbyte.put(5, "failed")
            await watched.monitor.poll()
        assert await watched.ends(5) == 1

    async def test_incomplete_can_succeed(self, watched: Watched) -> None:
        for status in ("running", "incomplete", "succeeded"):
            watched.airbyte.put(5, status)
            await watched.monitor.poll()
        assert [status for _, status in await watched.events()] == ["running", "incomplete", "succeeded"]


class TestPush:
    async def end(self, watched: Watched, job_id: int, *, announced: bool) -> None:
        watched.airbyte.put(job_id, "succeeded")
        if announced:
            await hint(watched, webhook_body(job_id))
        else:
            await watched.monitor.poll()

    async def test_is_proven_by_three_in_a_row_and_disproven_by_one(self, watched: Watched) -> None:
        for job_id, announced, proven in (
            (1, True, False),
            (2, True, False),
            (3, True, True),
            (4, False, False),
            (5, True, False),
            (6, True, False),
            (7, True, True),
        ):
            await self.end(watched, job_id, announced=announced)
            assert watched.monitor.push_proven is proven

    @pytest.mark.parametrize("fields", [{"job_type": "reset"}, {"job_type": "clear"}, {"job_type": "refresh"}])
    async def test_what_never_pushes_disproves_nothing(self, watched: Watched, fields: Any) -> None:
        for job_id in (1, 2, 3):
            await self.end(watched, job_id, announced=True)
        watched.airbyte.put(4, "succeeded", **fields)
        watched.airbyte.put(5, "cancelled")
        await watched.monitor.poll()
        assert watched.monitor.push_proven

    async def test_of_watched_jobs_it_is_known_which_never_push(self, watched: Watched) -> None:
        watched.airbyte.put(1)
        watched.airbyte.put(2, job_type="reset")
        await watched.monitor.watch([1, 2])
        assert watched.monitor.watches.jobs == {1: True, 2: False}


class TestLooking:
    async def test_pages_by_its_own_offset_whatever_the_next_link_says(self, watched: Watched) -> None:
        for job_id in range(1, 251):
            watched.airbyte.put(job_id, "succeeded")

        assert await watched.monitor.poll() == set(range(1, 251))
        assert watched.airbyte.lists == 3
        offsets = [request.query["offset"] for request in watched.airbyte.requests[:3]]
        assert offsets == [["0"], ["100"], ["200"]]

    async def test_takes_only_what_has_changed_since_the_last(self, watched: Watched) -> None:
        watched.airbyte.put(1, ago=3600)
        watched.airbyte.put(2, ago=300)
        assert await watched.monitor.poll() == {2}
        watched.airbyte.put(1, "succeeded")
        assert await watched.monitor.poll() == {1}
        assert watched.airbyte.lists == 2

    async def test_a_completion_is_read_from_the_store_once(self, airbyte: Airbyte, http: httpx.AsyncClient) -> None:
        store = CountingStore()
        watched = Watched(airbyte, Monitor("default", client_of(http, airbyte.url), store), store)
        for job_id in (1, 2):
            airbyte.put(job_id, "succeeded")
        await watched.monitor.poll()
        airbyte.put(3, "succeeded")
        store.reads.clear()
        assert await watched.monitor.poll() == {1, 2, 3}
        assert store.reads == [3]
        assert [await watched.ends(job_id) for job_id in (1, 2, 3)] == [1, 1, 1]

    async def test_i5_a_completion_that_the_store_lost_is_stored_again(
        self, airbyte: Airbyte, http: httpx.AsyncClient, tmp_path: Path
    ) -> None:
        path = tmp_path / "events.db"
        async with SQLiteStore(path) as store:
            monitor = Monitor("default", client_of(http, airbyte.url), store)
            with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
                live.backup(backup)
                airbyte.put(1, "succeeded")
                await monitor.poll()
                backup.backup(live)
            await store.check()
            await monitor.poll()
            assert [event.ref.job_id for event in (await store.read(0)).events] == [1]

    async def test_begins_where_another_process_ended(self, watched: Watched, http: httpx.AsyncClient) -> None:
        mark = utcnow() - timedelta(hours=6)
        await watched.store.remember("looked_at/default", mark.isoformat())
        watched.airbyte.put(1, "succeeded", ago=5 * 3600)
        assert await watched.monitor.poll() == {1}

    async def test_i4_the_first_reaches_back_to_the_first_watch(self, watched: Watched) -> None:
        """The listener was believed for longer than a look reaches back."""
        watched.airbyte.put(1)
        watched.monitor.watches.follow({1: utcnow() - timedelta(hours=2)})
        watched.airbyte.put(1, "succeeded", ago=7100)

        assert await watched.monitor.poll() == {1}

    @pytest.mark.parametrize("hours", [1, -1, 24, -24])
    async def test_airbytes_clock_counts(self, watched: Watched, hours: int) -> None:
        watched.airbyte.ahead = timedelta(hours=hours)
        watched.airbyte.put(1, ago=60)
        assert await watched.monitor.poll() == {1}
        watched.airbyte.put(1, "succeeded")
        watched.airbyte.put(2, "succeeded")
        assert await watched.monitor.poll() == {1, 2}
        assert await watched.ends(1) == 1

    async def test_i4_airbytes_clock_is_put_back(self, watched: Watched) -> None:
        watched.airbyte.ahead = timedelta(hours=3)
        await watched.monitor.poll()
        watched.airbyte.ahead = timedelta(0)
        watched.airbyte.put(1, "succeeded")
        assert await watched.monitor.poll() == {1}

    async def test_an_airbyte_without_a_clock(self, watched: Watched) -> None:
        watched.airbyte.dated = False
        for job_id in (1, 2):
            watched.airbyte.put(job_id, "succeeded")
            assert job_id in await watched.monitor.poll()

    async def test_i4_after_a_long_absence_what_is_too_much_to_list_is_read(
        self, airbyte: Airbyte, http: httpx.AsyncClient, watched: Watched
    ) -> None:
        monitor = Monitor("default", client_of(http, airbyte.url), watched.store, max_listed=200)
        airbyte.put(1_000)
        await monitor.watch([1_000])
        del airbyte.jobs[1_000]
        for job_id in range(1, 500):
            airbyte.put(job_id, "succeeded", ago=60)
        airbyte.put(1_000, "succeeded", ago=60)
        lists = airbyte.lists

        assert 1_000 not in await monitor.poll()
        assert airbyte.lists - lists == 2
        assert monitor.watches.unread() == [1_000]
        # The next one does not begin there again.
        for job_id in range(1, 500):
            airbyte.put(job_id, "succeeded", ago=3600)
        assert len(await monitor.poll()) <= 1

    async def test_what_a_look_has_read_is_kept_though_it_fails_further_on(self, watched: Watched) -> None:
        await watched.monitor.poll()
        for job_id in range(1, 251):
            watched.airbyte.put(job_id, "succeeded")
        watched.airbyte.jobs[150]["jobId"] = "nonsense"
        with pytest.raises(AirbyteError):
            await watched.monitor.poll()
        assert await watched.ends(100) == 1
        assert await watched.ends(101) == 0
        # And the next one begins where this one did.
        watched.airbyte.jobs[150]["jobId"] = 150
        assert await watched.monitor.poll() == set(range(1, 251))
        assert [await watched.ends(job_id) for job_id in (1, 100, 101, 150, 250)] == [1] * 5

    async def test_an_end_without_a_time(self, watched: Watched) -> None:
        watched.airbyte.put(1, "succeeded", lastUpdatedAt=None, duration="PT90S", startTime="2024-01-01T00:00Z")
        watched.airbyte.put(2, "succeeded", lastUpdatedAt=None)
        await watched.monitor.poll()
        assert (await watched.state(1)).data()["finished_at"] == "2024-01-01T00:01:30.000000Z"
        assert (await watched.state(2)).finished_at is None

    async def test_an_unknown_status_is_active_and_warned_of_once(
        self, watched: Watched, caplog: pytest.LogCaptureFixture
    ) -> None:
        watched.airbyte.put(1, "napping")
        states = await watched.monitor.watch([1])
        await watched.monitor.poll()
        await watched.monitor.read([1])

        assert states[1] is not None
        assert states[1].status is JobStatus.UNKNOWN
        assert not states[1].terminal
        assert watched.monitor.watches.jobs == {1: True}
        warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert len(warnings) == 1
        assert "napping" in warnings[0].getMessage()
        watched.airbyte.put(1, "succeeded")
        await watched.monitor.poll()
        assert (await watched.state(1)).status is JobStatus.SUCCEEDED

    async def test_a_job_of_the_same_id_in_another_instance_is_another_job(
        self, watched: Watched, http: httpx.AsyncClient
    ) -> None:
        other = Airbyte()
        async with serve(other):
            elsewhere = Monitor("other", client_of(http, other.url), watched.store)
            watched.airbyte.put(1, "running")
            other.put(1, "failed")
            await watched.monitor.watch([1])
            await watched.receive(webhook_body(1, success=False))
            await elsewhere.poll()

            assert (await watched.state(1)).status is JobStatus.RUNNING
            there = (await watched.store.states([JobRef("other", 1)]))[JobRef("other", 1)]
            assert there.status is JobStatus.FAILED
            # Nor is the notification that came to the one taken for the other's.
            assert there.error is None
            assert watched.monitor.watches.jobs == {1: True}

    async def test_looks_at_the_same_time_go_one_after_the_other(self, watched: Watched) -> None:
        watched.airbyte.held = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watched.monitor.poll)
            tasks.start_soon(watched.monitor.poll)
            await anyio.wait_all_tasks_blocked()
            assert watched.airbyte.lists <= 1
            watched.airbyte.held.set()

    async def test_an_airbyte_that_is_gone(self, http: httpx.AsyncClient, watched: Watched) -> None:
        gone = Airbyte()
        async with serve(gone):
            pass
        with pytest.raises(AirbyteUnreachable):
            await Monitor("default", client_of(http, gone.url), watched.store).poll()


class TestWatching:
    async def test_asks_once_for_what_is_not_known(self, watched: Watched) -> None:
        watched.airbyte.put(1)
        for _ in range(3):
            assert status_of((await watched.monitor.watch([1]))[1]) is JobStatus.RUNNING
        assert watched.airbyte.reads == 1

    async def test_what_is_being_asked_for_is_not_asked_for_by_others(self, watched: Watched) -> None:
        watched.airbyte.put(1)
        watched.airbyte.held = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watched.monitor.watch, [1])
            await anyio.wait_all_tasks_blocked()
            assert watched.monitor.watches.unread() == []
            watched.airbyte.held.set()

    async def test_a_renewed_watch_is_no_news_of_the_job(self, watched: Watched) -> None:
        """Else whoever renews often would keep a blind list from ever being noticed."""
        watched.airbyte.put(1)
        await watched.monitor.watch([1])
        reported = anyio.current_time()
        # Time passes from the report to the renewal.
        await anyio.sleep(0.01)
        await watched.monitor.watch([1])
        await watched.monitor.absorb([event_of(1, "running")])
        assert watched.monitor.watches.stale(anyio.current_time() - reported) == [1]
        await watched.monitor.read([1])
        assert watched.monitor.watches.stale(anyio.current_time() - reported) == []

    @pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
    async def test_ends_with_the_job(self, watched: Watched, end: str) -> None:
        watched.airbyte.put(1)
        await watched.monitor.watch([1])
        watched.airbyte.put(1, end)
        await watched.monitor.poll()
        assert watched.monitor.watches.jobs == {}
        assert status_of((await watched.monitor.watch([1]))[1]) == end
        assert watched.monitor.watches.jobs == {}
        assert watched.airbyte.reads == 1


class TestReusedNumbers:
    """Airbyte's database was restored or made anew: it gives job numbers again."""

    def again(self, watched: Watched, job_id: int, status: str = "running", **fields: Any) -> None:
        del watched.airbyte.jobs[job_id]
        watched.airbyte.put(job_id, status, **fields)

    async def three_ended(self, watched: Watched) -> None:
        for job_id in (1, 2, 3):
            watched.airbyte.put(job_id, "succeeded", ago=60)
        await watched.monitor.poll()
        assert watched.monitor.generations.number == 1

    async def test_i3_what_was_known_before_is_asked_for_again_once(self, watched: Watched) -> None:
        await self.three_ended(watched)
        self.again(watched, 1)
        await watched.monitor.poll()
        self.again(watched, 2, "pending")
        watched.airbyte.hidden.add(2)  # no look finds it

        states = await watched.monitor.states([1, 2, 3])

        assert {job_id: status_of(state) for job_id, state in states.items()} == {
            1: "running",
            2: "pending",
            3: "succeeded",
        }
        assert (watched.airbyte.reads_of(1), watched.airbyte.reads_of(2), watched.airbyte.reads_of(3)) == (0, 1, 1)
        assert (await watched.monitor.states([1, 2, 3])).keys() == {1, 2, 3}
        assert watched.airbyte.reads == 2

    async def test_it_is_said_once_and_counted(self, watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
        await self.three_ended(watched)
        for job_id in (1, 2, 3):
            self.again(watched, job_id, "succeeded")
            await watched.monitor.poll()
        assert caplog.text.count("Airbyte reuses job ids") == 1
        assert watched.monitor.counters.reused == 3
        assert watched.monitor.counters.contradictions == 0
        assert watched.monitor.generations.number == 2

    async def test_a_second_restore_is_another_generation(self, watched: Watched) -> None:
        await self.three_ended(watched)
        for _ in range(2):
            self.again(watched, 1, connection_id=str(uuid4()))
            await watched.monitor.poll()
        assert watched.monitor.generations.number == 3

    async def test_i3_another_listener_on_the_store_learns_it(self, watched: Watched, http: httpx.AsyncClient) -> None:
        await self.three_ended(watched)
        other = Monitor("default", client_of(http, watched.airbyte.url), watched.store)
        assert await other.states([2])
        assert watched.airbyte.reads == 0
        self.again(watched, 1)
        await watched.monitor.poll()
        assert await other.states([2])
        assert watched.airbyte.reads == 1

    async def test_i3_a_job_that_is_gone_is_unknown(self, watched: Watched) -> None:
        await self.three_ended(watched)
        self.again(watched, 1)
        await watched.monitor.poll()
        del watched.airbyte.jobs[3]
        assert await watched.monitor.states([3]) == {3: None}

    async def test_i3_one_answer_that_a_job_is_unknown_is_no_verdict(self, watched: Watched) -> None:
        watched.airbyte.put(1)
        watched.airbyte.unready.add(1)
        assert status_of((await watched.monitor.watch([1]))[1]) == "running"
        assert watched.monitor.watches.jobs == {1: True}
        assert watched.airbyte.reads == 2

    async def test_i4_a_job_that_is_said_to_be_unknown_while_it_is_listed_stays_watched(self, watched: Watched) -> None:
        watched.airbyte.put(1)
        watched.airbyte.faults[1] = 404
        for _ in range(2):
            await watched.monitor.watch([1])
            await watched.monitor.poll()
        assert watched.monitor.watches.jobs == {1: True}
