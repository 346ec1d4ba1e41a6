"""Wrong arguments fail where the DAG is parsed, and what templates make is let through."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator

from airbyte_events_provider.arguments import WrongArgument
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
from airbyte_events_provider.sensors.airbyte import AirbyteJobSensor, AirbyteSyncSensor
from airbyte_events_provider.triggers.airbyte import (
    AirbyteConnectionSyncTrigger,
    AirbyteStartTrigger,
    AirbyteSyncEventTrigger,
    AirbyteSyncTrigger,
)

CONNECTION = "7b480e47-6992-5e8b-9c8a-acfd34a1b7bc"


def operator(**values: Any) -> AirbyteTriggerSyncOperator:
    return AirbyteTriggerSyncOperator(**{"task_id": "sync", "connection_id": CONNECTION} | values)


def job_sensor(**values: Any) -> AirbyteJobSensor:
    values = {"task_id": "wait", "airbyte_job_id": 17, **values}
    return AirbyteJobSensor(**values)


def sync_sensor(**values: Any) -> AirbyteSyncSensor:
    return AirbyteSyncSensor(**{"task_id": "wait", "connection_id": CONNECTION} | values)


def trigger(**values: Any) -> AirbyteSyncTrigger:
    values = {"job_id": 17, "conn_id": "a", "end_time": 2e9, "poll_interval": 10, **values}
    return AirbyteSyncTrigger(**values)


def sync_trigger(**values: Any) -> AirbyteConnectionSyncTrigger:
    given = {"connection_id": CONNECTION, "conn_id": "a", "after": "2026-01-01T00:00Z"}
    return AirbyteConnectionSyncTrigger(**given | {"end_time": 2e9, "poll_interval": 10} | values)


def start_trigger(**values: Any) -> AirbyteStartTrigger:
    return AirbyteStartTrigger(**{"connection_id": CONNECTION, "airbyte_conn_id": "a"} | values)


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (operator, {"timeout": MINUTE}),
        (operator, {"timeout": "60"}),
        (operator, {"timeout": "{{ params.timeout }}"}),
        (operator, {"timeout": -1}),
        (operator, {"timeout": float("nan")}),
        (operator, {"timeout": True}),
        (operator, {"wait_seconds": MINUTE}),
        (operator, {"wait_seconds": None}),
        (operator, {"min_records": "5"}),
        (operator, {"min_records": 0.5}),
        (operator, {"connection_id": uuid.UUID(CONNECTION)}),
        (operator, {"connection_id": None}),
        (operator, {"connection_id": [CONNECTION]}),
        (operator, {"connection_name": "orders"}),
        (operator, {"workspace_id": CONNECTION}),
        (sync_sensor, {"connection_id": None}),
        (sync_sensor, {"connection_name": "orders"}),
        (sync_sensor, {"workspace_id": CONNECTION}),
        (AirbyteSyncEventTrigger, {"workspace_id": CONNECTION}),
        (operator, {"airbyte_conn_id": 1}),
        (operator, {"listener_conn_id": False}),
        (operator, {"deferrable": "false"}),
        (operator, {"asynchronous": "no"}),
        (operator, {"cancel_on_kill": None}),
        (operator, {"job_type": None}),
        (operator, {"on_conflict": "maybe"}),
        (job_sensor, {"airbyte_job_id": "seventeen"}),
        (job_sensor, {"airbyte_job_id": 17.5}),
        (job_sensor, {"airbyte_job_id": None}),
        (job_sensor, {"deferrable": "yes"}),
        (job_sensor, {"min_records": MINUTE}),
        (sync_sensor, {"after": "yesterday"}),
        (sync_sensor, {"after": 20260101}),
        (sync_sensor, {"after": MINUTE}),
        (sync_sensor, {"connection_id": 5}),
        (sync_sensor, {"job_type": None}),
        (trigger, {"job_id": None}),
        (trigger, {"end_time": MINUTE}),
        (trigger, {"poll_interval": "10"}),
        (trigger, {"execution_deadline": datetime.now(UTC)}),
        (trigger, {"connection_id": 5}),
        (sync_trigger, {"after": datetime.now(UTC)}),
        (sync_trigger, {"end_time": "soon"}),
        (start_trigger, {"timeout": MINUTE}),
        (start_trigger, {"connection_id": ["XComArg"]}),
        (AirbyteSyncEventTrigger, {"poll_interval": MINUTE}),
        (AirbyteSyncEventTrigger, {"airbyte_conn_id": None}),
    ],
)
def test_an_argument_of_the_wrong_type_fails_at_once_by_its_name(
    make: Callable[..., object], wrong: dict[str, Any]
) -> None:
    (name,) = wrong
    with pytest.raises(WrongArgument, match=rf"^{name}( |=)"):
        make(**wrong)


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (operator, {"connection_name": 5}),
        (operator, {"connection_name": "orders", "workspace_id": 5}),
        (AirbyteSyncEventTrigger, {"connection_name": "orders", "workspace_id": 5}),
    ],
)
def test_names_are_text(make: Callable[..., object], given: dict[str, Any]) -> None:
    with pytest.raises(WrongArgument, match="=5 is not text"):
        make(**given, **{} if make is AirbyteSyncEventTrigger else {"connection_id": None})


def test_a_watcher_has_ids_or_names() -> None:
    with pytest.raises(WrongArgument, match=r"^connection_name=\['orders'\] and connection_id are both set"):
        AirbyteSyncEventTrigger(connection_ids=CONNECTION, connection_name="orders")


def test_a_timedelta_is_answered_with_the_number_to_write() -> None:
    with pytest.raises(TypeError, match=r"timeout=datetime.timedelta\(seconds=60\) is .* seconds: write 60"):
        operator(timeout=MINUTE)


@pytest.mark.parametrize(
    ("make", "right"),
    [
        (operator, {"connection_id": "{{ params.connection }}"}),
        (operator, {"connection_id": None, "connection_name": "{{ params.name }}", "workspace_id": "{{ params.w }}"}),
        (sync_sensor, {"connection_id": None, "connection_name": "orders"}),
        (operator, {"timeout": None}),
        (operator, {"timeout": 0.5, "wait_seconds": 0}),
        (job_sensor, {"airbyte_job_id": "17"}),
        (job_sensor, {"airbyte_job_id": "{{ ti.xcom_pull('sync') }}"}),
        (job_sensor, {"timeout": MINUTE, "poke_interval": MINUTE}),
        (sync_sensor, {"after": "{{ ds }}"}),
        (sync_sensor, {"after": "2026-01-01"}),
        (sync_sensor, {"after": date(2026, 1, 1)}),
        (sync_sensor, {"after": datetime.now(UTC)}),
        (sync_sensor, {"after": "2026-01-01T00:00+02:00"}),
        (trigger, {"job_id": "17"}),
        (trigger, {"end_time": None}),
    ],
)
def test_what_is_right_or_a_template_is_taken(make: Callable[..., object], right: dict[str, Any]) -> None:
    made = make(**right)
    if not isinstance(made, BaseOperator):
        return
    for name in set(right) - {"timeout", "poke_interval"}:
        assert getattr(made, name) == right[name]


def test_the_result_of_another_task_is_taken_where_airflow_renders() -> None:
    with DAG(dag_id="pipeline", schedule=None):
        first: Any = operator(task_id="first", asynchronous=True)
        assert job_sensor(airbyte_job_id=first.output).upstream_task_ids == {"first"}
        assert operator(task_id="second", connection_id=first.output["connection"]).upstream_task_ids == {"first"}
        with pytest.raises(WrongArgument, match="timeout="):
            operator(task_id="third", timeout=first.output)
