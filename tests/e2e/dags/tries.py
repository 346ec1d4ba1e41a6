"""One task that syncs, in each way that it can wait, with retries; and one that syncs again what was written since."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

WAYS: dict[str, dict[str, Any]] = {
    "in_worker": {},
    "deferred": {"deferrable": True},
    "without_worker": {"deferrable": True, "start_from_trigger": True, "end_from_trigger": True},
    "hurried": {"deferrable": True, "timeout": 15},
    "polling": {"deferrable": True, "listener_conn_id": "", "retries": 0},
    "refresh": {"deferrable": True, "job_type": "refresh", "refresh_mode": "truncate", "retries": 0},
    "stalled": {"deferrable": True, "stalled_after": 10, "on_stall": "cancel", "retries": 0},
    "once": {"deferrable": True, "retries": 0},
}

for way, arguments in WAYS.items():
    given = {"retries": 2, "retry_delay": timedelta(seconds=1), **arguments}
    with DAG(dag_id=f"tries_{way}", schedule=None, params={"connection": Param("", type="string")}):
        AirbyteTriggerSyncOperator(
            task_id="sync",
            connection_id="{{ params.connection }}",
            **given,
        )

with DAG(dag_id="tries_twice", schedule=None, params={"connection": Param("", type="string")}):

    @task
    def write() -> None:
        """Write what the first sync has not seen."""

    before = AirbyteTriggerSyncOperator(task_id="sync_before", connection_id="{{ params.connection }}", deferrable=True)
    again = AirbyteTriggerSyncOperator(
        task_id="sync", connection_id="{{ params.connection }}", deferrable=True, start_from_trigger=True
    )
    before >> write() >> again
