"""When each connection last succeeded, for metrics: of a bounded number of connections."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from airbyte_events.events import EventFilter, JobEvent, JobStatus
from airbyte_events.store.base import EventLog

MOST_HIDDEN = 10_000
"""The most connections without a series that are counted."""

MOST_STATES = 10_000
"""The maximum of stored states that are read for the successes before the listener's start."""

PAGE = 500

_NOT_FRESH = frozenset({"reset", "clear"})
"""The types of jobs that load no data."""

Key = tuple[str, str]
"""The instance, and the Airbyte connection (UUID, lower case)."""


@dataclass(slots=True)
class Success:
    """A connection's last success.

    :param name: the connection's name; empty if no event had it.
    """

    at: datetime
    name: str = ""


class Freshness:
    """The last successes of connections.

    :param most: the maximum of connections. Those that succeeded first stay; further ones are counted.
    """

    def __init__(
        self, most: int = 0, *, most_hidden: int = MOST_HIDDEN, most_states: int = MOST_STATES, page: int = PAGE
    ) -> None:
        self.most = most
        self._most_hidden = most_hidden
        self._page = page
        self.successes: dict[Key, Success] = {}
        self._hidden: set[Key] = set()
        self._before: int | None = None
        self._left = most_states if most else 0

    @property
    def hidden(self) -> int:
        """The number of connections that have succeeded and are not among :attr:`successes`."""
        return len(self._hidden)

    def add(self, event: JobEvent) -> None:
        """Add an event; only successes that load data count."""
        if not self.most or event.status is not JobStatus.SUCCEEDED or event.connection_id is None:
            return
        if event.job_type in _NOT_FRESH:
            return
        key = event.ref.instance, event.connection_id.lower()
        at, name = event.finished_at or event.observed_at, event.names.get("connection", "")
        known = self.successes.get(key)
        if known is not None:
            newer = at >= known.at
            self.successes[key] = Success(max(at, known.at), (name if newer else "") or known.name or name)
        elif len(self.successes) < self.most:
            self.successes[key] = Success(at, name)
        elif len(self._hidden) < self._most_hidden:
            self._hidden.add(key)

    async def load(self, store: EventLog) -> None:
        """Add what the store has, newest first; after an interruption, continue where it was.

        :raises StoreError: if the store can't be read.
        """
        wanted = EventFilter(statuses=frozenset({JobStatus.SUCCEEDED}))
        while self._left > 0:
            states = await store.jobs(limit=self._page, before=self._before, wanted=wanted)
            for state in states:
                self.add(state)
            self._left -= self._page
            if len(states) < self._page:
                self._left = 0
            else:
                self._before = states[-1].sequence
