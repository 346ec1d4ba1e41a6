"""Tasks that end in the triggerer: when they can, and the XComs that they leave."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from asgiref.sync import sync_to_async

from airbyte_events_provider.triggers.start import without_workers

logger = logging.getLogger(__name__)


def can_end_in_triggerer() -> bool:
    """Return whether this Airflow can end tasks in the triggerer.

    It refuses the import of a DAG with a task whose attribute ``end_from_trigger`` is True where some plugin listens to
    task instances, as OpenLineage's does: such tasks call no listener (``airflow.dag_processing.dagbag`` in 3.3.2).
    """
    if not without_workers():
        return False
    from airflow.sdk.listener import get_listener_manager

    return not get_listener_manager().has_listeners


async def leave_xcoms(ti: Any, values: Mapping[str, Any]) -> bool:
    """Leave XComs for later tasks from the triggerer, as a worker does.

    Not by the event that ends the task: of what that has, Airflow 3.3.2 stores the JSON text as the value, and later
    tasks get ``'155'`` for 155 (``TaskInstance.xcom_push`` of ``airflow.models`` encodes what the execution API decodes
    once).

    :param ti: whose XComs; None where no triggerer runs the trigger, as in ``airflow dags test``.
    :return: whether all are stored.
    """
    if ti is None:
        return False
    try:
        from airflow.sdk.execution_time.xcom import XCom

        for key, value in values.items():
            # In a thread: another XCom backend may take its time.
            await sync_to_async(XCom.set)(
                key,
                value,
                dag_id=ti.dag_id,
                task_id=ti.task_id,
                run_id=ti.run_id,
                map_index=-1 if ti.map_index is None else ti.map_index,
            )
    except Exception as exc:
        # Airflow's errors here, and those of XCom backends, are of many kinds. A worker can still do it.
        logger.warning("the task ends in a worker, as its XComs can't be stored here: %s: %s", type(exc).__name__, exc)
        return False
    return True
