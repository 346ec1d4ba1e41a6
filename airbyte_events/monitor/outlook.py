"""The outlook: whether watched jobs are near their usual durations, so that a completion is to be expected."""

from __future__ import annotations

import statistics
from enum import Enum
from typing import NamedTuple

from airbyte_events.events import JobEvent, JobStatus

NEAR = (0.9, 1.3)
"""A job is near its completion between these shares of its usual duration."""

FAR = 0.7
"""A job is far from its completion before this share."""

LAST = 5
"""The usual duration is the median of so many successes."""

MOST_KINDS = 2_000
"""The connections and job types whose durations are stored."""


class Outlook(Enum):
    """When the next completion is to be expected."""

    NEAR = "near"
    UNKNOWN = "unknown"
    FAR = "far"


class Kind(NamedTuple):
    """The jobs that have a usual duration together."""

    connection_id: str
    job_type: str | None

    @classmethod
    def of(cls, state: JobEvent) -> Kind | None:
        return None if state.connection_id is None else cls(state.connection_id, state.job_type)


class UsualDurations:
    """The usual durations of jobs, from their last successes."""

    def __init__(self) -> None:
        self._seconds: dict[Kind, dict[int, float]] = {}
        self._usual: dict[Kind, float] = {}

    def record(self, state: JobEvent) -> None:
        """Learn from a completed job; lists overlap, so each counts once."""
        kind = Kind.of(state)
        if kind is None or state.status is not JobStatus.SUCCEEDED or not state.duration_seconds:
            return
        seconds = self._seconds.setdefault(kind, {})
        if seconds.get(state.ref.job_id) == state.duration_seconds:
            return
        seconds[state.ref.job_id] = state.duration_seconds
        if len(seconds) > LAST:
            del seconds[next(iter(seconds))]
        self._usual[kind] = statistics.median(seconds.values())
        if len(self._seconds) > MOST_KINDS:
            oldest = next(iter(self._seconds))
            del self._seconds[oldest], self._usual[oldest]

    def outlook(self, kind: Kind | None, elapsed: float) -> Outlook:
        """Return the outlook of an active job.

        :param elapsed: seconds since it began.
        """
        usual = None if kind is None else self._usual.get(kind)
        if usual is None:
            return Outlook.UNKNOWN
        if elapsed < FAR * usual:
            return Outlook.FAR
        return Outlook.NEAR if NEAR[0] * usual <= elapsed <= NEAR[1] * usual else Outlook.UNKNOWN
