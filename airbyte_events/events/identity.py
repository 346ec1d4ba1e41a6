"""The identity of a job: what tells it from another one that had its number before, or has it in another Airbyte."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

START_PRECISION = timedelta(seconds=1)
"""By how much two reports of one job's start can differ: Airbyte writes whole seconds, cut or rounded. A format without
seconds occurs where they are zero (Java's ``OffsetDateTime.toString``), so no more than that is lost."""


class _Identified(Protocol):
    """A job's state, as an event or as the API returned it."""

    @property
    def connection_id(self) -> str | None: ...

    @property
    def started_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a job from another one that had its number before, or has it in another Airbyte. None is unknown.

    Airbyte's database gives a number again once it has been restored or made anew.

    :param connection_id: the Airbyte connection (UUID, in any case).
    :param started_at: when the job was created.
    """

    connection_id: str | None = None
    started_at: datetime | None = None

    def fits(self, state: _Identified) -> bool:
        """Return whether the state of a job of that number can be this job's; what is unknown decides nothing."""
        ids = {each.lower() for each in (state.connection_id, self.connection_id) if each is not None}
        return len(ids) < 2 and not _differ(state.started_at, self.started_at)


ANY_JOB = Identity()


def same_job(one: _Identified, other: _Identified) -> bool:
    """Return whether two states of one number can be the same job's."""
    return Identity(one.connection_id, one.started_at).fits(other)


def _differ(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and other is not None and abs(one - other) > START_PRECISION
