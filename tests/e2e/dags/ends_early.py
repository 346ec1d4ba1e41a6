"""A task that begins and ends in the triggerer where it can, and one that reads what it has left."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

KEYS = ("return_value", "status", "records", "bytes", "started_at", "job")

with DAG(dag_id="ends_early", schedule=None, params={"connection": Param("", type="string")}):

    @task
    def read(**context: Any) -> dict[str, str]:
        """The types of the sync's XComs, by key."""
        return {key: type(context["ti"].xcom_pull(task_ids="sync", key=key)).__name__ for key in KEYS}

    sync = AirbyteTriggerSyncOperator(
        task_id="sync",
        connection_id="{{ params.connection }}",
        deferrable=True,
        start_from_trigger=True,
        end_from_trigger=True,
        on_conflict="wait",
    )
    sync >> read()
