"""What the page of a task's job shows, from a listener and from Airbyte."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio.to_thread
import pytest

from airbyte_events.simulator import Fault
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.plugins.job_view import read_job
from airbyte_events_provider.waiting.outlook import JOB_XCOM, JobReference, outlook

pytestmark = pytest.mark.anyio


async def reference_of(stage: Any, job: Any) -> JobReference:
    """What a task pushes when it begins to wait."""

    def begin() -> Any:
        hook = AirbyteHook()
        found = hook.get_job_details(job.id)
        return outlook(hook, found, found.connection_id, poll_interval=1).xcoms[JOB_XCOM]

    reference = JobReference.parse(await anyio.to_thread.run_sync(begin))
    assert reference is not None
    return reference


async def test_without_a_listener_airbyte_is_asked(stage: Any) -> None:
    job = stage.start()
    reference = await reference_of(stage, job)
    view: Any = await read_job(reference)
    assert (view.source, view.job.status, view.observed_at) == ("Airbyte's API", "running", None)
    stage.end(job, records=17)
    view = await read_job(reference)
    assert (view.job.status, view.records, view.observed_at) == ("succeeded", 17, None)


async def test_with_a_listener_its_times_are_known(stage: Any, listener: Any) -> None:
    job = stage.start()
    reference = await reference_of(stage, job)
    stage.end(job)
    await anyio.to_thread.run_sync(AirbyteHook().wait, job.id)
    read = stage.reads(job)
    view: Any = await read_job(reference)
    assert (view.source, view.job.status, view.job.origin) == (f"the listener {listener.url}", "succeeded", "webhook")
    assert view.webhook_at <= view.observed_at
    assert stage.reads(job) == read


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"airbyte_conn_id": "nowhere"}, "nowhere"),
        ({"job_id": 4711}, "4711"),
        ({"connection_id": "another"}, "is another one now"),
    ],
)
async def test_a_job_that_is_not_found_is_a_fault_of_the_page(stage: Any, change: dict[str, Any], fault: str) -> None:
    view: Any = await read_job(replace(await reference_of(stage, stage.start()), **change))
    assert view.job is None
    assert fault in view.fault
    assert not any(secret in view.fault for secret in stage.secrets)


async def test_a_listener_that_fails_is_done_without(stage: Any) -> None:
    stage.connect_listener("http://127.0.0.1:1")
    reference = await reference_of(stage, stage.start())
    assert (await read_job(reference)).source == "Airbyte's API"
    stage.sim.add_fault(Fault(kind="status", status=500, route="GET /jobs/{id}"))
    assert "500" in str((await read_job(reference)).fault)
