"""Generations of an instance's job ids: Airbyte reuses ids after its database was restored or replaced."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime

from airbyte_events._utils.times import format_time, parse_time
from airbyte_events.events import JobEvent
from airbyte_events.store.base import ValueTable
from airbyte_events.store.records import Lease

logger = logging.getLogger(__name__)

REMEMBERED = 100_000
"""The most jobs to remember as reported in this generation; beyond it, they are requested once more."""


class Generations:
    """The current generation of an instance's job ids; states from before it have to be requested again.

    :param store: keeps the generation for all processes that share it.
    """

    def __init__(self, instance: str, store: ValueTable) -> None:
        self.number = 1
        """The generation, as last read."""
        self._instance = instance
        self._store = store
        self._key = f"generation/{instance}"
        self._since: datetime | None = None
        self._reported: set[int] = set()

    async def outdated(self, states: Iterable[JobEvent]) -> set[int]:
        """Return the jobs whose states are from before the generation began."""
        await self._read()
        since = self._since
        if since is None:
            return set()
        return {
            state.ref.job_id for state in states if state.observed_at < since and state.ref.job_id not in self._reported
        }

    def reported(self, job_ids: Iterable[int]) -> None:
        """Mark these jobs as reported in this generation."""
        if self._since is not None:
            if len(self._reported) > REMEMBERED:
                self._reported.clear()
            self._reported.update(job_ids)

    async def contradicted(self, known: JobEvent, observed: JobEvent, lease: Lease | None) -> None:
        """Begin a new generation because an id was reused, unless the known state is from before this one.

        :raises LeaseLost: if another process holds it.
        """
        await self._read()
        if self._since is not None and known.observed_at < self._since:
            return
        since = observed.observed_at
        await self._store.remember(self._key, f"{self.number + 1} {format_time(since)}", lease=lease)
        self._take(self.number + 1, since)
        logger.error(
            "Airbyte reuses job ids, as after a restore of its database; jobs are requested again, no action needed;"
            " if this is another Airbyte, give it an instance name of its own:"
            " instance=%s job_id=%d connection=%s started_at=%s previous_connection=%s previous_started_at=%s",
            *(self._instance, observed.ref.job_id, observed.connection_id, format_time(observed.started_at)),
            *(known.connection_id, format_time(known.started_at)),
            extra={"instance": self._instance, "job_id": observed.ref.job_id, "generation": self.number},
        )

    async def _read(self) -> None:
        number, _, since = (await self._store.recall(self._key) or "1").partition(" ")
        if int(number) != self.number:
            self._take(int(number), parse_time(since or None))

    def _take(self, number: int, since: datetime | None) -> None:
        self.number, self._since = number, since
        self._reported.clear()
