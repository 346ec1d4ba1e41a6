"""Polling: one list of changed jobs per instance, however many jobs are watched."""

from __future__ import annotations

import logging
import random
from dataclasses import KW_ONLY, dataclass, field

import anyio

from airbyte_events._utils.token_bucket import charged
from airbyte_events.errors import (
    AirbyteError,
    AirbyteProtocolError,
    AirbyteUnreachable,
    LeaseLost,
    RateLimited,
    ServerError,
    StoreError,
    Unauthorized,
)
from airbyte_events.events import Origin
from airbyte_events.jobs import Job
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.monitor.observation import Confirmation
from airbyte_events.monitor.pace import Pace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """Seconds from the beginning of one poll to that of the next; longer where Airbyte responds slowly: polls take at
    most a twentieth of the time.

    :param unproven: while jobs are watched and push is unproven, or webhooks do not announce one of them.
    :param proven: while jobs are watched and push is proven.
    :param viewed: at most, while there are viewers: with jitter and the response, all is known within 15 s.
    :param idle: while no job is watched: all is known within 60 s.
    """

    unproven: float = 3.0
    proven: float = 30.0
    viewed: float = 13.0
    idle: float = 53.0

    def due(self, monitor: Monitor) -> float:
        """Return the seconds from one poll to the next."""
        watched = monitor.watches.jobs
        interval = self.idle
        if watched or monitor.watches.followers:
            interval = self.proven if monitor.push_proven and all(watched.values()) else self.unproven
        return min(interval, self.viewed) if monitor.watches.viewed else interval


JITTER = 0.1
"""The share of an interval by which it varies at random, so that several pollers do not synchronize."""

STALE_SECONDS = 600.0
"""The time without a response after which a watched job is stale: lists may leave it out. Spot checks read it."""

SPOT_CHECK_SECONDS = 60.0
"""The interval of spot checks."""

UNLISTED_SECONDS = 600.0
"""How long jobs are read one by one after the instance failed to list them."""

READS_PER_TICK = 100
"""The most jobs to read one by one in a tick."""


@dataclass(eq=False, repr=False)
class Poller:
    """A poller of an instance; it polls more often while jobs are watched."""

    monitor: Monitor
    ticks: Ticks = field(default_factory=Ticks)
    _: KW_ONLY
    stale: float = STALE_SECONDS
    spot_check: float = SPOT_CHECK_SECONDS
    unlisted: float = UNLISTED_SECONDS
    reads: int = READS_PER_TICK
    pace: Pace = field(default_factory=Pace, init=False)
    """Its intervals."""
    failures: int = field(default=0, init=False)
    """The number of failed polls in a row."""
    _lists_from: float = field(default=float("-inf"), init=False)
    _checked: float = field(default_factory=anyio.current_time, init=False)

    @property
    def interval(self) -> float:
        """The seconds from one poll to the next, before jitter."""
        return self.pace.interval(self.ticks.due(self.monitor), self.monitor.watches.outlook)

    async def run(self) -> None:
        """Poll until cancelled, first at once.

        :raises LeaseLost: if another process polls this instance now.
        """
        # The first list reaches back, and takes longer than the others.
        measured = False
        while True:
            began = anyio.current_time()
            try:
                with charged(self.pace.bucket):
                    await self.tick()
                if measured:
                    self.pace.record(anyio.current_time() - began)
                self.failures, measured = 0, True
            except LeaseLost:
                raise
            except (AirbyteError, StoreError) as exc:
                self.failures += 1
                began = anyio.current_time()
                instance, failures = self.monitor.instance, self.failures
                about = {"instance": instance, "failures": failures}
                logger.warning("polling failed: instance=%s failures=%d: %s", instance, failures, exc, extra=about)
            await self._wait(began, random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311

    async def tick(self) -> None:
        """Poll once.

        :raises AirbyteError: if neither a list nor the read of a single job succeeds.
        """
        if anyio.current_time() < self._lists_from:
            await self._read_watched()
            return
        try:
            await self.monitor.poll()
        except AirbyteError as exc:
            if isinstance(exc, (Unauthorized, RateLimited)) or not await self._read_watched():
                raise
            if not isinstance(exc, AirbyteUnreachable):
                await self._list_again()
            return
        if new := self.monitor.watches.unread()[: self.reads]:
            await self._read(new, Origin.SUBMIT)
        await self._spot_check()

    async def _list_again(self) -> None:
        """List once more after reads succeeded: Airbyte has just come back, or only its lists fail."""
        try:
            await self.monitor.poll()
        except (AirbyteUnreachable, RateLimited, Unauthorized):
            raise
        except AirbyteError as exc:
            self._read_one_by_one(f"it failed to list them: {exc}")

    async def _read_watched(self) -> int:
        job_ids = self.monitor.watches.stale(0)[: self.reads]
        await self.monitor.read(job_ids)
        return len(job_ids)

    async def _read(self, job_ids: list[int], origin: Origin) -> dict[int, Job | None]:
        """Read jobs after a list. A failure that only they cause does not count as a failed poll."""
        try:
            return await self.monitor.read(job_ids, Confirmation(wanted=job_ids, origin=origin))
        except (ServerError, AirbyteProtocolError) as exc:
            logger.warning("could not read a job: instance=%s job_id=%d: %s", self.monitor.instance, job_ids[0], exc)
            return {}

    async def _spot_check(self) -> None:
        stale = self.monitor.watches.stale(self.stale)
        if anyio.current_time() < self._checked + self.spot_check or not stale:
            return
        self._checked = anyio.current_time()
        job_id = random.choice(stale)  # noqa: S311
        job = (await self._read([job_id], Origin.POLL)).get(job_id)
        # It may have completed since the list: another list decides.
        if job is not None and job.status.terminal and job_id not in await self.monitor.poll():
            self._read_one_by_one(f"its list leaves out job {job_id}, which has completed")

    def _read_one_by_one(self, reason: str) -> None:
        self._lists_from = anyio.current_time() + self.unlisted
        instance, seconds = self.monitor.instance, self.unlisted
        logger.warning("reading watched jobs one by one: instance=%s seconds=%g: %s", instance, seconds, reason)

    async def _wait(self, began: float, jitter: float) -> None:
        while True:
            wanted, retry = self.ticks.due(self.monitor), self.ticks.unproven
            outlook = self.monitor.watches.outlook
            pause = self.pace.pause(wanted, retry=retry, failures=self.failures, jitter=jitter, outlook=outlook)
            remaining = began + pause - anyio.current_time()
            if remaining <= 0:
                return
            with anyio.move_on_after(remaining):
                await self.monitor.watches.changed.wait()
