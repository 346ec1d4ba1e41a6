"""Failure reasons that a listener learns later: by a webhook that arrives after polling detected the failure, or from
Airbyte after a burst.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import FeedError
from airbyte_events.events import JobEvent, JobRef, Origin, same_job
from airbyte_events.feed.client import FeedClient
from airbyte_events.monitor import observation
from airbyte_events.monitor.recorder import TOGETHER
from airbyte_events.store.base import EventLog

logger = logging.getLogger(__name__)

REASON_SECONDS = 2.0
"""How long after its detection a listener is asked for the reason of a failure; once at least."""

_INTERVAL = 0.25


def lacks_reason(event: JobEvent) -> bool:
    """Return whether a listener may still learn why the job failed."""
    return observation.lacks_reason(event) and event.origin is not Origin.WEBHOOK


@dataclass(slots=True)
class _Request:
    event: JobEvent
    until: float
    done: anyio.Event = field(default_factory=anyio.Event)


class FailureReasons:
    """Requests failure reasons from a listener, with one request for all waiting tasks."""

    def __init__(self, feed: FeedClient, store: EventLog) -> None:
        self._feed = feed
        self._store = store
        self._requests: dict[JobRef, _Request] = {}
        self._requested = Wakeup()

    async def explain(self, event: JobEvent) -> JobEvent:
        """Return the failure, with its reason if the listener reports it in time: see :data:`REASON_SECONDS`."""
        request = self._requests.get(event.ref)
        if request is None:
            # Who reads a burst of failures one by one does not wait for each.
            age = (utcnow() - event.observed_at).total_seconds()
            request = _Request(event, anyio.current_time() + REASON_SECONDS - min(max(age, 0.0), REASON_SECONDS))
            self._requests[event.ref] = request
            self._requested.set()
        with anyio.move_on_after(REASON_SECONDS):
            await request.done.wait()
        state = (await self._store.states([event.ref])).get(event.ref)
        return state if state is not None and state.status is event.status else event

    async def run(self) -> None:
        while True:
            await self._requested.wait()
            while self._requests:
                refs = list(self._requests)
                for start in range(0, len(refs), TOGETHER):
                    await self._fetch(refs[start : start + TOGETHER])
                for ref in [ref for ref, each in self._requests.items() if each.until < anyio.current_time()]:
                    self._requests.pop(ref).done.set()
                if self._requests:
                    await anyio.sleep(_INTERVAL)

    async def _fetch(self, refs: list[JobRef]) -> None:
        try:
            states = (await self._feed.watch(refs)).states
        except FeedError as exc:
            logger.info("the listener does not report failure reasons: jobs=%d: %s", len(refs), exc)
            for ref in refs:
                self._requests.pop(ref).done.set()
            return
        for ref in refs:
            state = states.get(ref)
            mine = self._requests[ref].event
            # Two Airbytes may have jobs of one number.
            if state is not None and state.error and state.status is mine.status and same_job(state, mine):
                await self._store.annotate([state])
                self._requests.pop(ref).done.set()
