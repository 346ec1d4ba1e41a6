"""Watching the progress of a job while a task waits for it: lines in the task's log, and stalls."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable
from dataclasses import dataclass
from logging import Logger
from typing import Any, Protocol

import anyio

from airbyte_events.errors import AirbyteEventsError, JobStalled
from airbyte_events.events import JobEvent, Progress
from airbyte_events.monitor.progress import FRESH_SECONDS
from airbyte_events_provider.config import SECTION, number

WARN, FAIL, CANCEL = "warn", "fail", "cancel"
ON_STALL = (WARN, FAIL, CANCEL)
"""What to do when the job has stalled: log a warning, fail the task, or also cancel the job."""

LINE_SECONDS = 180.0
"""Seconds between two lines in the log of a waiting task; ``[airbyte_events] progress_interval``."""

_SHORTEST, _LONGEST = 0.2, 60.0
"""Seconds between two reads of the progress of a job that may stall."""


class ReadProgress(Protocol):
    """Returns the job's progress, of a response that is not older, if possible; None if it is not known."""

    async def __call__(self, *, streams: bool, max_age: float) -> Progress | None: ...


@dataclass(frozen=True, kw_only=True)
class ProgressWatch:
    """Watches a job's progress during a wait.

    :param log: of the task.
    :param stalled_after: seconds without progress after which the job has stalled; None: it never does.
    :param on_stall: one of :data:`ON_STALL`.
    """

    log: Logger | Any
    stalled_after: float | None = None
    on_stall: str = WARN

    async def during(self, wait: Awaitable[JobEvent], read: ReadProgress) -> JobEvent:
        """Return the result of the wait, and watch meanwhile.

        :raises JobStalled: if the job has stalled, unless that is only logged.
        """
        event: JobEvent | None = None
        # Raised below: the task group would wrap them.
        faults: list[Exception] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, read, faults, tasks.cancel_scope)
            try:
                event = await wait
            except Exception as exc:
                faults.append(exc)
            tasks.cancel_scope.cancel()
        if event is None:
            raise faults[-1]
        return event

    async def _watch(self, read: ReadProgress, faults: list[Exception], scope: anyio.CancelScope) -> None:
        """Watch until cancelled.

        :param faults: receives the :class:`JobStalled` that ends the wait.
        :param scope: of the wait.
        """
        try:
            line_every = number(SECTION, "progress_interval", default=LINE_SECONDS) or math.inf
            look_every = line_every
            if self.stalled_after is not None:
                look_every = min(line_every, max(self.stalled_after / 4, _SHORTEST), _LONGEST)
            if look_every == math.inf:
                return
            # Between two responses that are further apart, a short stall would not show.
            fresh = FRESH_SECONDS if self.stalled_after is None else min(FRESH_SECONDS, self.stalled_after)
            max_age = max(min(look_every, LINE_SECONDS) / 2, fresh)
            # The tasks of one DAG run start together: without jitter they would ask together.
            pause, line_at = look_every * random.uniform(0.5, 1), anyio.current_time()  # noqa: S311
            line_at += line_every if look_every < line_every else 0
            unchanged, warned = 0.0, False
            while True:
                await anyio.sleep(pause)
                pause = look_every
                # Before it counts as a stall, also what is read from the source and not committed yet.
                streams = self.stalled_after is not None and unchanged >= self.stalled_after / 2
                progress = await _read(read, streams=streams, max_age=max_age)
                if progress is None:
                    # Of many tasks that began together, Airbyte is asked in turn.
                    pause = look_every / 3
                    continue
                unchanged = progress.unchanged_seconds
                warned = self._check(progress, warned)
                if anyio.current_time() >= line_at:
                    self.log.info("%s", progress_line(progress))
                    line_at = anyio.current_time() + line_every
        except JobStalled as exc:
            faults.append(exc)
            scope.cancel()
        except Exception:
            # A fault in what is optional must not end the wait.
            self.log.exception("the progress of the job is no longer watched")

    def _check(self, progress: Progress, warned: bool) -> bool:
        """Log a stall, and its end, once; return whether it is logged.

        :raises JobStalled: if the job has stalled, unless that is only logged.
        """
        stalled = self.stalled_after is not None and progress.has_stalled(self.stalled_after)
        if stalled and not warned:
            message = stall_message(progress, self.stalled_after or 0)
            if self.on_stall != WARN:
                raise JobStalled(message, cancel=self.on_stall == CANCEL)
            self.log.warning("%s", message)
        elif warned and not stalled:
            self.log.info("%s, after a stall", progress_line(progress))
        return stalled


def stall_message(progress: Progress, stalled_after: float) -> str:
    """Return the message of a stalled job."""
    return (
        f"job {progress.job_id} has stalled: Airbyte has reported no progress for {progress.unchanged_seconds:.0f} s "
        f"({progress.text() or 'no records, no bytes'}), and stalled_after is {stalled_after:g} s"
    )


async def _read(read: ReadProgress, *, streams: bool, max_age: float) -> Progress | None:
    """Return the progress; None if it is not known, for any reason: it must not end a wait."""
    try:
        return await read(streams=streams, max_age=max_age)
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
