"""An error that nobody expects in one of the listener's sources ends neither the process nor what else it does."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from pydantic import SecretStr

from airbyte_events.listener.assembly import assemble
from airbyte_events.listener.settings import InstanceSettings, Settings, StoreLocation
from airbyte_events.simulator.notification_bodies import job_ended
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import Pending
from airbyte_events.web.server import serving
from support.stage import API_TOKEN, SECRETS, WEBHOOK_TOKEN, Stage

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """uvicorn's."""
    return "asyncio"


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
    secret = SecretStr(SECRETS[0])
    settings = Settings(
        instances={"default": InstanceSettings(airbyte_url=stage.sim.url, client_id="client", client_secret=secret)},
        store=StoreLocation(kind="memory"),
        api_tokens=[API_TOKEN],
        webhook_tokens=[WEBHOOK_TOKEN],
        poll_interval=3600,
    )
    store = Faulty()
    (job,) = stage.start()
    stage.end([job])
    async with assemble(settings, store=store) as listener, serving(listener.app) as url:
        ready = await until_ready_is(stage.http, url, 503)
        assert ready["faults"] == {"sources/default": "fails: RuntimeError"}
        assert (await stage.http.get(f"{url}/healthz")).status_code == 200
        body = job_ended(job, stage.sim.workspace, stage.sim.url)
        sent = await stage.http.post(f"{url}/webhooks/default/{WEBHOOK_TOKEN}", json=body)
        assert sent.status_code == 202
        await stage.until(lambda: store.asked > 1)
        store.faulty = False
        headers = {"Authorization": f"Bearer {API_TOKEN}"}
        with anyio.fail_after(30):
            while (await stage.http.get(f"{url}/v1/jobs/default/{job.id}", headers=headers)).status_code != 200:
                await anyio.lowlevel.checkpoint()
        await until_ready_is(stage.http, url, 200)
        listener.bus.close()
    assert "canary" not in "".join(record.getMessage() for record in caplog.records)


async def until_ready_is(http: httpx.AsyncClient, url: str, status: int) -> Any:
    with anyio.fail_after(30):
        while (answer := await http.get(f"{url}/readyz")).status_code != status:
            await anyio.lowlevel.checkpoint()
    return answer.json()
