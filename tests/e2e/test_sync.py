"""The product: tasks of a real Airflow that complete because a webhook came, and all the same when none does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_stack import AirflowStack
    from services import Services

THREE_WAYS = "airbyte_events_demo"
ONE = "one_sync"
BY_NAME = "by_name"


@dataclass(frozen=True)
class Waiting:
    """A deferred task, and the job that it waits for."""

    run_id: str
    job_id: int


class Airbyte:
    """What a test does at the simulated Airbyte, and sees there."""

    def __init__(self, services: Services) -> None:
        self._client = services.airbyte

    def connect(self, script: dict[str, Any], **more: Any) -> str:
        """A connection whose jobs follow the script; its id."""
        answer = self._client.post("/_simulator/connections", json={"script": script, **more}).raise_for_status()
        return str(answer.json()["connection_ids"][0])

    def end(self, job_id: int, status: str, **more: Any) -> None:
        self._client.post(f"/_simulator/jobs/{job_id}/end", json={"status": status, **more}).raise_for_status()

    def jobs(self, connection_id: str) -> list[dict[str, Any]]:
        answer = self._client.get("/_simulator/jobs", params={"connection_id": connection_id}).raise_for_status()
        jobs: list[dict[str, Any]] = answer.json()["jobs"]
        return jobs

    def job(self, job_id: int) -> dict[str, Any]:
        job: dict[str, Any] = self._client.get(f"/_simulator/jobs/{job_id}").raise_for_status().json()
        return job

    def requests(self, **criteria: str | int) -> list[dict[str, Any]]:
        answer = self._client.get("/_simulator/requests", params={**criteria, "limit": 1000}).raise_for_status()
        calls: list[dict[str, Any]] = answer.json()["recent"]
        return calls


HANGING = {"phases": [{"status": "running", "seconds": 1}], "end": None}
"""A sync that runs until the test ends it."""


@pytest.fixture
def airbyte(services: Services) -> Airbyte:
    return Airbyte(services)


@pytest.fixture
def wait(airflow: AirflowStack, services: Services, airbyte: Airbyte) -> Callable[[], Waiting]:
    """Start a run of the DAG with one task; returns once the task is deferred and its job is watched."""

    def start() -> Waiting:
        connection_id = airbyte.connect(HANGING)
        run_id = airflow.trigger_dag(ONE, {"connection": connection_id})
        airflow.wait_for_task(ONE, run_id, "sync", {"deferred"})
        airflow.wait_for_log(ONE, run_id, "sync", "waiting for Airbyte job")
        job_id = airbyte.jobs(connection_id)[0]["job_id"]
        # The listener was asked for its state, and watches it: what happens from now on is told, and no longer found.
        airflow.processes.wait_until(
            lambda: services.listener.get(f"/v1/jobs/default/{job_id}").is_success,
            f"a watch of job {job_id}",
            timeout=60,
        )
        return Waiting(run_id, job_id)

    return start


def test_three_ways_complete_on_push(airflow: AirflowStack, services: Services, airbyte: Airbyte) -> None:
    connection_ids = services.connection_ids()[:3]
    run_id = airflow.trigger_dag(THREE_WAYS, {"connections": connection_ids})
    tasks = airflow.wait_for_run(THREE_WAYS, run_id)

    assert {name: task.state for name, task in tasks.items()} == dict.fromkeys(
        ("synchronous", "asynchronous", "sensor", "deferrable"), "success"
    )
    for task_id, connection_id in zip(("synchronous", "asynchronous", "deferrable"), connection_ids, strict=True):
        job = max(airbyte.jobs(connection_id), key=lambda job: job["job_id"])
        assert airflow.api.xcoms(THREE_WAYS, run_id, task_id)["return_value"] == job["job_id"]
        told = services.listener.get(f"/v1/jobs/default/{job['job_id']}").raise_for_status().json()["job"]
        assert (told["status"], told["origin"]) == ("succeeded", "webhook")
    # The deferred task's receipt is reported after it has resumed.
    receipt = airflow.processes.wait_until(
        lambda: next(iter(services.listener.get(f"/v1/jobs/default/{job['job_id']}").json()["job"]["receipts"]), None),
        f"a receipt of job {job['job_id']}",
        timeout=60,
    )
    assert f"/dags/{THREE_WAYS}/runs/" in receipt["task_url"]
    assert receipt["task_url"].endswith("/tasks/deferrable")


def test_nobody_polls_a_pushed_job(airflow: AirflowStack, airbyte: Airbyte, wait: Callable[[], Waiting]) -> None:
    waiting = wait()
    before = airbyte.requests(job_id=waiting.job_id)
    # The listener asked for its state when the wait began; a triggerer that was not connected to it yet did so, too.
    assert [call["route"] for call in before] in (["GET /jobs/{id}"], ["GET /jobs/{id}"] * 2)

    airbyte.end(waiting.job_id, "succeeded", records=17)
    airflow.wait_for_task(ONE, waiting.run_id, "sync", {"success"})

    committed_at = airbyte.job(waiting.job_id)["committed_at"]
    (confirmation,) = airbyte.requests(job_id=waiting.job_id)[: -len(before)]
    assert confirmation["route"] == "GET /jobs/{id}"
    assert confirmation["at"] > committed_at, "asked because the webhook came"
    lists = [call for call in airbyte.requests(route="GET /jobs") if call["at"] > before[0]["at"]]
    assert lists == [], "no look at all jobs either"
    assert airflow.api.xcoms(ONE, waiting.run_id, "sync")["return_value"] == waiting.job_id
    log = airflow.log_tail(ONE, waiting.run_id, "sync", lines=100)
    assert "detected_by=webhook" in log


def test_i4_listener_gone_mid_wait_the_task_succeeds_by_polling(
    airflow: AirflowStack, services: Services, airbyte: Airbyte, wait: Callable[[], Waiting]
) -> None:
    waiting = wait()
    services.kill_listener()
    airbyte.end(waiting.job_id, "succeeded")
    airflow.wait_for_task(ONE, waiting.run_id, "sync", {"success"}, timeout=120)

    assert airflow.api.xcoms(ONE, waiting.run_id, "sync")["return_value"] == waiting.job_id
    log = airflow.log_tail(ONE, waiting.run_id, "sync", lines=100)
    assert "detected_by=poll" in log


def test_a_failed_job_fails_its_task_with_the_reason_that_the_webhook_brought(
    airflow: AirflowStack, airbyte: Airbyte, wait: Callable[[], Waiting]
) -> None:
    waiting = wait()
    error = {"message": "The password has expired", "type": "config_error", "origin": "destination"}
    airbyte.end(waiting.job_id, "failed", error=error)
    airflow.wait_for_task(ONE, waiting.run_id, "sync", {"failed"})

    log = airflow.log_tail(ONE, waiting.run_id, "sync", lines=100)
    assert all(word in log for word in error.values()), log


@pytest.fixture
def polling(services: Services) -> None:
    """A listener that looks often."""
    services.restart_listener(AIRBYTE_EVENTS_POLL_INTERVAL="2")


@pytest.mark.usefixtures("polling")
def test_a_cancelled_job_that_airbyte_does_not_announce_fails_its_task_and_says_so(
    airflow: AirflowStack, airbyte: Airbyte, wait: Callable[[], Waiting]
) -> None:
    waiting = wait()
    airbyte.end(waiting.job_id, "cancelled")
    airflow.wait_for_task(ONE, waiting.run_id, "sync", {"failed"})

    log = airflow.log_tail(ONE, waiting.run_id, "sync", lines=100)
    assert f"job {waiting.job_id}" in log
    assert "was cancelled in Airbyte" in log


def test_a_sync_by_the_connections_name(airflow: AirflowStack, airbyte: Airbyte) -> None:
    lasting = {"phases": [{"status": "running", "seconds": 1}], "end": "succeeded"}
    connection_id = airbyte.connect(lasting, name="Orders by name")
    run_id = airflow.trigger_dag(BY_NAME, {"name": "Orders by name"})
    tasks = airflow.wait_for_run(BY_NAME, run_id)

    assert {name: task.state for name, task in tasks.items()} == dict.fromkeys(
        ("worker", "deferred", "triggerer", "sensor"), "success"
    )
    jobs = [job["job_id"] for job in airbyte.jobs(connection_id)]
    results = [airflow.api.xcoms(BY_NAME, run_id, task_id)["return_value"] for task_id in tasks]
    assert set(results) == set(jobs)
    assert len(jobs) == 3
