"""The identity of a feed: whether it is our Airbyte's, or another one's, whose jobs have the same numbers."""

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


class FeedIdentity:
    """Tells our jobs from another Airbyte's, by asking Airbyte itself.

    A job that Airbyte does not know proves nothing about the listener. Two different jobs under one number do: one in
    Airbyte, and one that the listener reports when it is asked just then.

    :param monitor: of our Airbyte.
    :param report: has the listener report the jobs of these states anew; None if it does not respond.
    :param accept: called with states that turned out to be ours.
    :param refute: called with the reason why the feed is that of another Airbyte.
    """

    def __init__(
        self,
        monitor: Monitor,
        report: Callable[[Collection[JobEvent]], Awaitable[Collection[JobEvent] | None]],
        accept: Callable[[list[JobEvent]], Awaitable[None]],
        refute: Callable[[str], object],
    ) -> None:
        self._monitor = monitor
        self._report = report
        self._accept = accept
        self._refute = refute
        # Until when, by the event loop's clock.
        self._ours: dict[str, float] = {}
        self._strangers: set[int] = set()
        self._doubted: dict[int, JobEvent] = {}
        # States of a connection that is ours are accepted without asking, but not these.
        self._disputed: set[int] = set()
        self._doubting = Wakeup()

    def is_ours(self, state: JobEvent) -> bool:
        """Return whether Airbyte itself has reported a job of the connection as the listener did."""
        return self._ours.get((state.connection_id or "").lower(), 0.0) > anyio.current_time()

    def doubt(self, states: Iterable[JobEvent], *, disputed: bool = False) -> None:
        """Have states checked, then accepted.

        :param disputed: they differ from what is known of their jobs: each is checked by itself.
        """
        for state in states:
            # What is beyond that is found by polling.
            if len(self._doubted) < MOST_KNOWN:
                self._doubted[state.ref.job_id] = state
                self._disputed |= {state.ref.job_id} if disputed else set()
                self._doubting.set()

    def forget(self) -> None:
        """Forget what was found out: the feed was left."""
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
                    logger.warning(
                        "could not check a job that the listener reports, trying again: job_id=%d: %s", job_id, exc
                    )
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
            self._count_stranger(state)
            return
        mine = event_of(self._monitor.instance, job)
        if not same_job(mine, state):
            await self._monitor.store_jobs([job])
            # The listener may not know yet that the number was given again: now it asks Airbyte.
            answer = await self._report([mine])
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
        await self._count_ours(state)

    async def _ask(self, job_id: int) -> Job | None:
        """Return the job; None if Airbyte does not know it, asked twice."""
        for again in (True, False):
            job = await self._monitor.system.find_job(job_id)
            if job is not None:
                return job
            if again:
                await anyio.sleep(AGAIN_SECONDS)
        return None

    def _count_stranger(self, state: JobEvent) -> None:
        """Airbyte does not know the job. It may be one of a workspace that only the listener may see."""
        logger.info("the listener reports a job that Airbyte does not know: job_id=%d", state.ref.job_id)
        self._strangers.add(state.ref.job_id)
        if len(self._strangers) >= STRANGERS and not self._ours:
            self._refute(f"it reports jobs {', '.join(map(str, sorted(self._strangers)))}, none of which is there")

    async def _count_ours(self, state: JobEvent) -> None:
        if len(self._ours) >= MOST_KNOWN:
            self._ours.clear()
        self._ours[(state.connection_id or "").lower()] = anyio.current_time() + OURS_SECONDS
        self._strangers.clear()
        accepted = [
            each for job_id, each in self._doubted.items() if job_id not in self._disputed and self.is_ours(each)
        ]
        for each in accepted:
            del self._doubted[each.ref.job_id]
        await self._accept([state, *accepted])
