"""Run a sync and wait for it in a worker.

The connection ids in these examples are those of ``airbyte-events simulate``. Replace them by yours.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

with DAG(dag_id="example_synchronous", schedule=None):
    AirbyteTriggerSyncOperator(
        task_id="sync_orders",
        airbyte_conn_id="airbyte_default",
        connection_id="7b480e47-6992-5e8b-9c8a-acfd34a1b7bc",
    )
