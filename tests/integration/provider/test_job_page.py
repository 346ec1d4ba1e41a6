"""What the page of a task's job shows, from a listener and from Airbyte."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import anyio.to_thread
import pytest

from airbyte_events.events import Identity
from airbyte_events.simulator import Fault, Script
from airbyte_events.simulator.scripts import Phase
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.plugins.job_view import read_job
from airbyte_events_provider.waiting.wait_start import JOB_XCOM, JobReference, wait_start
from support.airflow_stage import AirflowStage
from support.listener import Running
from support.waiting import until

pytestmark = pytest.mark.anyio


async def reference_of(stage: AirflowStage, job: Any) -> JobReference:
    """What a task pushes when it begins to wait."""

    def begin() -> Any:
        hook = AirbyteHook()
        found = hook.get_job_details(job.id)
        return wait_start(hook, found.job_id, Identity(found.connection_id, found.started_at), poll_interval=1).xcoms[
            JOB_XCOM
        ]

    reference = JobReference.parse(await anyio.to_thread.run_sync(begin))
    assert reference is not None
    return reference


async def test_without_a_listener_airbyte_is_asked(stage: AirflowStage) -> None:
    job = stage.start()
    reference = await reference_of(stage, job)
    view: Any = await read_job(reference)
    assert (view.source, view.job.status, view.observed_at) == ("Airbyte's API", "running", None)
    stage.end(job, records=17)
    view = await read_job(reference)
    assert (view.job.status, view.job.records, view.observed_at) == ("succeeded", 17, None)


async def test_with_a_listener_its_times_are_known(stage: AirflowStage, listener: Running) -> None:
    job = stage.start()
    reference = await reference_of(stage, job)
    stage.end(job)
    await anyio.to_thread.run_sync(AirbyteHook().wait, job.id)
    read = stage.reads(job)
    view: Any = await read_job(reference)
    assert (view.source, view.job.status, view.job.origin) == (f"the listener {listener.url}", "succeeded", "webhook")
    assert view.webhook_at <= view.observed_at
    assert stage.reads(job) == read


async def test_with_a_listener_a_running_job_has_its_progress(stage: AirflowStage, listener: Running) -> None:
    connection = stage.sim.world.connections[stage.connection_id]
    connection.script = Script(phases=(Phase(status="running", seconds=3600),), records=10**9, bytes=10**12)
    reference = await reference_of(stage, stage.start())

    async def with_records() -> Any:
        view: Any = await read_job(reference)
        return view if view.job.records else None

    # The listener's budget of requests for progress may be used up for the moment.
    view = await until(with_records)
    assert view.source == f"the listener {listener.url}"
    assert view.job is not None
    assert not view.job.terminal
    assert (view.job.bytes or 0) > view.job.records


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"airbyte_conn_id": "nowhere"}, "nowhere"),
        ({"job_id": 4711}, "4711"),
        ({"connection_id": "another"}, "is another one now"),
    ],
)
async def test_a_job_that_is_not_found_is_a_fault_of_the_page(
    stage: AirflowStage, change: dict[str, Any], fault: str
) -> None:
    view: Any = await read_job(replace(await reference_of(stage, stage.start()), **change))
    assert view.job is None
    assert fault in view.fault
    assert not any(secret in view.fault for secret in stage.secrets)


async def test_a_listener_that_fails_is_done_without(stage: AirflowStage) -> None:
    stage.connect_listener("http://127.0.0.1:1")
    reference = await reference_of(stage, stage.start())
    assert (await read_job(reference)).source == "Airbyte's API"
    stage.sim.add_fault(Fault(kind="status", status=500, route="GET /jobs/{id}"))
    assert "500" in str((await read_job(reference)).fault)


@pytest.mark.needs_airflow(3, 1, "plugins' pages beside tasks")
async def test_all_who_look_at_a_job_share_one_request(stage: AirflowStage) -> None:
    from airbyte_events_provider.plugins.job_page import JobPages

    job, other = stage.start(), stage.start_elsewhere()
    reference, another = await reference_of(stage, job), await reference_of(stage, other)
    read = stage.reads(job)
    pages = JobPages()
    async with anyio.create_task_group() as viewers:
        for each in [reference, another] * 20:
            viewers.start_soon(pages.view, each)
    assert (stage.reads(job), stage.reads(other)) == (read + 1, 2)
    assert (await pages.view(reference)).job == (await pages.view(reference)).job
