"""The two ways that the official provider's documentation shows, and the deferrable one, with its operator or ours.

What is imported is the only difference: ``AIRBYTE_PREFIX`` is ``airflow.providers.airbyte`` or
``airbyte_events_provider``.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from importlib import import_module

from airflow.sdk import DAG

prefix = os.environ["AIRBYTE_PREFIX"]
connection_id = os.environ["AIRBYTE_CONNECTION"]
AirbyteTriggerSyncOperator = import_module(f"{prefix}.operators.airbyte").AirbyteTriggerSyncOperator
AirbyteJobSensor = import_module(f"{prefix}.sensors.airbyte").AirbyteJobSensor

with DAG(
    dag_id=f"two_ways_{prefix}".replace(".", "_"),
    schedule=None,
    start_date=datetime(2021, 1, 1),
    dagrun_timeout=timedelta(minutes=60),
    tags=["example"],
    catchup=False,
) as dag:
    waiting = AirbyteTriggerSyncOperator(task_id="waiting", connection_id=connection_id, wait_seconds=0.5)

    started = AirbyteTriggerSyncOperator(task_id="started", connection_id=connection_id, asynchronous=True)
    awaited = AirbyteJobSensor(task_id="awaited", airbyte_job_id=started.output, poke_interval=0.5)

    waiting >> started >> awaited

if __name__ == "__main__":
    run = dag.test()
    print("state", run.state.value, flush=True)
    print("job", run.get_task_instance("waiting").xcom_pull(task_ids="waiting"), flush=True)
