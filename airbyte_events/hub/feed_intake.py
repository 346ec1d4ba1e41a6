"""Storing states that a listener reports; unverified states only once Airbyte confirms them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import AirbyteError, FeedUnreachable
from airbyte_events.events import JobEvent, JobRef, same_job
from airbyte_events.feed.client import FeedFrame
from airbyte_events.hub.completions import Subscribers
from airbyte_events.hub.feed_identity import FeedIdentity
from airbyte_events.hub.job_states import JobStates
from airbyte_events.hub.listener_link import ListenerLink
from airbyte_events.hub.waiting import WaitingTasks
from airbyte_events.monitor.monitor import Monitor

logger = logging.getLogger(__name__)

MOST_TOGETHER = 50
"""The most events of the feed to store at once: more would stall a triggerer's event loop."""


class FeedIntake:
    """Stores the states of a listener's feed and responses.

    :param states: requests the jobs from Airbyte whose reported state may be another job's.
    """

    def __init__(
        self,
        monitor: Monitor,
        link: ListenerLink,
        identity: FeedIdentity,
        states: JobStates,
        waiting: WaitingTasks,
        subscribers: Subscribers,
    ) -> None:
        self._monitor = monitor
        self._link = link
        self._identity = identity
        self._states = states
        self._waiting = waiting
        self._subscribers = subscribers
        self._gap = Wakeup()
        # Events that arrived together are stored together.
        self._arrived: dict[JobRef, JobEvent] = {}

    async def receive(self, frame: FeedFrame) -> None:
        """Process a frame.

        :raises FeedUnreachable: if that fails for any reason, so that the feed is reopened.
        """
        try:
            await self._take(frame)
        except Exception as exc:
            logger.exception("could not process a frame of the listener's feed: name=%s", frame.name)
            raise FeedUnreachable("could not process a frame of the feed") from exc

    async def _take(self, frame: FeedFrame) -> None:
        event = frame.event
        if event is None or event.ref in self._arrived:
            await self._store_arrived()
        if event is not None:
            self._arrived[event.ref] = event
            if not frame.more or len(self._arrived) >= MOST_TOGETHER:
                await self._store_arrived()
        elif frame.name in ("hello", "reset", "job"):
            if frame.name == "reset":
                logger.info("the listener's feed was reset: reason=%s", frame.data.get("reason"))
            elif frame.name == "job":
                logger.warning(
                    "an event of the listener's feed can't be read, reading the states: cursor=%s", frame.cursor
                )
            # The states include events from before the stream was open.
            self._states.request(self._waiting.job_ids)
            self._gap.set()

    async def _store_arrived(self) -> None:
        arrived, self._arrived = self._arrived, {}
        if unverified := [state.ref.job_id for state in await self.absorb(arrived.values())]:
            self._states.poll(unverified=unverified)
            self._states.request(unverified)

    async def absorb(self, reported: Iterable[JobEvent]) -> list[JobEvent]:
        """Store reported states of jobs with waiting tasks, and of connections with subscribers.

        :return: states of jobs with waiting tasks that may be another job's, for a request to Airbyte.
        """
        ours: list[JobEvent] = []
        unverified: list[JobEvent] = []
        for state in reported:
            if not self._waiting.of(state.ref.job_id):
                if self._subscribers.want(state):
                    if self._identity.is_verified(state):
                        ours.append(state)
                    else:
                        self._identity.verify([state])
            elif not self._waiting.all_fit(state):
                # Another Airbyte's job, or Airbyte gave the number of the job to another one.
                self._identity.verify([state], conflicting=True)
                unverified.append(state)
            elif state.ref.job_id in self._states.unlisted or not self._waiting.all_accept(state):
                unverified.append(state)
            else:
                ours.append(state)
        if ours and not self._link.left:
            await self._monitor.absorb(ours)
        return unverified

    async def enrich(self, states: Sequence[JobEvent]) -> None:
        """Add what only the listener reports of these jobs: names, failure reasons, workspaces."""
        mine = {state.ref: state for state in states}
        reported = await self._link.report(states) or ()
        same = [each for each in reported if same_job(each, mine[each.ref])]
        self._identity.verify((each for each in reported if not same_job(each, mine[each.ref])), conflicting=True)
        if not self._link.left:
            await self._monitor.absorb([each for each in same if each.status is mine[each.ref].status])

    async def close_gaps(self) -> None:
        """Poll each time the stream opens, for completions while it was closed, until cancelled."""
        while True:
            await self._gap.wait()
            failures = 0
            while len(self._subscribers):
                try:
                    found = await self._monitor.poll()
                    if found and (state := await self._states.known(max(found))) is not None:
                        await self.enrich([state])
                    break
                except AirbyteError as exc:
                    failures += 1
                    logger.warning("could not list what completed while the feed was down, trying again: %s", exc)
                await anyio.sleep(pause(failures))
