"""The minimum duration of a deferral: Airflow fails tasks that are deferred for a few seconds only."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import anyio

from airbyte_events_provider.config import SECTION, number

logger = logging.getLogger(__name__)

LOOP_SECONDS = 5.0
"""The time for the end of a worker and two loops of a scheduler, without overload."""

MAX_EXTRA_SECONDS = 20.0
"""The maximum that is added where workers are slow."""


def shortest_deferral(began: float | None = None) -> float:
    """Return the minimum seconds of a deferral, ``[airbyte_events] min_deferral``.

    When a task is deferred, its worker's supervisor detects the end of the process up to ``[workers]
    min_heartbeat_interval`` later (``ActivitySubprocess._monitor_subprocess`` of ``airflow.sdk`` 1.3.2). Only then the
    executor reports that this part of the task succeeded, and the scheduler reads the report in its next loop. If the
    task is queued again by then, the scheduler takes the report for that of the queued or running task, and fails it:
    *the task instance's state attribute is running* (``SchedulerJobRunner.process_executor_events`` of Airflow 3.3.2,
    apache/airflow#72716).

    :param began: when the task began, in seconds since the epoch. A worker that has been slow so far is slow to end.
    """
    if not math.isnan(least := number(SECTION, "min_deferral", default=math.nan)):
        return least
    usual = number("workers", "min_heartbeat_interval", default=5.0) + LOOP_SECONDS
    if began is not None:
        usual += min(max(time.time() - began, 0.0), MAX_EXTRA_SECONDS)
    return usual


class Deferral:
    """A deferral that begins now.

    :param ti: the task instance; None without a triggerer and a scheduler.
    :param began: see :func:`shortest_deferral`.
    """

    def __init__(self, ti: Any, began: float | None = None) -> None:
        self._until = anyio.current_time() + (0.0 if ti is None else shortest_deferral(began))

    async def over(self) -> None:
        """Wait until Airflow can queue the task again."""
        left = self._until - anyio.current_time()
        if left > 0:
            # No log line for each of many tasks that complete at once.
            logger.debug("resuming the task in %.1f s: Airflow must notice first that it was deferred", left)
            await anyio.sleep(left)
