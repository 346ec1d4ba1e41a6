"""A run of a DAG with one task that syncs, as a test sees it and deals with it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from airflow_stack import AirflowStack
    from services import Services

HANGING = {"phases": [{"status": "running", "seconds": 1}], "end": None}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of a DAG with one task that syncs a connection of its own, whose jobs run until they are ended."""

    airflow: AirflowStack
    services: Services
    dag_id: str
    run_id: str
    connection_id: str

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The connection's, the oldest first."""
        answer = self.services.airbyte.get("/_simulator/jobs", params={"connection_id": self.connection_id})
        jobs: list[dict[str, Any]] = answer.raise_for_status().json()["jobs"]
        return sorted(jobs, key=lambda job: job["job_id"])

    def until(self, condition: Any, what: str, timeout: float = 90) -> Any:
        return self.airflow.processes.wait_until(condition, what, timeout=timeout)

    def until_jobs(self, *statuses: str) -> list[dict[str, Any]]:
        """The connection's jobs, once they have these states."""
        self.until(
            lambda: [job["status"] for job in self.jobs] == list(statuses), f"jobs that are {', '.join(statuses)}"
        )
        return self.jobs

    def end(self, job: dict[str, Any], status: str = "succeeded", **more: Any) -> None:
        path = f"/_simulator/jobs/{job['job_id']}/end"
        self.services.airbyte.post(path, json={"status": status, **more}).raise_for_status()

    def exceptions(self) -> list[str]:
        """The lines of the task's log that tell of an exception."""
        lines = self.airflow.api.task_log(self.dag_id, self.run_id, "sync")
        return [str(line) for line in lines if line.fields.get("error_detail")]

    def until_state(self, state: str, *, tries: int = 1, timeout: float = 90) -> dict[str, Any]:
        """The task instance, once it has that state in that try."""

        def probe() -> dict[str, Any] | None:
            task = self.task
            return task if (task["state"], task["try_number"]) == (state, tries) else None

        return self.until(probe, f"{self.dag_id} to be {state} in try {tries}", timeout)  # type: ignore[no-any-return]

    def until_said(self, text: str, *, tries: int = 1) -> None:
        self.until(lambda: self.task["try_number"] >= tries and self.task["start_date"], f"try {tries}")
        self.airflow.wait_for_log(self.dag_id, self.run_id, "sync", text, try_number=tries)

    @property
    def task(self) -> dict[str, Any]:
        path = f"/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/sync"
        task: dict[str, Any] = self.airflow.api.request("GET", path)
        return task

    def kill_worker(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, ``kill -9`` by default, to the process that runs the task."""
        os.kill(self.until(lambda: self.task["pid"], "the task's process"), number)

    def until_worker_gone(self) -> None:
        """Returns when the process that runs the task has ended."""
        pid = self.task["pid"]
        self.until(lambda: not psutil.pid_exists(pid), "the task's process to end")

    def begin_another(self, way: str) -> Run:
        """A run of one of the DAGs for the same Airbyte connection."""
        dag_id = f"tries_{way}"
        run_id = self.airflow.trigger_dag(dag_id, {"connection": self.connection_id})
        return replace(self, dag_id=dag_id, run_id=run_id)

    def clear(self) -> None:
        self.airflow.api.request(
            "POST",
            f"/dags/{self.dag_id}/clearTaskInstances",
            json={"dry_run": False, "dag_run_id": self.run_id, "task_ids": ["sync"], "only_failed": False},
        )

    def mark(self, state: str) -> None:
        path = f"/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/sync"
        self.airflow.api.request("PATCH", path, json={"new_state": state})

    @property
    def result(self) -> Any:
        return self.airflow.api.xcoms(self.dag_id, self.run_id, "sync")["return_value"]


def begin_run(airflow: AirflowStack, services: Services, way: str, script: dict[str, Any] = HANGING) -> Run:
    """Start a run of one of the DAGs of ``dags/tries.py``.

    :param script: what the jobs of its connection go through.
    """
    answer = services.airbyte.post("/_simulator/connections", json={"script": script}).raise_for_status()
    (connection_id,) = answer.json()["connection_ids"]
    dag_id = f"tries_{way}"
    run_id = airflow.trigger_dag(dag_id, {"connection": connection_id})
    return Run(airflow=airflow, services=services, dag_id=dag_id, run_id=run_id, connection_id=connection_id)
