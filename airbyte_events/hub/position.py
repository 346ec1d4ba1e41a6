"""The position of a subscriber to completions, from which it resumes after a restart."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from airbyte_events._utils.times import format_time, parse_time
from airbyte_events.events import JobEvent

OVERLAP = timedelta(hours=1)
"""Duplicates within so long before the newest bookmark are recognised by job; earlier ones by time."""

MAX_DELIVERED = 30_000
"""The maximum of jobs in a position."""

_SECOND = timedelta(seconds=1)


def completed_before(event: JobEvent, moment: datetime) -> bool:
    """Return whether a job certainly completed before that moment: a time in whole seconds may be truncated."""
    if event.finished_at is None:
        return False
    truncated = event.finished_at.microsecond == 0
    return event.finished_at + _SECOND <= moment if truncated else event.finished_at < moment


class Delivered(NamedTuple):
    """A job whose completion was delivered. Airbyte reuses job ids after its database was restored.

    :param started: when the job was created, in whole seconds since the epoch; None: unknown.
    """

    job_id: int
    started: int | None

    @classmethod
    def of(cls, event: JobEvent) -> Delivered:
        return cls(event.ref.job_id, None if event.started_at is None else int(event.started_at.timestamp()))


@dataclass(frozen=True, slots=True)
class Bookmark:
    """All completions from the floor to this moment were delivered.

    :param moment: by Airbyte's clock.
    """

    moment: datetime
    floor: datetime | None


@dataclass(slots=True, kw_only=True)
class Position:
    """Which completions were delivered to a subscriber. Times are by Airbyte's clock.

    :param since: all completions before were delivered; None: begin now.
    :param floor: completions before are skipped, or were delivered.
    :param delivered: the delivered jobs, and the first bookmark after each.
    """

    since: datetime | None = None
    floor: datetime | None = None
    delivered: dict[Delivered, datetime | None] = field(default_factory=dict)

    def covers(self, event: JobEvent) -> bool:
        """Return whether the completion was delivered, or is before the floor."""
        if self.floor is not None and completed_before(event, self.floor):
            return True
        # A position that an older version stored has no creation times.
        return Delivered.of(event) in self.delivered or Delivered(event.ref.job_id, None) in self.delivered

    def record(self, event: JobEvent) -> None:
        self.delivered[Delivered.of(event)] = None
        if len(self.delivered) > MAX_DELIVERED:
            del self.delivered[next(iter(self.delivered))]

    def advance(self, moment: datetime, floor: datetime | None = None) -> None:
        """Record that all completions from the floor to that moment were delivered."""
        if self.since is not None and moment <= self.since:
            return
        self.since = moment
        self.floor = max(each for each in (self.floor, floor, moment - OVERLAP) if each is not None)
        self.delivered = {
            job: seen or moment for job, seen in self.delivered.items() if seen is None or seen > moment - OVERLAP
        }

    def copy(self) -> Position:
        return replace(self, delivered=dict(self.delivered))

    def data(self) -> dict[str, Any]:
        """Return JSON values, which older versions can read, too."""
        return {
            "since": format_time(self.since),
            "floor": format_time(self.floor),
            "told": [each.job_id for each in self.delivered],
            "started": [each.started for each in self.delivered],
        }

    @classmethod
    def from_data(cls, data: object) -> Position:
        """Parse the values of :meth:`data`, from this version or an older one.

        :raises ValueError: if they are not a position's.
        """
        if not isinstance(data, dict) or not isinstance(data.get("told"), list):
            raise ValueError("not a position: no list of job ids under «told»")
        job_ids, started = data["told"], data.get("started")
        if not isinstance(started, list) or len(started) != len(job_ids):
            started = [None] * len(job_ids)
        if not all(isinstance(job_id, int) for job_id in job_ids):
            raise ValueError("not a position: a job id that is no number")
        jobs = [
            Delivered(job_id, at if isinstance(at, int) else None) for job_id, at in zip(job_ids, started, strict=True)
        ]
        return cls(
            since=parse_time(data.get("since")), floor=parse_time(data.get("floor")), delivered=dict.fromkeys(jobs)
        )
