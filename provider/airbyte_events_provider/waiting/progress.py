"""Watching the progress of a job while a task waits for it: lines in the task's log, and stalls."""

from __future__ import annotations

import asyncio
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
        looks = _Looks(self, read)
        looks.begin()
        try:
            with looks.scope:
                return await wait
        finally:
            await looks.end()
        assert looks.stall is not None  # noqa: S101 -- nothing else cancels the scope
        raise looks.stall


class _Looks:
    """Reads a job's progress now and then, by a timer: a task that sleeps meanwhile would double the objects of a
    waiting trigger, and leave reference cycles, all for the garbage collector to look at.

    :ivar scope: of the wait, cancelled if the job has stalled.
    :ivar stall: the error that ends the wait then.
    """

    def __init__(self, watch: ProgressWatch, read: ReadProgress) -> None:
        self.scope = anyio.CancelScope()
        self.stall: JobStalled | None = None
        self._watch, self._read = watch, read
        self._unchanged, self._warned = 0.0, False
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[None] | None = None

    def begin(self) -> None:
        stalled_after = self._watch.stalled_after
        try:
            self._line_every = number(SECTION, "progress_interval", default=LINE_SECONDS) or math.inf
        except Exception:
            self._give_up()
            return
        self._every = self._line_every
        if stalled_after is not None:
            self._every = min(self._line_every, max(stalled_after / 4, _SHORTEST), _LONGEST)
        if self._every == math.inf:
            return
        # Between two responses that are further apart, a short stall would not show.
        fresh = FRESH_SECONDS if stalled_after is None else min(FRESH_SECONDS, stalled_after)
        self._max_age = max(min(self._every, LINE_SECONDS) / 2, fresh)
        self._line_at = anyio.current_time() + (self._line_every if self._every < self._line_every else 0)
        # The tasks of one DAG run start together: without jitter they would ask together.
        self._look_in(self._every * random.uniform(0.5, 1))  # noqa: S311

    async def end(self) -> None:
        if self._look is not None:
            self._look.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([self._look])
            self._look = None
        if self._timer is not None:
            self._timer.cancel()

    def _look_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._begin_look)

    def _begin_look(self) -> None:
        self._timer = None
        self._look = asyncio.get_running_loop().create_task(self._look_once())

    async def _look_once(self) -> None:
        try:
            self._look_in(await self._read_and_report())
        except JobStalled as exc:
            self.stall = exc
            self.scope.cancel()
        except Exception:
            self._give_up()

    def _give_up(self) -> None:
        # A fault in what is optional must not end the wait.
        self._watch.log.exception("the progress of the job is no longer watched")

    async def _read_and_report(self) -> float:
        """Return the seconds until the next look."""
        stalled_after = self._watch.stalled_after
        # Before it counts as a stall, also what is read from the source and not committed yet.
        streams = stalled_after is not None and self._unchanged >= stalled_after / 2
        progress = await _read(self._read, streams=streams, max_age=self._max_age)
        if progress is None:
            # Of many tasks that began together, Airbyte is asked in turn.
            return self._every / 3
        self._unchanged = progress.unchanged_seconds
        self._warned = self._check(progress)
        if anyio.current_time() >= self._line_at:
            self._watch.log.info("%s", progress_line(progress))
            self._line_at = anyio.current_time() + self._line_every
        return self._every

    def _check(self, progress: Progress) -> bool:
        """Log a stall, and its end, once; return whether it is logged.

        :raises JobStalled: if the job has stalled, unless that is only logged.
        """
        watch = self._watch
        stalled = watch.stalled_after is not None and progress.has_stalled(watch.stalled_after)
        if stalled and not self._warned:
            message = stall_message(progress, watch.stalled_after or 0)
            if watch.on_stall != WARN:
                raise JobStalled(message, cancel=watch.on_stall == CANCEL)
            watch.log.warning("%s", message)
        elif self._warned and not stalled:
            watch.log.info("%s, after a stall", progress_line(progress))
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
