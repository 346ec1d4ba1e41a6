"""Reasons of failures that the job system did not report in time, as of a burst: requested later, at a pace."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.times import utcnow
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import StoreError
from airbyte_events.events import EventFilter, JobEvent, JobRef, JobStatus
from airbyte_events.monitor.observation import lacks_reason
from airbyte_events.store.base import EventLog

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
"""The seconds between two requests: half of what Airbyte's client allows, so that new failures have the other half."""

MOST = 10_000
"""The most failures that are remembered."""

GIVEN_UP_SECONDS = 3600.0
"""How long after its detection the reason of a failure is requested."""

_LONGEST_PAUSE = 60.0
_PAGE = 500


@dataclass(eq=False, repr=False)
class LateReasons:
    """Adds the reasons of one instance's failures to their states, while it runs.

    :param explain: returns a failure with its reason; None if the reason can't be read now.
    """

    instance: str
    explain: Callable[[JobEvent], Awaitable[JobEvent | None]]
    store: EventLog
    interval: float = field(default=INTERVAL_SECONDS, init=False)
    _waiting: OrderedDict[JobRef, float] | None = field(default=None, init=False)
    _added: Wakeup = field(default_factory=Wakeup, init=False)

    def __len__(self) -> int:
        return len(self._waiting or ())

    def add(self, refs: Iterable[JobRef]) -> None:
        """Request the reasons of these failures later. Ignored while it does not run: nobody would see them."""
        if self._waiting is None:
            return
        for ref in refs:
            self._waiting[ref] = anyio.current_time() + GIVEN_UP_SECONDS
            self._added.set()
        while len(self._waiting) > MOST:
            ref, _ = self._waiting.popitem(last=False)
            logger.warning("the reason of a failure is not requested, as too many jobs failed: job=%s", ref)

    async def run(self) -> None:
        """Request reasons until cancelled, beginning with those that an earlier process was to request."""
        self._waiting = OrderedDict()
        failures = 0
        try:
            begun = False
            while True:
                try:
                    begun = begun or await self._begin()
                    if not self._waiting:
                        await self._added.wait()
                    await anyio.sleep(pause(failures, first=self.interval, longest=_LONGEST_PAUSE, least=1))
                    failures = 0 if await self._next(self._waiting) else failures + 1
                except StoreError as exc:
                    failures += 1
                    logger.warning("could not store a reason, retrying: instance=%s error=%s", self.instance, exc)
                    await anyio.sleep(pause(failures, first=self.interval, longest=_LONGEST_PAUSE))
        finally:
            self._waiting = None

    async def _begin(self) -> bool:
        wanted = EventFilter(instances=frozenset([self.instance]), statuses=frozenset([JobStatus.FAILED]))
        since = utcnow() - timedelta(seconds=GIVEN_UP_SECONDS)
        states = await self.store.jobs(limit=_PAGE, wanted=wanted)
        self.add(state.ref for state in reversed(states) if lacks_reason(state) and state.observed_at > since)
        return True

    async def _next(self, waiting: OrderedDict[JobRef, float]) -> bool:
        """Request the reason that has waited longest; return whether it was read, or is no longer needed."""
        if not waiting:
            return True
        ref, until = next(iter(waiting.items()))
        state = (await self.store.states([ref])).get(ref)
        if state is not None and lacks_reason(state):
            explained = await self.explain(state)
            if explained is None and anyio.current_time() < until:
                # Another one first: it may be this job's response that can't be read.
                waiting.move_to_end(ref)
                return False
            if explained is not None:
                await self.store.annotate([explained])
        waiting.pop(ref, None)
        return True
