"""The three ways to wait for an Airbyte sync, side by side. Each task syncs a connection of its own.

Against an Airbyte of your own: put your connections' ids in, and make the Airflow connections ``airbyte_default``
(type Airbyte) and ``airbyte_events_default`` (the listener), which the operators use unless told otherwise.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.sensors.airbyte import AirbyteJobSensor

with DAG(
    dag_id="airbyte_events_demo",
    description="A sync, waited for in three ways",
    schedule=None,
    params={"connections": Param([], type="array", minItems=3, description="Ids of three Airbyte connections")},
    render_template_as_native_obj=True,
):
    # Takes a worker slot until the sync has ended.
    AirbyteTriggerSyncOperator(
        task_id="synchronous",
        airbyte_conn_id="airbyte_default",
        connection_id="{{ params.connections[0] }}",
    )

    # Starts the sync and is done; a sensor waits for it, without a worker slot.
    start = AirbyteTriggerSyncOperator(
        task_id="asynchronous",
        airbyte_conn_id="airbyte_default",
        connection_id="{{ params.connections[1] }}",
        asynchronous=True,
    )
    AirbyteJobSensor(
        task_id="sensor",
        airbyte_conn_id="airbyte_default",
        airbyte_job_id=start.output,
        deferrable=True,
    )

    # Starts the sync, gives the worker slot back, and goes on when the sync has ended.
    AirbyteTriggerSyncOperator(
        task_id="deferrable",
        airbyte_conn_id="airbyte_default",
        connection_id="{{ params.connections[2] }}",
        deferrable=True,
    )
