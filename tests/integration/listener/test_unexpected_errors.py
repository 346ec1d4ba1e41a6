"""An error that nobody expects in one of the listener's sources ends neither the process nor what else it does."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from airbyte_events.simulator.notification_bodies import job_ended
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import Pending
from support.listener import CLIENT_SECRET, instance_of, serve_listener, settings_of
from support.loops import anyio_backend as anyio_backend
from support.stage import Stage
from support.waiting import a_while

pytestmark = pytest.mark.anyio


class Faulty(MemoryStore):
    """Raises what no store should."""

    faulty = True
    asked = 0

    async def pending(self, instance: str, *, after: int = 0, limit: int = 500) -> Pending:
        if self.faulty:
            self.asked += 1
            raise RuntimeError("canary-0123456789")
        return await super().pending(instance, after=after, limit=limit)


async def test_a_source_that_fails_is_begun_again_while_webhooks_are_taken_and_readiness_tells(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(instance_of(stage.sim.url, secret=CLIENT_SECRET))
    store = Faulty()
    (job,) = stage.start()
    stage.end([job])
    async with serve_listener(settings, store=store) as served:
        url = served.url
        ready = await until_ready_is(stage.http, url, 503)
        assert ready["faults"] == {"sources/default": "fails: RuntimeError"}
        assert (await stage.http.get(f"{url}/healthz")).status_code == 200
        body = job_ended(job, stage.sim.workspace, stage.sim.url)
        sent = await stage.http.post(served.webhooks, json=body)
        assert sent.status_code == 202
        await stage.until(lambda: store.asked > 1)
        store.faulty = False
        with anyio.fail_after(30):
            while (await stage.http.get(f"{url}/v1/jobs/default/{job.id}", headers=served.headers)).status_code != 200:
                await a_while()
        await until_ready_is(stage.http, url, 200)
    assert "canary" not in "".join(record.getMessage() for record in caplog.records)


async def until_ready_is(http: httpx.AsyncClient, url: str, status: int) -> Any:
    with anyio.fail_after(30):
        while (answer := await http.get(f"{url}/readyz")).status_code != status:
            await a_while()
    return answer.json()
