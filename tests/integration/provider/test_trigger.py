"""The trigger, on an event loop as in the triggerer, against a simulated Airbyte and a real listener."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import structlog
from airflow.triggers.base import TriggerEvent
from pydantic import TypeAdapter

from airbyte_events.events import JobError, JobEvent
from airbyte_events.simulator import Fault, Script, Simulator, serve_simulator
from airbyte_events_provider.waiting.progress import ProgressWatch
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub
from support.airflow import TaskInstance
from support.airflow_stage import AirflowStage, TaskStates
from support.events import event_of
from support.listener import Running

pytestmark = pytest.mark.anyio


async def test_a_success_is_told_by_webhook_and_nobody_polls_the_job(stage: AirflowStage, listener: Running) -> None:
    job = stage.start()
    firing = stage.firing(stage.trigger(job))
    await stage.waited_for()
    # The listener's first list of changed jobs, and the one of refreshes.
    await stage.until(lambda: stage.requests("GET /jobs") == 2)
    reads, looks = stage.reads(job), stage.requests("GET /jobs")
    stage.end(job, records=7, bytes=70)
    event = await firing
    assert (event["status"], event["job_id"]) == ("success", job.id)
    assert event["job"]["origin"] == "webhook"
    assert event["job"]["records"] == 7
    assert event["job"]["names"]["connection"] == "orders"
    # The listener's one request to confirm what the webhook told.
    assert stage.reads(job) == reads + 1
    assert stage.requests("GET /jobs") == looks


async def test_without_a_listener_the_end_is_found_by_shared_looks(stage: AirflowStage) -> None:
    job = stage.start()
    firing = stage.firing(stage.trigger(job))
    await stage.until(lambda: stage.requests("GET /jobs") > 2)
    stage.end(job)
    event = await firing
    assert (event["status"], event["job"]["origin"]) == ("success", "poll")
    assert stage.reads(job) == 1


async def test_a_failure_carries_airbytes_reason(stage: AirflowStage, listener: Running) -> None:
    job = stage.start()
    event = await stage.completed(
        job, "failed", error=JobError(message="password refused", type="config_error", origin="destination")
    )
    assert event["status"] == "error"
    assert f"job {job.id} of connection orders ({stage.connection_id}) failed: password refused" in event["message"]
    assert "type config_error, origin destination" in event["message"]
    assert "Correct the settings of the destination in Airbyte" in event["message"]
    assert event["job"]["error"] == {"message": "password refused", "type": "config_error", "origin": "destination"}


async def test_without_a_listener_a_failure_carries_it_too(stage: AirflowStage) -> None:
    job = stage.start()
    firing = stage.firing(stage.trigger(job))
    await stage.until(lambda: stage.requests("GET /jobs") > 0)
    error = JobError(message="column is gone", type="config_error", origin="source", stream="public.orders")
    stage.end(job, "failed", error=error)
    event = await firing
    assert "failed: column is gone (type config_error, origin source, stream public.orders)" in event["message"]
    assert event["job"]["error"]["stream"] == "public.orders"
    assert event["job"]["attempts"] == 1
    assert stage.requests("POST /jobs/get_without_logs") == 1


async def test_a_cancelled_job(stage: AirflowStage) -> None:
    job = stage.start()
    event = await stage.completed(job, "cancelled")
    assert event["status"] == "cancelled"
    assert "was cancelled in Airbyte" in event["message"]


async def test_a_job_that_airbyte_does_not_know(stage: AirflowStage) -> None:
    job = stage.start()
    event = await stage.fire(stage.trigger(job, job_id=4711))
    assert (event["status"], event["job_id"], event["job"]) == ("error", 4711, None)
    assert "has no job 4711" in event["message"]


async def test_a_job_that_ended_while_the_triggerer_was_down_past_the_deadline_is_a_success(
    stage: AirflowStage,
) -> None:
    job = stage.end(stage.start())
    trigger = stage.trigger(job, end_time=time.time() - 100, execution_deadline=time.time() - 200)
    assert (await stage.fire(trigger))["status"] == "success"


@pytest.mark.parametrize(
    ("deadlines", "status"),
    [
        ({"end_time": -1.0}, "error"),
        ({"end_time": 60.0, "execution_deadline": -1.0}, "timeout"),
        ({"end_time": -2.0, "execution_deadline": -1.0}, "error"),
        ({"end_time": 0.5}, "error"),
    ],
)
async def test_a_job_that_runs_past_the_deadline(stage: AirflowStage, deadlines: dict[str, float], status: str) -> None:
    job = stage.start()
    event = await stage.fire(stage.trigger(job, **{name: time.time() + seconds for name, seconds in deadlines.items()}))
    assert (event["status"], event["job"]) == (status, None)
    assert f"job {job.id} is running" in event["message"]
    assert job.status == "running"


async def test_a_listener_that_goes_is_replaced_by_polling(stage: AirflowStage, listener: Running) -> None:
    job = stage.start()
    firing = stage.firing(stage.trigger(job))
    await stage.waited_for()
    stage.sim.workspace.set_webhook(None)
    await listener.stop()
    stage.end(job)
    event = await firing
    assert event["status"] == "success"
    assert event["job"]["origin"] != "webhook"


@pytest.mark.parametrize("fault", ["token", "address", "connection", "url"])
async def test_a_listener_that_can_not_be_used_is_replaced_by_polling(
    stage: AirflowStage, listener: Running, fault: str
) -> None:
    stage.listened = False
    if fault == "token":
        stage.connect_listener(listener.url, "wrong-token-0123456789abcdef0123")
    elif fault == "address":
        stage.connect_listener("http://127.0.0.1:9")
    elif fault == "connection":
        stage.connect_airbyte(listener_conn_id="nowhere")
    else:
        stage.connect_listener("")
    job = stage.start()
    event = await stage.completed(job)
    assert event["status"] == "success"


async def test_a_job_of_the_same_number_in_another_airbyte_is_not_taken_for_ours(
    stage: AirflowStage, caplog: pytest.LogCaptureFixture
) -> None:
    other = Simulator(client_id="client", client_secret=stage.secrets[0])
    foreign = other.world.start_job(other.world.add_connection(Script.hanging()))
    other.world.end_job(foreign, "succeeded")
    job = stage.start()
    assert job.id == foreign.id
    async with serve_simulator(other):
        stage_of_other = type(stage)(sim=other, connection_id=foreign.connection.id, monkeypatch=stage.monkeypatch)
        async with stage_of_other.listener() as served:
            stage.connect_listener(served.url)
            firing = stage.firing(stage.trigger(job))
            await stage.until(lambda: "polling instead" in caplog.text)
            assert not firing.done()
            stage.end(job, "failed")
            event = await firing
    assert event["status"] == "error"
    assert event["job"]["connection_id"] == stage.connection_id


async def test_fifty_triggers_share_one_hub(stage: AirflowStage, listener: Running) -> None:
    jobs = [stage.start_elsewhere() for _ in range(50)]
    firing = [stage.firing(stage.trigger(job)) for job in jobs]
    await stage.waited_for(50)
    for job in jobs:
        stage.end(job)
    events = [await each for each in firing]
    assert {event["status"] for event in events} == {"success"}
    assert [event["job_id"] for event in events] == [job.id for job in jobs]
    # Far fewer requests than jobs, the listener's and the hub's: nobody read 50 jobs one by one before they ended.
    assert stage.requests("POST /applications/token") <= 2
    assert stage.requests("GET /jobs/{id}") + stage.requests("GET /jobs") < 50


async def test_fifty_triggers_without_a_listener_share_their_looks(stage: AirflowStage) -> None:
    jobs = [stage.start_elsewhere() for _ in range(50)]
    firing = [stage.firing(stage.trigger(job, poll_interval=0.5)) for job in jobs]
    await stage.waited_for(50)
    for job in jobs:
        stage.end(job)
    assert {(await each)["status"] for each in firing} == {"success"}
    assert stage.requests("POST /applications/token") == 1
    assert stage.requests("GET /jobs/{id}") + stage.requests("GET /jobs") < 10


async def test_what_the_hub_logs_is_in_no_tasks_log(stage: AirflowStage) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.name, structlog.contextvars.get_contextvars()))

    with _handled(Recorder()):
        job = stage.start()

        async def run_as_the_triggerer() -> None:
            structlog.contextvars.bind_contextvars(trigger_id=5)
            await stage.fire(stage.trigger(job))

        running = asyncio.get_running_loop().create_task(run_as_the_triggerer())
        await stage.waited_for()
        stage.end(job)
        await running
    core = [
        context
        for name, context in seen
        if name.startswith(("airbyte_events.", "airbyte_events_provider.waiting.shared_hub"))
    ]
    assert core
    assert not any(core)


@contextlib.contextmanager
def _handled(handler: logging.Handler) -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


async def test_a_waiting_task_has_one_log_line_with_connection_page_and_how_it_is_notified(
    stage: AirflowStage, listener: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    job = stage.start()
    await stage.completed(job)
    # The simulated Airbyte is in this process, and knows the webhook's URL.
    log = "".join(line for line in capfd.readouterr().out.splitlines() if "HTTP Request" not in line)
    page = f"{listener.url}/jobs/default/{job.id}"
    assert log.count("Airbyte job") == 1
    assert (
        f"waiting for Airbyte job: job={job.id} connection={stage.connection_id} notified_by=listener url={page}" in log
    )
    assert not [secret for secret in stage.secrets if secret in log]


async def test_airflow_logs_little_of_an_event_and_receives_all_of_it(stage: AirflowStage) -> None:
    job = stage.end(stage.start(), records=17)
    (event,) = [event async for event in stage.trigger(job).run()]
    assert repr(event) == f"TriggerEvent<status=success job_id={job.id}>"
    sent = TypeAdapter(TriggerEvent).dump_python(event)["payload"]
    assert type(sent) is dict
    assert sent["job"]["records"] == 17
    assert sent == json.loads(json.dumps(event.payload))


async def test_without_a_listener_the_log_says_that_polling_notifies(
    stage: AirflowStage, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    job = stage.start()
    await stage.completed(job, trigger=stage.trigger(job, poll_interval=0.5))
    line = f"waiting for Airbyte job: job={job.id} connection={stage.connection_id} notified_by=polling"
    assert line in capfd.readouterr().out + caplog.text


@pytest.mark.parametrize("listened", [True, False])
async def test_the_log_tells_the_progress_now_and_then(
    stage: AirflowStage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], listened: bool
) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__PROGRESS_INTERVAL", "0.2")
    seen = [""]

    def told() -> bool:
        seen.append(capfd.readouterr().out)
        return f"Airbyte job running: job={job.id} records=" in "".join(seen)

    async with contextlib.AsyncExitStack() as stack:
        if listened:
            stage.connect_listener((await stack.enter_async_context(stage.listener())).url)
        job = stage.start()
        await stage.until(lambda: bool(job.attempts))
        firing = stage.firing(stage.trigger(job))
        await stage.until(told)
        stage.end(job)
        assert (await firing)["status"] == "success"


async def test_without_an_interval_nobody_asks_for_progress(
    stage: AirflowStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__PROGRESS_INTERVAL", "0")
    watch = ProgressWatch(log=logging.getLogger())
    job = stage.start()
    event = event_of(job.id)

    async def wait() -> JobEvent:
        await anyio.wait_all_tasks_blocked()
        return event

    async def read(*, streams: bool, max_age: float) -> None:
        raise AssertionError("nobody looks")

    assert await watch.during(wait(), read) is event


async def test_a_cancelled_trigger_leaves_no_task_behind(stage: AirflowStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__HUB_LINGER", "0")
    before = asyncio.all_tasks()
    job = stage.start()
    firing = stage.firing(stage.trigger(job))
    await stage.waited_for()
    firing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await firing
    # The simulator's own tasks, which serve connections, end with those.
    await stage.until(lambda: not stage.hubs)
    with anyio.fail_after(30):
        for task in asyncio.all_tasks() - before:
            await asyncio.wait([task])


async def test_the_hub_outlives_the_trigger_that_made_it(stage: AirflowStage) -> None:
    first, second = stage.start_elsewhere(), stage.start_elsewhere()
    one, two = stage.firing(stage.trigger(first)), stage.firing(stage.trigger(second))
    await stage.waited_for(2)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    stage.end(second)
    assert (await two)["status"] == "success"
    third = stage.start_elsewhere()
    stage.end(third)
    assert (await stage.fire(stage.trigger(third)))["status"] == "success"
    assert stage.requests("POST /applications/token") == 1


async def test_a_hub_that_ends_is_replaced_and_the_wait_goes_on(stage: AirflowStage) -> None:
    job = stage.start()
    firing = stage.firing(stage.trigger(job))
    await stage.waited_for()
    async with shared_hub(HubKey("airbyte_default")) as shared:
        await stage.end_hubs()
    stage.end(job)
    assert (await firing)["status"] == "success"
    async with shared_hub(HubKey("airbyte_default")) as another:
        assert another is not shared


async def test_a_missing_connection_is_told(stage: AirflowStage) -> None:
    job = stage.start()
    event = await stage.fire(stage.trigger(job, conn_id="no_such_connection"))
    assert event["status"] == "error"
    assert "no_such_connection" in event["message"]


async def test_a_wrong_connection_is_told(stage: AirflowStage) -> None:
    stage.connect("airbyte_default", conn_type="airbyte", host="localhost:8000")
    event = await stage.fire(stage.trigger(stage.start()))
    assert event["status"] == "error"
    assert "'airbyte_default': the Airbyte URL has no scheme: write http://localhost:8000" in event["message"]


async def test_killing_the_task_cancels_the_job(stage: AirflowStage) -> None:
    job = stage.start()
    trigger = stage.trigger(job)
    firing = stage.firing(trigger)
    await stage.waited_for()
    firing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await firing
    await trigger.on_kill()
    assert job.status == "cancelled"


@pytest.mark.needs_airflow(3, 3, "on_kill of triggers")
@pytest.mark.parametrize(("state", "status"), [("removed", "cancelled"), ("unknown", "running")])
async def test_a_trigger_that_another_triggerer_has_now_leaves_the_job_alone(
    stage: AirflowStage, task_states: TaskStates, state: str, status: str
) -> None:
    job = stage.start()
    trigger = stage.trigger(job)
    trigger.task_instance = TaskInstance(map_index=3)  # type: ignore[assignment]
    task_states.state = state
    await trigger.on_kill()
    assert job.status == status


async def test_the_listener_links_from_the_job_to_the_task(stage: AirflowStage, listener: Running) -> None:
    stage.monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/team/")
    job = stage.start()
    trigger = stage.trigger(job)
    trigger.task_instance = TaskInstance(run_id="run 1+2", map_index=3)  # type: ignore[assignment]
    event = await stage.completed(job, trigger=trigger)
    page = "https://airflow.example.com/team/dags/orders/runs/run%201%2B2/tasks/sync/mapped/3"
    assert event["job"]["task_url"] == page


async def test_killing_the_task_does_not_cancel_the_next_job_of_the_connection(stage: AirflowStage) -> None:
    job = stage.end(stage.start())
    following = stage.start()
    await stage.trigger(job).on_kill()
    assert following.status == "running"
    assert stage.requests("DELETE /jobs/{id}") == 0


async def test_killing_a_sensors_task_leaves_the_job_alone(stage: AirflowStage) -> None:
    job = stage.start()
    await stage.trigger(job, cancel_on_kill=False).on_kill()
    assert job.status == "running"


async def test_airbyte_in_trouble_is_waited_for(stage: AirflowStage) -> None:
    job = stage.start()
    stage.sim.add_fault(Fault(kind="status", status=500, count=1))
    stage.sim.add_fault(Fault(kind="reset", count=1))
    assert (await stage.completed(job))["status"] == "success"
