"""Jobs for the dashboard to show."""

from __future__ import annotations

from typing import Any

from processes import wait_until
from services import API, Services

REASON = "Could not connect to the source: wrong password"


class History:
    """What has been run: ``ended`` and ``running`` are job ids, ``connections`` the Airbyte connections."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.connections = services.connection_ids()
        self.ended: list[int] = []
        self.running: list[int] = []
        self._token = self._log_in()

    @property
    def pages(self) -> tuple[str, ...]:
        """Of a job that failed, one that runs, and a connection."""
        jobs = (f"/jobs/default/{job_id}" for job_id in (self.ended[2], self.running[0]))
        return (*jobs, f"/connections/default/{self.connections[0]}")

    def make(self) -> None:
        """Three rounds: most succeed, one fails, one is cancelled, one is a clear; then two that run."""
        for turn in range(3):
            started = [
                self.start(connection, "clear" if i == 4 else "sync") for i, connection in enumerate(self.connections)
            ]
            for i, job_id in enumerate(started):
                if i == 2:
                    error = {"message": REASON, "type": "config_error", "origin": "source"}
                    self.end(job_id, status="failed", error=error)
                else:
                    self.end(job_id, status="cancelled" if i == 3 else "succeeded", records=1000 * (turn + 1) * (i + 1))
        self.running = [self.start(connection) for connection in self.connections[:2]]

    def start(self, connection_id: str, job_type: str = "sync") -> int:
        body = {"connectionId": connection_id, "jobType": job_type}
        answer = self._services.airbyte.post(f"{API}/jobs", json=body, headers=self._token)
        job_id = int(answer.raise_for_status().json()["jobId"])
        task = f"https://airflow.example.com/dags/orders/runs/{job_id}/tasks/sync"
        watch = {"jobs": [{"instance": "default", "job_id": job_id, "task_url": task}]}
        self._services.listener.post("/v1/watches", json=watch).raise_for_status()
        return job_id

    def end(self, job_id: int, **how: Any) -> None:
        """End a job, and return when the listener knows."""
        self._services.airbyte.post(f"/_simulator/jobs/{job_id}/end", json=how).raise_for_status()
        self.ended.append(job_id)
        wait_until(lambda: self._ended(job_id), f"the listener to learn the end of job {job_id}", timeout=30)

    def _ended(self, job_id: int) -> bool:
        answer = self._services.listener.get(f"/v1/jobs/default/{job_id}")
        return answer.is_success and answer.json()["job"]["status"] in ("succeeded", "failed", "cancelled")

    def _log_in(self) -> dict[str, str]:
        addresses = self._services.addresses
        body = {"client_id": addresses.client_id, "client_secret": addresses.client_secret}
        answer = self._services.airbyte.post(
            f"{API}/applications/token", json={**body, "grant_type": "client_credentials"}
        )
        return {"Authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}
