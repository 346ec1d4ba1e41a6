"""Trust in a listener's feed: it could be that of another Airbyte, whose jobs have the same numbers as ours."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import anyio

from airbyte_events.airbyte import says_unknown
from airbyte_events.errors import AirbyteError
from airbyte_events.events import JobEvent
from airbyte_events.monitor import Monitor
from airbyte_events.pauses import pause

logger = logging.getLogger(__name__)

MOST_KNOWN = 10_000
"""Connections that are known to be ours, and ends that are being checked."""


class Trust:
    """Tells our jobs from another Airbyte's.

    :param monitor: of our Airbyte.
    :param believe: called with ends that turned out to be ours.
    :param refute: called with the reason why the feed is that of another Airbyte.
    """

    def __init__(
        self,
        monitor: Monitor,
        believe: Callable[[list[JobEvent]], Awaitable[None]],
        refute: Callable[[str], object],
    ) -> None:
        self.expected: dict[int, str] = {}
        """Whose connection a job that is waited for is known to be of."""
        self.forgotten = 0
        """Events up to this one are not believed any more."""
        self._monitor = monitor
        self._believe = believe
        self._refute = refute
        self._ours: set[str] = set()
        self._doubted: dict[int, JobEvent] = {}
        self._doubting = anyio.Event()

    def is_foreign(self, state: JobEvent, *, left: bool) -> bool:
        """Whether a state is that of a job of the same number in another Airbyte.

        :param left: the feed was left, so that what is told since is Airbyte's own word.
        """
        expected = self.expected.get(state.ref.job_id)
        if expected is None or state.connection_id is None:
            return False
        own_word = left and state.cursor is not None and state.cursor.sequence > self.forgotten
        return state.connection_id.lower() != expected and not own_word

    def is_ours(self, state: JobEvent) -> bool:
        """Whether Airbyte itself has told of the connection."""
        return (state.connection_id or "").lower() in self._ours

    def doubt(self, states: Iterable[JobEvent]) -> None:
        """Ends of connections that Airbyte has not told of yet: to be checked, then believed."""
        for state in states:
            # A hub that can't check so many finds them by looks.
            if len(self._doubted) < MOST_KNOWN:
                self._doubted[state.ref.job_id] = state
                self._doubting.set()

    async def run(self) -> None:
        """Check until cancelled: one job of each connection is asked for."""
        failures = 0
        while True:
            await self._doubting.wait()
            self._doubting = anyio.Event()
            while self._doubted:
                job_id = next(iter(self._doubted))
                try:
                    await self._check(self._doubted[job_id])
                except AirbyteError as exc:
                    failures += 1
                    logger.warning("whether job %d is one of ours is not known yet: %s", job_id, exc)
                    # Not always the same one first: Airbyte may fail over that alone.
                    self._doubted[job_id] = self._doubted.pop(job_id)
                    await anyio.sleep(pause(failures))
                else:
                    failures = 0

    async def _check(self, state: JobEvent) -> None:
        try:
            job = await self._monitor.airbyte.get_job(state.ref.job_id)
        except AirbyteError as exc:
            if not says_unknown(exc):
                raise
            self._doubted.clear()
            self._refute(f"it tells of job {state.ref.job_id}, which is not there")
            return
        connection_id = (state.connection_id or "").lower()
        if job.connection_id is None or job.connection_id.lower() != connection_id:
            self._doubted.clear()
            self._refute(f"its job {state.ref.job_id} is of connection {state.connection_id}, not {job.connection_id}")
            return
        if len(self._ours) >= MOST_KNOWN:
            self._ours.clear()
        self._ours.add(connection_id)
        believed = [each for each in self._doubted.values() if self.is_ours(each)]
        self._doubted = {job_id: each for job_id, each in self._doubted.items() if not self.is_ours(each)}
        await self._believe(believed)
