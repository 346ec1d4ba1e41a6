"""Tasks that begin and end in the triggerer: no worker, and never a second job."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from airflow.sdk import DAG, Asset, AssetAlias
from airflow.triggers.base import StartTriggerArgs, TaskSuccessEvent, TriggerEvent

from airbyte_events._utils.times import utcnow
from airbyte_events.simulator import Fault, Script
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.operators.start_args import LONGEST
from airbyte_events_provider.triggers.airbyte import AirbyteStartTrigger, AirbyteSyncTrigger
from support.airflow import TaskInstance, uuid7
from support.airflow_stage import AirflowStage, TaskStates
from support.listener import Running

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("task_states")]


def starting(stage: AirflowStage, ti: TaskInstance, **values: Any) -> AirbyteStartTrigger:
    given: dict[str, Any] = {
        "connection_id": stage.connection_id,
        "airbyte_conn_id": "airbyte_default",
        "poll_interval": 0.1,
    }
    trigger = AirbyteStartTrigger(**given | values)
    trigger.task_instance = ti  # type: ignore[assignment]
    return trigger


async def event_of(trigger: Any) -> TriggerEvent:
    event: TriggerEvent
    (event,) = [event async for event in trigger.run()]
    return event


@pytest.fixture
def ti(stage: AirflowStage) -> TaskInstance:
    return TaskInstance()


def waiting(stage: AirflowStage, job: Any, ti: TaskInstance | None, **values: Any) -> AirbyteSyncTrigger:
    trigger: AirbyteSyncTrigger = stage.trigger(job, end_from_trigger=True, **values)
    trigger.task_instance = ti  # type: ignore[assignment]
    return trigger


@pytest.mark.needs_airflow(3, 3, "tasks that end in the triggerer")
async def test_a_success_ends_the_task_with_the_xcoms_that_a_worker_would_leave(
    stage: AirflowStage, listener: Running, ti: TaskInstance, task_states: TaskStates
) -> None:
    job = stage.end(stage.start(), records=17)
    event = await event_of(waiting(stage, job, ti))
    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms is None, "Airflow would store their JSON text"
    assert task_states.xcoms["return_value"] == job.id
    assert task_states.xcoms["records"] == task_states.xcoms["job"]["records"] == 17
    assert task_states.xcoms["status"] == "succeeded"


@pytest.mark.needs_airflow(3, 3, "tasks that end in the triggerer")
async def test_a_task_that_ends_without_a_worker_logs_how_and_when_its_end_got_here(
    stage: AirflowStage, listener: Running, ti: TaskInstance, task_states: TaskStates, capfd: pytest.CaptureFixture[str]
) -> None:
    job = stage.start()
    await stage.completed(job, trigger=waiting(stage, job, ti))
    log = "".join(line for line in capfd.readouterr().out.splitlines() if "HTTP Request" not in line)
    assert f"Airbyte job succeeded: job={job.id} detected_by=webhook delay_ms=" in log
    assert " finished_at=20" in log
    assert not [secret for secret in stage.secrets if secret in log]


@pytest.mark.needs_airflow(3, 3, "tasks that end in the triggerer")
async def test_the_first_of_many_that_complete_at_once_ends_before_the_xcoms_of_the_last(
    stage: AirflowStage, listener: Running, task_states: TaskStates
) -> None:
    """Airflow's supervisor stores one XCom after the other: the tasks end one by one, not all in the end."""
    jobs = [stage.start_elsewhere() for _ in range(5)]
    stored_at_end: list[int] = []

    async def ends(job: Any) -> None:
        own = TaskInstance()
        assert isinstance(await event_of(waiting(stage, job, own)), TaskSuccessEvent)
        stored_at_end.append(task_states.stored)

    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(ends, job)
        await stage.waited_for(5)
        for job in jobs:
            stage.end(job)
    each = task_states.stored // 5
    assert each > 1
    # By the time that a task ends, the next may have begun to store.
    assert all(stored < (number + 2) * each for number, stored in enumerate(stored_at_end))


@pytest.mark.needs_airflow(3, 3, "tasks that end in the triggerer")
async def test_the_supervisor_loads_its_api_while_the_first_task_waits(
    stage: AirflowStage, listener: Running, ti: TaskInstance, task_states: TaskStates
) -> None:
    jobs = [stage.start_elsewhere() for _ in range(2)]
    firing = []
    for number, job in enumerate(jobs, 1):
        firing.append(stage.firing(waiting(stage, job, ti)))
        await stage.waited_for(number)
        assert task_states.read == 1
    for job, each in zip(jobs, firing, strict=True):
        stage.end(job)
        await each


@pytest.mark.needs_airflow(3, 3, "tasks that end in the triggerer")
async def test_where_xcoms_can_not_be_stored_the_task_ends_in_a_worker(
    stage: AirflowStage, ti: TaskInstance, task_states: TaskStates
) -> None:
    job = stage.end(stage.start())
    task_states.stores = False
    event = await event_of(waiting(stage, job, ti))
    assert type(event) is TriggerEvent
    assert event.payload["job"]["job_id"] == job.id


async def test_where_no_triggerer_runs_the_trigger_the_task_ends_in_a_worker(stage: AirflowStage) -> None:
    """`airflow dags test` hands over no more than the state of an event that ends a task."""
    job = stage.end(stage.start())
    event = await event_of(waiting(stage, job, None))
    assert type(event) is TriggerEvent


@pytest.mark.parametrize(("status", "records"), [("failed", 17), ("cancelled", 17), ("succeeded", 16)])
async def test_what_is_no_success_goes_on_in_a_worker(stage: AirflowStage, status: str, records: int) -> None:
    job = stage.end(stage.start(), status, records=records)
    event = await event_of(stage.trigger(job, end_from_trigger=True, min_records=17))
    assert type(event) is TriggerEvent
    assert event.payload["job_id"] == job.id


@pytest.mark.needs_airflow(3, 3, "tasks that end in the triggerer")
async def test_it_starts_the_job_and_waits_for_it(
    stage: AirflowStage, listener: Running, ti: TaskInstance, task_states: TaskStates
) -> None:
    stage.sim.world.connections[stage.connection_id].script = Script.lasting(0.3)
    event = await event_of(starting(stage, ti, end_from_trigger=True))
    assert isinstance(event, TaskSuccessEvent)
    assert stage.requests("POST /jobs") == 1


async def test_begun_again_elsewhere_it_goes_on_with_the_job(stage: AirflowStage, ti: TaskInstance) -> None:
    first = stage.firing(starting(stage, ti))
    job = await stage.job()
    first.cancel()
    assert (await stage.completed(job, trigger=starting(stage, ti)))["job_id"] == job.id
    assert stage.requests("POST /jobs") == 1


def begun(trigger: AirbyteStartTrigger, ago: float) -> AirbyteStartTrigger:
    """As Airflow hands it to a triggerer, of a task that began so many seconds ago (``TaskInstance.defer_task``)."""
    limit = LONGEST
    if trigger.execution_timeout is not None:
        limit = min(limit, timedelta(seconds=trigger.execution_timeout))
    trigger.timeout_after = datetime.now(UTC) - timedelta(seconds=ago) + limit
    return trigger


@pytest.mark.parametrize("limit", ["timeout", "execution_timeout"])
async def test_a_trigger_that_begins_late_counts_from_when_the_task_began(
    stage: AirflowStage, ti: TaskInstance, limit: str
) -> None:
    job = stage.start()
    told = await stage.fire(begun(starting(stage, ti, **{limit: 60.0}), 61))
    assert told["job"] is None
    assert told["status"] == ("error" if limit == "timeout" else "timeout")
    assert job.status == "running"


async def test_what_a_worker_goes_on_with_counts_from_when_the_task_began(
    stage: AirflowStage, ti: TaskInstance
) -> None:
    ti.try_number = 2
    told = await stage.fire(begun(starting(stage, ti, execution_timeout=3600.0), 60))
    assert time.time() - told["began"] == pytest.approx(60, abs=5)


async def test_begun_again_after_its_job_has_completed_it_fires_for_that(stage: AirflowStage, ti: TaskInstance) -> None:
    first = stage.firing(starting(stage, ti))
    job = await stage.job()
    await stage.waited_for()
    first.cancel()
    stage.end(job, "failed")
    stage.end(stage.start())
    told = await stage.fire(starting(stage, ti))
    assert (told["status"], told["job_id"], told["owned"]) == ("error", job.id, True)
    assert stage.requests("POST /jobs") == 1


async def test_begun_again_while_the_job_was_asked_for_it_goes_on_with_it(
    stage: AirflowStage, ti: TaskInstance
) -> None:
    stage.sim.add_fault(Fault(kind="slow", delay=5, route="POST /jobs"))
    first = stage.firing(starting(stage, ti))
    job = await stage.job()
    first.cancel()
    told = await stage.completed(job, trigger=starting(stage, ti))
    assert (told["job_id"], told["owned"]) == (job.id, True)


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
async def test_a_job_that_completed_before_the_task_began_is_not_its_own(
    stage: AirflowStage, ti: TaskInstance, end: str
) -> None:
    """However long ago Airflow prepared the task: with its run, before what it depends on."""
    ti.id = uuid7(-3600)
    stage.end(stage.start(), end)
    waiting = stage.firing(starting(stage, ti))
    stage.end(await stage.job(2))
    told = await waiting
    assert (told["status"], told["job_id"]) == ("success", 2)


async def test_a_job_that_was_there_before_is_attached_to_and_never_cancelled(
    stage: AirflowStage, ti: TaskInstance, task_states: TaskStates
) -> None:
    job = stage.start()
    trigger = starting(stage, ti)
    waiting = stage.firing(trigger)
    await stage.waited_for()
    task_states.state = "failed"
    waiting.cancel()
    await trigger.on_kill()
    assert job.status == "running"
    assert stage.requests("POST /jobs") == stage.requests("DELETE /jobs/{id}") == 0


async def test_what_can_not_be_written_down_is_not_started_in_the_triggerer(
    stage: AirflowStage, ti: TaskInstance, task_states: TaskStates
) -> None:
    task_states.stores = False
    assert (await stage.fire(starting(stage, ti)))["begin"] is True
    assert stage.requests("POST /jobs") == 0


@pytest.mark.parametrize("ahead", [-7200.0, -30.0, 7200.0])
async def test_deadlines_count_from_the_tasks_own_beginning_by_our_clock(
    stage: AirflowStage, ti: TaskInstance, ahead: float
) -> None:
    """Not from that of the job, by Airbyte's: it may be another's, older than the limit, and its clock may be wrong."""
    stage.sim.world.start_job(
        stage.sim.world.connections[stage.connection_id], created_at=utcnow() + timedelta(seconds=ahead)
    )
    waiting = stage.firing(starting(stage, ti, timeout=60, execution_timeout=60))
    await stage.waited_for()
    stage.end(stage.sim.world.jobs[1])
    assert (await waiting)["status"] == "success"


async def test_a_retry_begins_in_a_worker(stage: AirflowStage, ti: TaskInstance) -> None:
    ti.try_number = 2
    told = await stage.fire(starting(stage, ti))
    assert told["begin"]
    assert stage.requests("POST /jobs") == 0


@pytest.mark.parametrize("policy", ["wait", "fail", "skip"])
async def test_a_job_in_the_way_is_a_workers_affair(stage: AirflowStage, ti: TaskInstance, policy: str) -> None:
    stage.start("reset")
    told = await stage.fire(starting(stage, ti, on_conflict=policy))
    assert told["begin"]
    assert "job 1 of the connection runs" in told["message"]


async def test_what_airbyte_refuses_is_a_workers_affair(stage: AirflowStage, ti: TaskInstance) -> None:
    stage.sim.add_fault(Fault(kind="status", status=403, route="POST /jobs"))
    assert (await stage.fire(starting(stage, ti)))["begin"]


async def killed(stage: AirflowStage, ti: TaskInstance) -> Any:
    """The job of a trigger that was ended."""
    trigger = starting(stage, ti)
    waiting = stage.firing(trigger)
    job = await stage.job()
    waiting.cancel()
    await trigger.on_kill()
    return job


@pytest.mark.needs_airflow(3, 3, "on_kill of triggers")
@pytest.mark.parametrize("state", ["failed", "scheduled", None])
async def test_a_kill_cancels_the_job_that_it_started(
    stage: AirflowStage, ti: TaskInstance, task_states: TaskStates, state: Any
) -> None:
    task_states.state = state
    assert (await killed(stage, ti)).status == "cancelled"


@pytest.mark.needs_airflow(3, 3, "on_kill of triggers")
@pytest.mark.parametrize("state", ["deferred", "unknown"])
async def test_i3_a_trigger_that_another_triggerer_has_now_cancels_nothing(
    stage: AirflowStage, ti: TaskInstance, task_states: TaskStates, state: str
) -> None:
    task_states.state = state
    assert (await killed(stage, ti)).status == "running"
    assert stage.requests("DELETE /jobs/{id}") == 0


@pytest.mark.needs_airflow(3, 3, "on_kill of triggers")
async def test_a_cleared_task_that_is_deferred_anew_for_a_moment_still_cancels(
    stage: AirflowStage, ti: TaskInstance, task_states: TaskStates
) -> None:
    """Its next try began in the triggerer, too, which leaves it to a worker."""
    async with anyio.create_task_group() as tasks:

        async def to_a_worker() -> None:
            await stage.until(lambda: task_states.asked)
            task_states.state = "queued"

        tasks.start_soon(to_a_worker)
        assert (await killed(stage, ti)).status == "cancelled"


async def test_a_kill_that_airflow_repeats_cancels_once_and_to_the_end(stage: AirflowStage) -> None:
    """As Airflow does every second, until the trigger has ended."""
    job = stage.start()
    stage.sim.add_fault(Fault(kind="slow", delay=0.5, count=1, route="GET /jobs/{id}"))
    killing = asyncio.create_task(stage.trigger(job).on_kill())
    await stage.until(lambda: stage.reads(job))
    killing.cancel()
    await stage.until(lambda: job.status == "cancelled")
    assert stage.requests("DELETE /jobs/{id}") == 1


async def test_a_kill_leaves_the_job_alone_if_it_was_told_to(stage: AirflowStage, ti: TaskInstance) -> None:
    trigger = starting(stage, ti, cancel_on_kill=False)
    stage.start()
    await trigger.on_kill()
    assert stage.sim.world.jobs[1].status == "running"


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
def test_the_operator_tells_airflow_how_to_begin_in_the_triggerer() -> None:
    task = AirbyteTriggerSyncOperator(
        task_id="sync", connection_id="{{ params.c }}", deferrable=True, start_from_trigger=True, end_from_trigger=True
    )
    assert task.start_from_trigger
    args = task.start_trigger_args
    assert isinstance(args, StartTriggerArgs)
    assert args.trigger_kwargs is not None
    trigger = AirbyteStartTrigger(**args.trigger_kwargs)
    assert args.trigger_cls == trigger.serialize()[0]
    assert trigger.serialize()[1] == args.trigger_kwargs
    # Airflow renders those of the template fields that are arguments of the trigger.
    assert set(task.template_fields) - args.trigger_kwargs.keys() == {"connection_name", "workspace_id", "streams"}


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
def test_outlets_are_updated_by_workers_alone() -> None:
    task = AirbyteTriggerSyncOperator(
        task_id="sync",
        connection_id="c",
        deferrable=True,
        start_from_trigger=True,
        end_from_trigger=True,
        outlets=[Asset("orders")],
    )
    assert task.start_trigger_args.trigger_kwargs["end_from_trigger"] is False  # type: ignore[union-attr, index]


def starts(**values: Any) -> bool:
    given: dict[str, Any] = {"task_id": "sync", "connection_id": "c", "deferrable": True, "start_from_trigger": True}
    return AirbyteTriggerSyncOperator(**given | values).start_from_trigger


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
@pytest.mark.parametrize(
    "template",
    [
        "7b480e47-6992-5e8b-9c8a-acfd34a1b7bc",
        "{{ params.connection }}",
        "{{ dag_run.conf['connection'] }}",
        "{% if ds == '2026-01-01' %}a{% else %}b{% endif %}",
        "{{ params.connection | lower }}",
        "{{ macros.datetime.now() }}",
    ],
)
def test_what_needs_the_dag_run_alone_begins_in_the_triggerer(template: str) -> None:
    assert starts(connection_id=template)
    assert starts(airbyte_conn_id=template)
    assert starts(listener_conn_id=template)


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
@pytest.mark.parametrize(
    "template",
    [
        "{{ ti.xcom_pull('first') }}",
        "{{ task_instance.try_number }}",
        "{{ var.value.connection }}",
        "{{ conn.airbyte.host }}",
        "{{ prev_start_date_success }}",
        "{{ my_macro() }}",
        "{{ params.connection | my_filter }}",
        "{{ params.connection | my_filter",
    ],
)
def test_what_the_triggerer_can_not_render_begins_in_a_worker(template: str) -> None:
    assert not starts(connection_id=template)
    assert not starts(listener_conn_id=template)


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
def test_the_result_of_another_task_begins_in_a_worker() -> None:
    with DAG(dag_id="pipeline", schedule=None):
        first = AirbyteTriggerSyncOperator(task_id="first", connection_id="c")
        assert not starts(connection_id=first.output)
        assert not starts(task_id="second", inlets=[AssetAlias("orders")])


def test_a_trigger_of_before_these_arguments_can_be_made() -> None:
    AirbyteSyncTrigger(job_id=17, conn_id="airbyte_default", end_time=2e9, poll_interval=60)
