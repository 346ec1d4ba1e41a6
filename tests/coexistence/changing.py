"""A task is deferred by one provider, and continues with the other: ``changing.py operator|sensor BEFORE AFTER``."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib import import_module
from typing import Any

from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import TaskDeferred


def make(kind: str, prefix: str) -> Any:
    if kind == "sensor":
        sensors = import_module(f"{prefix}.sensors.airbyte")
        return sensors.AirbyteJobSensor(task_id="task", airbyte_job_id=1, deferrable=True)
    operators = import_module(f"{prefix}.operators.airbyte")
    connection_id = os.environ["AIRBYTE_CONNECTION"]
    return operators.AirbyteTriggerSyncOperator(task_id="task", connection_id=connection_id, deferrable=True)


def execute(task: Any, method: str, **values: Any) -> Any:
    ExecutorSafeguard.tracker.set(task)
    return getattr(task, method)(context={}, **values)


async def fire(trigger: Any) -> Any:
    """The trigger as a triggerer makes it again, with a pause between polls that a test can wait for."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(import_module(module), name)(**kwargs | {"poll_interval": 0.2})
    async for event in again.run():
        return event.payload
    raise AssertionError


def main(kind: str, before: str, after: str) -> None:
    if kind == "sensor":
        execute(
            import_module(f"{before}.operators.airbyte").AirbyteTriggerSyncOperator(
                task_id="first", connection_id=os.environ["AIRBYTE_CONNECTION"], asynchronous=True
            ),
            "execute",
        )
    try:
        execute(make(kind, before), "execute")
    except TaskDeferred as deferred:
        event = asyncio.run(fire(deferred.trigger))
        execute(make(kind, after), deferred.method_name, **(deferred.kwargs or {}), event=event)
        print("continued with job", event["job_id"])


if __name__ == "__main__":
    main(*sys.argv[1:])
