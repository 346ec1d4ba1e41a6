"""Workers and triggerers that are killed, tasks that are cleared and failed: one sync each, or a new one where a person
asked for it."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from e2e.one_task import begin_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_stack import AirflowStack
    from services import Services


@pytest.fixture
def begin(airflow: AirflowStack, services: Services) -> Any:
    return partial(begin_run, airflow, services)


@pytest.mark.needs_airflow(3, 3, "retries of tasks whose process was killed")
def test_a_worker_that_is_killed_while_it_waits_starts_no_second_sync(begin: Any) -> None:
    run = begin("in_worker")
    run.until_said("Airbyte job started")
    run.kill_worker()
    run.until_said("resuming the Airbyte job of an earlier try", tries=2)
    (job,) = run.until_jobs("running")
    run.end(job)
    run.until_state("success", tries=2)
    run.until_jobs("succeeded")
    assert run.result == job["job_id"]


@pytest.mark.needs_airflow(3, 3, "retries of tasks whose process was killed")
def test_a_sync_that_succeeds_while_nobody_waits_completes_the_retry_at_once(begin: Any) -> None:
    run = begin("in_worker")
    run.until_said("Airbyte job started")
    run.kill_worker()
    run.end(run.jobs[0])
    run.until_state("success", tries=2)
    run.until_jobs("succeeded")


def test_a_try_that_gives_up_waiting_leaves_its_sync_to_the_next(begin: Any) -> None:
    run = begin("hurried")
    run.until_said("The job was not cancelled")
    (job,) = run.until_jobs("running")
    run.until_said("resuming the Airbyte job of an earlier try", tries=2)
    run.end(job)
    run.until_state("success", tries=2)
    run.until_jobs("succeeded")


@contextmanager
def slow_to_answer(services: Services) -> Iterator[None]:
    """Airbyte starts jobs, and is long in saying so."""
    fault = {"kind": "slow", "route": "POST /jobs", "delay": 15}
    services.airbyte.post("/_simulator/faults", json=fault).raise_for_status()
    try:
        yield
    finally:
        services.airbyte.delete("/_simulator/faults").raise_for_status()


@pytest.mark.needs_airflow(3, 3, "retries of tasks whose process was killed")
@pytest.mark.parametrize("way", ["in_worker", "deferred"])
def test_a_worker_that_is_killed_while_it_submits_starts_no_second_sync(
    begin: Any, services: Services, way: str
) -> None:
    with slow_to_answer(services):
        run = begin(way)
        (job,) = run.until_jobs("running")
        run.kill_worker()
    run.until_said("resuming the Airbyte job of an earlier try", tries=2)
    run.end(job)
    run.until_state("success", tries=2)
    run.until_jobs("succeeded")


@pytest.mark.needs_airflow(3, 3, "retries of tasks whose process was killed")
def test_a_worker_that_is_shut_down_leaves_its_sync_to_the_next_try(begin: Any) -> None:
    run = begin("in_worker")
    run.until_said("Airbyte job started")
    run.kill_worker(signal.SIGTERM)
    run.until_said("the worker shuts down")
    run.kill_worker()
    run.until_said("resuming the Airbyte job of an earlier try", tries=2)
    run.end(run.until_jobs("running")[0])
    run.until_state("success", tries=2)
    run.until_jobs("succeeded")


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
def test_a_task_that_begins_in_the_triggerer_syncs_again_what_was_written_since_the_run_began(begin: Any) -> None:
    run = begin("twice")
    run.end(run.until_jobs("running")[0])
    _, again = run.until_jobs("succeeded", "running")
    run.end(again)
    run.until_state("success")
    assert run.result == again["job_id"]


@pytest.mark.needs_airflow(3, 3, "on_kill of triggers")
@pytest.mark.parametrize("way", ["deferred", "without_worker", "in_worker"])
def test_a_task_that_attached_to_anothers_sync_and_is_failed_leaves_it_alone(begin: Any, way: str) -> None:
    owner = begin("deferred")
    owner.until_said("waiting for Airbyte job")
    other = owner.begin_another(way)
    other.until_said("runs already" if way == "in_worker" else "waiting for Airbyte job")
    other.mark("failed")
    other.until_state("failed")
    if way == "in_worker":
        other.until_worker_gone()
    owner.end(owner.until_jobs("running")[0])
    owner.until_state("success")
    owner.until_jobs("succeeded")


@pytest.mark.needs_airflow(3, 3, "on_kill of triggers")
def test_failing_a_task_whose_sync_is_being_started_in_the_triggerer_cancels_it(begin: Any, services: Services) -> None:
    with slow_to_answer(services):
        run = begin("without_worker")
        run.until_jobs("running")
        run.mark("failed")
        run.until_jobs("cancelled")
    run.until_state("failed")


@pytest.mark.needs_airflow(3, 3, "another try of running tasks that are cleared")
def test_clearing_a_task_that_was_failed_while_its_sync_was_being_started_cancels_that(
    begin: Any, services: Services
) -> None:
    """Airflow gives a worker's task five seconds to end."""
    with slow_to_answer(services):
        run = begin("in_worker")
        run.until_jobs("running")
        run.mark("failed")
        run.until_worker_gone()
    assert run.jobs[0]["status"] == "running"
    run.clear()
    run.end(run.until_jobs("cancelled", "running")[1])
    run.until_state("success", tries=2)


@pytest.mark.parametrize("way", ["in_worker", "deferred", "without_worker"])
def test_a_sync_that_a_person_cancels_fails_its_task_for_good(begin: Any, way: str) -> None:
    run = begin(way)
    run.until_said("Airbyte job started" if way == "in_worker" else "waiting for Airbyte job")
    run.end(run.until_jobs("running")[0], "cancelled")
    run.services.restart_listener(AIRBYTE_EVENTS_POLL_INTERVAL="2")
    run.until_state("failed")
    run.until_jobs("cancelled")


@pytest.mark.parametrize("way", ["in_worker", "deferred", "without_worker"])
def test_a_sync_that_fails_is_started_anew_by_a_retry(begin: Any, way: str) -> None:
    run = begin(way)
    run.end(run.until_jobs("running")[0], "failed")
    run.end(run.until_jobs("failed", "running")[1])
    run.until_state("success", tries=2)
    run.until_jobs("failed", "succeeded")


@pytest.mark.needs_airflow(3, 3, "on_kill of triggers")
@pytest.mark.parametrize("way", ["deferred", "without_worker"])
def test_clearing_a_deferred_task_cancels_its_sync_and_starts_another(begin: Any, way: str) -> None:
    run = begin(way)
    run.until_said("waiting for Airbyte job")
    run.clear()
    run.end(run.until_jobs("cancelled", "running")[1])
    run.until_state("success", tries=2)
    run.until_jobs("cancelled", "succeeded")


@pytest.mark.needs_airflow(3, 3, "another try of running tasks that are cleared")
def test_clearing_a_task_that_waits_in_a_worker_cancels_its_sync_and_starts_another(begin: Any) -> None:
    run = begin("in_worker")
    run.until_said("Airbyte job started")
    run.clear()
    run.end(run.until_jobs("cancelled", "running")[1])
    run.until_state("success", tries=2)
    run.until_jobs("cancelled", "succeeded")


@pytest.mark.needs_airflow(3, 3, "on_kill of triggers")
@pytest.mark.parametrize("way", ["deferred", "without_worker"])
def test_failing_a_deferred_task_cancels_its_sync(begin: Any, way: str) -> None:
    run = begin(way)
    run.until_said("waiting for Airbyte job")
    run.mark("failed")
    run.until_jobs("cancelled")
    run.until_state("failed")


@pytest.mark.needs_airflow(3, 3, "tasks that begin in the triggerer")
def test_a_task_can_begin_and_end_without_a_worker(begin: Any) -> None:
    run = begin("without_worker")
    run.until_said("waiting for Airbyte job")
    (job,) = run.until_jobs("running")
    run.end(job)
    task = run.until_state("success")
    assert task["pid"] is None
    assert run.result == job["job_id"]


@pytest.mark.needs_airflow(3, 3, "tasks that end in the triggerer")
def test_what_a_task_without_a_worker_leaves_has_the_types_that_a_worker_leaves(
    airflow: AirflowStack, services: Services
) -> None:
    script = {"phases": [{"status": "running", "seconds": 2}], "end": "succeeded"}
    answer = services.airbyte.post("/_simulator/connections", json={"script": script}).raise_for_status()
    run_id = airflow.trigger_dag("ends_early", {"connection": answer.json()["connection_ids"][0]})
    assert {task.state for task in airflow.wait_for_run("ends_early", run_id).values()} == {"success"}
    assert airflow.api.xcoms("ends_early", run_id, "read")["return_value"] == {
        "return_value": "int",
        "status": "str",
        "records": "int",
        "bytes": "int",
        "started_at": "str",
        "job": "dict",
    }


@pytest.mark.parametrize("way", ["deferred", "without_worker"])
def test_a_triggerer_that_is_killed_loses_nothing_and_doubles_nothing(
    begin: Any, airflow: AirflowStack, way: str
) -> None:
    runs = [begin(way) for _ in range(3)]
    for run in runs:
        run.until_said("waiting for Airbyte job")
    airflow.kill("triggerer")
    runs[0].end(runs[0].jobs[0])
    airflow.restart("triggerer")
    runs[1].end(runs[1].jobs[0])
    runs[2].until(lambda: runs[2].airflow.api.health().get("triggerer") == "healthy", "a healthy triggerer")
    runs[2].end(runs[2].jobs[0])
    for run in runs:
        run.until_state("success")
        (job,) = run.until_jobs("succeeded")
        assert run.result == job["job_id"]


@pytest.mark.parametrize("way", ["deferred", "without_worker"])
def test_two_triggerers_of_which_one_dies_lose_nothing_and_double_nothing(
    begin: Any, airflow: AirflowStack, way: str
) -> None:
    with airflow.another("triggerer") as other:
        runs = [begin(way) for _ in range(6)]
        for run in runs:
            run.until_said("waiting for Airbyte job")
        for run in runs[:2]:
            run.end(run.jobs[0])
            run.until_state("success")
        other.kill()
        for run in runs[2:]:
            run.end(run.jobs[0])
        for run in runs[2:]:
            run.until_state("success")
            (job,) = run.until_jobs("succeeded")
            assert run.result == job["job_id"]
