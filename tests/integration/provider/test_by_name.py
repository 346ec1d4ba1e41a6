"""Tasks and watchers that know their Airbyte connection by its name."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from airbyte_events.simulator import Fault, Script
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.retry.task_state import KEY
from airbyte_events_provider.sensors.airbyte import AirbyteSyncSensor
from airbyte_events_provider.triggers.airbyte import AirbyteStartTrigger, AirbyteSyncEventTrigger
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub
from support.airflow import StateStore
from support.airflow_stage import AirflowStage, TaskStates
from support.waiting import in_background

pytestmark = pytest.mark.anyio


class Task:
    """A task with one retry, whose every part runs in a worker of its own."""

    def __init__(self, stage: AirflowStage, **values: Any) -> None:
        self.stage = stage
        self.values = {"connection_name": "orders", "wait_seconds": 0.1, "retries": 1, **values}
        self.store = StateStore()
        self.ti = SimpleNamespace(try_number=1, max_tries=1, id=uuid.uuid4(), xcom_push=self._push)
        self.xcoms: dict[str, Any] = {}

    def _push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def operator(self) -> AirbyteTriggerSyncOperator:
        return AirbyteTriggerSyncOperator(task_id="sync", **self.values)

    async def execute(self, method: str = "execute", **values: Any) -> Any:
        context = {"ti": self.ti, "task_state_store": self.store}
        return await self.stage.execute(self.operator(), method, context=context, **values)

    async def defer(self) -> TaskDeferred:
        with pytest.raises(TaskDeferred) as info:
            await self.execute()
        return info.value

    def rename(self, name: str) -> None:
        self.stage.sim.world.connections[self.stage.connection_id].name = name


@pytest.fixture
def lists(stage: AirflowStage) -> Any:
    """How often Airbyte was asked for its connections."""
    return lambda: stage.requests("GET /connections")


async def test_a_task_in_a_worker(stage: AirflowStage) -> None:
    stage.sim.world.connections[stage.connection_id].script = Script.lasting(0)
    task = Task(stage)
    assert await task.execute() == 1
    assert stage.sim.world.jobs[1].connection.id == stage.connection_id
    links = [value for key, value in task.xcoms.items() if key.startswith("_link_")]
    assert links
    assert all(stage.connection_id in link for link in links)


async def test_a_deferred_task_resumes_without_the_name(stage: AirflowStage, lists: Any) -> None:
    task = Task(stage, deferrable=True)
    deferred = await task.defer()
    assert deferred.trigger.connection_id == stage.connection_id
    task.rename("renamed")
    stage.end(stage.sim.world.jobs[1])
    event = await stage.fire(deferred.trigger)
    assert await task.execute(deferred.method_name, event=event) == 1
    assert lists() == 1


async def test_a_task_that_waits_its_turn_keeps_the_connection(stage: AirflowStage, lists: Any) -> None:
    before = stage.start("reset")
    task = Task(stage, deferrable=True)
    deferred = await task.defer()
    task.rename("renamed")
    stage.end(before)
    event = await stage.fire(deferred.trigger)
    with pytest.raises(TaskDeferred):
        await task.execute(deferred.method_name, event=event)
    assert stage.sim.world.jobs[2].connection.id == stage.connection_id
    assert lists() == 1


async def test_a_retry_resumes_the_job_though_the_name_has_changed(stage: AirflowStage, lists: Any) -> None:
    task = Task(stage, deferrable=True)
    await task.defer()
    assert task.store[KEY]["connection_name"] == "orders"
    task.rename("renamed")
    task.ti.try_number = 2
    assert (await task.defer()).trigger.job_id == 1
    assert stage.requests("POST /jobs") == lists() == 1


async def test_clearing_asks_for_the_name_again(stage: AirflowStage) -> None:
    task = Task(stage, deferrable=True)
    await task.defer()
    stage.end(stage.sim.world.jobs[1])
    task.rename("renamed")
    other = stage.sim.world.add_connection(Script.hanging(), name="orders")
    task.ti.try_number, task.ti.max_tries = 2, 2
    await task.defer()
    assert stage.sim.world.jobs[2].connection.id == other.id


async def test_an_unknown_name_fails_with_candidates_and_starts_nothing(stage: AirflowStage) -> None:
    with pytest.raises(AirflowException, match=r"no connection named 'order': the closest are 'orders'$"):
        await Task(stage, connection_name="order").execute()
    assert stage.requests("POST /jobs") == 0


async def test_a_workspace_tells_two_of_one_name_apart(stage: AirflowStage) -> None:
    world = stage.sim.world
    other = world.add_workspace("other")
    twin = world.add_connection(Script.lasting(0), name="orders", workspace_id=other.id)
    with pytest.raises(AirflowException, match="2 connections named 'orders'"):
        await Task(stage).execute()
    assert await Task(stage, workspace_id=other.id).execute() == 1
    assert world.jobs[1].connection is twin


async def test_where_airbyte_does_not_list_connections_the_task_fails_with_its_answer(stage: AirflowStage) -> None:
    stage.sim.add_fault(Fault(kind="status", status=403, route="GET /connections"))
    with pytest.raises(AirflowException, match="403"):
        await Task(stage).execute()


def starting(ti: Any, **values: Any) -> AirbyteStartTrigger:
    given = {"connection_id": None, "airbyte_conn_id": "airbyte_default", "poll_interval": 0.1}
    trigger = AirbyteStartTrigger(**given | {"connection_name": "orders"} | values)
    trigger.task_instance = ti
    return trigger


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
def test_templates_of_names_are_rendered_in_the_triggerer() -> None:
    operator = AirbyteTriggerSyncOperator(
        task_id="sync",
        connection_name="{{ params.name }}",
        workspace_id="{{ params.workspace }}",
        deferrable=True,
        start_from_trigger=True,
    )
    args = operator.start_trigger_args
    assert args is not None
    assert args.trigger_kwargs is not None
    assert {"connection_name", "workspace_id"} <= args.trigger_kwargs.keys()
    assert AirbyteStartTrigger(**args.trigger_kwargs).serialize()[1] == args.trigger_kwargs


@pytest.fixture
def ti() -> Any:
    return SimpleNamespace(
        id=uuid.uuid4(), try_number=1, task_id="sync", task=None, dag_id="orders", run_id="run", map_index=-1
    )


async def test_a_task_that_begins_in_the_triggerer(
    stage: AirflowStage, ti: Any, task_states: TaskStates, lists: Any
) -> None:
    first = stage.firing(starting(ti))
    job = await stage.job()
    await stage.waited_for()
    first.cancel()
    stage.sim.world.connections[stage.connection_id].name = "renamed"
    # Another triggerer: the name was found, and the job started.
    await stage.end_hubs()
    event = await stage.completed(job, trigger=starting(ti))
    assert (event["job_id"], event["connection_id"]) == (job.id, stage.connection_id)
    assert stage.requests("POST /jobs") == lists() == 1


async def test_many_that_begin_in_the_triggerer_share_one_list(
    stage: AirflowStage, task_states: TaskStates, lists: Any
) -> None:
    def begin(number: int) -> Any:
        stage.sim.world.add_connection(Script.lasting(0), name=f"connection {number}")
        ti = SimpleNamespace(
            id=uuid.uuid4(), try_number=1, task_id="sync", task=None, dag_id="orders", run_id=f"{number}", map_index=-1
        )
        return starting(ti, connection_name=f"connection {number}")

    triggers = [begin(number) for number in range(20)]
    # Each task instance has XComs of its own.
    for trigger in triggers:
        task_states.xcoms.clear()
        assert (await stage.fire(trigger))["status"] == "success"
    assert lists() == 1


async def test_an_unknown_name_in_the_triggerer_is_told_in_a_worker(
    stage: AirflowStage, ti: Any, task_states: TaskStates
) -> None:
    event = await stage.fire(starting(ti, connection_name="order"))
    assert event["begin"]
    assert "the closest are 'orders'" in event["message"]
    with pytest.raises(AirflowException, match="the closest are 'orders'"):
        await Task(stage, connection_name="order").execute("execute_complete", event=event)


@pytest.mark.parametrize("deferrable", [False, True])
async def test_a_sensor(stage: AirflowStage, deferrable: bool) -> None:
    sensor = AirbyteSyncSensor(
        task_id="wait", connection_name="orders", after="2026-01-01", poke_interval=0.05, deferrable=deferrable
    )
    if not deferrable:
        job = stage.end(stage.start())
        assert await stage.execute(sensor) == job.id
        return
    deferred = await stage.defer(sensor)
    assert deferred.trigger.connection_id == stage.connection_id


async def test_a_watcher_begins_once_its_connections_exist(
    stage: AirflowStage, caplog: pytest.LogCaptureFixture
) -> None:
    trigger = AirbyteSyncEventTrigger(connection_name=["orders", "invoices"])
    events: list[Any] = []

    async def watch() -> None:
        async for event in trigger.run():
            job_id = event.payload["job_id"]
            events.append(job_id)

    async with in_background(watch):
        await stage.until(lambda: "no connection named 'invoices'" in caplog.text)
        assert "Traceback" not in caplog.text
        invoices = stage.sim.world.add_connection(Script.hanging(), name="invoices")
        async with shared_hub(HubKey("airbyte_default")) as shared:
            await stage.until(lambda: shared.hub.followers == 1)
        jobs = [stage.start(), stage.sim.world.start_job(invoices), stage.start_elsewhere()]
        for job in reversed(jobs):
            stage.end(job)
        await stage.until(lambda: len(events) == 2)
    assert sorted(events) == [job.id for job in jobs[:2]]
