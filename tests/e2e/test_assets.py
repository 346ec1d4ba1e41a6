"""DAGs that a sync's end runs, in a real Airflow."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_stack import AirflowStack
    from services import Services

CONNECTION = "0a55e7e0-0000-4000-8000-000000000001"
HANGING = {"phases": [{"status": "running", "seconds": 1}], "end": None}


def sync(services: Services) -> int:
    """A sync that somebody starts in Airbyte, to its end."""
    answer = services.airbyte.post("/_simulator/jobs", json={"connection_id": CONNECTION}).raise_for_status()
    job_id = int(answer.json()["job_ids"][0])
    services.airbyte.post(f"/_simulator/jobs/{job_id}/end", json={"status": "succeeded"}).raise_for_status()
    return job_id


def told(airflow: AirflowStack, count: int) -> list[int]:
    """The jobs that so many runs of the DAG were for, once all have ended."""

    def probe() -> list[dict[str, Any]] | None:
        runs: list[dict[str, Any]] = airflow.api.request("GET", "/dags/on_sync/dagRuns")["dag_runs"]
        ended = [run for run in runs if run["state"] in ("success", "failed")]
        return ended if len(ended) >= count else None

    runs = airflow.processes.wait_until(probe, f"{count} runs of on_sync", timeout=120)
    assert {run["state"] for run in runs} == {"success"}
    xcoms = [airflow.api.xcoms("on_sync", run["dag_run_id"], "jobs")["return_value"] for run in runs]
    return sorted(job_id for job_ids in xcoms for job_id in job_ids)


def state_of(airflow: AirflowStack) -> str | None:
    """The watcher's place, as Airflow keeps it with the asset."""
    with closing(sqlite3.connect(f"file:{airflow.home / 'airflow.db'}?mode=ro", uri=True)) as database:
        row = database.execute("SELECT value FROM asset_state_store WHERE key LIKE 'airbyte_events_%'").fetchone()
    return None if row is None else str(row[0])


@pytest.mark.needs_airflow(3, 3, "the asset state store")
def test_i5_a_triggerer_that_is_killed_loses_and_doubles_no_sync(airflow: AirflowStack, services: Services) -> None:
    made = {"connection_id": CONNECTION, "script": HANGING}
    services.airbyte.post("/_simulator/connections", json=made).raise_for_status()
    airflow.wait_for_dag("on_sync")
    airflow.processes.wait_until(lambda: state_of(airflow), "the watcher's place", timeout=60)
    first = sync(services)
    assert told(airflow, 1) == [first]
    airflow.processes.wait_until(lambda: str(first) in (state_of(airflow) or ""), "the first to be kept", timeout=60)
    airflow.kill("triggerer")
    second = sync(services)
    airflow.restart("triggerer")
    assert told(airflow, 2) == [first, second]
    third = sync(services)
    assert told(airflow, 3) == [first, second, third]
