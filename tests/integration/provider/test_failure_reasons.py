"""Why a job failed, in the exceptions of deferred tasks without a listener."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import anyio
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airbyte_events.events import JobError
from airbyte_events.simulator import Fault
from airbyte_events.simulator.models import Job
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.sensors.airbyte import AirbyteJobSensor
from support.airflow_stage import AirflowStage

pytestmark = pytest.mark.anyio

ROUTE = "POST /jobs/get_without_logs"
ERROR = JobError(message="column is gone", type="config_error", origin="source")


def task(job: Job) -> AirbyteTriggerSyncOperator:
    return AirbyteTriggerSyncOperator(task_id="sync", connection_id=job.connection.id, deferrable=True)


async def failed(stage: AirflowStage, job: Job) -> dict[str, Any]:
    """The event of the trigger that waits while the job fails."""
    event: dict[str, Any] = await stage.completed(job, "failed", error=ERROR)
    return event


async def test_of_300_failures_at_once_each_task_has_its_reason_by_one_request(stage: AirflowStage) -> None:
    jobs = [stage.start_elsewhere() for _ in range(300)]
    firing = [stage.firing(stage.trigger(job)) for job in jobs]
    await stage.waited_for(len(jobs))
    for job in jobs:
        stage.end(job, "failed", error=ERROR)
    events = [await each for each in firing]
    with_reason = sum(event["job"]["error"] is not None for event in events)
    assert with_reason == stage.requests(ROUTE) < len(jobs), "some are left to the workers"
    told: Counter[str] = Counter()

    async def resume(job: Job, event: dict[str, Any]) -> None:
        with pytest.raises(AirflowException) as failure:
            await stage.execute(task(job), "execute_complete", event=event)
        told[str(failure.value).partition("failed: ")[2]] += 1

    async with anyio.create_task_group() as tasks:
        for job, event in zip(jobs, events, strict=True):
            tasks.start_soon(resume, job, event)
    ((reason, count),) = told.items()
    assert reason.startswith("column is gone (type config_error, origin source)")
    assert (count, stage.requests(ROUTE)) == (len(jobs), len(jobs))


async def test_a_worker_asks_for_the_reason_that_the_triggerer_could_not_learn(
    stage: AirflowStage, caplog: pytest.LogCaptureFixture
) -> None:
    job = stage.start()
    stage.sim.add_fault(Fault(kind="status", status=500, route=ROUTE, count=1))
    event = await failed(stage, job)
    assert event["job"]["error"] is None
    with pytest.raises(AirflowException, match="failed: column is gone"), caplog.at_level(logging.ERROR):
        await stage.execute(task(job), "execute_complete", event=event)
    assert "failed: column is gone" in caplog.text


async def test_a_sensor_does_too(stage: AirflowStage) -> None:
    job = stage.start()
    stage.sim.add_fault(Fault(kind="status", status=500, route=ROUTE, count=1))
    event = await failed(stage, job)
    sensor = AirbyteJobSensor(task_id="wait", airbyte_job_id=job.id, deferrable=True)
    with pytest.raises(AirflowFailException, match="failed: column is gone"):
        await stage.execute(sensor, "execute_complete", event=event)


async def test_a_failure_without_a_reason_is_asked_for_once(stage: AirflowStage) -> None:
    job = stage.start()
    firing = stage.firing(stage.trigger(job))
    await stage.waited_for()
    stage.end(job, "failed", error=ERROR)
    # As of an Airbyte that has no reason.
    job.attempts[-1].error = None
    event = await firing
    assert (event["job"]["error"], event["job"]["attempts"]) == (None, 1)
    with pytest.raises(AirflowException, match="failed: Airbyte's API has no reason"):
        await stage.execute(task(job), "execute_complete", event=event)
    assert stage.requests(ROUTE) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 403},
        {"kind": "status", "status": 404},
        {"kind": "status", "status": 429},
        {"kind": "slow", "delay": 60},
        {"kind": "reset"},
    ],
    ids=lambda fault: str(fault.get("status", fault["kind"])),
)
async def test_i4_without_the_internal_api_the_task_fails_all_the_same(
    stage: AirflowStage, fault: dict[str, Any]
) -> None:
    stage.sim.add_fault(Fault(**fault, route=ROUTE))
    job = stage.start()
    event = await failed(stage, job)
    with pytest.raises(AirflowException, match="failed: Airbyte's API has no reason"):
        await stage.execute(task(job), "execute_complete", event=event)
    assert stage.requests(ROUTE) == 2


async def test_i4_without_any_airbyte_the_task_fails_all_the_same(stage: AirflowStage) -> None:
    job = stage.start()
    stage.sim.add_fault(Fault(kind="status", status=500, route=ROUTE, count=1))
    event = await failed(stage, job)
    stage.connect("airbyte_default", conn_type="airbyte", host="http://127.0.0.1:1", login="client", password="x")
    with pytest.raises(AirflowException, match="failed: Airbyte's API has no reason"):
        await stage.execute(task(job), "execute_complete", event=event)
