"""What users and Airflow rely on: the official constructor arguments, class paths, stored arguments."""

from __future__ import annotations

import inspect
import json
from datetime import timedelta
from importlib import import_module

from airflow.sdk import DAG

from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.sensors.airbyte import AirbyteJobSensor
from airbyte_events_provider.triggers.airbyte import AirbyteSyncTrigger


def arguments(function: object) -> list[str]:
    assert callable(function)
    return [name for name in inspect.signature(function).parameters if name not in ("self", "kwargs")]


def test_the_official_arguments_come_first_and_in_their_order() -> None:
    assert arguments(AirbyteHook)[:3] == ["airbyte_conn_id", "api_version", "timeout"]
    assert arguments(AirbyteTriggerSyncOperator)[:7] == [
        "connection_id",
        "airbyte_conn_id",
        "asynchronous",
        "deferrable",
        "api_version",
        "wait_seconds",
        "timeout",
    ]
    assert arguments(AirbyteJobSensor)[:4] == ["airbyte_job_id", "deferrable", "airbyte_conn_id", "api_version"]
    assert arguments(AirbyteSyncTrigger)[:5] == ["job_id", "conn_id", "end_time", "poll_interval", "execution_deadline"]


def test_the_official_calls() -> None:
    with DAG(dag_id="official", schedule=None):
        operator = AirbyteTriggerSyncOperator(
            task_id="sync",
            airbyte_conn_id="airbyte_default",
            connection_id="15bc3800-82e4-48c3-a32d-620661273f28",
            asynchronous=True,
            timeout=3600,
            wait_seconds=3,
            execution_timeout=timedelta(hours=1),
        )
        assert set(operator.template_fields) >= {"connection_id", "airbyte_conn_id"}
        sensor = AirbyteJobSensor(task_id="wait", airbyte_conn_id="airbyte_default", airbyte_job_id=operator.output)
        assert set(sensor.template_fields) >= {"airbyte_job_id", "airbyte_conn_id"}
        deferrable = AirbyteJobSensor(task_id="defer", airbyte_job_id=17, deferrable=True)
        assert (deferrable.poke_interval, deferrable.timeout) == (5, 7 * 24 * 3600)


def test_a_trigger_is_made_again_from_what_airflow_stores() -> None:
    trigger = AirbyteSyncTrigger(17, "airbyte_default", 2e9, 60, execution_deadline=3e9, connection_id="uuid")
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    assert path == "airbyte_events_provider.triggers.airbyte.AirbyteSyncTrigger"
    assert getattr(import_module(module), name) is AirbyteSyncTrigger
    assert AirbyteSyncTrigger(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)


def test_what_airflow_stores_names_connections_and_holds_nothing_of_them() -> None:
    _, kwargs = AirbyteSyncTrigger(17, "airbyte_default", 2e9, 60).serialize()
    assert set(kwargs) == {
        "job_id",
        "conn_id",
        "end_time",
        "poll_interval",
        "execution_deadline",
        "listener_conn_id",
        "connection_id",
        "cancel_on_kill",
        "end_from_trigger",
        "min_records",
    }
