"""Whoever knows the webhook's URL writes what they like around real ends: over HTTP, against a listener and hubs."""

from __future__ import annotations

import itertools
import json
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.events import EventFilter, JobEvent, JobStatus
from airbyte_events.hub.position import Position
from airbyte_events.simulator import Script
from airbyte_events_provider.waiting.result import missing_records, outcome
from support.events import event_of
from support.hubs import next_end
from support.listener import API_TOKEN, WEBHOOK_TOKEN, bearer
from support.loops import anyio_backend as anyio_backend
from support.stage import Stage
from support.waiters import Waiters
from support.waiting import a_moment

pytestmark = pytest.mark.anyio

RECORDS = 1_200


class Forger:
    """Knows the webhook's URL, the connection and the job; can't ask Airbyte."""

    def __init__(self, stage: Stage, listener: str) -> None:
        self.listener, self.token = listener, API_TOKEN
        self._stage, self._url = stage, f"{listener}/webhooks/default/{WEBHOOK_TOKEN}"
        self._number = itertools.count()

    def bodies(self, job: Any, *, success: bool = True) -> list[bytes]:
        now = utcnow()
        finishes = [
            "9999-12-31T23:59:59.999999Z",
            "0001-01-01T00:00:00Z",
            *(format_time(now - timedelta(seconds=seconds)) for seconds in (3_600, 0, -3_600)),
            None,
        ]
        title = "Sync completed" if success else "Sync failure occurred"
        return [
            json.dumps(
                {
                    "text": f"{title} {next(self._number)}",
                    "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": f"{title}: x"}}],
                    "data": {
                        "workspace": {"id": "forged", "name": "forged"},
                        "connection": {
                            "id": job.connection.id,
                            "name": "forged",
                            "url": f"https://evil.example/connections/{job.connection.id}",
                        },
                        "jobId": job.id,
                        "startedAt": started,
                        "finishedAt": finish,
                        "recordsCommitted": 0,
                        "bytesCommitted": 2**63 - 1,
                        "durationInSeconds": 2**63 - 1,
                        "success": success,
                        "errorMessage": "forged",
                        "errorType": "config_error",
                    },
                }
            ).encode()
            for finish, started in itertools.product(finishes, [None, format_time(now - timedelta(days=1))])
        ]

    async def send(self, job: Any, **options: Any) -> None:
        async with anyio.create_task_group() as tasks:
            for body in self.bodies(job, **options):
                tasks.start_soon(self._post, body)

    async def _post(self, body: bytes) -> None:
        answer = await self._stage.http.post(self._url, content=body)
        assert answer.status_code in (200, 202)


async def settled(stage: Stage, listener: str, token: str) -> None:
    """Returns when no notification waits to be confirmed."""
    with anyio.fail_after(30):
        while any(
            each["outcome"] == "pending"
            for each in (await read(stage, f"{listener}/v1/notifications?limit=1000", token))["notifications"]
        ):
            await a_moment()


def check(event: JobEvent, job: Any) -> None:
    """It has what Airbyte's API says; what a webhook alone says is marked."""
    assert event.status.value == job.status
    assert event.finished_at is not None
    assert abs(event.finished_at - job.ended_at) <= timedelta(seconds=1)
    assert (event.records, event.bytes) == (job.records, job.bytes)
    assert event.duration_seconds is not None
    assert event.duration_seconds < 100
    added = {name for name in ("workspace_id", "error", "names", "url") if getattr(event, name)}
    assert event.unconfirmed <= added
    # Airbyte's internal API has the reason, too.
    if confirmed := added - event.unconfirmed:
        assert (confirmed, event.error and event.error.message) == ({"error"}, job.error.message)
    if event.status is JobStatus.SUCCEEDED:
        assert missing_records(outcome(event), RECORDS) is None


async def read(stage: Stage, url: str, token: str) -> Any:
    return (await stage.http.get(url, headers=bearer(token))).json()


async def follow(hub: Any, jobs: list[Any], told: dict[int, JobEvent]) -> None:
    """Returns when the end of each has come, once."""
    wanted = EventFilter(connection_ids=frozenset(job.connection.id for job in jobs))
    with hub.follow(wanted, Position(floor=utcnow() - timedelta(minutes=5))) as ends:
        while len(told) < len(jobs):
            event = await next_end(ends)
            assert event.ref.job_id not in told
            told[event.ref.job_id] = event


async def forge_around(stage: Stage, forger: Forger, jobs: list[Any]) -> None:
    """End the jobs amid forgeries: before the end, at once after it, and when all is settled."""
    for number, job in enumerate(jobs):
        success = number % 4 != 3
        if number % 3:
            await forger.send(job, success=success)
        stage.end([job], "succeeded" if success else "failed")
        await forger.send(job, success=success)
        if number % 3 == 2:
            await settled(stage, forger.listener, forger.token)
            await forger.send(job, success=success)


async def test_i3_what_a_stranger_writes_around_real_ends_changes_none(stage: Stage, waiters: Waiters) -> None:
    jobs = stage.start(12, script=Script(end=None, records=RECORDS, bytes=9_000))
    told: dict[int, JobEvent] = {}
    async with stage.listener() as url, stage.hub(stage.feed(url), grace=30) as hub:
        await stage.ready(hub)
        for job in jobs:
            waiters.wait(hub, job.id)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, hub, jobs, told)
                await forge_around(stage, Forger(stage, url), jobs)
        for job in jobs:
            check(await waiters.result(job.id), job)
            check(told[job.id], job)
        await settled(stage, url, API_TOKEN)
        for job in jobs:
            page = await read(stage, f"{url}/v1/jobs/default/{job.id}", API_TOKEN)
            ends = [event for event in map(JobEvent.from_envelope, page["history"]) if event.terminal]
            assert len(ends) == 1
            check(ends[0], job)

        # When all is said, the names and reasons are those of Airbyte's own notifications.
        for job in jobs:
            page = await read(stage, f"{url}/v1/jobs/default/{job.id}", API_TOKEN)
            state = JobEvent.from_data(page["job"])
            check(state, job)
            assert state.names["connection"] == job.connection.name
            assert "evil" not in (state.url or "evil")
            assert (state.error and state.error.message) == (job.error and job.error.message)

        # A hub that begins now reads all of it.
        async with stage.hub(stage.feed(url), grace=30) as later:
            for job in jobs:
                check(await later.wait(job.id), job)


async def test_i3_ends_that_only_strangers_announce_are_the_apis_and_marked(stage: Stage) -> None:
    """Airbyte's own webhook was lost: the words of strangers stand beside the end, and decide nothing."""
    (job,) = stage.start(script=Script(end=None, records=RECORDS, bytes=9_000))
    stage.sim.workspace.set_webhook(None)
    async with stage.listener(webhooks=False) as url:
        stage.end([job])
        forger = Forger(stage, url)
        await forger.send(job)
        await settled(stage, url, API_TOKEN)
        async with stage.hub(stage.feed(url), grace=30) as hub:
            event = await hub.wait(job.id)
    assert (event.records, event.bytes) == (RECORDS, 9_000)
    assert event.names["connection"] == "forged"
    assert event.unconfirmed >= {"names", "workspace_id"}
    assert missing_records(outcome(event), RECORDS) is None
    assert isinstance(event.finished_at, datetime)


async def test_i3_a_count_that_only_a_webhook_tells_is_none_for_min_records(stage: Stage) -> None:
    event = outcome(event_of(5))
    event["job"] |= {"records": 5_000, "unconfirmed": ["records"]}
    assert "does not say how many records" in (missing_records(event, 1_000) or "")
