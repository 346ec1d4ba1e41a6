"""What strangers and other clients have Airbyte asked, and who waits for that."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.events import JobRef
from airbyte_events.feed.client import FeedClient
from airbyte_events.monitor.monitor import ASKED_AT_ONCE, ASKED_PER_SECOND
from airbyte_events.simulator import Script, Simulator, serve_simulator
from soak import flood
from soak.crowd import until
from soak.listening import API_TOKEN, Listener

pytestmark = pytest.mark.anyio


TOGETHER = 8
AUTHORIZED = {"Authorization": f"Bearer {API_TOKEN}"}


def asked(airbyte: Simulator) -> int:
    """Requests that have reached Airbyte."""
    return sum(airbyte.traffic.counts.values())


async def test_forged_webhooks_where_thousands_of_jobs_have_changed(
    http: httpx.AsyncClient, tmp_path: Path, soak: bool, report: Callable[..., None]
) -> None:
    """Eight at a time, which are listed together: of jobs that are not there, as if they had ended before others."""
    before = utcnow() - timedelta(minutes=5)
    changed, rounds = (10_000, 40) if soak else (3_000, 5)
    airbyte = Simulator(latency=0.05)
    for _ in range(changed):
        airbyte.world.end_job(airbyte.world.start_job(airbyte.world.add_connection(Script.hanging())), "succeeded")
    forged = 0
    # Its own polls are no part of what webhooks cause: while nothing is watched there are none after the first.
    async with (
        serve_simulator(airbyte),
        Listener(tmp_path, airbyte.url, POLL_INTERVAL_IDLE="3600", POLL_INTERVAL_VIEWED="3600") as listener,
    ):
        listener.start()
        await listener.ready()
        await until(lambda: airbyte.traffic.counts["GET /jobs"] > changed // 100, "the first poll")
        by_itself = asked(airbyte)
        began = anyio.current_time()
        for _ in range(rounds):
            bodies = [_announcement(10**6 + forged + number, before) for number in range(TOGETHER)]
            posts = flood.notifications(listener.webhooks, bodies)
            outcome = await anyio.to_thread.run_sync(flood.run, ("127.0.0.1", listener.port), posts, TOGETHER, 10)
            assert outcome.statuses == {202: TOGETHER}, outcome
            forged += TOGETHER
            with anyio.fail_after(60):
                while await _unconfirmed(http, listener):  # noqa: ASYNC110 -- of a process
                    await anyio.sleep(0.05)
        passed = anyio.current_time() - began
        requests = asked(airbyte) - by_itself
        await listener.stop()
    more = f"{changed:,} jobs had changed: {requests / forged:.2f} requests of Airbyte for each forged webhook"
    report("forged webhooks", rounds=rounds, sent=forged, more=more)
    assert requests <= ASKED_AT_ONCE + ASKED_PER_SECOND * passed + 5
    assert requests <= 1.25 * forged + 5


async def test_i4_webhooks_beside_a_thousand_watched_jobs_that_are_not_there(
    http: httpx.AsyncClient, tmp_path: Path, rounds: Callable[[int, int], int], report: Callable[..., None]
) -> None:
    """Airbyte takes 50 ms for each answer: for all of them a quarter of a minute."""
    ends = rounds(20, 5)
    waits: list[float] = []
    async with (
        serve_simulator(Simulator(latency=0.05)) as airbyte,
        Listener(tmp_path, airbyte.url, POLL_INTERVAL="3600", POLL_INTERVAL_IDLE="3600") as listener,
    ):
        airbyte.workspace.set_webhook(listener.webhooks)
        listener.start()
        await listener.ready()
        feed = FeedClient(http, listener.url, API_TOKEN)
        async with anyio.create_task_group() as tasks:
            unknown = [JobRef("default", 10**6 + number) for number in range(1_000)]
            tasks.start_soon(feed.watch, unknown)
            await until(lambda: airbyte.traffic.counts["GET /jobs/{id}"] > 20, "the watches")
            for _ in range(ends):
                job = airbyte.world.start_job(airbyte.world.add_connection(Script.hanging()))
                airbyte.world.end_job(job, "succeeded")
                began = anyio.current_time()
                with anyio.fail_after(60):
                    while not await _known(http, listener, job.id):  # noqa: ASYNC110 -- of a process
                        await anyio.sleep(0.02)
                waits.append(anyio.current_time() - began)
            reads = airbyte.traffic.counts["GET /jobs/{id}"]
            tasks.cancel_scope.cancel()
        await listener.stop()
    report("watched jobs that are not there", rounds=ends, more=f"an end is known in {max(waits):.2f} s at most")
    # Meanwhile the others were asked for.
    assert 20 + ends < reads < 1_000
    assert max(waits) < 3, waits


async def _known(http: httpx.AsyncClient, listener: Listener, job_id: int) -> bool:
    return (await http.get(f"{listener.url}/v1/jobs/default/{job_id}", headers=AUTHORIZED)).status_code == 200


async def _unconfirmed(http: httpx.AsyncClient, listener: Listener) -> bool:
    answer = await http.get(f"{listener.url}/v1/notifications", params={"limit": TOGETHER}, headers=AUTHORIZED)
    return any(each["outcome"] == "pending" for each in answer.json()["notifications"])


def _announcement(job_id: int, finished_at: datetime) -> bytes:
    text = "Sync completed: <http://airbyte|orders>"
    data = {
        "connection": {"id": "00000000-0000-4000-8000-000000000000"},
        "jobId": job_id,
        "success": True,
        "finishedAt": format_time(finished_at),
    }
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]
    return json.dumps({"text": text, "blocks": blocks, "data": data}).encode()
