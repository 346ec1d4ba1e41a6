"""What fails a task of the provider that users move from, or starts a second sync there, does neither here."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from e2e.one_task import begin_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_stack import AirflowStack
    from services import Services


@pytest.fixture
def begin(airflow: AirflowStack, services: Services) -> Any:
    return partial(begin_run, airflow, services)


@pytest.fixture
def faults(services: Services) -> Iterator[Any]:
    """Set a fault of the simulated Airbyte, which ends with the test; the result says whether it has happened."""

    def add(**fault: Any) -> Callable[[], bool]:
        number = services.airbyte.post("/_simulator/faults", json=fault).raise_for_status().json()["id"]

        def happened() -> bool:
            armed = services.airbyte.get("/_simulator/faults").raise_for_status().json()["faults"]
            return any(each["struck"] for each in armed if each["id"] == number)

        return happened

    yield add
    services.airbyte.delete("/_simulator/faults").raise_for_status()


TROUBLES: tuple[dict[str, Any], ...] = (
    *({"kind": "status", "status": status} for status in (500, 502, 503, 504, 429, 401)),
    {"kind": "reset"},
    {"kind": "truncated"},
    {"kind": "slow", "delay": 5},
)


def test_trouble_while_a_task_polls_does_not_fail_it(begin: Any, faults: Any) -> None:
    """One task meets all of it, and some once more when its job completes."""
    run = begin("polling")
    run.until_said("waiting for Airbyte job")
    (job,) = run.until_jobs("running")
    for trouble in TROUBLES:
        run.until(faults(route="GET /jobs", count=1, **trouble), f"a poll that meets {trouble}")
    for route in ("GET /jobs", "GET /jobs/{id}"):
        faults(route=route, count=1, kind="reset")
    run.end(job)
    run.until_state("success")
    assert run.result == job["job_id"]
    run.until_jobs("succeeded")


@pytest.mark.parametrize("way", ["in_worker", "deferred", "without_worker"])
def test_a_create_whose_answer_is_lost_starts_one_sync(begin: Any, faults: Any, way: str) -> None:
    faults(kind="reset", route="POST /jobs", after=True, count=1)
    run = begin(way)
    (job,) = run.until_jobs("running")
    run.until_said("though Airbyte's response was lost" if way != "without_worker" else "waiting for Airbyte job")
    run.end(job)
    run.until_state("success")
    run.until_jobs("succeeded")


def test_statuses_that_nobody_has_heard_of_are_waited_through(begin: Any) -> None:
    statuses = ("queued", "becalmed", "running")
    run = begin("deferred", {"phases": [{"status": each, "seconds": 1.5} for each in statuses]})
    run.until_state("success")
    run.until_jobs("succeeded")


def test_a_job_that_succeeds_while_the_triggerer_is_down_past_the_deadline_is_a_success(
    begin: Any, airflow: AirflowStack
) -> None:
    run = begin("hurried")
    run.until_said("waiting for Airbyte job")
    airflow.kill("triggerer")
    (job,) = run.jobs
    run.end(job)
    # The deadline has to pass: it is the wall clock's.
    time.sleep(16)
    airflow.restart("triggerer")
    run.until_state("success")
    assert run.result == job["job_id"]


@pytest.mark.parametrize(
    ("way", "refusals"),
    [("polling", 0), ("polling", 1), ("once", 0)],
    ids=["by the triggerer", "by the worker", "by the listener"],
)
def test_a_failure_that_only_polling_finds_fails_its_task_with_airbytes_reason(
    begin: Any, faults: Any, services: Services, way: str, refusals: int
) -> None:
    """The public API has no reason, and no webhook brings one: it is from the internal API, asked once.

    :param way: ``polling``, without a listener; ``once``, with one, whose webhook is lost.
    :param refusals: to the triggerer, whose task then asks in its worker.
    """
    if way == "once":
        services.restart_listener(AIRBYTE_EVENTS_POLL_INTERVAL="2")
        faults(kind="lost", route="failure")
    error = {"message": "The password has expired", "type": "config_error", "origin": "destination"}
    run = begin(way)
    run.until_state("deferred")
    (job,) = run.until_jobs("running")
    if refusals:
        faults(kind="status", status=500, route="POST /jobs/get_without_logs", count=refusals)
    run.end(job, "failed", error=error)
    run.until_state("failed")
    (raised,) = run.exceptions()
    assert "AirflowException" in raised
    assert all(word in raised for word in (f"job {job['job_id']}", *error.values())), raised
    # By the listener, and by triggerer and worker too if they were without a listener just then: each once.
    query = {"route": "POST /jobs/get_without_logs", "job_id": job["job_id"]}
    requests = services.airbyte.get("/_simulator/requests", params=query).raise_for_status().json()["recent"]
    assert 1 <= len(requests) <= (1 + refusals if way == "polling" else 3)


def test_a_job_that_has_stalled_fails_its_task_in_the_time_set(begin: Any) -> None:
    stalled = {"phases": [{"status": "running", "seconds": 600, "stalled": True}], "records": 1000}
    run = begin("stalled", stalled)
    run.until_state("failed")
    (raised,) = run.exceptions()
    (job,) = run.until_jobs("cancelled")
    assert f"job {job['job_id']}" in raised
    assert "10 s" in raised, raised


def test_a_refresh_completes_its_task(begin: Any) -> None:
    """Airbyte announces no refresh, and the public API starts none."""
    run = begin("refresh", {"phases": [{"status": "running", "seconds": 1}]})
    run.until_state("success")
    (job,) = run.until_jobs("succeeded")
    assert job["job_type"] == "refresh"
    assert run.result == job["job_id"]
