"""Wait for a sync that Airbyte's schedule starts: the first that completes after the DAG run started."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airbyte_events_provider.sensors.airbyte import AirbyteSyncSensor

with DAG(dag_id="example_scheduled_by_airbyte", schedule=None):
    synced = AirbyteSyncSensor(
        task_id="orders_synced",
        connection_id="7b480e47-6992-5e8b-9c8a-acfd34a1b7bc",
        after="{{ dag_run.start_date }}",
        deferrable=True,
    )

    @task
    def report(job_id: int, records: int) -> str:
        """Describe what the sync moved."""
        return f"job {job_id}: {records} records"

    report(synced.output, synced.output["records"])
