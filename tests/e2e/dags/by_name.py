"""Syncs of a connection that is known by its name, in each way that a task can begin, and a sensor."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param

from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.sensors.airbyte import AirbyteSyncSensor

WAYS: dict[str, dict[str, Any]] = {
    "worker": {},
    "deferred": {"deferrable": True},
    "triggerer": {"deferrable": True, "start_from_trigger": True, "end_from_trigger": True},
}

with DAG(dag_id="by_name", schedule=None, params={"name": Param("", type="string")}):
    syncs = [
        AirbyteTriggerSyncOperator(task_id=way, connection_name="{{ params.name }}", on_conflict="wait", **arguments)
        for way, arguments in WAYS.items()
    ]
    sensor = AirbyteSyncSensor(
        task_id="sensor", connection_name="{{ params.name }}", after="{{ dag_run.start_date.isoformat() }}"
    )
    syncs[0] >> syncs[1] >> syncs[2] >> sensor
