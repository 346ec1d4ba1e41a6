"""Links between a task and its job, both ways, however the task waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # Airflow 3.0 and 3.1
    from airflow.exceptions import AirflowRescheduleException

from airbyte_events._utils.times import parse_time, utcnow
from airbyte_events_provider.links.airbyte import ListenerJobLink
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.sensors.airbyte import AirbyteJobSensor, AirbyteSyncSensor
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub
from airbyte_events_provider.waiting.wait_start import JOB_XCOM
from support.airflow import TaskInstance
from support.airflow_stage import AirflowStage
from support.listener import API_TOKEN, Running, bearer

pytestmark = pytest.mark.anyio

PAGE = "https://airflow.example.com/dags/orders/runs/run/tasks/wait"


@dataclass
class LinkedTask:
    """A task that waits, and the listener at ``url`` that links to it."""

    stage: AirflowStage
    url: str
    ti: TaskInstance = field(default_factory=lambda: TaskInstance(task_id="wait"))

    async def shown(self, job_id: int, until: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The job as the listener shows it, once that holds."""
        async with httpx.AsyncClient(trust_env=False, headers=bearer(API_TOKEN)) as http:
            with anyio.fail_after(30):
                while True:
                    answer = await http.get(f"{self.url}/v1/jobs/default/{job_id}")
                    if answer.is_success and until(found := answer.json()["job"]):
                        return dict(found)
                    await anyio.sleep(0.02)

    async def execute(self, task: Any, **values: Any) -> Any:
        return await self.stage.execute(task, context={"ti": self.ti}, **values)

    async def defer(self, task: Any) -> Any:
        """Execute up to the deferral; the trigger, as the triggerer has it."""
        trigger = (await self.stage.defer(task, context={"ti": self.ti})).trigger
        trigger.task_instance = self.ti
        return trigger

    async def meanwhile(self, running: Awaitable[Any], act: Callable[[], Awaitable[None]]) -> None:
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                await running

            tasks.start_soon(run)
            await act()


@pytest.fixture
def linked_task(stage: AirflowStage, listener: Running) -> LinkedTask:
    stage.monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com")
    return LinkedTask(stage, listener.url)


def operator(stage: AirflowStage, **values: Any) -> AirbyteTriggerSyncOperator:
    return AirbyteTriggerSyncOperator(task_id="wait", connection_id=stage.connection_id, **values)


def job_sensor(job_id: int, **values: Any) -> AirbyteJobSensor:
    return AirbyteJobSensor(task_id="wait", airbyte_job_id=job_id, **{"poke_interval": 0.05, **values})


def sync_sensor(stage: AirflowStage, **values: Any) -> AirbyteSyncSensor:
    after = utcnow() - timedelta(seconds=2)
    given: dict[str, Any] = {
        "connection_id": stage.connection_id,
        "poke_interval": 0.05,
        "after": after,
        "deferrable": False,
    }
    return AirbyteSyncSensor(task_id="wait", **given | values)


def linked(job: dict[str, Any]) -> bool:
    return job.get("task_url") == PAGE


def received(job: dict[str, Any]) -> bool:
    return [each["task_url"] for each in job.get("receipts", ())] == [PAGE]


async def check(linked_task: LinkedTask, job_id: int) -> dict[str, Any]:
    """Both links, and when the task received the completion."""
    job = await linked_task.shown(job_id, received)
    assert linked(job)
    assert linked_task.ti.xcoms[ListenerJobLink.xcom] == f"{linked_task.url}/jobs/default/{job_id}"
    assert linked_task.ti.xcoms[JOB_XCOM]["job_id"] == job_id
    return job


@pytest.mark.parametrize("deferrable", [False, True])
async def test_an_operator(linked_task: LinkedTask, deferrable: bool) -> None:
    task = operator(linked_task.stage, deferrable=deferrable, wait_seconds=0.1)
    running = linked_task.stage.fire(await linked_task.defer(task)) if deferrable else linked_task.execute(task)

    async def end() -> None:
        job = await linked_task.stage.job()
        await linked_task.shown(job.id, linked)
        linked_task.stage.end(job)

    await linked_task.meanwhile(running, end)
    await check(linked_task, 1)


@pytest.mark.parametrize("deferrable", [False, True])
async def test_a_sensor_of_a_job(linked_task: LinkedTask, deferrable: bool) -> None:
    job = linked_task.stage.start()
    task = job_sensor(job.id, deferrable=deferrable)
    running = linked_task.stage.fire(await linked_task.defer(task)) if deferrable else linked_task.execute(task)

    async def end() -> None:
        # While it waits.
        await linked_task.shown(job.id, linked)
        assert ListenerJobLink.xcom in linked_task.ti.xcoms
        linked_task.stage.end(job)

    await linked_task.meanwhile(running, end)
    shown = await check(linked_task, job.id)
    # It has waited since before, though it asks the listener only at the end.
    assert shown["receipts"][0]["waiting_since"] < shown["observed_at"]


async def test_a_sensor_of_a_job_that_is_rescheduled(linked_task: LinkedTask) -> None:
    job = linked_task.stage.start()
    task = job_sensor(job.id, mode="reschedule")
    began = utcnow()
    with pytest.raises(AirflowRescheduleException):
        await linked_task.execute(task)
    assert linked(await linked_task.shown(job.id, linked))
    assert ListenerJobLink.xcom in linked_task.ti.xcoms
    # Each of its processes would ask Airbyte for it again.
    assert linked_task.ti.xcoms[JOB_XCOM]["name"] is None
    linked_task.stage.end(job)
    # As Airflow does for the next process.
    linked_task.ti = TaskInstance(task_id="wait", first_reschedule=began)
    await linked_task.execute(task)
    (receipt,) = (await check(linked_task, job.id))["receipts"]
    since = parse_time(receipt["waiting_since"])
    assert since is not None
    assert abs(since - began) < timedelta(seconds=1)


async def test_a_sensor_of_a_job_that_has_completed(linked_task: LinkedTask) -> None:
    job = linked_task.stage.end(linked_task.stage.start())
    await linked_task.execute(job_sensor(job.id, deferrable=True))
    await check(linked_task, job.id)


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
async def test_a_sensor_of_a_connection(linked_task: LinkedTask, mode: str) -> None:
    """It links once it knows the job."""
    task = sync_sensor(linked_task.stage, mode=mode)
    if mode == "reschedule":
        with pytest.raises(AirflowRescheduleException):
            await linked_task.execute(task)
    job = linked_task.stage.end(linked_task.stage.start())
    assert await linked_task.execute(task) == job.id
    await check(linked_task, job.id)


async def test_a_deferred_sensor_of_a_connection(linked_task: LinkedTask) -> None:
    task = sync_sensor(linked_task.stage, deferrable=True)
    firing = linked_task.stage.firing(await linked_task.defer(task))
    async with shared_hub(HubKey("airbyte_default")) as shared:
        await linked_task.stage.until(lambda: shared.hub.followers > 0 and shared.hub.following)
        await shared.hub.poll()
    job = linked_task.stage.end(linked_task.stage.start())
    assert await linked_task.execute(task, method="execute_complete", event=await firing) == job.id
    await check(linked_task, job.id)


async def test_without_a_listener_there_are_links_to_airbyte(stage: AirflowStage) -> None:
    stage.monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com")
    stage.connect_airbyte(web_url="https://airbyte.example.com")
    job, ti = stage.start(), TaskInstance()
    stage.end(job)
    await stage.execute(sync_sensor(stage), context={"ti": ti})
    assert ti.xcoms["_link_AirbyteJobLink"].startswith("https://airbyte.example.com/")
    assert ListenerJobLink.xcom not in ti.xcoms


def test_sensors_have_the_links_of_the_operator() -> None:
    for sensor in (AirbyteJobSensor, AirbyteSyncSensor):
        assert [type(link) for link in sensor.operator_extra_links] == [
            type(link) for link in AirbyteTriggerSyncOperator.operator_extra_links
        ]
