"""Where the timeline's moments come from: Airflow's API and logs, the listener's API, the simulator's log of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from timeline import Timeline, timeline

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_api import AirflowApi, LogLine, TaskInstance
    from services import Services


def collect(api: AirflowApi, services: Services, dag_id: str, run_id: str, task: TaskInstance) -> Timeline:
    """The timeline of a task of a run that has ended."""
    # To be joined by the job's id, once the listener and the simulator tell of it: the job's end, the webhook, its
    # confirmation, the publishing, and the calls.
    return timeline(
        task.task_id,
        state=task.state,
        ended=None,
        received=None,
        confirmed=None,
        published=None,
        fired=fired_at(api.task_log(dag_id, run_id, task.task_id)),
        finished=task.end_date,
        requests=None,
    )


def fired_at(log: list[LogLine]) -> datetime | None:
    """When the triggerer got the task's event from its trigger, by its own line in the task's log."""
    return next((line.time for line in log if line.event == "Trigger fired event"), None)
