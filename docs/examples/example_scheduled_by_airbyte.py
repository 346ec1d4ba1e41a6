"""A task that waits for a sync that Airbyte's own schedule starts: the first that ends after the DAG run began."""

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
        """What the sync moved, in words."""
        return f"job {job_id}: {records} records"

    report(synced.output, synced.output["records"])
