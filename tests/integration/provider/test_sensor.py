"""The sensors, in a thread as in a worker, against a simulated Airbyte."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # Airflow 3.0 and 3.1
    from airflow.exceptions import AirflowRescheduleException

from airbyte_events._utils.times import utcnow
from airbyte_events.events import JobError
from airbyte_events.simulator import Fault
from airbyte_events_provider.sensors.airbyte import AirbyteJobSensor, AirbyteSyncSensor
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub
from support.airflow import TaskInstance
from support.airflow_stage import AirflowStage
from support.listener import Running

pytestmark = pytest.mark.anyio


def sensor(job_id: Any, **values: Any) -> AirbyteJobSensor:
    return AirbyteJobSensor(**{"task_id": "wait", "airbyte_job_id": job_id, "poke_interval": 0.05} | values)


async def test_poking(stage: AirflowStage) -> None:
    job = stage.start()

    async def end() -> None:
        await stage.until(lambda: stage.reads(job) > 1)
        stage.end(job)

    await stage.executing(sensor(job.id), end)


async def test_a_job_id_from_a_template_is_text(stage: AirflowStage) -> None:
    job = stage.end(stage.start())
    await stage.execute(sensor(str(job.id)))


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_a_job_without_success_fails_the_sensor_for_good(
    stage: AirflowStage, listener: Running, status: str
) -> None:
    job = stage.start()
    error = JobError(message="password refused", type="config_error", origin="destination")
    stage.end(job, status, **({"error": error} if status == "failed" else {}))
    if status == "failed":
        # The listener knows why once it has confirmed the webhook.
        await stage.until(lambda: stage.reads(job) > 0)
    with pytest.raises(AirflowFailException, match="password refused" if status == "failed" else "was cancelled"):
        await stage.execute(sensor(job.id))


async def test_rescheduling(stage: AirflowStage, monkeypatch: pytest.MonkeyPatch) -> None:
    job = stage.start()
    task = sensor(job.id, mode="reschedule")

    with pytest.raises(AirflowRescheduleException):
        await stage.execute(task, context={"ti": TaskInstance()})
    stage.end(job)
    await stage.execute(task, context={"ti": TaskInstance()})


async def test_deferring(stage: AirflowStage) -> None:
    job = stage.start()
    task = sensor(job.id, deferrable=True)
    deferred = await stage.defer(task)
    assert deferred.trigger.serialize()[1]["cancel_on_kill"] is False
    await stage.execute(task, "execute_complete", event=await stage.completed(job, trigger=deferred.trigger))


async def test_deferring_for_a_job_that_has_ended(stage: AirflowStage) -> None:
    job = stage.end(stage.start())
    await stage.execute(sensor(job.id, deferrable=True))


async def test_the_timeout_of_a_deferred_sensor(stage: AirflowStage) -> None:
    job = stage.start()
    task = sensor(job.id, deferrable=True, timeout=0.1)
    deferred = await stage.defer(task)
    event = await stage.fire(deferred.trigger)
    with pytest.raises(AirflowSensorTimeout):
        await stage.execute(task, "execute_complete", event=event)
    assert job.status == "running"


async def test_past_the_execution_timeout_a_sensor_may_be_tried_again(stage: AirflowStage) -> None:
    """As Airflow has it for sensors: not past the timeout."""
    job = stage.start()
    task = sensor(job.id, deferrable=True, timeout=60, execution_timeout=timedelta(seconds=0.1))
    deferred = await stage.defer(task)
    event = await stage.fire(deferred.trigger)
    with pytest.raises(AirflowException) as raised:
        await stage.execute(task, "execute_complete", event=event)
    assert not isinstance(raised.value, (AirflowSensorTimeout, AirflowFailException))


async def test_without_an_event_a_sensor_begins_again(stage: AirflowStage) -> None:
    job = stage.end(stage.start())
    await stage.execute(sensor(job.id, deferrable=True), "execute_complete")
    assert stage.reads(job)


async def test_failing_softly(stage: AirflowStage) -> None:
    job = stage.start()
    task = sensor(job.id, deferrable=True, soft_fail=True)
    deferred = await stage.defer(task)
    stage.end(job, "failed")
    event = await stage.fire(deferred.trigger)
    with pytest.raises(AirflowSkipException):
        await stage.execute(task, "resume_execution", next_method="execute_complete", next_kwargs={"event": event})


@pytest.mark.parametrize("deferrable", [False, True])
async def test_the_result_is_left_for_later_tasks(stage: AirflowStage, listener: Running, deferrable: bool) -> None:
    job = stage.start()
    task, ti = sensor(job.id, deferrable=deferrable), TaskInstance()
    if deferrable:
        deferred = await stage.defer(task)
        firing = stage.firing(deferred.trigger)
        await stage.waited_for()
    stage.end(job, records=7, bytes=70)
    if deferrable:
        returned = await stage.execute(task, "execute_complete", context={"ti": ti}, event=await firing)
    else:
        returned = await stage.execute(task, context={"ti": ti})
    # As the official one.
    assert returned is None
    assert (ti.xcoms["status"], ti.xcoms["records"], ti.xcoms["bytes"]) == ("succeeded", 7, 70)
    assert ti.xcoms["job"]["job_id"] == job.id
    results = {"job", "status", "records", "bytes", "started_at", "finished_at", "duration_seconds"}
    assert {key for key in ti.xcoms if not key.startswith("_")} == results


async def test_a_success_with_too_few_records(stage: AirflowStage) -> None:
    job = stage.end(stage.start(), records=6)
    with pytest.raises(AirflowFailException, match="moved 6 records, and min_records is 7"):
        await stage.execute(sensor(job.id, min_records=7))
    await stage.execute(sensor(job.id, min_records=6))


def syncs(stage: AirflowStage, **values: Any) -> AirbyteSyncSensor:
    given: dict[str, Any] = {"task_id": "wait", "connection_id": stage.connection_id, "poke_interval": 0.05}
    return AirbyteSyncSensor(**given | {"after": utcnow() - timedelta(seconds=2), "deferrable": False} | values)


class TestSyncSensor:
    """Of a connection, whoever started the sync."""

    async def test_poking(self, stage: AirflowStage) -> None:
        async def sync() -> None:
            await stage.until(lambda: stage.requests("GET /jobs") > 1)
            stage.end(stage.start(), "failed")
            await stage.until(lambda: stage.requests("GET /jobs") > 5)
            stage.end(stage.start())

        assert await stage.executing(syncs(stage), sync) == 2

    async def test_rescheduling(self, stage: AirflowStage) -> None:
        task, ti = syncs(stage, mode="reschedule"), TaskInstance()
        with pytest.raises(AirflowRescheduleException):
            await stage.execute(task, context={"ti": ti})
        job = stage.end(stage.start(), records=5)
        assert await stage.execute(task, context={"ti": ti}) == job.id
        assert ti.xcoms["records"] == 5

    @pytest.mark.parametrize("deferrable", [False, True])
    async def test_one_that_has_ended_already(self, stage: AirflowStage, deferrable: bool) -> None:
        job = stage.end(stage.start())
        ti = TaskInstance()
        assert await stage.execute(syncs(stage, deferrable=deferrable), context={"ti": ti}) == job.id
        assert ti.xcoms["job"]["connection_id"] == stage.connection_id

    @pytest.mark.parametrize("job_type", ["clear", "reset"])
    async def test_a_clear_is_found_though_airbyte_reports_a_reset(self, stage: AirflowStage, job_type: str) -> None:
        job = stage.end(stage.start("reset"))
        assert await stage.execute(syncs(stage, job_type=job_type)) == job.id

    @pytest.mark.parametrize("job_type", ["clear", "reset"])
    async def test_a_clear_completes_a_deferred_sensor(self, stage: AirflowStage, job_type: str) -> None:
        firing = stage.firing(await self.defer(stage, job_type=job_type))
        await self.joined(stage)
        stage.end(stage.start("sync"))
        job = stage.end(stage.start("reset"))
        assert (await firing)["job_id"] == job.id

    async def defer(self, stage: AirflowStage, **values: Any) -> Any:
        deferred = await stage.defer(syncs(stage, deferrable=True, **values))
        return deferred.trigger

    async def joined(self, stage: AirflowStage) -> None:
        async with shared_hub(HubKey("airbyte_default")) as shared:
            await stage.until(lambda: shared.hub.followers > 0)
            if stage.listened:
                await stage.until(lambda: shared.hub.following)
                # After the one that is made when the feed is joined.
                await shared.hub.poll()

    async def test_deferring_on_push(self, stage: AirflowStage, listener: Running) -> None:
        firing = stage.firing(await self.defer(stage))
        await self.joined(stage)
        looks = stage.requests("GET /jobs")
        stage.end(stage.start(), "failed")
        job = stage.end(stage.start(), records=7)
        event = await firing
        assert (event["status"], event["job_id"]) == ("success", job.id)
        assert (event["job"]["origin"], event["job"]["names"]["connection"]) == ("webhook", "orders")
        # Nobody looked.
        assert stage.requests("GET /jobs") == looks
        ti = TaskInstance()
        task = syncs(stage)
        assert await stage.execute(task, "execute_complete", context={"ti": ti}, event=event) == job.id
        assert ti.xcoms["records"] == 7

    async def test_deferring_without_a_listener(self, stage: AirflowStage) -> None:
        stage.monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__POLL_INTERVAL", "0.1")
        firing = stage.firing(await self.defer(stage, poke_interval=0.1))
        await self.joined(stage)
        job = stage.end(stage.start())
        event = await firing
        assert (event["status"], event["job_id"], event["job"]["origin"]) == ("success", job.id, "poll")

    async def test_i4_a_sync_between_the_deferral_and_the_trigger(self, stage: AirflowStage, listener: Running) -> None:
        trigger = await self.defer(stage)
        job = stage.end(stage.start())
        event = await stage.fire(trigger)
        assert (event["status"], event["job_id"]) == ("success", job.id)

    async def test_i4_a_listener_that_goes_is_replaced_by_polling(self, stage: AirflowStage, listener: Running) -> None:
        firing = stage.firing(await self.defer(stage, poke_interval=0.1))
        await self.joined(stage)
        stage.sim.workspace.set_webhook(None)
        await listener.stop()
        job = stage.end(stage.start())
        assert (await firing)["job_id"] == job.id

    async def test_a_hundred_share_their_looks(self, stage: AirflowStage) -> None:
        connections = [stage.start_elsewhere().connection for _ in range(100)]
        deferred = [await self.defer(stage, connection_id=connection.id) for connection in connections]
        looks = stage.requests("GET /jobs")
        firing = [stage.firing(trigger) for trigger in deferred]
        async with shared_hub(HubKey("airbyte_default")) as shared:
            await stage.until(lambda: shared.hub.followers == 100)
        for connection in connections:
            stage.end(connection.jobs[0])
        assert [(await each)["job_id"] for each in firing] == [connection.jobs[0].id for connection in connections]
        assert stage.requests("GET /jobs") - looks < 60

    async def test_what_is_not_wanted_is_passed_over(self, stage: AirflowStage, listener: Running) -> None:
        firing = stage.firing(await self.defer(stage, min_records=10))
        await self.joined(stage)
        for ending in ({"status": "cancelled"}, {"records": 9}, {"records": 10}):
            job = stage.end(stage.start(), **ending)
        assert (await firing)["job_id"] == job.id

    async def test_the_time_is_over_only_after_airbyte_was_asked(self, stage: AirflowStage) -> None:
        trigger = await self.defer(stage, timeout=0.0)
        job = stage.end(stage.start())
        assert (await stage.fire(trigger))["job_id"] == job.id

    @pytest.mark.parametrize("soft_fail", [False, True])
    async def test_the_timeout(self, stage: AirflowStage, soft_fail: bool) -> None:
        event = await stage.fire(await self.defer(stage, timeout=0.1))
        assert stage.connection_id in event["message"]
        with pytest.raises(AirflowSkipException if soft_fail else AirflowSensorTimeout):
            await stage.execute(
                syncs(stage, soft_fail=soft_fail),
                "resume_execution",
                next_method="execute_complete",
                next_kwargs={"event": event},
            )

    async def test_airbyte_in_trouble(self, stage: AirflowStage) -> None:
        stage.sim.add_fault(Fault(kind="status", status=401))
        with pytest.raises(AirflowException, match="401"):
            await stage.execute(syncs(stage))

    async def test_a_missing_connection_is_told(self, stage: AirflowStage) -> None:
        trigger = await self.defer(stage)
        stage.monkeypatch.delenv("AIRFLOW_CONN_AIRBYTE_DEFAULT")
        event = await stage.fire(trigger)
        assert (event["status"], event["job"]) == ("error", None)
        assert "airbyte_default" in event["message"]

    async def test_the_trigger_is_made_again_from_what_airflow_stores(self, stage: AirflowStage) -> None:
        trigger = await self.defer(stage, min_records=3)
        path, kwargs = trigger.serialize()
        assert path == "airbyte_events_provider.triggers.airbyte.AirbyteConnectionSyncTrigger"
        assert type(trigger)(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)
        assert not [secret for secret in stage.secrets if secret in json.dumps(kwargs)]

    @pytest.mark.parametrize(
        ("after", "context", "found"),
        [
            ("2024-05-01T00:00:00Z", {}, True),
            ("2124-05-01 00:00", {}, False),
            (datetime(2024, 5, 1), {}, True),
            (None, {"data_interval_end": datetime(2024, 5, 1, tzinfo=UTC)}, True),
            (None, {"data_interval_end": datetime(2124, 5, 1, tzinfo=UTC), "logical_date": utcnow()}, False),
            (None, {"logical_date": datetime(2024, 5, 1, tzinfo=UTC)}, True),
            ("None", {"logical_date": datetime(2124, 5, 1, tzinfo=UTC)}, False),
            ("", {"dag_run": type("Run", (), {"start_date": datetime(2024, 5, 1, tzinfo=UTC)})}, True),
        ],
    )
    async def test_from_when_on(self, stage: AirflowStage, after: Any, context: Any, found: bool) -> None:
        stage.end(stage.start())
        task = syncs(stage, after=after, timeout=0.0, deferrable=True)
        if found:
            assert await stage.execute(task, context=context) == 1
        else:
            with pytest.raises(TaskDeferred):
                await stage.execute(task, context=context)

    async def test_no_time(self, stage: AirflowStage) -> None:
        with pytest.raises(AirflowFailException, match="give the sensor"):
            await stage.execute(syncs(stage, after=None))

    async def test_a_template_that_makes_no_time(self, stage: AirflowStage) -> None:
        task = syncs(stage, after="{{ params.since }}")
        task.after = "yesterday"
        with pytest.raises(AirflowFailException, match="not an ISO 8601 time"):
            await stage.execute(task)

    @pytest.mark.parametrize("deferrable", [False, True])
    async def test_a_day_is_its_beginning_as_ds_is(self, stage: AirflowStage, deferrable: bool) -> None:
        stage.end(stage.start())
        task = syncs(stage, after="{{ ds }}", deferrable=deferrable)
        task.render_template_fields({"ds": time.strftime("%Y-%m-%d", time.gmtime())})
        assert await stage.execute(task) == 1
