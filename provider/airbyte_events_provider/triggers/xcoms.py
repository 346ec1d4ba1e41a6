"""The XComs of tasks that end in the triggerer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

import anyio
from airflow.sdk.bases.xcom import BaseXCom
from asgiref.sync import sync_to_async

from airbyte_events_provider.retry.task_state import xcom_location

logger = logging.getLogger(__name__)

_pushing = anyio.Lock()
_prepared: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


async def prepare(ti: Any) -> None:
    """Have the triggerer's supervisor load its API while the first task waits, not when that completes.

    The first request builds the whole Execution API in the supervisor (``in_process_api_server`` of Airflow 3.3.2),
    which takes 2 to 12 s. Meanwhile no task of the triggerer ends, and no log line is read.

    :param ti: the task instance; None without a triggerer.
    """
    if ti is None or (loop := asyncio.get_running_loop()) in _prepared:
        return
    _prepared.add(loop)
    try:
        await sync_to_async(BaseXCom.get_one)(key="return_value", **xcom_location(ti))
    except Exception as exc:
        # Airflow raises errors of many types, and a push reports its own.
        logger.debug("the supervisor's API could not be loaded: %s: %s", type(exc).__name__, exc)


async def push_xcoms(ti: Any, values: Mapping[str, Any]) -> bool:
    """Push XComs from the triggerer as a worker does: those of one task after those of another.

    They are not part of the event: Airflow 3.3.2 encodes an event's XComs twice, so that later tasks get ``'155'`` for
    155 (``TaskInstance.xcom_push`` of ``airflow.models``). But each of them is a request to the triggerer's supervisor,
    which handles one in each of its loops, with the queries of a whole loop (``TriggerRunnerSupervisor.run_once``), so
    about a hundred in a second. If each of many tasks stored its first one first, all would end late, and together.

    :param ti: the task instance; None without a triggerer, as in ``airflow dags test``.
    :return: whether all were stored.
    """
    if ti is None:
        return False
    try:
        from airflow.sdk.execution_time.xcom import XCom

        def push() -> None:
            for key, value in values.items():
                XCom.set(key, value, **xcom_location(ti))

        # Between the tasks, others may use the thread that all synchronous code of a triggerer shares.
        async with _pushing:
            # In a thread: XCom backends may be slow.
            await sync_to_async(push)()
    except Exception as exc:
        # Airflow and XCom backends raise errors of many types. A worker can still push the XComs.
        logger.warning("completing in a worker: the XComs can't be stored here: %s: %s", type(exc).__name__, exc)
        return False
    return True
