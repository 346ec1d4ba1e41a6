"""Tasks that refresh, tasks that cancel what is in their way, and who cancelled a task's own job."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

from airbyte_events.simulator import Fault, Script
from airbyte_events.simulator.scripts import Phase
from airbyte_events_provider.arguments import WrongArgument
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.triggers.airbyte import AirbyteStartTrigger
from support.airflow import StateStore, TaskInstance, uuid7
from support.airflow_stage import AirflowStage, TaskStates

pytestmark = pytest.mark.anyio

REFRESH: dict[str, Any] = {"job_type": "refresh", "refresh_mode": "truncate", "streams": ["orders"]}


class Task:
    """A task with one retry, whose every part runs in a worker of its own."""

    def __init__(self, stage: AirflowStage, **values: Any) -> None:
        self.stage = stage
        self.values = {"connection_id": stage.connection_id, "wait_seconds": 0.1, "retries": 1, **values}
        self.store = StateStore()
        # Prepared long ago: its cancellation is nobody's clearing.
        self.ti = TaskInstance(max_tries=1, id=uuid7(-900))

    async def execute(self, method: str = "execute", **values: Any) -> Any:
        task = AirbyteTriggerSyncOperator(task_id="sync", **self.values)
        context = {"ti": self.ti, "task_state_store": self.store}
        try:
            return await self.stage.execute(task, method, context=context, **values)
        except TaskDeferred as deferred:
            return deferred

    async def fire(self, deferred: TaskDeferred) -> Any:
        return await self.execute(deferred.method_name, event=await self.stage.fire(deferred.trigger))


def only_job(stage: AirflowStage) -> Any:
    (job,) = stage.sim.world.jobs.values()
    return job


@pytest.mark.parametrize("deferrable", [False, True])
async def test_a_refresh_completes_a_task(stage: AirflowStage, deferrable: bool) -> None:
    stage.sim.world.connections[stage.connection_id].script = Script.lasting(0.3)
    task = Task(stage, deferrable=deferrable, **REFRESH)
    result = await task.execute()
    if deferrable:
        result = await task.fire(result)
    assert result == 1
    job = only_job(stage)
    assert (job.type, job.refreshed) == ("refresh", [{"name": "orders", "namespace": "public"}])


async def test_a_retry_resumes_the_refresh(stage: AirflowStage) -> None:
    task = Task(stage, deferrable=True, **REFRESH)
    await task.execute()
    task.ti.try_number = 2
    assert (await task.execute()).trigger.job_id == 1
    assert stage.requests("POST /connections/refresh") == 1


@pytest.mark.parametrize("release", ["2.0", "2.1"])
async def test_a_retry_finds_the_refresh_whose_start_had_no_response(stage: AirflowStage, release: str) -> None:
    task = Task(stage, deferrable=True, timeout=0.3, **REFRESH)
    stage.sim.add_fault(Fault(kind="reset", route="POST /connections/refresh", after=True))
    stage.sim.add_fault(Fault(kind="slow", delay=1, route="GET /jobs", count=1))
    assert (await task.execute()).trigger.job_id == 1
    assert stage.requests("POST /connections/refresh") == 1


async def test_a_refresh_waits_for_another_refresh(stage: AirflowStage) -> None:
    before = stage.start("refresh")
    task = Task(stage, deferrable=True, **REFRESH)
    deferred = await task.execute()
    assert deferred.trigger.job_id == before.id
    assert not deferred.trigger.owned
    stage.end(before)
    assert (await task.fire(deferred)).trigger.job_id == 2
    assert stage.requests("POST /connections/refresh") == 1


async def test_a_refresh_that_begins_in_the_triggerer(stage: AirflowStage, task_states: TaskStates) -> None:
    stage.sim.world.connections[stage.connection_id].script = Script.lasting(0.1)
    trigger = AirbyteStartTrigger(
        connection_id=stage.connection_id, airbyte_conn_id="airbyte_default", poll_interval=0.1, **REFRESH
    )
    trigger.task_instance = TaskInstance()  # type: ignore[assignment]
    event = await stage.fire(trigger)
    assert (event["status"], event["job"]["job_type"]) == ("success", "refresh")
    assert trigger.serialize()[1]["streams"] == ["orders"]


async def test_where_the_internal_api_refuses_the_task_fails_for_good_and_says_so(
    stage: AirflowStage, task_states: TaskStates
) -> None:
    stage.sim.add_fault(Fault(kind="status", status=403, route="POST /connections/refresh"))
    task = Task(stage, **REFRESH)
    with pytest.raises(AirflowFailException, match=r"this Airbyte starts no refresh .* Airbyte 0\.63\.8 or newer"):
        await task.execute()
    assert not task.store
    trigger = AirbyteStartTrigger(connection_id=stage.connection_id, airbyte_conn_id="airbyte_default", **REFRESH)
    trigger.task_instance = TaskInstance()  # type: ignore[assignment]
    event = await stage.fire(trigger)
    assert event["begin"]
    assert "starts no refresh" in event["message"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"refresh_mode": "merge"}, "refresh_mode='merge' has no effect without job_type='refresh'"),
        ({"streams": ["orders"]}, "streams=.* has no effect without job_type='refresh'"),
        ({"job_type": "refresh", "refresh_mode": "Merge"}, "refresh_mode='Merge' is none of merge, truncate"),
        ({"job_type": "refresh", "streams": "orders"}, r"streams='orders' is no list of names: write streams=\["),
        ({"job_type": "refresh", "streams": [7]}, r"streams=\[7\] is no list of names"),
        ({"job_type": "refresh", "streams": 7}, "streams=7 is no list of names"),
    ],
)
def test_wrong_arguments_of_a_refresh(values: dict[str, Any], words: str) -> None:
    with pytest.raises(WrongArgument, match=words):
        AirbyteTriggerSyncOperator(task_id="sync", connection_id="c", **values)


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
@pytest.mark.parametrize(("stream", "begins"), [("{{ params.s }}", True), ("{{ ti.task_id }}", False)])
def test_streams_are_templated(stream: str, begins: bool) -> None:
    task = AirbyteTriggerSyncOperator(
        task_id="sync",
        connection_id="c",
        job_type="refresh",
        streams=["orders", stream],
        deferrable=True,
        start_from_trigger=True,
    )
    assert task.start_from_trigger is begins


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("running", ["sync", "reset", "refresh"])
@pytest.mark.parametrize("wanted", ["sync", "clear", "refresh"])
async def test_on_conflict_cancel_cancels_what_runs_and_starts_its_own(
    stage: AirflowStage, wanted: str, running: str, deferrable: bool
) -> None:
    other = stage.start(running)
    stage.sim.world.connections[stage.connection_id].script = Script.lasting(0.3)
    task = Task(stage, job_type=wanted, on_conflict="cancel", deferrable=deferrable)
    result = await task.execute()
    while isinstance(result, TaskDeferred):
        result = await task.fire(result)
    assert (result, other.status, other.cancelled_by) == (2, "cancelled", "user")
    assert stage.requests("DELETE /jobs/{id}") == 1


async def test_on_conflict_cancel_waits_until_the_other_has_completed(stage: AirflowStage) -> None:
    other = stage.start("sync")
    # Airbyte answers before the job's workflow has ended.
    stage.sim.add_fault(Fault(kind="status", status=409, problem="state-conflict", route="DELETE /jobs/{id}"))
    task = Task(stage, job_type="reset", on_conflict="cancel", deferrable=True)
    deferred = await task.execute()
    assert deferred.trigger.job_id == other.id
    assert not deferred.trigger.owned
    stage.end(other, "cancelled")
    assert (await task.fire(deferred)).trigger.job_id == 2


async def test_what_can_not_be_cancelled_is_not_replaced(stage: AirflowStage) -> None:
    other = stage.start("sync")
    stage.sim.add_fault(Fault(kind="status", status=403, route="DELETE /jobs/{id}"))
    with pytest.raises(AirflowException, match="403"):
        await Task(stage, job_type="reset", on_conflict="cancel").execute()
    assert (only_job(stage), other.status) == (other, "running")


async def test_on_conflict_cancel_never_cancels_the_tasks_own_job(stage: AirflowStage) -> None:
    task = Task(stage, on_conflict="cancel", deferrable=True)
    await task.execute()
    task.ti.try_number = 2
    assert (await task.execute()).trigger.job_id == 1
    assert stage.requests("DELETE /jobs/{id}") == 0


QUEUED = Script.hanging("queued")
NEVER_SEEN_QUEUED = Script(phases=(Phase(status="running", seconds=0),), end=None, records=None, bytes=None)


async def cancelled(stage: AirflowStage, task: Task, script: Script, by: str, **counts: Any) -> Exception:
    """The error of the task whose job was cancelled while its trigger waited."""
    stage.sim.world.connections[stage.connection_id].script = script
    deferred = await task.execute()
    waiting = stage.firing(deferred.trigger)
    await stage.waited_for()
    # A poll that began after another has ended: that one has seen the job as it is.
    polls = stage.requests("GET /jobs")
    await stage.until(lambda: stage.requests("GET /jobs") > polls + 1)
    stage.end(only_job(stage), "cancelled", cancelled_by=by, **counts)
    event = await waiting
    with pytest.raises(AirflowException) as info:
        await task.execute(deferred.method_name, event=event)
    return info.value


@pytest.mark.parametrize("script", [QUEUED, NEVER_SEEN_QUEUED], ids=["queued", "not seen"])
async def test_airbytes_own_cancellation_is_retried(stage: AirflowStage, script: Script) -> None:
    task = Task(stage, deferrable=True)
    error = await cancelled(stage, task, script, "airbyte")
    assert "Airbyte itself cancelled it" in str(error)
    assert not isinstance(error, AirflowFailException)
    task.ti.try_number = 2
    assert (await task.execute()).trigger.job_id == 2


@pytest.mark.parametrize("script", [QUEUED, NEVER_SEEN_QUEUED], ids=["queued", "not seen"])
async def test_a_persons_cancellation_is_not_even_in_the_queue(stage: AirflowStage, script: Script) -> None:
    task = Task(stage, deferrable=True)
    assert isinstance(await cancelled(stage, task, script, "user"), AirflowFailException)


async def test_a_job_that_moved_data_was_not_cancelled_in_the_queue(stage: AirflowStage) -> None:
    error = await cancelled(stage, Task(stage, deferrable=True), Script.hanging(), "airbyte", records=5)
    assert isinstance(error, AirflowFailException)
    assert stage.requests("POST /connections/events/list") == 0


@pytest.mark.parametrize(("script", "person"), [(QUEUED, False), (NEVER_SEEN_QUEUED, True)], ids=["queued", "not seen"])
@pytest.mark.parametrize("status", [403, 404, 500])
async def test_without_the_internal_api_the_queue_tells(
    stage: AirflowStage, script: Script, person: bool, status: int
) -> None:
    stage.sim.add_fault(Fault(kind="status", status=status, route="POST /connections/events/list"))
    error = await cancelled(stage, Task(stage, deferrable=True), script, "airbyte")
    assert isinstance(error, AirflowFailException) is person


async def test_airbytes_own_cancellation_between_two_tries_is_retried(stage: AirflowStage) -> None:
    task = Task(stage, deferrable=True)
    stage.sim.world.connections[stage.connection_id].script = QUEUED
    await task.execute()
    stage.end(only_job(stage), "cancelled", cancelled_by="airbyte")
    task.ti.try_number = 2
    assert (await task.execute()).trigger.job_id == 2


async def test_a_persons_cancellation_between_two_tries_is_not(stage: AirflowStage) -> None:
    task = Task(stage, deferrable=True)
    stage.sim.world.connections[stage.connection_id].script = QUEUED
    await task.execute()
    stage.end(only_job(stage), "cancelled", cancelled_by="user")
    task.ti.try_number = 2
    with pytest.raises(AirflowFailException, match="was cancelled in Airbyte"):
        await task.execute()
