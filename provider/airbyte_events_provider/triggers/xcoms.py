"""The XComs of tasks that end in the triggerer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from asgiref.sync import sync_to_async

from airbyte_events_provider.retry.task_state import xcom_location

logger = logging.getLogger(__name__)


async def push_xcoms(ti: Any, values: Mapping[str, Any]) -> bool:
    """Push XComs from the triggerer as a worker does.

    Not by the event that ends the task: Airflow 3.3.2 stores the JSON text of its XComs as the value, so that later
    tasks get ``'155'`` for 155 (``TaskInstance.xcom_push`` of ``airflow.models`` encodes what the execution API decodes
    once).

    :param ti: the task instance; None where no triggerer runs the trigger, as in ``airflow dags test``.
    :return: whether all are stored.
    """
    if ti is None:
        return False
    try:
        from airflow.sdk.execution_time.xcom import XCom

        for key, value in values.items():
            # In a thread: another XCom backend may take its time.
            await sync_to_async(XCom.set)(key, value, **xcom_location(ti))
    except Exception as exc:
        # Airflow's errors here, and those of XCom backends, are of many kinds. A worker can still do it.
        logger.warning("the task ends in a worker: its XComs can't be stored here: %s: %s", type(exc).__name__, exc)
        return False
    return True
