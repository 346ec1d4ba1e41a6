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

    They are not part of the event: Airflow 3.3.2 encodes an event's XComs twice, so that later tasks get ``'155'`` for
    155 (``TaskInstance.xcom_push`` of ``airflow.models``).

    :param ti: the task instance; None without a triggerer, as in ``airflow dags test``.
    :return: whether all were stored.
    """
    if ti is None:
        return False
    try:
        from airflow.sdk.execution_time.xcom import XCom

        for key, value in values.items():
            # In a thread: XCom backends may be slow.
            await sync_to_async(XCom.set)(key, value, **xcom_location(ti))
    except Exception as exc:
        # Airflow and XCom backends raise errors of many types. A worker can still push the XComs.
        logger.warning("the task ends in a worker: its XComs can't be stored here: %s: %s", type(exc).__name__, exc)
        return False
    return True
