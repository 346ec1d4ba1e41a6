"""``GET /metrics`` of a real listener, as Prometheus reads it, and the log lines of a listener process."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from airbyte_events.errors import StoreError
from airbyte_events.listener.http.metrics import FRESH_SECONDS
from airbyte_events.simulator import Fault, Script, Simulator, serve_simulator
from airbyte_events.store.base import EventStore
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import Arrival, Receipt, StoreStats
from airbyte_events.web.rate_limit import REFUSALS_AT_ONCE
from support.command import command
from support.events import webhook_body
from support.listener import (
    API_TOKEN,
    CLIENT_SECRET,
    WEBHOOK_TOKEN,
    Installation,
    bearer,
)
from support.process import environ_of, listener_process
from support.waiting import a_while, until

pytestmark = pytest.mark.anyio


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class MeasuredListener(Installation):
    """A listener, and the first job of the Airbyte that it looks after."""

    @property
    def job_id(self) -> int:
        return min(self.sim.world.jobs)

    async def samples(self) -> Samples:
        """All that is told now, by name and labels."""
        answer = await self.http.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        for secret in (CLIENT_SECRET, API_TOKEN, WEBHOOK_TOKEN):
            assert secret not in answer.text
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    async def until(self, value: float, name: str, **labels: str) -> Samples:
        """What is told once that sample has the value."""
        with anyio.fail_after(30):
            while (samples := await self.samples()).get(_key(name, **labels)) != value:
                await a_while()
        return samples

    async def announce(self, body: bytes, token: str = WEBHOOK_TOKEN) -> int:
        return (await self.http.post(f"/webhooks/default/{token}", content=body)).status_code


def _key(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return f"airbyte_events_{name}", tuple(sorted(labels.items()))


class LostStore(MemoryStore):
    """One that fails while it is told to."""

    lost = False

    async def stats(self) -> StoreStats:
        self._fail()
        return await super().stats()

    async def check(self) -> None:
        self._fail()

    async def receive(self, arrival: Arrival) -> Receipt:
        self._fail()
        return await super().receive(arrival)

    def _fail(self) -> None:
        if self.lost:
            raise StoreError("the store is lost")


class BusyStore(MemoryStore):
    """One that counts how often it is asked how large it is, and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.answering = anyio.Event()

    async def stats(self) -> StoreStats:
        self.asked += 1
        await self.answering.wait()
        return await super().stats()


@asynccontextmanager
async def listening(
    store: EventStore | None = None, *, poll_interval: float = 3600, metrics_fresh: float = 0.05, **given: Any
) -> AsyncIterator[MeasuredListener]:
    given |= {"poll_interval": poll_interval, "poll_interval_idle": poll_interval, "token": None, "announces": False}
    async with MeasuredListener.open(events=store, metrics_fresh=metrics_fresh, **given) as measured:
        measured.start()
        yield measured


def told(job_id: int) -> bytes:
    return json.dumps({"data": {"jobId": job_id, "success": True}}).encode()


async def test_what_is_told_from_the_start() -> None:
    async with listening() as measured:
        samples = await measured.until(1, "lease_held", lease="sources/default")
        for name in ("store_head_sequence", "notifications_pending", "deliveries_due", "feed_resets_total"):
            assert samples[_key(name)] == 0
        for name in ("notifications_oldest_pending_seconds", "deliveries_overdue_seconds", "backoff_seconds"):
            assert samples[_key(name, airbyte="default")] == 0
        assert any(name == "airbyte_events_info" for name, _ in samples)
        assert not [name for name, _ in samples if name.endswith("_created")]


async def test_what_alerts_ask_the_increase_of_is_there_before_it_happens() -> None:
    async with listening() as measured:
        samples = await measured.samples()
        for status in ("200", "202", "400", "413", "503"):
            assert samples[_key("webhook_requests_total", airbyte="default", status=status)] == 0
        for status in ("404", "429"):
            assert samples[_key("webhook_requests_total", airbyte="", status=status)] == 0
        for name in ("missed_webhooks_total", "contradictions_total"):
            assert samples[_key(name, airbyte="default")] == 0
        for outcome in ("confirmed", "unconfirmed", "unknown_job"):
            assert samples[_key("confirmations_total", airbyte="default", outcome=outcome)] == 0
        assert samples[_key("detection_lag_seconds_count", airbyte="default", origin="poll")] == 0
        assert samples[_key("receipt_lag_seconds_count", airbyte="default")] == 0


async def test_receipts_of_tasks_that_waited_are_counted() -> None:
    async with listening() as measured:
        await measured.until(1, "job_events_total", airbyte="default", status="running", origin="poll")
        measured.sim.world.end_job(measured.sim.world.jobs[measured.job_id], "succeeded")
        assert await measured.announce(told(measured.job_id)) == 202
        await measured.until(1, "job_events_total", airbyte="default", status="succeeded", origin="webhook")
        receipt = {"instance": "default", "job_id": measured.job_id, "seconds_ago": 0}
        headers = bearer(API_TOKEN)
        # One that began to wait after the completion was published has received it at once, or late by itself.
        for waited in (0, 3600):
            body = {"receipts": [receipt | {"waited_seconds": waited}]}
            assert (await measured.http.post("/v1/receipts", json=body, headers=headers)).json() == {"receipts": 1}
        await measured.until(1, "receipt_lag_seconds_count", airbyte="default")


async def test_metrics_are_told_while_the_store_is_lost() -> None:
    store = LostStore()
    async with listening(store) as measured:
        assert _key("store_size_bytes") in await measured.until(1, "ready")
        store.lost = True
        assert await measured.announce(told(measured.job_id)) == 503
        samples = await measured.until(0, "ready")
        assert samples[_key("webhook_requests_total", airbyte="default", status="503")] == 1
        assert _key("store_size_bytes") not in samples
        store.lost = False
        assert _key("store_size_bytes") in await measured.until(1, "ready")


async def test_however_many_ask_one_page_is_made_at_a_time_and_webhooks_are_taken() -> None:
    store = BusyStore()
    async with listening(store, metrics_fresh=FRESH_SECONDS) as measured, anyio.create_task_group() as tasks:
        answers: list[int] = []

        async def ask() -> None:
            async with httpx.AsyncClient(base_url=measured.http.base_url, trust_env=False) as http:
                answers.append((await http.get("/metrics")).status_code)

        for _ in range(40):
            tasks.start_soon(ask)
        await until(lambda: store.asked)
        with anyio.fail_after(30):
            assert await measured.announce(told(measured.job_id)) == 202
            assert (await measured.http.get("/healthz")).status_code == 200
            assert (await measured.http.get("/readyz")).status_code == 200
        store.answering.set()
        await until(lambda: len(answers) == 40)
        assert answers == [200] * 40
        # A page is made anew after 2 s, which 40 answers can take on a busy machine.
        assert store.asked < 10
        # What is older than that is made anew.
        await measured.until(1, "webhook_requests_total", airbyte="default", status="202")


async def test_a_page_that_the_store_holds_up_holds_up_no_other_for_long() -> None:
    store = BusyStore()
    async with listening(store, metrics_fresh=FRESH_SECONDS) as measured:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(measured.samples)
        # Each that is made waits for the store. On a busy machine it is more than one.
        assert store.asked < 5
        store.answering.set()
        await measured.until(0, "store_notifications")


async def test_connections_have_metrics_of_their_own_only_where_wanted() -> None:
    name = "connection_last_success_timestamp_seconds"
    for wanted in (0, 1):
        async with listening(metrics_connections=wanted) as measured:
            await measured.until(1, "job_events_total", airbyte="default", status="running", origin="poll")
            world = measured.sim.world
            (connection,) = world.connections.values()
            jobs = [world.jobs[measured.job_id], world.start_job(world.add_connection(Script.hanging()))]
            for number, job in enumerate(jobs, 1):
                world.end_job(job, "succeeded")
                of = {"id": job.connection.id, "name": 'Orders "EU"\n'}
                assert await measured.announce(webhook_body(job.id, connection=of)) == 202
                await measured.until(
                    number, "job_events_total", airbyte="default", status="succeeded", origin="webhook"
                )
            samples = await measured.until(wanted, "connections_without_series")
            found = {labels: value for (each, labels), value in samples.items() if each == f"airbyte_events_{name}"}
            if not wanted:
                assert not found
                continue
            (labels,) = found
            assert dict(labels) == {"airbyte": "default", "connection": connection.id, "name": 'Orders "EU"'}
            assert found[labels] == pytest.approx(jobs[0].updated_at.timestamp(), abs=2)


async def test_where_there_are_tokens_metrics_want_one() -> None:
    token = "canary-that-is-a-metrics-token"
    async with listening(metrics_tokens=(token,)) as measured:
        assert (await measured.http.get("/metrics", headers=bearer(token))).status_code == 200
        # Each opens its own door.
        assert (await measured.http.get("/v1/jobs", headers=bearer(token))).status_code == 401
        assert (await measured.announce(b"{}", token)) == 404
        refused = [
            await measured.http.get("/metrics", headers=bearer(other)) for other in (API_TOKEN, WEBHOOK_TOKEN, "x")
        ]
        assert [each.status_code for each in refused] == [401] * 3
        assert "airbyte_events_" not in refused[0].text
        for _ in range(REFUSALS_AT_ONCE):
            await measured.http.get("/metrics")
        assert (await measured.http.get("/metrics")).status_code == 429
        assert (await measured.http.get("/metrics", headers=bearer(token))).status_code == 200


async def test_a_webhook_that_does_not_come_is_missed() -> None:
    async with listening(poll_interval=0.5) as measured:
        # Seen while it runs: what a look finds to have ended is news then.
        await measured.until(1, "job_events_total", airbyte="default", status="running", origin="poll")
        measured.sim.world.end_job(measured.sim.world.jobs[measured.job_id], "failed")
        samples = await measured.until(1, "missed_webhooks_total", airbyte="default")
        assert samples[_key("announced_syncs_total", airbyte="default")] == 0
        await measured.until(1, "detection_lag_seconds_count", airbyte="default", origin="poll")


async def test_a_webhook_that_waited_for_airbyte_is_not_missed() -> None:
    async with listening(poll_interval=0.5) as measured:
        await measured.until(1, "job_events_total", airbyte="default", status="running", origin="poll")
        # Neither a look nor a confirmation is answered; whichever is so first takes in what the webhook told.
        measured.sim.add_fault(Fault(kind="status", status=503, count=3))
        measured.sim.world.end_job(measured.sim.world.jobs[measured.job_id], "succeeded")
        assert await measured.announce(told(measured.job_id)) == 202
        samples = await measured.until(1, "announced_syncs_total", airbyte="default")
        assert samples[_key("missed_webhooks_total", airbyte="default")] == 0


async def test_a_token_that_is_refused_is_asked_for_anew() -> None:
    async with listening() as measured:
        token = {"airbyte": "default", "route": "POST /applications/token", "status": "200"}
        await measured.until(1, "airbyte_requests_total", **token)
        # The last request of the first poll.
        await measured.until(
            1, "airbyte_requests_total", airbyte="default", route="GET /connections/{id}", status="200"
        )
        measured.sim.tokens.expire()
        assert await measured.announce(told(measured.job_id)) == 202
        samples = await measured.until(2, "airbyte_requests_total", **token)
        assert samples[_key("airbyte_requests_total", airbyte="default", route="GET /jobs/{id}", status="401")] == 1


async def test_a_webhook_is_counted_from_its_answer_to_the_event() -> None:
    async with listening() as measured:
        assert await measured.announce(told(measured.job_id)) == 202
        samples = await measured.until(1, "confirmations_total", airbyte="default", outcome="unconfirmed")
        assert samples[_key("notifications_pending")] == 0
        assert samples[_key("webhook_requests_total", airbyte="default", status="202")] == 1
        assert samples[_key("webhook_answer_seconds_count")] == 1
        assert samples[_key("notification_commit_seconds_count")] == 1
        measured.sim.world.end_job(measured.sim.world.jobs[measured.job_id], "succeeded")
        assert await measured.announce(told(measured.job_id) + b" ") == 202
        samples = await measured.until(1, "job_events_total", airbyte="default", status="succeeded", origin="webhook")
        assert samples[_key("detection_lag_seconds_count", airbyte="default", origin="webhook")] == 1
        read = _key("airbyte_requests_total", airbyte="default", route="GET /jobs/{id}", status="200")
        assert samples[read] >= 2
        assert samples[_key("missed_webhooks_total", airbyte="default")] == 0


async def test_strangers_name_no_instance() -> None:
    async with listening() as measured:
        assert await measured.announce(b"{}", token="another-token-0123456789abcdef") == 404
        samples = await measured.samples()
        assert samples[_key("webhook_requests_total", airbyte="", status="404")] == 1


async def test_what_waits_has_an_age() -> None:
    async with listening() as measured:
        await measured.until(1, "lease_held", lease="sources/default")
        measured.sim.add_fault(Fault(kind="status", status=503))
        assert await measured.announce(told(measured.job_id)) == 202
        with anyio.fail_after(30):
            while (samples := await measured.samples())[
                _key("notifications_oldest_pending_seconds", airbyte="default")
            ] == 0:
                await a_while()
        assert samples[_key("notifications_pending")] == 1


@pytest.mark.parametrize("lines", ["json", "console"])
async def test_the_log_has_what_a_line_is_about_as_fields(tmp_path: Path, lines: str) -> None:
    simulator = Simulator(client_id="client", client_secret=CLIENT_SECRET)
    job = simulator.world.start_job(simulator.world.add_connection(Script.hanging()))
    given = {
        "CLIENT_ID": "client",
        "CLIENT_SECRET": CLIENT_SECRET,
        "STORE": f"sqlite:///{tmp_path}/events.db",
        "API_TOKENS": API_TOKEN,
        "WEBHOOK_TOKENS": WEBHOOK_TOKEN,
        "LOG_FORMAT": lines,
    }
    serve = [*command(), "serve", "--port", "0"]
    async with serve_simulator(simulator) as served, httpx.AsyncClient(trust_env=False) as http:
        given["AIRBYTE_URL"] = served.url
        async with listener_process(serve, environ_of(**given), tmp_path / "log") as (process, _, url):
            with anyio.fail_after(60):
                # The next look is minutes away: the end is learnt by webhook.
                while 'origin="poll",status="running"} 1' not in (await http.get(f"{url}/metrics")).text:
                    await a_while()
                simulator.add_fault(Fault(kind="status", status=503, count=1, route="GET /jobs/{id}"))
                simulator.world.end_job(job, "succeeded")
                webhook = f"{url}/webhooks/default/{WEBHOOK_TOKEN}"
                assert (await http.post(webhook, content=told(job.id))).status_code == 202
                # It is counted, then logged, in one breath.
                while 'origin="webhook",status="succeeded"} 1' not in (await http.get(f"{url}/metrics")).text:
                    await a_while()
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
    logged = (tmp_path / "log").read_text().splitlines()
    event = next(line for line in logged if "job succeeded: " in line and "origin=webhook" in line)
    again = next(line for line in logged if ": 503 " in line)
    assert " instance=default" in again or json.loads(again)["instance"] == "default"
    if lines == "console":
        assert re.search(rf" instance=default job_id={job.id} connection_id=\S+ cursor=[0-9a-f]+-2$", event)
        return
    everything = [json.loads(line) for line in logged]
    assert all({"time", "level", "logger", "message"} <= each.keys() for each in everything)
    told_of = json.loads(event)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told_of["time"])
    assert (told_of["level"], told_of["instance"], told_of["job_id"]) == ("info", "default", job.id)
    assert re.fullmatch("[0-9a-f]+-2", told_of["cursor"])
