"""Watching the progress of a job while a task waits for it: lines in the task's log."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from logging import Logger
from typing import Any

import anyio
from airflow.providers.common.compat.sdk import conf

from airbyte_events.errors import AirbyteEventsError
from airbyte_events.events import JobEvent, Progress
from airbyte_events_provider.config import SECTION

LINE_SECONDS = 180.0
"""Seconds between two lines in the log of a waiting task; ``[airbyte_events] progress_interval``."""

ReadProgress = Callable[[bool], Awaitable[Progress | None]]
"""Returns the job's progress, with its streams or without; None if it is not known."""


@dataclass(frozen=True, kw_only=True)
class ProgressWatch:
    """Watches a job's progress during a wait.

    :param log: of the task.
    """

    log: Logger | Any

    async def during(self, wait: Awaitable[JobEvent], read: ReadProgress) -> JobEvent:
        """Return the result of the wait, and watch meanwhile."""
        event: JobEvent | None = None
        fault: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, read)
            try:
                event = await wait
            except Exception as exc:
                # Raised below: the task group would wrap it.
                fault = exc
            tasks.cancel_scope.cancel()
        if event is None:
            assert fault is not None  # noqa: S101 -- the wait returned nothing
            raise fault
        return event

    async def _watch(self, read: ReadProgress) -> None:
        interval: float = conf.getfloat(SECTION, "progress_interval", fallback=LINE_SECONDS)
        if interval <= 0:
            return
        # The tasks of one DAG run start together: without jitter they would ask together.
        pause = interval * random.uniform(0.5, 1)  # noqa: S311
        while True:
            await anyio.sleep(pause)
            pause = interval
            if (progress := await _read(read)) is not None:
                self.log.info("%s", progress_line(progress))


async def _read(read: ReadProgress, *, streams: bool = False) -> Progress | None:
    """Return the progress; None if it is not known, for any reason: it must not end a wait."""
    try:
        return await read(streams)
    except AirbyteEventsError:
        return None


def progress_line(progress: Progress) -> str:
    """Return the log line of an active job."""
    facts: dict[str, Any] = {"job": progress.job_id, "records": progress.records, "bytes": progress.bytes}
    if progress.usual is not None:
        facts |= {"usual_records": progress.usual.records, "usual_seconds": progress.usual.duration_seconds}
    if progress.unchanged_seconds >= 1:
        facts["unchanged_seconds"] = round(progress.unchanged_seconds)
    told = " ".join(f"{name}={value}" for name, value in facts.items() if value is not None)
    return f"Airbyte job {progress.status.value}: {told}"
