"""The last completions of every connection, in memory: what is usual for its jobs."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from airbyte_events.events import EventFilter, JobEvent, JobStatus, Usual
from airbyte_events.store.base import EventLog

MOST_JOBS = 20_000
"""The newest completed jobs that are read at the start."""

MOST_CONNECTIONS = 10_000

USUAL_OF = 20
"""The successes whose medians are usual."""

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Took:
    """What a completed job took."""

    duration_seconds: float | None
    records: int | None
    bytes: int | None


class Histories:
    """The last :data:`USUAL_OF` successes per connection and type of job.

    :param store: has the completed jobs.
    """

    def __init__(self, store: EventLog) -> None:
        self._store = store
        self._histories: OrderedDict[tuple[str, str, str | None], OrderedDict[int, Took]] = OrderedDict()

    async def load(self) -> None:
        """Read the newest completed jobs from the store, page by page.

        :raises StoreError: if they can't be read.
        """
        wanted, before, read = EventFilter(statuses=frozenset([JobStatus.SUCCEEDED])), None, 0
        while read < MOST_JOBS:
            page = await self._store.jobs(limit=_PAGE, before=before, wanted=wanted)
            for state in page:
                self._add(state, newest=False)
            if len(page) < _PAGE:
                return
            before, read = page[-1].sequence, read + len(page)

    def add(self, event: JobEvent) -> None:
        """Add a completion that was just appended."""
        self._add(event, newest=True)

    def usual(self, instance: str, connection_id: str | None, job_type: str | None) -> Usual | None:
        """Return what is usual for such jobs of the connection; None without a success."""
        return Usual.of(self._histories.get((instance, (connection_id or "").lower(), job_type), {}).values())

    def _add(self, event: JobEvent, *, newest: bool) -> None:
        if event.status is not JobStatus.SUCCEEDED or event.connection_id is None:
            return
        key = (event.ref.instance, event.connection_id.lower(), event.job_type)
        successes = self._histories.setdefault(key, OrderedDict())
        if newest:
            self._histories.move_to_end(key)
        elif event.ref.job_id in successes or len(successes) >= USUAL_OF:
            return
        successes[event.ref.job_id] = Took(event.duration_seconds, event.records, event.bytes)
        if not newest:
            successes.move_to_end(event.ref.job_id, last=False)
        if len(successes) > USUAL_OF:
            successes.popitem(last=False)
        if len(self._histories) > MOST_CONNECTIONS:
            self._histories.popitem(last=False)
