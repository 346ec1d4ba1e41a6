"""How far a subscriber of completions has got: what it needs to go on after a restart."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from airbyte_events._utils.times import format_time, parse_time
from airbyte_events.events import JobEvent

OVERLAP = timedelta(hours=1)
"""A completion within so long before the newest bookmark is recognised by its job; before that, by its time."""

MOST_DELIVERED = 30_000
"""Jobs that a position remembers."""

_SECOND = timedelta(seconds=1)


def completed_before(event: JobEvent, moment: datetime) -> bool:
    """Return whether a job surely completed before that moment: whole seconds may be cut, and mean any time in them."""
    if event.finished_at is None:
        return False
    cut = event.finished_at.microsecond == 0
    return event.finished_at + _SECOND <= moment if cut else event.finished_at < moment


class Delivered(NamedTuple):
    """A job whose completion was delivered. Airbyte gives its number again once its database was restored or made anew.

    :param started: when it was created, in whole seconds since the epoch; None is unknown.
    """

    job_id: int
    started: int | None

    @classmethod
    def of(cls, event: JobEvent) -> Delivered:
        return cls(event.ref.job_id, None if event.started_at is None else int(event.started_at.timestamp()))


@dataclass(frozen=True, slots=True)
class Bookmark:
    """All completions before this moment were delivered, but for those before the floor.

    :param moment: by Airbyte's clock.
    """

    moment: datetime
    floor: datetime | None


@dataclass(slots=True, kw_only=True)
class Position:
    """Which completions were delivered to a subscriber. Times are by Airbyte's clock.

    :param since: all completions before were delivered; None to begin with those from now on.
    :param floor: completions before are left out, or were delivered.
    :param delivered: the jobs that were delivered, and the first bookmark after that.
    """

    since: datetime | None = None
    floor: datetime | None = None
    delivered: dict[Delivered, datetime | None] = field(default_factory=dict)

    def covers(self, event: JobEvent) -> bool:
        """Return whether the completion was delivered, or lies before the floor."""
        if self.floor is not None and completed_before(event, self.floor):
            return True
        # A position that an older version stored does not say when its jobs were created.
        return Delivered.of(event) in self.delivered or Delivered(event.ref.job_id, None) in self.delivered

    def record(self, event: JobEvent) -> None:
        """Record that this completion was delivered."""
        self.delivered[Delivered.of(event)] = None
        if len(self.delivered) > MOST_DELIVERED:
            del self.delivered[next(iter(self.delivered))]

    def advance(self, moment: datetime, floor: datetime | None = None) -> None:
        """Record that all completions before that moment were delivered, but for those before the floor."""
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
        """Return the position as plain JSON values, which older versions can read, too."""
        return {
            "since": format_time(self.since),
            "floor": format_time(self.floor),
            "told": [each.job_id for each in self.delivered],
            "started": [each.started for each in self.delivered],
        }

    @classmethod
    def from_data(cls, data: object) -> Position:
        """Return the position that :meth:`data` wrote, in this version or an older one.

        :raises ValueError: if the object is no position's.
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
