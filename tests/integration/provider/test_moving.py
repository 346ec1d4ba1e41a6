"""Tasks that the official provider deferred continue here, and the other way round."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

from airbyte_events.simulator import Fault
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.sensors.airbyte import AirbyteJobSensor
from airbyte_events_provider.triggers.airbyte import AirbyteStartTrigger
from support.airflow_stage import AirflowStage

pytestmark = pytest.mark.anyio


def official(status: str, job_id: int) -> dict[str, Any]:
    """The event of the official trigger, 6.2.0."""
    return {"status": status, "message": f"Job run {job_id} has completed.", "job_id": job_id}


def operator(stage: AirflowStage, **values: Any) -> AirbyteTriggerSyncOperator:
    given: dict[str, Any] = {"task_id": "sync", "connection_id": stage.connection_id, "deferrable": True, "timeout": 15}
    return AirbyteTriggerSyncOperator(**given | values)


def sensor(job_id: int) -> AirbyteJobSensor:
    return AirbyteJobSensor(task_id="wait", airbyte_job_id=job_id, deferrable=True)


class Instance:
    """A task instance of which XComs are of interest."""

    try_number = 1
    max_tries = 0

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


@pytest.mark.parametrize("sensing", [False, True])
async def test_a_success_that_the_official_trigger_reports_leaves_the_jobs_values(
    stage: AirflowStage, sensing: bool
) -> None:
    job, ti = stage.start(), Instance()
    stage.end(job, records=17)
    task = sensor(job.id) if sensing else operator(stage)
    await stage.execute(task, "execute_complete", context={"ti": ti}, event=official("success", job.id))
    assert ti.xcoms["records"] == ti.xcoms["job"]["records"] == 17
    assert stage.requests("POST /jobs") == 0


async def test_a_success_stays_one_where_airbyte_can_not_be_asked(stage: AirflowStage) -> None:
    job, ti = stage.start(), Instance()
    stage.end(job)
    for route in ("GET /jobs/{id}", "GET /jobs"):
        stage.sim.add_fault(Fault(kind="status", status=403, route=route))
    event = official("success", job.id)
    assert await stage.execute(operator(stage), "execute_complete", context={"ti": ti}, event=event) == job.id
    assert ti.xcoms["job"] is None


async def test_i3_what_the_official_trigger_calls_an_error_is_a_success_if_the_job_is_one(stage: AirflowStage) -> None:
    """Theirs reports an error where a request failed."""
    job = stage.end(stage.start())
    assert await stage.execute(operator(stage), "execute_complete", event=official("error", job.id)) == job.id


@pytest.mark.parametrize(
    ("end", "message", "status"),
    [("error", "Job run 1 has completed", "running"), ("timeout", "The job is cancelled now", "cancelled")],
)
async def test_their_error_leaves_the_job_alone_and_their_time_out_cancels_it(
    stage: AirflowStage, end: str, message: str, status: str
) -> None:
    job = stage.start()
    with pytest.raises(AirflowException, match=message):
        await stage.execute(operator(stage), "execute_complete", event=official(end, job.id))
    assert job.status == status


async def test_a_job_that_a_person_cancelled_fails_the_task_for_good(stage: AirflowStage) -> None:
    job = stage.end(stage.start(), "cancelled", cancelled_by="user")
    with pytest.raises(AirflowFailException, match=r"cancelled in Airbyte .* A retry would undo that decision"):
        await stage.execute(operator(stage), "execute_complete", event=official("cancelled", job.id))


async def test_a_task_that_is_deferred_here_hands_their_method_an_event_alone(stage: AirflowStage) -> None:
    raised = await stage.defer(operator(stage))
    assert (raised.method_name, raised.kwargs) == ("execute_complete", None)
    stage.end(stage.sim.world.jobs[1])
    event = await stage.fire(raised.trigger)
    assert official("success", 1).keys() <= event.keys()
    assert event["status"] == "success"


async def test_a_task_that_release_0_1_0_has_deferred_continues(stage: AirflowStage) -> None:
    job = stage.end(stage.start())
    event = {
        key: value
        for key, value in (await stage.fire(stage.trigger(job))).items()
        if key not in ("began", "try_number")
    }
    context = {"ti": Instance()}
    values = {"context": context, "event": event, "began": 1e9, "try_number": 1}
    assert await stage.execute(operator(stage), "execute_complete", **values) == job.id


async def test_their_helper_says_whether_the_job_runs(stage: AirflowStage) -> None:
    job = stage.start()
    trigger = stage.trigger(job)
    assert await trigger.is_still_running(AirbyteHook())
    assert await trigger.is_still_running(SimpleNamespace(get_job_status=lambda job_id: "incomplete"))
    stage.end(job)
    assert not await trigger.is_still_running(AirbyteHook())


@pytest.mark.parametrize("event", [None, "success"])
async def test_without_an_event_of_ours_the_task_begins_again(stage: AirflowStage, event: object) -> None:
    """What `airflow dags test` hands over of an event that ends a task is its state alone."""
    with pytest.raises(TaskDeferred):
        await stage.execute(operator(stage), "execute_complete", event=event)
    assert stage.requests("POST /jobs") == 1


async def test_i3_a_task_that_is_to_begin_in_a_worker_is_no_success_to_their_method(stage: AirflowStage) -> None:
    """Theirs takes a status that it does not know for a success."""
    trigger = AirbyteStartTrigger(connection_id=stage.connection_id, airbyte_conn_id="airbyte_default")
    stage.sim.add_fault(Fault(kind="status", status=403, route="POST /jobs"))
    assert (await stage.fire(trigger))["status"] == "error"


async def test_a_task_that_release_0_1_0_hands_over_to_a_worker_begins_there(stage: AirflowStage) -> None:
    with pytest.raises(TaskDeferred):
        await stage.execute(operator(stage), "execute_complete", event={"status": "begin", "message": "Beginning."})
