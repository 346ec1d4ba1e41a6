"""A task's tries, killed, failed and cleared, against one simulated Airbyte: no try is the reason for a second sync."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)

from airbyte_events._utils.times import utcnow
from airbyte_events.simulator import Fault, Script
from airbyte_events.simulator.scripts import Phase
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.retry.task_state import KEY, TaskState
from support.airflow import StateStore, TaskInstance, uuid7
from support.airflow_stage import AirflowStage

pytestmark = pytest.mark.anyio


@dataclass
class DagRun:
    start_date: datetime


@dataclass(kw_only=True)
class Task:
    """A task with one retry, and what Airflow keeps of it from try to try."""

    stage: AirflowStage
    store: StateStore | None = field(default_factory=StateStore)
    values: dict[str, Any] = field(default_factory=dict)
    ti: TaskInstance = field(default_factory=lambda: TaskInstance(0, 1))
    dag_run: DagRun = field(default_factory=lambda: DagRun(datetime.now(UTC)))

    def operator(self) -> AirbyteTriggerSyncOperator:
        given: dict[str, Any] = {
            "task_id": "sync",
            "connection_id": self.stage.connection_id,
            "wait_seconds": 0.1,
            "retries": 1,
        }
        return AirbyteTriggerSyncOperator(**given | self.values)

    @property
    def context(self) -> dict[str, Any]:
        context = {"ti": self.ti, "dag_run": self.dag_run}
        return context if self.store is None else context | {"task_state_store": self.store}

    async def attempt(self, *, cleared: bool = False, after: float = 0) -> Any:
        """Its next try, in a worker; the task's result, or the deferral.

        :param after: seconds that Airflow took to find that the try before had ended.
        """
        tries = self.ti.try_number
        self.ti = TaskInstance(tries + 1, tries + 1 if cleared else self.ti.max_tries, id=uuid7(after))
        return await self.execute("execute")

    async def fire(self, deferred: TaskDeferred) -> Any:
        """Wait by the trigger, then go on in a worker."""
        event = await self.stage.fire(deferred.trigger)
        return await self.execute(deferred.method_name, event=event, **deferred.kwargs or {})

    async def execute(self, method: str, **values: Any) -> Any:
        try:
            return await self.stage.execute(self.operator(), method, context=self.context, **values)
        except TaskDeferred as deferred:
            return deferred


@pytest.fixture
def task(stage: AirflowStage) -> Task:
    return Task(stage=stage, values={"deferrable": True})


@pytest.fixture(params=["kept", "not kept"])
def old_or_new(request: pytest.FixtureRequest, stage: AirflowStage) -> Task:
    """In an Airflow that keeps a state for tasks, and in an older one."""
    return Task(stage=stage, store=StateStore() if request.param == "kept" else None, values={"deferrable": True})


async def test_a_retry_goes_on_with_the_job_that_runs(old_or_new: Task, stage: AirflowStage) -> None:
    await old_or_new.attempt()
    deferred = await old_or_new.attempt()
    stage.end(stage.sim.world.jobs[1])
    assert await old_or_new.fire(deferred) == 1
    assert stage.requests("POST /jobs") == 1


async def test_a_job_that_succeeded_meanwhile_completes_the_task_at_once(task: Task, stage: AirflowStage) -> None:
    await task.attempt()
    stage.end(stage.sim.world.jobs[1], records=17)
    assert await task.attempt() == 1
    assert task.ti.xcoms["records"] == 17
    assert stage.requests("POST /jobs") == 1


def be_another(stage: AirflowStage, job: Any, how: str) -> None:
    """Have its number mean another job, as after Airbyte's database was put back."""
    if how == "created later":
        job.created_at += timedelta(hours=1)
    else:
        job.connection = stage.sim.world.add_connection(Script.hanging())


@pytest.mark.parametrize("how", ["created later", "of another connection"])
async def test_i3_a_retry_does_not_take_the_job_that_has_its_jobs_number_now(
    task: Task, stage: AirflowStage, how: str
) -> None:
    await task.attempt()
    job = stage.sim.world.jobs[1]
    stage.end(job)
    be_another(stage, job, how)
    deferred = await task.attempt()
    assert deferred.trigger.job_id == 2
    assert stage.requests("POST /jobs") == 2


@pytest.mark.parametrize("how", ["created later", "of another connection"])
async def test_i3_a_kill_does_not_cancel_the_job_that_has_its_jobs_number_now(
    task: Task, stage: AirflowStage, how: str
) -> None:
    deferred = await task.attempt()
    job = stage.sim.world.jobs[1]
    be_another(stage, job, how)
    await deferred.trigger.on_kill()
    assert job.status == "running"
    assert stage.requests("DELETE /jobs/{id}") == 0


async def test_where_airflow_keeps_no_state_a_completed_job_is_not_taken_for_the_tasks_own(stage: AirflowStage) -> None:
    """Another task of the run, or Airbyte's schedule, may have started it."""
    task = Task(stage=stage, store=None, values={"deferrable": True})
    stage.end(stage.start())
    stage.sim.add_fault(Fault(kind="status", status=403, route="POST /jobs", count=1))
    with pytest.raises(AirflowException, match="403"):
        await task.attempt()
    assert (await task.attempt()).trigger.job_id == 2


@pytest.mark.parametrize("policy", ["attach", "wait", "fail", "skip"])
async def test_where_airflow_keeps_no_state_an_active_job_is_waited_for_and_not_owned(
    stage: AirflowStage, policy: str
) -> None:
    task = Task(stage=stage, store=None, values={"deferrable": True, "on_conflict": policy})
    await task.attempt()
    trigger = (await task.attempt()).trigger
    assert (trigger.job_id, trigger.owned) == (1, False)


async def test_where_airflow_keeps_no_state_a_job_of_before_the_run_is_in_the_way(stage: AirflowStage) -> None:
    stage.sim.world.start_job(
        stage.sim.world.connections[stage.connection_id], created_at=utcnow() - timedelta(hours=1)
    )
    task = Task(stage=stage, store=None, values={"on_conflict": "fail"})
    for _ in range(2):
        with pytest.raises(AirflowException, match="on_conflict='fail'"):
            await task.attempt()


async def test_a_job_that_failed_is_started_anew(old_or_new: Task, stage: AirflowStage) -> None:
    deferred = await old_or_new.attempt()
    stage.end(stage.sim.world.jobs[1], "failed")
    with pytest.raises(AirflowException):
        await old_or_new.fire(deferred)
    assert (await old_or_new.attempt()).trigger.job_id == 2


@pytest.mark.parametrize("deferrable", [False, True])
async def test_one_that_is_killed_while_it_waits_in_a_worker_is_found_by_its_retry(
    stage: AirflowStage, deferrable: bool
) -> None:
    task = Task(stage=stage, values={"timeout": 0.3})
    with pytest.raises(AirflowException):
        await task.attempt()
    stage.end(stage.sim.world.jobs[1])
    task.values = {"deferrable": deferrable}
    assert await task.attempt() == 1
    assert stage.requests("POST /jobs") == 1


async def test_asynchronous_tasks_have_one_job_for_all_tries(old_or_new: Task, stage: AirflowStage) -> None:
    old_or_new.values = {"asynchronous": True}
    assert await old_or_new.attempt() == await old_or_new.attempt() == 1
    assert stage.requests("POST /jobs") == 1


async def test_a_worker_that_is_killed_while_it_asks_for_a_job_leaves_it_to_be_found(
    task: Task, stage: AirflowStage
) -> None:
    await task.attempt()
    assert task.store is not None
    # Airbyte's answer never came.
    task.store[KEY]["job_id"] = None
    assert (await task.attempt()).trigger.job_id == 1
    assert stage.requests("POST /jobs") == 1


async def test_i3_a_proxys_404_between_two_tries_is_no_reason_for_another_job(task: Task, stage: AirflowStage) -> None:
    await task.attempt()
    stage.end(stage.sim.world.jobs[1])
    stage.sim.add_fault(Fault(kind="html", status=404, route="GET /jobs/{id}", count=1))
    with pytest.raises(AirflowException, match="404"):
        await task.attempt()
    assert await task.attempt() == 1
    assert stage.requests("POST /jobs") == 1


async def test_a_job_that_a_person_cancels_between_two_tries_fails_the_task_for_good(
    task: Task, stage: AirflowStage
) -> None:
    await task.attempt()
    stage.end(stage.sim.world.jobs[1], "cancelled")
    with pytest.raises(AirflowFailException, match="was cancelled in Airbyte"):
        await task.attempt(after=30)
    assert stage.requests("POST /jobs") == 1


async def test_a_job_that_a_person_cancels_while_a_retry_waits_fails_the_task_for_good(
    task: Task, stage: AirflowStage
) -> None:
    await task.attempt()
    deferred = await task.attempt()
    stage.end(stage.sim.world.jobs[1], "cancelled")
    with pytest.raises(AirflowFailException, match="was cancelled in Airbyte"):
        await task.fire(deferred)


async def test_retry_cancelled_lets_a_retry_start_it_again(task: Task, stage: AirflowStage) -> None:
    task.values["retry_cancelled"] = True
    deferred = await task.attempt()
    stage.end(stage.sim.world.jobs[1], "cancelled")
    with pytest.raises(AirflowException) as info:
        await task.fire(deferred)
    assert not isinstance(info.value, AirflowFailException)
    assert (await task.attempt()).trigger.job_id == 2


async def test_a_cleared_task_starts_anew_though_its_job_succeeded(old_or_new: Task, stage: AirflowStage) -> None:
    deferred = await old_or_new.attempt()
    stage.end(stage.sim.world.jobs[1])
    assert await old_or_new.fire(deferred) == 1
    assert (await old_or_new.attempt(cleared=True)).trigger.job_id == 2


async def test_a_cleared_task_starts_anew_after_its_clearing_has_cancelled_the_job(
    task: Task, stage: AirflowStage
) -> None:
    deferred = await task.attempt()
    await deferred.trigger.on_kill()
    assert stage.sim.world.jobs[1].status == "cancelled"
    assert (await task.attempt(cleared=True)).trigger.job_id == 2


async def test_a_cleared_task_does_not_adopt_the_job_that_its_clearing_is_about_to_cancel(
    task: Task, stage: AirflowStage
) -> None:
    first = await task.attempt()
    looks = stage.reads(stage.sim.world.jobs[1])

    async def clear() -> None:
        await stage.until(lambda: stage.reads(stage.sim.world.jobs[1]) > looks)
        await first.trigger.on_kill()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clear)
        assert (await task.attempt(cleared=True)).trigger.job_id == 2


async def test_a_cleared_task_cancels_its_job_itself_where_no_triggerer_did(task: Task, stage: AirflowStage) -> None:
    await task.attempt()
    assert (await task.attempt(cleared=True)).trigger.job_id == 2
    assert stage.sim.world.jobs[1].status == "cancelled"


async def test_a_cleared_task_whose_job_was_being_asked_for_finds_and_cancels_it(
    task: Task, stage: AirflowStage
) -> None:
    await task.attempt()
    assert task.store is not None
    task.store[KEY]["job_id"] = None
    assert (await task.attempt(cleared=True)).trigger.job_id == 2
    assert stage.sim.world.jobs[1].status == "cancelled"


async def test_a_clearing_that_can_not_cancel_yet_is_no_persons_decision_either(
    task: Task, stage: AirflowStage
) -> None:
    await task.attempt()
    stage.sim.add_fault(Fault(kind="status", status=403, route="DELETE /jobs/{id}"))
    second = await task.attempt(cleared=True)
    assert second.trigger.job_id == 1
    stage.end(stage.sim.world.jobs[1], "cancelled")
    third = await task.fire(second)
    assert third.trigger.job_id == 2
    stage.end(stage.sim.world.jobs[2])
    assert await task.fire(third) == 2


@pytest.mark.parametrize("ahead", [timedelta(hours=-3), timedelta(0), timedelta(hours=3)])
def test_a_clearing_is_known_by_its_time_whatever_airbytes_clock_says(ahead: timedelta) -> None:
    cleared_at = time.time()
    state = TaskState({"ti": TaskInstance(2, 2, id=uuid7())})  # type: ignore[typeddict-item]
    for seconds, expected in ((1, True), (-60, False), (120, False)):
        ended_at = datetime.fromtimestamp(cleared_at + seconds, UTC) + ahead
        assert state.cancelled_by_clearing(ended_at, ahead) is expected


async def test_a_refused_start_leaves_nothing_to_be_found_by_the_retry(task: Task, stage: AirflowStage) -> None:
    stage.sim.add_fault(Fault(kind="status", status=403, route="POST /jobs", count=1))
    with pytest.raises(AirflowException, match="403"):
        await task.attempt()
    stage.end(stage.start())
    assert (await task.attempt()).trigger.job_id == 2


async def test_a_start_without_response_is_asked_for_by_the_retry(task: Task, stage: AirflowStage) -> None:
    task.values["timeout"] = 3
    stage.sim.add_fault(Fault(kind="reset", after=True, route="POST /jobs", count=1))
    # The snapshot before the start is answered.
    stage.sim.world.connections[stage.connection_id].script = Script.lasting(0.1)
    before = stage.requests("GET /jobs")

    async def fail_lists() -> None:
        await stage.until(lambda: stage.requests("GET /jobs") > before)
        stage.sim.add_fault(Fault(kind="status", status=403, route="GET /jobs"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail_lists)
        with pytest.raises(AirflowException, match="a job may have been started"):
            await task.attempt()
    stage.sim.faults.clear()
    task.values["timeout"] = 60
    await stage.until(lambda: stage.sim.world.jobs[1].status == "succeeded")
    assert await task.attempt() == 1
    assert stage.requests("POST /jobs") == 1


async def attached(stage: AirflowStage, **values: Any) -> tuple[Task, Any]:
    """A task that waits for another's job."""
    task = Task(stage=stage, values={"deferrable": True} | values)
    stage.start()
    deferred = await task.attempt()
    assert (deferred.trigger.job_id, deferred.trigger.owned) == (1, False)
    return task, deferred


@pytest.mark.parametrize("values", [{"timeout": 0.2, "cancel_on_timeout": True}, {"execution_timeout": 0.2}])
async def test_a_time_out_of_a_task_that_attached_leaves_the_job_to_its_owner(stage: AirflowStage, values: Any) -> None:
    if "execution_timeout" in values:
        values = {"execution_timeout": timedelta(seconds=values["execution_timeout"])}
    task, deferred = await attached(stage, **values)
    with pytest.raises(AirflowException, match="did not start the job, so it continues"):
        await task.fire(deferred)
    assert stage.sim.world.jobs[1].status == "running"


@pytest.mark.parametrize("cleared", [False, True])
async def test_a_task_that_attached_and_is_ended_leaves_the_job_to_its_owner(
    stage: AirflowStage, cleared: bool
) -> None:
    task, deferred = await attached(stage)
    await deferred.trigger.on_kill()
    again = await task.attempt(cleared=cleared)
    assert (again.trigger.job_id, again.trigger.owned) == (1, False)
    assert stage.requests("DELETE /jobs/{id}") == 0


async def test_an_attached_job_that_its_owner_cancels_fails_the_task_not_for_good(stage: AirflowStage) -> None:
    task, deferred = await attached(stage)
    stage.end(stage.sim.world.jobs[1], "cancelled")
    with pytest.raises(AirflowException, match="a retry starts another") as info:
        await task.fire(deferred)
    assert not isinstance(info.value, AirflowFailException)
    again = await task.attempt(after=30)
    assert (again.trigger.job_id, again.trigger.owned) == (2, True)


async def test_the_owner_heeds_a_person_who_cancels_the_job_that_another_task_attached_to(stage: AirflowStage) -> None:
    owner = Task(stage=stage, values={"deferrable": True})
    waiting = await owner.attempt()
    other = Task(stage=stage, values={"deferrable": True})
    await other.attempt()
    stage.end(stage.sim.world.jobs[1], "cancelled")
    with pytest.raises(AirflowFailException):
        await owner.fire(waiting)


async def test_a_job_that_airbyte_cancels_in_its_queue_is_retried_like_a_failure(
    task: Task, stage: AirflowStage
) -> None:
    stage.sim.world.connections[stage.connection_id].script = Script.hanging("queued")
    deferred = await task.attempt()
    waiting = stage.firing(deferred.trigger)
    await stage.waited_for()
    stage.end(stage.sim.world.jobs[1], "cancelled", cancelled_by="airbyte")
    event = await waiting
    with pytest.raises(AirflowException, match="Airbyte itself cancelled it") as info:
        await task.execute(deferred.method_name, event=event)
    assert not isinstance(info.value, AirflowFailException)
    assert (await task.attempt(after=30)).trigger.job_id == 2


async def test_a_job_that_left_the_queue_and_is_cancelled_then_is_a_persons_decision(
    task: Task, stage: AirflowStage
) -> None:
    phases = (Phase(status="queued", seconds=0.3), Phase(status="running", seconds=0))
    stage.sim.world.connections[stage.connection_id].script = Script(phases=phases, end=None, records=None, bytes=None)
    deferred = await task.attempt()
    waiting = stage.firing(deferred.trigger)
    await stage.waited_for()
    await stage.until(lambda: stage.sim.world.jobs[1].status == "running")
    looks = stage.requests("GET /jobs") + stage.reads(stage.sim.world.jobs[1])
    await stage.until(lambda: stage.requests("GET /jobs") + stage.reads(stage.sim.world.jobs[1]) > looks + 1)
    stage.end(stage.sim.world.jobs[1], "cancelled")
    event = await waiting
    with pytest.raises(AirflowFailException):
        await task.execute(deferred.method_name, event=event)


async def test_a_cleared_task_that_does_not_cancel_goes_on_with_the_job(task: Task, stage: AirflowStage) -> None:
    task.values["cancel_on_kill"] = False
    await task.attempt()
    assert (await task.attempt(cleared=True)).trigger.job_id == 1


async def test_a_running_task_that_is_cleared_starts_anew(task: Task, stage: AirflowStage) -> None:
    """Airflow gives such a one no more tries, and its next try begins after the worker has cancelled the job."""
    await task.attempt()
    task.ti = TaskInstance(1, task.ti.max_tries)
    prepared = task.ti.id
    stage.end(stage.sim.world.jobs[1], "cancelled")
    task.ti = TaskInstance(2, task.ti.max_tries, id=prepared)
    assert (await task.execute("execute")).trigger.job_id == 2


async def test_a_person_who_clears_the_task_may_undo_a_cancellation(task: Task, stage: AirflowStage) -> None:
    deferred = await task.attempt()
    stage.end(stage.sim.world.jobs[1], "cancelled")
    with pytest.raises(AirflowFailException):
        await task.fire(deferred)
    assert (await task.attempt(cleared=True)).trigger.job_id == 2


async def test_too_few_records_are_no_success_for_a_retry_either(task: Task, stage: AirflowStage) -> None:
    task.values["min_records"] = 10
    deferred = await task.attempt()
    stage.end(stage.sim.world.jobs[1], records=3)
    with pytest.raises(AirflowException, match="min_records is 10"):
        await task.fire(deferred)
    assert (await task.attempt()).trigger.job_id == 2


async def test_what_the_task_has_cancelled_as_overdue_a_retry_starts_anew(task: Task, stage: AirflowStage) -> None:
    task.values |= {"timeout": 0.2, "cancel_on_timeout": True}
    with pytest.raises(AirflowException, match="The job is cancelled now"):
        await task.fire(await task.attempt())
    task.values = {"deferrable": True}
    assert (await task.attempt()).trigger.job_id == 2


async def test_another_connection_than_that_of_the_try_before_gets_a_job_of_its_own(
    task: Task, stage: AirflowStage
) -> None:
    await task.attempt()
    task.values["connection_id"] = stage.sim.world.add_connection(Script.hanging()).id
    assert (await task.attempt()).trigger.job_id == 2


async def test_an_entry_of_an_earlier_release_is_that_of_an_own_job(task: Task, stage: AirflowStage) -> None:
    await task.attempt()
    assert task.store is not None
    for name in ("after_id", "owned"):
        del task.store[KEY][name]
    trigger = (await task.attempt()).trigger
    assert (trigger.job_id, trigger.owned) == (1, True)


async def test_an_entry_that_nobody_can_read_is_none(task: Task, stage: AirflowStage) -> None:
    assert task.store is not None
    task.store[KEY] = {"job_id": "seventeen"}
    assert (await task.attempt()).trigger.job_id == 1


async def test_a_retry_that_airflow_3_0_begins_where_the_try_before_ended_begins_anew(
    task: Task, stage: AirflowStage
) -> None:
    deferred = await task.attempt()
    stage.end(stage.sim.world.jobs[1], "failed")
    event = await stage.fire(deferred.trigger)
    task.ti = TaskInstance(2, task.ti.max_tries)
    again = await task.execute(deferred.method_name, event=event, **deferred.kwargs or {})
    assert again.trigger.job_id == 2


async def test_the_result_is_the_same_in_both_ways(stage: AirflowStage) -> None:
    results = []
    for deferrable in (False, True):
        task = Task(stage=stage, values={"deferrable": deferrable})
        stage.sim.world.connections[stage.connection_id].script = Script.lasting(0.3)
        result = await task.attempt()
        results.append(await task.fire(result) if isinstance(result, TaskDeferred) else result)
        xcoms = task.ti.xcoms
        assert xcoms["status"] == xcoms["job"]["status"] == "succeeded"
        assert {"records", "bytes", "started_at", "finished_at", "duration_seconds"} <= xcoms.keys()
    assert results == [1, 2]


@pytest.mark.parametrize("deferrable", [False, True])
async def test_on_conflict_wait_waits_for_the_other_and_starts_its_own(stage: AirflowStage, deferrable: bool) -> None:
    task = Task(stage=stage, values={"on_conflict": "wait", "deferrable": deferrable})
    stage.sim.world.connections[stage.connection_id].script = Script.lasting(0.4)
    assert stage.start().id == 1
    result = await task.attempt()
    while isinstance(result, TaskDeferred):
        result = await task.fire(result)
    assert result == 2


@pytest.mark.parametrize(("policy", "error"), [("fail", AirflowException), ("skip", AirflowSkipException)])
@pytest.mark.parametrize("script", [Script.hanging(), Script.hanging("pending")], ids=["running", "not begun"])
async def test_on_conflict_fail_and_skip(
    stage: AirflowStage, policy: str, error: type[Exception], script: Script
) -> None:
    """Before its first attempt Airbyte does not refuse a second job: it answers with the first."""
    stage.sim.world.connections[stage.connection_id].script = script
    stage.start()
    with pytest.raises(error, match=f"on_conflict='{policy}': nothing was started"):
        await Task(stage=stage, values={"on_conflict": policy}).attempt()
    assert stage.requests("POST /jobs") == 0


async def test_a_job_of_another_type_is_waited_for_before_the_own_is_started(stage: AirflowStage) -> None:
    stage.sim.world.connections[stage.connection_id].script = Script.lasting(0.4)
    stage.start("reset")
    assert await Task(stage=stage).attempt() == 2
    assert stage.sim.world.jobs[2].type == "sync"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"job_type": "sink"}, "none of sync, reset, clear, refresh"),
        ({"on_conflict": "fight"}, "none of attach, wait, cancel, fail, skip"),
        ({"min_records": -1}, "negative"),
        ({"end_from_trigger": True, "deferrable": False}, "needs deferrable=True"),
        ({"start_from_trigger": True, "deferrable": False}, "needs deferrable=True"),
        ({"asynchronous": True, "min_records": 1}, "does not wait"),
    ],
)
async def test_what_can_not_be_meant_is_refused_when_the_dag_is_parsed(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AirbyteTriggerSyncOperator(task_id="sync", connection_id="c", **values)


@pytest.mark.parametrize("job_type", ["reset", "clear"])
async def test_other_job_types(stage: AirflowStage, job_type: str) -> None:
    task = Task(stage=stage, values={"job_type": job_type, "deferrable": True})
    deferred = await task.attempt()
    # As Airbyte reports either.
    assert stage.sim.world.jobs[1].type == "reset"
    stage.end(stage.sim.world.jobs[1])
    assert await task.fire(deferred) == 1
