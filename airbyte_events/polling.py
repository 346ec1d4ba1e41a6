"""Polling: one look at an instance finds what changed, however many jobs are watched."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass

import anyio

from airbyte_events.errors import (
    AirbyteError,
    AirbyteProtocolError,
    AirbyteStatusError,
    RateLimited,
    StoreError,
    Unauthorized,
)
from airbyte_events.events import Origin
from airbyte_events.monitor import Monitor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """Seconds between looks.

    :param unproven: while jobs are watched and push is unproven, or the kind of one of them never pushes.
    :param proven: while jobs are watched and push is proven.
    :param idle: while no job is watched.
    """

    unproven: float = 10.0
    proven: float = 60.0
    idle: float = 300.0

    def due(self, monitor: Monitor) -> float:
        """The seconds from one look to the next, as things stand."""
        watched = monitor.watched
        if not watched:
            return self.idle
        return self.proven if monitor.push_proven and all(watched.values()) else self.unproven


JITTER = 0.1
"""The share of a tick by which it is shifted at random, so that several pollers do not fall into step."""

STALE_SECONDS = 600.0
"""A watched job that no answer told of for so long may be one that looks are blind for. One a minute is read."""

UNLISTED_SECONDS = 600.0
"""How long an instance that failed to list a job is read job by job, before it is asked to list again."""

_READS_PER_TICK = 100
_SPOT_CHECK_SECONDS = 60.0
_BACK_OFF_LIMIT = 300.0


class Poller:
    """Looks at an instance from time to time, more often while somebody waits for a job.

    :param monitor: of the instance.
    :param ticks: how often.
    """

    def __init__(self, monitor: Monitor, ticks: Ticks | None = None) -> None:
        self._monitor = monitor
        self._ticks = ticks or Ticks()
        self._lists_from = float("-inf")
        self._checked = time.monotonic()
        self.failures = 0
        """Ticks in a row that got no answer."""

    async def run(self) -> None:
        """Poll until cancelled, at once to begin with."""
        while True:
            try:
                await self.tick()
                self.failures = 0
            except (AirbyteError, StoreError) as exc:
                self.failures += 1
                logger.warning("polling %s failed (%d in a row): %s", self._monitor.instance, self.failures, exc)
            await self._wait(time.monotonic(), random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311

    async def tick(self) -> None:
        """Look once.

        :raises AirbyteError: if the instance answers neither a list nor the read of a single job.
        """
        if time.monotonic() < self._lists_from:
            await self._read_watched()
            return
        try:
            await self._monitor.look()
        except (AirbyteStatusError, AirbyteProtocolError) as exc:
            if isinstance(exc, (Unauthorized, RateLimited)) or not await self._read_watched():
                raise
            self._read_one_by_one(f"it failed to list them: {exc}")
            return
        if new := self._monitor.never_seen():
            await self._monitor.read(new[:_READS_PER_TICK], dict.fromkeys(new, Origin.SUBMIT))
        await self._spot_check()

    async def _read_watched(self) -> int:
        job_ids = self._monitor.stale(0)[:_READS_PER_TICK]
        await self._monitor.read(job_ids)
        return len(job_ids)

    async def _spot_check(self) -> None:
        if time.monotonic() < self._checked + _SPOT_CHECK_SECONDS or not (stale := self._monitor.stale(STALE_SECONDS)):
            return
        self._checked = time.monotonic()
        job = (await self._monitor.read(stale[:1]))[stale[0]]
        # It may have ended since the look: what matters is whether a look finds it now.
        if job is not None and job.status.terminal and stale[0] not in await self._monitor.look():
            self._read_one_by_one(f"its list leaves out job {stale[0]}, which has ended")

    def _read_one_by_one(self, reason: str) -> None:
        self._lists_from = time.monotonic() + UNLISTED_SECONDS
        logger.warning(
            "reading the watched jobs of %s one by one for %d s: %s", self._monitor.instance, UNLISTED_SECONDS, reason
        )

    async def _wait(self, looked: float, jitter: float) -> None:
        while True:
            self._monitor.watch_changed = anyio.Event()
            tick = self._ticks.due(self._monitor) * jitter
            if self.failures:
                tick = min(max(tick, _BACK_OFF_LIMIT), tick * 2 ** min(self.failures, 10))
            remaining = looked + tick - time.monotonic()
            if remaining <= 0:
                return
            with anyio.move_on_after(remaining):
                await self._monitor.watch_changed.wait()
