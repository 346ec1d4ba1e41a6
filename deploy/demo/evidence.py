"""Where the timeline's moments come from: the simulator, the listener, its feed, and Airflow's API and task logs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from timeline import Timeline, timeline

if TYPE_CHECKING:
    import httpx
    from airflow_api import AirflowApi, LogLine, TaskInstance
    from feed import FeedReader
    from services import Services


def collect(
    task: TaskInstance,
    connection_id: str,
    *,
    airflow: AirflowApi,
    dag_id: str,
    run_id: str,
    services: Services,
    feed: FeedReader,
) -> Timeline:
    """The timeline of a task that waited for the latest job of an Airbyte connection."""
    log = airflow.task_log(dag_id, run_id, task.task_id) if task.try_number else []
    job = _latest_job(services.airbyte, connection_id)
    known = (_get(services.listener, f"/v1/jobs/default/{job['job_id']}") if job else None) or {}
    event = known.get("job") or {}
    notification = known.get("notification") or {}
    return timeline(
        task.task_id,
        state=task.state,
        ended=_time(job["committed_at"]) if job else None,
        received=_time(notification.get("received_at")),
        confirmed=_time(event["observed_at"]) if event.get("finished_at") else None,
        published=feed.seen.get(job["job_id"]) if job else None,
        fired=fired_at(log),
        finished=task.end_date,
        requests=_requests(services.airbyte, job, task.end_date) if job else None,
    )


def fired_at(log: list[LogLine]) -> datetime | None:
    """When the triggerer got the task's event from its trigger, by its own line in the task's log."""
    return next((line.time for line in log if line.event == "Trigger fired event"), None)


def _latest_job(airbyte: httpx.Client, connection_id: str) -> dict[str, Any] | None:
    answer = _get(airbyte, f"/_simulator/jobs?connection_id={connection_id}")
    return answer["jobs"][-1] if answer and answer["jobs"] else None


def _requests(airbyte: httpx.Client, job: dict[str, Any], until: datetime | None) -> tuple[int, int] | None:
    """The requests that named the job, and those that looked at all jobs while the task waited for it."""
    own = _get(airbyte, f"/_simulator/requests?job_id={job['job_id']}")
    shared = _get(airbyte, "/_simulator/requests?route=GET /jobs")
    since = _time(job["created_at"])
    if own is None or shared is None or since is None:
        return None
    looks = [
        at for call in shared["recent"] if (at := _time(call["at"])) and since <= at and (not until or at <= until)
    ]
    return len(own["recent"]), len(looks)


def _get(client: httpx.Client, path: str) -> Any:
    answer = client.get(path)
    return None if answer.status_code == 404 else answer.raise_for_status().json()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
