"""How long a deferral takes at least: Airflow fails tasks that are deferred for a few seconds only."""

from __future__ import annotations

from typing import Any

import anyio
from airflow.providers.common.compat.sdk import conf

from airbyte_events_provider.connections import SECTION

LOOP_SECONDS = 5.0
"""What a scheduler's loop may take on a busy machine, twice."""


def shortest_deferral() -> float:
    """Return how many seconds a deferral takes at least, ``[airbyte_events] min_deferral``.

    When a task is deferred, its worker's supervisor notices at most ``[workers] min_heartbeat_interval`` later that the
    process has ended: it waits so long where the process has closed its sockets and is not gone yet
    (``ActivitySubprocess._monitor_subprocess`` of ``airflow.sdk`` 1.3.2). Only then the executor reports that this part
    of the task succeeded, and the scheduler reads that in its next loop. If the task has been queued again by then, the
    scheduler takes the report for the end of the task that runs, and fails it: *the task instance's state attribute is
    running* (``SchedulerJobRunner.process_executor_events`` of Airflow 3.3.2, apache/airflow#72716).
    """
    lag = conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0) + LOOP_SECONDS
    seconds: float = conf.getfloat(SECTION, "min_deferral", fallback=lag)
    return seconds


async def until_worker_has_left(ti: Any, began: float) -> None:
    """Wait until a task that continues in a worker may be queued again.

    :param ti: whose trigger it is; None where no triggerer runs the trigger, and no scheduler the task.
    :param began: when the trigger began, by the event loop's clock.
    """
    if ti is not None:
        await anyio.sleep_until(began + shortest_deferral())
