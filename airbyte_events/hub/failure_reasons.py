"""Failure reasons: only a webhook has them, and it may come after polling found the failure."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import anyio

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import FeedError
from airbyte_events.events import PUSHED_JOB_TYPES, JobEvent, JobRef, JobStatus, Origin
from airbyte_events.feed.client import FeedClient
from airbyte_events.monitor.recorder import TOGETHER
from airbyte_events.store.base import EventLog

logger = logging.getLogger(__name__)

REASON_SECONDS = 2.0
"""The longest that a failure which polling found waits for its reason."""

_ASK_EVERY = 0.25


def lacks_reason(event: JobEvent) -> bool:
    """Return whether a webhook may still bring the reason why the job failed."""
    return (
        event.status is JobStatus.FAILED
        and event.error is None
        and event.job_type in PUSHED_JOB_TYPES
        and event.origin is not Origin.WEBHOOK
    )


@dataclass(slots=True)
class _Question:
    event: JobEvent
    until: float
    answered: anyio.Event = field(default_factory=anyio.Event)


class FailureReasons:
    """Asks a listener why jobs failed, once for all who wait for that.

    :param feed: the listener.
    :param store: has the failures, and gets their reasons.
    """

    def __init__(self, feed: FeedClient, store: EventLog) -> None:
        self._feed = feed
        self._store = store
        self._questions: dict[JobRef, _Question] = {}
        self._asked = Wakeup()

    async def explain(self, event: JobEvent) -> JobEvent:
        """Return the failure with its reason, if that comes within :data:`REASON_SECONDS`."""
        question = self._questions.get(event.ref)
        if question is None:
            question = _Question(event, anyio.current_time() + REASON_SECONDS)
            self._questions[event.ref] = question
            self._asked.set()
        with anyio.move_on_after(REASON_SECONDS):
            await question.answered.wait()
        state = (await self._store.states([event.ref])).get(event.ref)
        return state if state is not None and state.status is event.status else event

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._asked.wait()
            while self._questions:
                refs = list(self._questions)
                for start in range(0, len(refs), TOGETHER):
                    await self._ask(refs[start : start + TOGETHER])
                for ref in [ref for ref, each in self._questions.items() if each.until < anyio.current_time()]:
                    self._questions.pop(ref).answered.set()
                if self._questions:
                    await anyio.sleep(_ASK_EVERY)

    async def _ask(self, refs: list[JobRef]) -> None:
        try:
            states = (await self._feed.watch(refs)).states
        except FeedError as exc:
            logger.info("the listener does not report failure reasons: jobs=%d: %s", len(refs), exc)
            for ref in refs:
                self._questions.pop(ref).answered.set()
            return
        for ref in refs:
            state = states.get(ref)
            if state is None or state.error is None or not _same(state, self._questions[ref].event):
                continue
            await self._store.annotate([state])
            self._questions.pop(ref).answered.set()


def _same(one: JobEvent, other: JobEvent) -> bool:
    """Return whether both are the completion of one job, and not of two Airbytes' jobs of one number."""
    same = (one.connection_id or "").lower() == (other.connection_id or "").lower()
    return same and one.status is other.status
