"""The identity of a job, as ids are reused and occur in several Airbytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

START_PRECISION = timedelta(seconds=1)
"""The largest difference of two reports of one job's start: Airbyte writes whole seconds, cut or rounded. A format
without seconds occurs only if they are zero (Java's ``OffsetDateTime.toString``)."""


class _Identified(Protocol):
    """A job's state, as an event or as the API returned it."""

    @property
    def connection_id(self) -> str | None: ...

    @property
    def started_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a job, which distinguishes it from others with the same id. None is unknown.

    Airbyte reuses ids after its database was restored or replaced.

    :param connection_id: the Airbyte connection (UUID, in any case).
    """

    connection_id: str | None = None
    started_at: datetime | None = None

    def fits(self, state: _Identified) -> bool:
        """Return whether the state of a job with the same id can be this job's. Unknown values match all."""
        ids = {each.lower() for each in (state.connection_id, self.connection_id) if each is not None}
        starts = [each for each in (state.started_at, self.started_at) if each is not None]
        return len(ids) < 2 and (len(starts) < 2 or abs(starts[0] - starts[1]) <= START_PRECISION)


ANY_JOB = Identity()


def same_job(one: _Identified, other: _Identified) -> bool:
    """Return whether two states with one id can be the same job's."""
    return Identity(one.connection_id, one.started_at).fits(other)
