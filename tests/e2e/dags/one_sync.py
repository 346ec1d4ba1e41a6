"""One deferred task that starts a sync of the Airbyte connection it is given, and waits for it."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

with DAG(dag_id="one_sync", schedule=None, params={"connection": Param("", type="string")}):
    AirbyteTriggerSyncOperator(task_id="sync", connection_id="{{ params.connection }}", deferrable=True)
