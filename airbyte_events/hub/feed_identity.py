"""Feed identity: whether a feed reports our Airbyte's jobs, or another Airbyte's with the same numbers."""

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

LIMIT = 10_000
"""The maximum of verified connections, and of states to verify."""

VERIFIED_SECONDS = 3600.0
"""How long a connection stays verified: a copy of our Airbyte has the same connections, but other new jobs."""

MAX_UNKNOWN = 3
"""A feed that reports so many jobs which Airbyte does not know, and none that it knows, is another Airbyte's."""


class FeedIdentity:
    """Compares the listener's jobs with Airbyte's own.

    A job that Airbyte does not know proves nothing about the listener. Two different jobs of one number do: one that
    Airbyte returns, and one that the listener reports at the same time.

    :param report: returns the listener's states of the same jobs; None if it does not respond.
    :param accept: called with states that were verified.
    :param reject: called with the reason why the feed is another Airbyte's.
    """

    def __init__(
        self,
        monitor: Monitor,
        report: Callable[[Collection[JobEvent]], Awaitable[Collection[JobEvent] | None]],
        accept: Callable[[list[JobEvent]], Awaitable[None]],
        reject: Callable[[str], object],
    ) -> None:
        self._monitor = monitor
        self._report = report
        self._accept = accept
        self._reject = reject
        # By connection, by the event loop's clock.
        self._verified_until: dict[str, float] = {}
        self._unknown: set[int] = set()
        self._unverified: dict[int, JobEvent] = {}
        # Accepted only when verified by themselves, even of a verified connection.
        self._conflicting: set[int] = set()
        self._requested = Wakeup()

    def is_verified(self, state: JobEvent) -> bool:
        """Return whether Airbyte itself returned a job of the connection that matches the listener's."""
        return self._verified_until.get((state.connection_id or "").lower(), 0.0) > anyio.current_time()

    def verify(self, states: Iterable[JobEvent], *, conflicting: bool = False) -> None:
        """Request that states are verified, then accepted.

        :param conflicting: whether they differ from the known states of their jobs: each is verified by itself.
        """
        for state in states:
            # Polling finds the rest.
            if len(self._unverified) < LIMIT:
                self._unverified[state.ref.job_id] = state
                self._conflicting |= {state.ref.job_id} if conflicting else set()
                self._requested.set()

    def forget(self) -> None:
        """Forget all results: the feed was left."""
        self._verified_until.clear()
        self._unknown.clear()
        self._unverified.clear()
        self._conflicting.clear()

    async def run(self) -> None:
        """Verify until cancelled: one job of each connection, and each job whose states conflict."""
        failures = 0
        while True:
            await self._requested.wait()
            while self._unverified:
                job_id = next(iter(self._unverified))
                try:
                    await self._check(self._unverified[job_id])
                except AirbyteError as exc:
                    failures += 1
                    logger.warning(
                        "could not check a job that the listener reports, trying again: job_id=%d: %s", job_id, exc
                    )
                    # Retried last: Airbyte may fail for this job alone.
                    if (state := self._unverified.pop(job_id, None)) is not None:
                        self._unverified[job_id] = state
                    await anyio.sleep(pause(failures))
                else:
                    failures = 0

    async def _check(self, state: JobEvent) -> None:
        job = await self._ask(state.ref.job_id)
        self._unverified.pop(state.ref.job_id, None)
        self._conflicting.discard(state.ref.job_id)
        if job is None:
            self._count_unknown(state)
            return
        mine = event_of(self._monitor.instance, job)
        if not same_job(mine, state):
            await self._monitor.store_jobs([job])
            # The listener may not know yet that Airbyte gave the number again: now it requests the job.
            reported = {each.ref: each for each in await self._report([mine]) or ()}
            if mine.ref not in reported:
                return
            state = reported[mine.ref]
        if not same_job(mine, state):
            self._reject(
                f"its job {state.ref.job_id} is of connection {state.connection_id} and was created at"
                f" {state.started_at}, not of connection {mine.connection_id} and at {mine.started_at}"
            )
            return
        await self._accept_connection(state)

    async def _ask(self, job_id: int) -> Job | None:
        for again in (True, False):
            job = await self._monitor.system.find_job(job_id)
            if job is not None:
                return job
            if again:
                await anyio.sleep(AGAIN_SECONDS)
        return None

    def _count_unknown(self, state: JobEvent) -> None:
        # It may be in a workspace that only the listener may read.
        logger.info("the listener reports a job that Airbyte does not know: job_id=%d", state.ref.job_id)
        self._unknown.add(state.ref.job_id)
        if len(self._unknown) >= MAX_UNKNOWN and not self._verified_until:
            self._reject(f"it reports jobs {', '.join(map(str, sorted(self._unknown)))}, none of which is there")

    async def _accept_connection(self, state: JobEvent) -> None:
        if len(self._verified_until) >= LIMIT:
            self._verified_until.clear()
        self._verified_until[(state.connection_id or "").lower()] = anyio.current_time() + VERIFIED_SECONDS
        self._unknown.clear()
        others = [each for each in self._unverified.values() if each.ref.job_id not in self._conflicting]
        accepted = [each for each in others if self.is_verified(each)]
        for each in accepted:
            del self._unverified[each.ref.job_id]
        await self._accept([state, *accepted])
