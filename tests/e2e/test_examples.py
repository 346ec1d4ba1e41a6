"""The example DAGs of the documentation, as they stand there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_stack import AirflowStack
    from services import Services

ORDERS = "7b480e47-6992-5e8b-9c8a-acfd34a1b7bc"


@pytest.fixture(autouse=True)
def quick(services: Services) -> Iterator[None]:
    """Syncs of the connection that the examples name take three seconds."""
    services.airbyte.patch(f"/_simulator/connections/{ORDERS}", json={"duration": 3}).raise_for_status()
    yield
    services.airbyte.patch(f"/_simulator/connections/{ORDERS}", json={"duration": 10}).raise_for_status()


def jobs(services: Services, connection_id: str) -> list[dict[str, Any]]:
    answer = services.airbyte.get("/_simulator/jobs", params={"connection_id": connection_id})
    found: list[dict[str, Any]] = answer.raise_for_status().json()["jobs"]
    return sorted(found, key=lambda job: job["job_id"])


def run(airflow: AirflowStack, dag_id: str) -> str:
    run_id = airflow.trigger_dag(dag_id)
    airflow.wait_for_run(dag_id, run_id, timeout=300)
    assert airflow.api.dag_run_state(dag_id, run_id) == "success"
    return run_id


@pytest.mark.parametrize("dag_id", ["example_synchronous", "example_asynchronous", "example_deferrable"])
def test_one_sync(airflow: AirflowStack, services: Services, dag_id: str) -> None:
    before = jobs(services, ORDERS)
    run_id = run(airflow, dag_id)
    (job,) = jobs(services, ORDERS)[len(before) :]
    assert (job["job_type"], job["status"]) == ("sync", "succeeded")
    if dag_id == "example_deferrable":
        (words,) = airflow.api.xcoms(dag_id, run_id, "report").values()
        assert words.startswith(f"{job['records']:,} records in")


def test_reset_then_sync(airflow: AirflowStack, services: Services) -> None:
    # Airbyte announces no reset.
    services.restart_listener(AIRBYTE_EVENTS_POLL_INTERVAL="2")
    before = jobs(services, ORDERS)
    run(airflow, "example_reset_then_sync")
    assert [(job["job_type"], job["status"]) for job in jobs(services, ORDERS)[len(before) :]] == [
        ("reset", "succeeded"),
        ("sync", "succeeded"),
    ]


def test_mapped_over_all_connections(airflow: AirflowStack, services: Services) -> None:
    answer = services.airbyte.get("/_simulator/connections").raise_for_status()
    connection_ids = [each["connectionId"] for each in answer.json()["connections"]]
    for made_by_another_test in connection_ids[50:]:
        services.airbyte.delete(f"/_simulator/connections/{made_by_another_test}").raise_for_status()
    before = {each: len(jobs(services, each)) for each in connection_ids[:50]}
    assert len(before) == 50
    run(airflow, "example_mapped")
    for connection_id, count in before.items():
        assert len(jobs(services, connection_id)) == count + 1, connection_id


def sync(services: Services) -> int:
    """A sync that Airbyte's own schedule starts."""
    answer = services.airbyte.post("/_simulator/jobs", json={"connection_id": ORDERS}).raise_for_status()
    job_id: int = answer.json()["job_ids"][0]
    return job_id


def test_a_sync_that_airbyte_schedules_is_waited_for(airflow: AirflowStack, services: Services) -> None:
    dag_id = "example_scheduled_by_airbyte"
    run_id = airflow.trigger_dag(dag_id)
    airflow.wait_for_task(dag_id, run_id, "orders_synced", {"deferred"})
    job_id = sync(services)
    airflow.wait_for_task(dag_id, run_id, "orders_synced", {"success"})
    assert airflow.api.xcoms(dag_id, run_id, "orders_synced")["return_value"] == job_id
    airflow.wait_for_task(dag_id, run_id, "report", {"success"})


def test_a_dag_runs_whenever_a_connection_has_synced(airflow: AirflowStack, services: Services) -> None:
    dag_id = "example_assets"
    airflow.wait_for_dag(dag_id)
    started: list[int] = []

    def told() -> str | None:
        """What a run said of one of these syncs. The watch may begin after the first of them."""
        if not started or jobs(services, ORDERS)[-1]["status"] == "succeeded":
            started.append(sync(services))
        for each in airflow.api.request("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]:
            if each["state"] == "success":
                for said in airflow.api.xcoms(dag_id, each["dag_run_id"], "report")["return_value"]:
                    if any(said.startswith(f"job {job_id}:") for job_id in started):
                        return str(said)
        return None

    assert airflow.processes.wait_until(told, "a run for a sync", timeout=120).endswith("records")
