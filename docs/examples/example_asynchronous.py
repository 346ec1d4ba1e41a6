"""Start a sync in one task, wait for it in another."""

from __future__ import annotations

from airflow.sdk import DAG

from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.sensors.airbyte import AirbyteJobSensor

with DAG(dag_id="example_asynchronous", schedule=None):
    start = AirbyteTriggerSyncOperator(
        task_id="start_orders",
        connection_id="7b480e47-6992-5e8b-9c8a-acfd34a1b7bc",
        asynchronous=True,
    )
    AirbyteJobSensor(task_id="wait_for_orders", airbyte_job_id=start.output, deferrable=True)
