"""Reasons from the internal API: used where it answers, done without where it does not."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.airbyte.internal_api import (
    BURST,
    LARGEST,
    RESPONSE_SECONDS,
    InternalApi,
    parse_cancelled,
    parse_failure,
)
from airbyte_events.airbyte.notifications import LONGEST_REASON
from airbyte_events.airbyte.url import internal_url
from airbyte_events.errors import AirbyteError
from airbyte_events.events import JobError, JobRef, Origin
from airbyte_events.hub.hub import Hub
from airbyte_events.jobs import Failure
from airbyte_events.monitor.late_reasons import MOST
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.monitor.observation import Received
from airbyte_events.monitor.poller import Ticks
from support.airbyte import Airbyte, client_of
from support.events import CONNECTION, webhook_body
from support.monitor import Watched
from support.waiting import a_moment, in_background

pytestmark = pytest.mark.anyio

REASON = {
    "failureOrigin": "source",
    "failureType": "config_error",
    "externalMessage": "Column id is gone",
    "internalMessage": "java.sql.SQLException",
    "stacktrace": "at java",
    "retryable": False,
    "timestamp": 1_700_000_000_000,
    "streamDescriptor": {"name": "orders", "namespace": "public"},
}
ERROR = JobError(
    message="Column id is gone", type="config_error", origin="source", retryable=False, stream="public.orders"
)


def info(job_id: int = 5, *reasons: Any, **job: Any) -> dict[str, Any]:
    attempts = [
        {"attempt": {"id": number, "failureSummary": {"failures": [one]}}} for number, one in enumerate(reasons)
    ]
    return {"job": {"id": job_id, "status": "failed", "configId": CONNECTION, **job}, "attempts": attempts}


def body(*args: Any, **job: Any) -> bytes:
    return json.dumps(info(*args, **job)).encode()


class TestReading:
    def test_the_last_attempts_first_failure_counts(self) -> None:
        given = info(5, {"externalMessage": "an earlier one"}, REASON)
        given["attempts"][1]["attempt"]["failureSummary"]["failures"].append({"externalMessage": "a later one"})
        assert parse_failure(5, given) == Failure(error=ERROR, attempts=2, connection_id=CONNECTION)

    @pytest.mark.parametrize("status", ["running", "succeeded", "cancelled", None, 7, {}])
    def test_i3_the_public_apis_state_counts(self, status: Any) -> None:
        assert parse_failure(5, info(5, REASON, status=status)) is None

    def test_another_jobs_answer_is_none(self) -> None:
        assert parse_failure(6, info(5, REASON)) is None

    @pytest.mark.parametrize("odd", [None, 7, "text", [], {}, [[]], {"attempt": None}])
    def test_other_shapes_have_no_reason(self, odd: Any) -> None:
        for given in (
            {"job": odd, "attempts": odd},
            {**info(5), "attempts": odd},
            {**info(5), "attempts": [odd]},
            {**info(5), "attempts": [{"attempt": {"failureSummary": odd}}]},
            {**info(5), "attempts": [{"attempt": {"failureSummary": {"failures": odd}}}]},
            info(5, odd),
            info(5, dict.fromkeys(REASON, odd)),
        ):
            failure = parse_failure(5, given)
            assert failure is None or failure.error is None or failure.error.message == odd == "text"

    def test_texts_are_cut(self) -> None:
        failure = parse_failure(5, info(5, {"externalMessage": "x" * 50_000, "failureType": "y" * 50_000}))
        assert failure is not None
        assert failure.error is not None
        assert failure.error.message is not None
        assert failure.error.type is not None
        assert (len(failure.error.message), len(failure.error.type) < 200) == (LONGEST_REASON, True)

    def test_a_cancellation_by_a_user(self) -> None:
        event = {"eventType": "SYNC_CANCELLED", "summary": {"jobId": 5}}
        assert parse_cancelled(5, "SYNC_CANCELLED", {"events": [event]})
        assert parse_cancelled(6, "SYNC_CANCELLED", {"events": [event]}) is False

    @pytest.mark.parametrize("odd", [None, 7, "text", {}, [[]], [None], [{}], [{"eventType": "SYNC_FAILED"}]])
    def test_i3_other_shapes_are_no_cancellation_and_rule_none_out(self, odd: Any) -> None:
        assert parse_cancelled(5, "SYNC_CANCELLED", {"events": odd}) is None
        event = {"eventType": "SYNC_CANCELLED", "summary": odd}
        assert parse_cancelled(5, "SYNC_CANCELLED", {"events": [event]}) is None

    @pytest.mark.parametrize(
        ("base", "url"),
        [
            ("http://localhost:8000/api/public/v1", "http://localhost:8000/api/v1"),
            ("https://example.com/airbyte/api/public/v1", "https://example.com/airbyte/api/v1"),
            ("http://localhost:8006/v1", "http://localhost:8006/api/v1"),
            ("https://api.airbyte.com/v1", "https://cloud.airbyte.com/api/v1"),
        ],
    )
    def test_where_it_is(self, base: str, url: str) -> None:
        assert internal_url(base) == url


class TestRequests:
    async def test_a_reason(self, airbyte: Airbyte, http: httpx.AsyncClient) -> None:
        airbyte.internal[5] = body(5, REASON)
        assert await client_of(http, airbyte.url).failure(5) == Failure(
            error=ERROR, attempts=1, connection_id=CONNECTION
        )

    async def test_who_asks_for_one_job_shares_one_request(self, airbyte: Airbyte, http: httpx.AsyncClient) -> None:
        airbyte.internal[5] = body(5, REASON)
        client, found = client_of(http, airbyte.url), []

        async def ask() -> None:
            found.append(await client.failure(5))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(ask)
        await ask()
        assert found == [Failure(error=ERROR, attempts=1, connection_id=CONNECTION)] * 11
        assert airbyte.asked_internally == 1

    @pytest.mark.parametrize("fault", [302, 401, 403, 404, 429, 500])
    async def test_after_a_refusal_the_call_is_left_out(
        self, airbyte: Airbyte, http: httpx.AsyncClient, fault: int
    ) -> None:
        airbyte.faults["internal"] = fault
        client = client_of(http, airbyte.url)
        assert [await client.failure(job_id) for job_id in (5, 6, 7)] == [None] * 3
        assert airbyte.asked_internally == 1
        assert client.backing_off == 0, "other requests need not wait"

    @pytest.mark.parametrize("fault", ["hang", "stall"])
    async def test_i4_one_that_hangs_delays_once_and_shortly(
        self, airbyte: Airbyte, http: httpx.AsyncClient, fault: str
    ) -> None:
        airbyte.faults["internal"] = fault
        client = client_of(http, airbyte.url, timeout=30.0)
        with anyio.fail_after(RESPONSE_SECONDS + 5):
            async with anyio.create_task_group() as tasks:
                for job_id in range(50):
                    tasks.start_soon(client.failure, job_id)
        assert airbyte.asked_internally <= 4

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"<html>sign in</html>",
            b"[" * 100_000,
            b'{"job": ' * 100_000,
            b'{"job": {"id": ' + b"9" * 100_000 + b"}}",
            b" " * (LARGEST + 1),
            b"\xff",
            b"null",
        ],
        ids=["empty", "page", "deep list", "deep object", "long number", "large", "no text", "null"],
    )
    async def test_hostile_answers(self, airbyte: Airbyte, http: httpx.AsyncClient, answer: bytes) -> None:
        airbyte.internal[5] = answer
        failure = await client_of(http, airbyte.url).failure(5)
        assert failure is None or failure == Failure()

    async def test_requests_are_bounded(self, airbyte: Airbyte, http: httpx.AsyncClient) -> None:
        client = client_of(http, airbyte.url)
        for job_id in range(1, BURST + 50):
            airbyte.internal[job_id] = body(job_id, REASON)
        found = [await client.failure(job_id) for job_id in range(1, BURST + 50)]
        assert found[0] is not None
        assert BURST <= airbyte.asked_internally < BURST + 40
        assert found[-1] is None or airbyte.asked_internally > BURST

    async def test_none_is_sent_while_airbyte_fails(self, airbyte: Airbyte, http: httpx.AsyncClient) -> None:
        airbyte.faults[4] = 503
        client = client_of(http, airbyte.url, base_delay=60.0, random=lambda: 1.0)
        with pytest.raises(AirbyteError):
            await client.get_job(4)
        assert await client.failure(5) is None
        assert airbyte.asked_internally == 0


async def next_process(watched: Watched, http: httpx.AsyncClient, job_id: int) -> None:
    """Run another process until it has the reason of this job."""
    monitor = Monitor("default", client_of(http, watched.airbyte.url), watched.store)
    monitor.late_reasons.interval = 0.001
    async with in_background(monitor.late_reasons.run):
        with anyio.fail_after(30):
            while (await watched.state(job_id)).error is None:
                await anyio.lowlevel.checkpoint()


class TestEvents:
    async def test_a_failure_that_polling_finds_has_its_reason_by_one_request(self, watched: Watched) -> None:
        watched.airbyte.put(5, "failed")
        watched.airbyte.internal[5] = body(5, {"externalMessage": "an earlier one"}, REASON)
        for _ in range(3):
            await watched.monitor.poll()
        state = await watched.state(5)
        assert (state.error, state.attempts, state.unconfirmed) == (ERROR, 2, frozenset())
        assert watched.airbyte.asked_internally == 1

    async def test_one_that_a_webhook_explains_costs_none(self, watched: Watched) -> None:
        watched.airbyte.put(5, "failed")
        received = Received.of(
            await watched.receive(webhook_body(5, success=False)), watched.monitor.system.read_notification
        )
        await watched.monitor.confirm([5], Origin.WEBHOOK, {5: [received]})
        assert str((await watched.state(5)).error) == "no such table (type config_error, origin destination)"
        assert watched.airbyte.asked_internally == 0

    async def test_jobs_that_did_not_fail_cost_none(self, watched: Watched) -> None:
        for job_id, status in enumerate(("running", "succeeded", "cancelled", "incomplete"), 1):
            watched.airbyte.put(job_id, status)
        await watched.monitor.poll()
        assert watched.airbyte.asked_internally == 0

    async def test_of_300_failures_at_once_each_gets_its_reason_by_one_request(self, watched: Watched) -> None:
        airbyte, monitor = watched.airbyte, watched.monitor
        assert isinstance(monitor.system, AirbyteClient)
        monitor.late_reasons.interval = 0.001
        for job_id in range(1, 301):
            airbyte.put(job_id, "failed")
            airbyte.internal[job_id] = body(job_id, REASON)

        async def found() -> list[tuple[JobError | None, int | None]]:
            states = await watched.store.jobs(limit=1000)
            return [(state.error, state.attempts) for state in states if state.error is not None]

        async with in_background(monitor.late_reasons.run):
            await anyio.wait_all_tasks_blocked()
            await monitor.poll()
            assert len(await watched.events()) == 300, "none waits for its reason"
            assert BURST <= len(await found()) < 300
            monitor.system.internal = InternalApi(monitor.system, per_second=1000)
            with anyio.fail_after(30):
                while monitor.late_reasons or len(await found()) < 300:
                    await a_moment()
        assert await found() == [(ERROR, 1)] * 300
        assert airbyte.asked_internally == 300

    async def test_reasons_that_an_earlier_process_was_to_request_are_requested(
        self, watched: Watched, http: httpx.AsyncClient
    ) -> None:
        watched.airbyte.faults["internal"] = 500
        watched.airbyte.put(5, "failed")
        await watched.monitor.poll()
        watched.airbyte.faults.clear()
        watched.airbyte.internal[5] = body(5, REASON)
        await next_process(watched, http, 5)
        assert (await watched.state(5)).error == ERROR

    async def test_a_failure_without_a_reason_is_requested_once_whatever_restarts(
        self, watched: Watched, http: httpx.AsyncClient
    ) -> None:
        airbyte = watched.airbyte
        airbyte.internal[5] = body(5, {})
        # There is no answer about job 6 yet.
        for job_id in (5, 6):
            airbyte.put(job_id, "failed")
            await watched.monitor.poll()
        airbyte.internal[6] = body(6, REASON)
        await next_process(watched, http, 6)
        assert ((await watched.state(5)).error, (await watched.state(5)).attempts) == (None, 1)
        assert airbyte.asked_internally == 3

    async def test_late_reasons_are_bounded_and_need_a_process_that_requests_them(self, watched: Watched) -> None:
        late = watched.monitor.late_reasons
        refs = [JobRef("default", job_id) for job_id in range(MOST + 5)]
        late.add(refs)
        assert len(late) == 0
        async with in_background(late.run):
            await anyio.wait_all_tasks_blocked()
            late.add(refs)
            assert len(late) == MOST
        assert len(late) == 0

    async def test_i3_the_reason_of_another_connections_job_is_not_used(self, watched: Watched) -> None:
        watched.airbyte.put(5, "failed")
        watched.airbyte.internal[5] = body(5, REASON, configId="another")
        await watched.monitor.poll()
        assert ((await watched.state(5)).status, (await watched.state(5)).error) == ("failed", None)

    @pytest.mark.parametrize("fault", [403, 404])
    async def test_i4_without_it_everything_works_as_before(self, watched: Watched, fault: int) -> None:
        watched.airbyte.faults["internal"] = fault
        watched.airbyte.put(5, "failed")
        await watched.monitor.poll()
        assert ((await watched.state(5)).status, (await watched.state(5)).error) == ("failed", None)

    async def test_without_a_listener_a_waiting_task_gets_it(self, airbyte: Airbyte, http: httpx.AsyncClient) -> None:
        airbyte.put(5)
        airbyte.internal[5] = body(5, REASON)
        ticks = Ticks(unproven=0.02, proven=0.02, idle=0.02)
        async with Hub(client_of(http, airbyte.url), ticks=ticks) as hub, anyio.create_task_group() as tasks:

            async def fail() -> None:
                await airbyte.until(lambda: airbyte.reads > 0)
                airbyte.put(5, "failed")

            tasks.start_soon(fail)
            with anyio.fail_after(30):
                event = await hub.wait(5)
        assert (event.error, event.attempts) == (ERROR, 1)
