"""Wait for a sync in the triggerer, and pass its results to the next task."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

with DAG(dag_id="example_deferrable", schedule=None):
    sync = AirbyteTriggerSyncOperator(
        task_id="sync_orders",
        connection_id="7b480e47-6992-5e8b-9c8a-acfd34a1b7bc",
        deferrable=True,
        min_records=1,
    )

    @task
    def report(records: int, seconds: float) -> str:
        """Describe what the sync moved."""
        return f"{records:,} records in {seconds:g} seconds"

    report(sync.output["records"], sync.output["duration_seconds"])
