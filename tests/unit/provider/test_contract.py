"""What users and Airflow rely on: the official constructor arguments, class paths, stored arguments."""

from __future__ import annotations

import inspect
import json
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from airflow.sdk import DAG

from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.sensors.airbyte import AirbyteJobSensor, AirbyteSyncSensor
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
        "started_at",
        "cancel_on_kill",
        "end_from_trigger",
        "min_records",
        "stalled_after",
        "on_stall",
        "owned",
        "began",
        "try_number",
    }


# What Airflow has in its database of tasks and watchers that release 0.1.0 has deferred. Nothing here may be changed.
STORED_BY_0_1_0: list[tuple[str, dict[str, Any]]] = [
    (
        "AirbyteSyncTrigger",
        {
            "job_id": 17,
            "conn_id": "airbyte_default",
            "end_time": 2e9,
            "poll_interval": 10.0,
            "execution_deadline": None,
            "listener_conn_id": None,
            "connection_id": "7b480e47-6992-5e8b-9c8a-acfd34a1b7bc",
            "cancel_on_kill": True,
            "end_from_trigger": False,
            "min_records": None,
        },
    ),
    (
        "AirbyteStartTrigger",
        {
            "connection_id": "{{ params.connection }}",
            "airbyte_conn_id": "airbyte_default",
            "listener_conn_id": None,
            "job_type": "sync",
            "on_conflict": "attach",
            "timeout": 3600,
            "execution_timeout": None,
            "poll_interval": 10.0,
            "cancel_on_kill": True,
            "end_from_trigger": True,
            "min_records": None,
        },
    ),
    (
        "AirbyteConnectionSyncTrigger",
        {
            "connection_id": "7b480e47-6992-5e8b-9c8a-acfd34a1b7bc",
            "conn_id": "airbyte_default",
            "after": "2026-01-01T00:00:00.000000Z",
            "end_time": 2e9,
            "poll_interval": 10.0,
            "job_type": "sync",
            "min_records": None,
            "listener_conn_id": None,
        },
    ),
    (
        "AirbyteSyncEventTrigger",
        {
            "airbyte_conn_id": "airbyte_default",
            "connection_ids": ["7b480e47-6992-5e8b-9c8a-acfd34a1b7bc"],
            "workspace_ids": [],
            "job_types": ["sync"],
            "statuses": ["succeeded"],
            "listener_conn_id": None,
            "poll_interval": None,
        },
    ),
]


@pytest.mark.parametrize(("name", "kwargs"), STORED_BY_0_1_0)
def test_triggers_that_release_0_1_0_has_stored_load(name: str, kwargs: dict[str, Any]) -> None:
    trigger = getattr(import_module("airbyte_events_provider.triggers.airbyte"), name)(**kwargs)
    path, kept = trigger.serialize()
    assert path == f"airbyte_events_provider.triggers.airbyte.{name}"
    assert {argument: kept[argument] for argument in kwargs} == kwargs


@pytest.mark.parametrize(
    "task", [AirbyteTriggerSyncOperator, AirbyteJobSensor, AirbyteSyncSensor], ids=lambda task: str(task.__name__)
)
def test_whatever_airflow_hands_over_less_a_task_continues(task: type) -> None:
    """`airflow dags test` of Airflow 3.3.2 hands over the event alone, and nothing where a trigger fired none."""
    for name in [name for name in dir(task) if name.startswith("execute_")]:
        wanted = list(inspect.signature(getattr(task, name)).parameters.values())[2:]
        assert wanted
        assert all(parameter.default is None for parameter in wanted), name


def test_tasks_that_release_0_1_0_has_deferred_hand_over_when_they_began_and_in_which_try() -> None:
    for name in ("execute_complete", "execute_after"):
        assert arguments(getattr(AirbyteTriggerSyncOperator, name)) == ["context", "event", "began", "try_number"]
