"""Reload a connection from scratch: a reset, then a sync. If a scheduled sync is running, the reset waits for it."""

from __future__ import annotations

from airflow.sdk import DAG

from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

CONNECTION = "7b480e47-6992-5e8b-9c8a-acfd34a1b7bc"

with DAG(dag_id="example_reset_then_sync", schedule=None):
    reset = AirbyteTriggerSyncOperator(
        task_id="reset_orders",
        connection_id=CONNECTION,
        job_type="reset",
        on_conflict="wait",
        deferrable=True,
    )
    sync = AirbyteTriggerSyncOperator(
        task_id="sync_orders",
        connection_id=CONNECTION,
        on_conflict="wait",
        deferrable=True,
    )
    reset >> sync
