"""The capacity queue: at most so many jobs run at a time, and Airbyte cancels those that wait for too long."""

from __future__ import annotations

from collections.abc import Iterator

from airbyte_events.simulator.models import Job

LONGEST_WAIT = 8 * 3600.0
"""Seconds after which Airbyte cancels a queued job that was started by hand."""


class Capacity:
    """Admits jobs to run, the others in the order in which they were queued.

    :param jobs: that run at a time; None: no limit.
    :param longest_wait: seconds in the queue after which Airbyte cancels a job.
    """

    def __init__(self, jobs: int | None = None, longest_wait: float = LONGEST_WAIT) -> None:
        self.longest_wait = longest_wait
        self._limit = jobs
        self._running: set[int] = set()
        self._queue: dict[int, tuple[Job, int]] = {}

    def enter(self, job: Job, step: int) -> bool:
        """Return whether the job may run; if not, it is queued.

        :param step: of its script, to continue with once it is admitted.
        """
        if self._limit is not None and job.id not in self._running and len(self._running) >= self._limit:
            self._queue[job.id] = job, step
            return False
        self._running.add(job.id)
        return True

    def withdraw(self, job: Job) -> None:
        """Take a job out of the queue: it has another script now."""
        self._queue.pop(job.id, None)

    def leave(self, job: Job) -> Iterator[tuple[Job, int]]:
        """Free the place of a completed job, and return the job that is admitted for it, with its step."""
        self._running.discard(job.id)
        self.withdraw(job)
        while self._queue and (self._limit is None or len(self._running) < self._limit):
            admitted, step = self._queue.pop(next(iter(self._queue)))
            self._running.add(admitted.id)
            yield admitted, step
