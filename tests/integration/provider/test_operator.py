"""The operator, in a thread as in a worker, against a simulated Airbyte and a real listener."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

from airbyte_events._utils.times import utcnow
from airbyte_events.errors import JobStalled
from airbyte_events.events import JobError, JobEvent, JobStatus, Progress
from airbyte_events.simulator import Fault, Phase, Script
from airbyte_events_provider.arguments import WrongArgument
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.waiting.progress import ProgressWatch
from support.airflow import TaskInstance
from support.airflow_stage import AirflowStage, TaskStates
from support.events import event_of
from support.listener import API_TOKEN, Running, bearer
from support.waiting import until

pytestmark = pytest.mark.anyio


def operator(stage: AirflowStage, **values: Any) -> AirbyteTriggerSyncOperator:
    given: dict[str, Any] = {"task_id": "sync", "connection_id": stage.connection_id, "wait_seconds": 0.1}
    return AirbyteTriggerSyncOperator(**given | {"timeout": 15} | values)


def ending(stage: AirflowStage, status: str = "succeeded", **values: Any) -> Any:
    """Wait until the task waits for the job, then end it."""

    async def end() -> None:
        job = await stage.job()
        await stage.until(lambda: stage.reads(job) + stage.requests("GET /jobs") > 0)
        stage.end(job, status, **values)

    return end


async def resume(stage: AirflowStage, task: AirbyteTriggerSyncOperator, deferred: TaskDeferred) -> Any:
    """Fire the trigger, and go on in another worker."""
    event = await stage.fire(deferred.trigger)
    return await stage.execute(task, deferred.method_name, event=event)


async def run(
    stage: AirflowStage, task: AirbyteTriggerSyncOperator, status: str | None = "succeeded", **values: Any
) -> Any:
    """The task in whichever way, while its job comes to that end, or to none."""
    if task.deferrable:
        deferred = await stage.defer(task)
        if status is not None:
            stage.end(stage.sim.world.jobs[1], status, **values)
        return await resume(stage, task, deferred)
    if status is None:
        return await stage.execute(task)
    return await stage.executing(task, ending(stage, status, **values))


async def test_the_synchronous_way_returns_the_job_id(stage: AirflowStage) -> None:
    assert await stage.executing(operator(stage), ending(stage)) == 1
    assert stage.requests("POST /jobs") == 1


async def test_the_synchronous_way_is_told_by_the_listener(stage: AirflowStage, listener: Running) -> None:
    task = operator(stage, wait_seconds=3600)
    assert await stage.executing(task, ending(stage)) == 1


async def test_the_asynchronous_way_returns_the_job_id_at_once(stage: AirflowStage) -> None:
    assert await stage.execute(operator(stage, asynchronous=True, deferrable=True)) == 1
    assert stage.sim.world.jobs[1].status == "running"
    assert stage.requests("POST /applications/token") == 1


async def test_the_deferrable_way_returns_the_job_id(stage: AirflowStage, listener: Running) -> None:
    deferred = await stage.defer(operator(stage, deferrable=True))
    assert deferred.timeout is None
    stage.end(stage.sim.world.jobs[1])
    assert await resume(stage, operator(stage, deferrable=True), deferred) == 1


async def test_the_log_of_a_deferred_task_says_what_it_waits_for(
    stage: AirflowStage, listener: Running, caplog: pytest.LogCaptureFixture
) -> None:
    connection = stage.sim.world.connections[stage.connection_id]
    connection.name = "Orders\n→ lake"
    before = stage.sim.world.start_job(connection, created_at=utcnow() - timedelta(minutes=3))
    stage.end(before)
    await stage.defer(operator(stage, deferrable=True))
    (line,) = [each for each in caplog.messages if "the completion:" in each]
    head, _, rest = line.partition(" usual_seconds=")
    assert head == "the listener reports the completion: job=2 connection='Orders\\n→ lake' listener=listener"
    usual, _, link = rest.partition(" link=")
    assert int(usual) == pytest.approx(180, abs=2)
    assert link == f"{listener.url}/jobs/default/2"


@pytest.mark.parametrize("deferrable", [False, True])
async def test_the_log_of_a_task_without_a_listener_says_how_often_it_polls(
    stage: AirflowStage, deferrable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    await run(stage, operator(stage, deferrable=deferrable))
    (line,) = [each for each in caplog.messages if "the completion:" in each]
    assert line.startswith("polling Airbyte for the completion: job=1 connection='")
    assert f" poll_seconds=0.1 usual_seconds=unknown link={stage.sim.url}/workspaces/" in line


async def test_the_log_names_the_connection_as_far_as_it_is_known(
    stage: AirflowStage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.sim.add_fault(Fault(kind="status", status=500, route="GET /connections/{id}"))
    await stage.defer(operator(stage, deferrable=True))
    assert f"job=1 connection={stage.connection_id} poll_seconds=0.1 usual_seconds=unknown link=unknown" in caplog.text


async def test_a_job_that_has_ended_when_it_is_submitted_is_not_waited_for(stage: AirflowStage) -> None:
    stage.sim.world.connections[stage.connection_id].script = Script.lasting(0)
    stage.sim.add_fault(Fault(kind="reset", route="POST /jobs", after=True, count=1))
    assert await stage.execute(operator(stage, deferrable=True)) == 1


@pytest.mark.parametrize("deferrable", [False, True])
async def test_a_failed_job_fails_the_task_with_airbytes_reason(
    stage: AirflowStage, listener: Running, deferrable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = JobError(message="password refused", type="config_error", origin="destination")
    with pytest.raises(AirflowException) as info:
        await run(stage, operator(stage, deferrable=deferrable), "failed", error=error)
    assert "failed: password refused (type config_error, origin destination)" in str(info.value)
    assert not isinstance(info.value, AirflowFailException)
    assert stage.connection_id in str(info.value)
    assert "password refused (type config_error, origin destination)" in caplog.text


@pytest.mark.parametrize("deferrable", [False, True])
async def test_a_cancelled_job_fails_the_task_for_good(stage: AirflowStage, deferrable: bool) -> None:
    with pytest.raises(AirflowFailException, match="was cancelled in Airbyte"):
        await run(stage, operator(stage, deferrable=deferrable), "cancelled")


@pytest.mark.parametrize(("records", "right"), [(9, False), (10, True)])
async def test_min_records(stage: AirflowStage, records: int, right: bool) -> None:
    task = operator(stage, min_records=10)
    if right:
        assert await stage.executing(task, ending(stage, records=records)) == 1
    else:
        with pytest.raises(AirflowException, match="moved 9 records, and min_records is 10"):
            await stage.executing(task, ending(stage, records=records))


async def test_min_records_of_a_job_that_never_ran(stage: AirflowStage) -> None:
    stage.sim.world.connections[stage.connection_id].script = Script(records=None, bytes=None)
    with pytest.raises(AirflowException, match="does not say how many records it moved"):
        await stage.executing(operator(stage, min_records=1), ending(stage))


@pytest.mark.parametrize("deferrable", [False, True])
async def test_the_timeout_ends_the_wait_and_not_the_job(stage: AirflowStage, deferrable: bool) -> None:
    task = operator(stage, timeout=0.3, deferrable=deferrable)
    with pytest.raises(AirflowException, match=r"running; the task's timeout was over .* it continues in Airbyte"):
        await run(stage, task, None)
    assert stage.sim.world.jobs[1].status == "running"


async def test_the_execution_timeout_of_a_deferred_task_cancels_the_job(stage: AirflowStage) -> None:
    task = operator(stage, execution_timeout=timedelta(seconds=0.2), deferrable=True)
    deferred = await stage.defer(task)
    with pytest.raises(AirflowException, match=r"execution deadline was .* The job is cancelled now"):
        await resume(stage, task, deferred)
    assert stage.sim.world.jobs[1].status == "cancelled"


async def test_a_job_that_succeeds_before_it_is_cancelled_as_overdue_is_a_success(stage: AirflowStage) -> None:
    task = operator(stage, execution_timeout=timedelta(seconds=0.2), deferrable=True)
    deferred = await stage.defer(task)
    event = await stage.fire(deferred.trigger)
    stage.end(stage.sim.world.jobs[1])
    assert await stage.execute(task, "execute_complete", event=event) == 1


async def test_the_listener_links_from_the_job_to_a_task_that_waits_in_a_worker(
    stage: AirflowStage, listener: Running
) -> None:
    stage.monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com")
    task = operator(stage)
    running = asyncio.get_running_loop().create_task(stage.execute(task, context={"ti": TaskInstance()}))
    job = await stage.job()
    async with httpx.AsyncClient(trust_env=False, headers=bearer(API_TOKEN)) as http:

        async def task_url() -> object:
            answer = await http.get(f"{listener.url}/v1/jobs/default/{job.id}")
            return answer.json()["job"].get("task_url") if answer.is_success else None

        assert await until(task_url) == "https://airflow.example.com/dags/orders/runs/run/tasks/sync"
    stage.end(job)
    assert await running == job.id


async def signalled(
    stage: AirflowStage, task_states: TaskStates, state: str | None, task: AirbyteTriggerSyncOperator
) -> None:
    """Airflow calls ``on_kill`` once the task waits for the job; then that succeeds, unless it has been cancelled."""
    task_states.state = state
    running = asyncio.get_running_loop().create_task(stage.execute(task, context={"ti": TaskInstance()}))
    job = await stage.job()
    await stage.until(lambda: task.job_id == job.id and stage.reads(job) > 0)
    await anyio.to_thread.run_sync(task.on_kill)
    if job.status == "running":
        stage.end(job)
    await running


@pytest.mark.parametrize("state", ["failed", "success", "restarting", None])
async def test_a_kill_by_a_person_cancels_the_job_and_the_task_may_be_tried_again(
    stage: AirflowStage, task_states: TaskStates, state: str | None
) -> None:
    with pytest.raises(AirflowException, match="because its task was killed") as info:
        await signalled(stage, task_states, state, operator(stage))
    assert not isinstance(info.value, AirflowFailException)
    assert stage.sim.world.jobs[1].status == "cancelled"


@pytest.mark.parametrize("state", ["running", "up_for_retry", "queued", "scheduled", "unknown"])
async def test_a_worker_that_is_shut_down_or_given_up_lets_the_job_go_on(
    stage: AirflowStage, task_states: TaskStates, state: str
) -> None:
    await signalled(stage, task_states, state, operator(stage))
    assert stage.requests("DELETE /jobs/{id}") == 0


async def test_a_kill_leaves_a_job_that_the_task_attached_to_alone(
    stage: AirflowStage, task_states: TaskStates
) -> None:
    stage.start()
    await signalled(stage, task_states, "failed", operator(stage))
    assert stage.requests("DELETE /jobs/{id}") == stage.requests("POST /jobs") == 0


async def test_a_kill_while_the_job_is_asked_for_cancels_it_once_it_is_known(
    stage: AirflowStage, task_states: TaskStates
) -> None:
    task = operator(stage)
    task_states.state = "failed"
    stage.sim.add_fault(Fault(kind="slow", delay=0.5, route="POST /jobs"))
    running = asyncio.get_running_loop().create_task(stage.execute(task, context={"ti": TaskInstance()}))
    job = await stage.job()
    assert task.job_id is None
    await anyio.to_thread.run_sync(task.on_kill)
    with pytest.raises(AirflowException, match="was killed while it started Airbyte job 1"):
        await running
    assert job.status == "cancelled"


async def test_a_kill_before_the_job_is_there_does_nothing(stage: AirflowStage) -> None:
    operator(stage).on_kill()
    assert stage.sim.traffic.total == 0


async def test_a_running_sync_of_the_connection_is_waited_for(stage: AirflowStage) -> None:
    job = stage.start()
    task = operator(stage)

    async def end() -> None:
        await stage.until(lambda: task.job_id is not None)
        stage.end(job)

    assert await stage.executing(task, end) == job.id
    assert len(stage.sim.world.jobs) == 1


async def test_an_inactive_connection_is_told(stage: AirflowStage) -> None:
    stage.sim.world.connections[stage.connection_id].active = False
    with pytest.raises(AirflowException, match="enabled in Airbyte"):
        await stage.execute(operator(stage))


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="reset", route="POST /jobs", after=True, count=1),
        Fault(kind="status", status=502, route="POST /jobs", after=True, count=1),
        Fault(kind="truncated", route="POST /jobs", count=1),
    ],
    ids=lambda fault: fault.kind,
)
async def test_a_job_whose_creation_got_no_answer_is_found(stage: AirflowStage, fault: Fault) -> None:
    older = stage.end(stage.start())
    stage.sim.add_fault(fault)

    async def end() -> None:
        stage.end(await stage.job(older.id + 1))

    assert await stage.executing(operator(stage), end) == older.id + 1
    assert len(stage.sim.world.jobs) == 2


async def test_a_wrong_client_secret_is_told(stage: AirflowStage) -> None:
    stage.connect("airbyte_default", conn_type="airbyte", host=stage.sim.url, login="client", password="wrong-secret")
    with pytest.raises(AirflowException, match="rejects this client id and secret") as info:
        await stage.execute(operator(stage))
    assert "wrong-secret" not in str(info.value)


async def test_mapped_over_connections_they_wait_together(stage: AirflowStage) -> None:
    tasks = [
        operator(stage, connection_id=stage.sim.world.add_connection(Script.lasting(0.3)).id, deferrable=True)
        for _ in range(5)
    ]
    deferrals = [await stage.defer(task) for task in tasks]
    firing = [stage.firing(each.trigger) for each in deferrals]
    assert {(await each)["status"] for each in firing} == {"success"}


STALLED = Script(phases=(Phase(status="running", seconds=0, stalled=True),), end=None)


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(("on_stall", "status"), [("fail", "running"), ("cancel", "cancelled")])
async def test_a_stalled_job_fails_the_task_in_the_time_set(
    stage: AirflowStage, deferrable: bool, on_stall: str, status: str
) -> None:
    stage.sim.world.connections[stage.connection_id].script = STALLED
    task = operator(stage, deferrable=deferrable, timeout=60, stalled_after=1.0, on_stall=on_stall)
    began = anyio.current_time()
    with pytest.raises(AirflowException, match=r"job 1 has stalled: Airbyte has reported no progress for \d+ s"):
        await run(stage, task, None)
    assert anyio.current_time() - began < 30
    assert stage.sim.world.jobs[1].status == status


async def test_a_stall_is_logged_once_and_the_task_waits_on(
    stage: AirflowStage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__PROGRESS_INTERVAL", "0")
    stage.sim.world.connections[stage.connection_id].script = STALLED
    deferred = await stage.defer(operator(stage, deferrable=True, timeout=60, stalled_after=1.0))
    firing, seen = stage.firing(deferred.trigger), [""]

    def warned() -> bool:
        seen.append(capfd.readouterr().out)
        return "job 1 has stalled" in "".join(seen)

    await stage.until(warned)
    stage.end(stage.sim.world.jobs[1])
    assert (await firing)["status"] == "success"
    assert ("".join(seen) + capfd.readouterr().out).count("has stalled") == 1


async def test_a_wrong_progress_interval_ends_no_wait(stage: AirflowStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__PROGRESS_INTERVAL", "often")
    deferred = await stage.defer(operator(stage, deferrable=True, timeout=60))
    firing = stage.firing(deferred.trigger)
    await stage.waited_for()
    stage.end(stage.sim.world.jobs[1])
    assert (await firing)["status"] == "success"


async def test_a_job_that_moves_does_not_stall(stage: AirflowStage) -> None:
    watch = ProgressWatch(log=logging.getLogger(), stalled_after=1.0, on_stall="fail")
    event = event_of(1)

    async def read(*, streams: bool, max_age: float) -> Progress:
        reads.append(streams)
        unchanged = 0.9 if len(reads) < 4 else 0.0
        return Progress(
            job_id=1, status=JobStatus.RUNNING, observed_at=utcnow(), records=len(reads), unchanged_seconds=unchanged
        )

    async def wait() -> JobEvent:
        await stage.until(lambda: len(reads) >= 5)
        return event

    reads: list[bool] = []
    assert await watch.during(wait(), read) is event
    assert reads[:5] == [False, True, True, True, False], "what is read and not committed counts before it is a stall"


async def test_a_job_stalls_only_after_its_streams_were_the_same(stage: AirflowStage) -> None:
    watch = ProgressWatch(log=logging.getLogger(), stalled_after=1.0, on_stall="fail")
    reads: list[bool] = []

    async def read(*, streams: bool, max_age: float) -> Progress:
        reads.append(streams)
        progress = Progress(job_id=1, status=JobStatus.RUNNING, observed_at=utcnow(), unchanged_seconds=100.0)
        return replace(progress, streams_unchanged_seconds=0.0 if len(reads) < 5 else 1.0)

    async def wait() -> JobEvent:
        await anyio.sleep_forever()
        raise AssertionError

    with pytest.raises(JobStalled):
        await watch.during(wait(), read)
    assert len(reads) == 5


async def test_a_fault_of_what_watches_does_not_end_the_wait(
    stage: AirflowStage, caplog: pytest.LogCaptureFixture
) -> None:
    watch = ProgressWatch(log=logging.getLogger(), stalled_after=1.0, on_stall="cancel")
    reads: list[bool] = []

    async def read(*, streams: bool, max_age: float) -> Progress:
        reads.append(streams)
        raise KeyError("streams")

    async def wait() -> JobEvent:
        await stage.until(lambda: "is no longer watched" in caplog.text)
        return event

    event = event_of(1)
    assert await watch.during(wait(), read) is event
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on_stall": "fail"}, "needs stalled_after"),
        ({"on_stall": "retry", "stalled_after": 60.0}, "on_stall='retry' is none of warn, fail, cancel"),
        ({"stalled_after": 0}, "stalled_after=0 is no time"),
        ({"stalled_after": -1.0}, "stalled_after=-1.0 is not a number of seconds"),
        ({"stalled_after": timedelta(minutes=1)}, "write 60"),
        ({"stalled_after": 60.0, "asynchronous": True}, "stalled_after has no effect with asynchronous=True"),
    ],
)
def test_wrong_arguments_about_stalls(values: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongArgument, match=message):
        AirbyteTriggerSyncOperator(task_id="sync", connection_id="c", **values)
