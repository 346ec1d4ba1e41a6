"""Whether a listener's feed is that of our Airbyte: another one's jobs have the same numbers as ours."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import AirbyteError
from airbyte_events.events import JobEvent, same_job
from airbyte_events.jobs import Job
from airbyte_events.monitor.monitor import AGAIN_SECONDS, Monitor
from airbyte_events.monitor.observation import event_of

logger = logging.getLogger(__name__)

MOST_KNOWN = 10_000
"""Connections that are known to be ours, and states that are being checked."""

OURS_SECONDS = 3600.0
"""How long a connection counts as ours: a copy of our Airbyte has the same connections, and other jobs from then on."""

STRANGERS = 3
"""When so many jobs that the feed reports are unknown here, and none is ours, the feed is another Airbyte's."""


class Trust:
    """Tells our jobs from another Airbyte's, by asking Airbyte itself.

    What Airbyte says of one job is about that job: only two different jobs under one number, in Airbyte and in a
    listener that was asked for it just now, are a verdict about the listener.

    :param monitor: of our Airbyte.
    :param told: has the listener report the jobs of these states anew; None if it gives no answer.
    :param believe: called with states that turned out to be ours.
    :param refute: called with the reason why the feed is that of another Airbyte.
    """

    def __init__(
        self,
        monitor: Monitor,
        told: Callable[[Collection[JobEvent]], Awaitable[Collection[JobEvent] | None]],
        believe: Callable[[list[JobEvent]], Awaitable[None]],
        refute: Callable[[str], object],
    ) -> None:
        self._monitor = monitor
        self._told = told
        self._believe = believe
        self._refute = refute
        # Until when, by the event loop's clock.
        self._ours: dict[str, float] = {}
        self._strangers: set[int] = set()
        self._doubted: dict[int, JobEvent] = {}
        # Those of a connection that is ours are believed without asking, but not these.
        self._disputed: set[int] = set()
        self._doubting = Wakeup()

    def is_ours(self, state: JobEvent) -> bool:
        """Return whether Airbyte itself has reported a job of the connection as the listener did."""
        return self._ours.get((state.connection_id or "").lower(), 0.0) > anyio.current_time()

    def doubt(self, states: Iterable[JobEvent], *, disputed: bool = False) -> None:
        """Have states checked, then believed.

        :param disputed: they are not those of the jobs that somebody waits for: each is checked by itself.
        """
        for state in states:
            # A hub that can't check so many finds them by polling.
            if len(self._doubted) < MOST_KNOWN:
                self._doubted[state.ref.job_id] = state
                self._disputed |= {state.ref.job_id} if disputed else set()
                self._doubting.set()

    def forget(self) -> None:
        """The feed was left: nothing of it is believed without asking."""
        self._ours.clear()
        self._strangers.clear()
        self._doubted.clear()
        self._disputed.clear()

    async def run(self) -> None:
        """Check until cancelled: one job of each connection is asked for, and each that is disputed."""
        failures = 0
        while True:
            await self._doubting.wait()
            while self._doubted:
                job_id = next(iter(self._doubted))
                try:
                    await self._check(self._doubted[job_id])
                except AirbyteError as exc:
                    failures += 1
                    logger.warning("whether job %d is one of ours is not known yet: %s", job_id, exc)
                    # Not always the same one first: Airbyte may fail over that alone.
                    if (state := self._doubted.pop(job_id, None)) is not None:
                        self._doubted[job_id] = state
                    await anyio.sleep(pause(failures))
                else:
                    failures = 0

    async def _check(self, state: JobEvent) -> None:
        job = await self._ask(state.ref.job_id)
        self._doubted.pop(state.ref.job_id, None)
        self._disputed.discard(state.ref.job_id)
        if job is None:
            self._find_strange(state)
            return
        mine = event_of(self._monitor.instance, job)
        if not same_job(mine, state):
            await self._monitor.take_in([job])
            # A number that was given again just now may not be known to the listener yet: it looks once more.
            answer = await self._told([mine])
            states = [each for each in answer or () if each.ref == mine.ref]
            if not states:
                return
            (state,) = states
        if not same_job(mine, state):
            self._refute(
                f"its job {state.ref.job_id} is of connection {state.connection_id} and was created at"
                f" {state.started_at}, not of connection {mine.connection_id} and at {mine.started_at}"
            )
            return
        await self._find_ours(state)

    async def _ask(self, job_id: int) -> Job | None:
        """Return the job; None if Airbyte says twice that it does not know it."""
        for again in (True, False):
            job = await self._monitor.system.find_job(job_id)
            if job is not None:
                return job
            if again:
                await anyio.sleep(AGAIN_SECONDS)
        return None

    def _find_strange(self, state: JobEvent) -> None:
        """Airbyte does not know the job. It may be one of a workspace that only the listener may see."""
        logger.info("job %d, which the listener reports, is not known here", state.ref.job_id)
        self._strangers.add(state.ref.job_id)
        if len(self._strangers) >= STRANGERS and not self._ours:
            self._refute(f"it reports jobs {', '.join(map(str, sorted(self._strangers)))}, none of which is there")

    async def _find_ours(self, state: JobEvent) -> None:
        if len(self._ours) >= MOST_KNOWN:
            self._ours.clear()
        self._ours[(state.connection_id or "").lower()] = anyio.current_time() + OURS_SECONDS
        self._strangers.clear()
        believed = [
            each for job_id, each in self._doubted.items() if job_id not in self._disputed and self.is_ours(each)
        ]
        for each in believed:
            del self._doubted[each.ref.job_id]
        await self._believe([state, *believed])
