"""The sensor, in a thread as in a worker, against a simulated Airbyte."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # Airflow 3.0 and 3.1
    from airflow.exceptions import AirflowRescheduleException

from airbyte_events.events import JobError
from airbyte_events_provider.sensors.airbyte import AirbyteJobSensor

pytestmark = pytest.mark.anyio


def sensor(job_id: Any, **values: Any) -> AirbyteJobSensor:
    return AirbyteJobSensor(**{"task_id": "wait", "airbyte_job_id": job_id, "poke_interval": 0.05} | values)


async def test_poking(stage: Any) -> None:
    job = stage.start()

    async def end() -> None:
        await stage.until(lambda: stage.reads(job) > 1)
        stage.end(job)

    await stage.executing(sensor(job.id), end)


async def test_a_job_id_from_a_template_is_text(stage: Any) -> None:
    job = stage.start()
    stage.end(job)
    await stage.execute(sensor(str(job.id)))


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_a_job_without_success_fails_the_sensor_for_good(stage: Any, listener: Any, status: str) -> None:
    job = stage.start()
    error = JobError(message="password refused", type="config_error", origin="destination")
    stage.end(job, status, **({"error": error} if status == "failed" else {}))
    if status == "failed":
        # The listener knows why once it has confirmed the webhook.
        await stage.until(lambda: stage.reads(job) > 0)
    with pytest.raises(AirflowFailException, match="password refused" if status == "failed" else "was cancelled"):
        await stage.execute(sensor(job.id))


async def test_rescheduling(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job = stage.start()
    task = sensor(job.id, mode="reschedule")

    class Instance:
        def get_first_reschedule_date(self, context: Any) -> None:
            return None

    with pytest.raises(AirflowRescheduleException):
        await stage.execute(task, context={"ti": Instance()})
    stage.end(job)
    await stage.execute(task, context={"ti": Instance()})


async def test_deferring(stage: Any) -> None:
    job = stage.start()
    task = sensor(job.id, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        await stage.execute(task)
    assert deferred.value.trigger.serialize()[1]["cancel_on_kill"] is False
    firing = stage.firing(deferred.value.trigger)
    await stage.waited_for()
    stage.end(job)
    await stage.execute(task, "execute_complete", event=await firing)


async def test_deferring_for_a_job_that_has_ended(stage: Any) -> None:
    job = stage.start()
    stage.end(job)
    await stage.execute(sensor(job.id, deferrable=True))


async def test_the_timeout_of_a_deferred_sensor(stage: Any) -> None:
    job = stage.start()
    task = sensor(job.id, deferrable=True, timeout=0.1)
    with pytest.raises(TaskDeferred) as deferred:
        await stage.execute(task)
    event = await stage.fire(deferred.value.trigger)
    with pytest.raises(AirflowSensorTimeout):
        await stage.execute(task, "execute_complete", event=event)
    assert job.status == "running"


async def test_failing_softly(stage: Any) -> None:
    job = stage.start()
    task = sensor(job.id, deferrable=True, soft_fail=True)
    with pytest.raises(TaskDeferred) as deferred:
        await stage.execute(task)
    stage.end(job, "failed")
    event = await stage.fire(deferred.value.trigger)
    with pytest.raises(AirflowSkipException):
        await stage.execute(task, "resume_execution", next_method="execute_complete", next_kwargs={"event": event})
