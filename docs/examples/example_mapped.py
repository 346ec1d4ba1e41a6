"""Sync all connections of an Airbyte, one task each. No task needs a worker while its sync runs."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

with DAG(dag_id="example_mapped", schedule=None):

    @task
    def connections() -> list[str]:
        """Return the ids of the connections."""
        return [each["connectionId"] for each in AirbyteHook("airbyte_default").list_connections()]

    AirbyteTriggerSyncOperator.partial(
        task_id="sync",
        airbyte_conn_id="airbyte_default",
        deferrable=True,
        end_from_trigger=True,
    ).expand(connection_id=connections())
