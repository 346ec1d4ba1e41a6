"""Taking in what a listener reports: states of our Airbyte's jobs, and those in doubt once Airbyte confirms them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import AirbyteError, FeedUnreachable
from airbyte_events.events import JobEvent, same_job
from airbyte_events.feed.client import FeedFrame
from airbyte_events.hub.completions import Subscribers
from airbyte_events.hub.feed_identity import FeedIdentity
from airbyte_events.hub.job_states import JobStates
from airbyte_events.hub.listener_link import ListenerLink
from airbyte_events.hub.waiting import Waiters
from airbyte_events.monitor.monitor import Monitor

logger = logging.getLogger(__name__)


class FeedIntake:
    """Takes frames of a listener's feed, and the states that the listener reports.

    :param identity: tells our jobs from another Airbyte's.
    :param states: asks Airbyte for jobs whose reported state may be another job's.
    """

    def __init__(
        self,
        monitor: Monitor,
        link: ListenerLink,
        identity: FeedIdentity,
        states: JobStates,
        waiters: Waiters,
        subscribers: Subscribers,
    ) -> None:
        self._monitor = monitor
        self._link = link
        self._identity = identity
        self._states = states
        self._waiters = waiters
        self._subscribers = subscribers
        self._gap = Wakeup()

    async def receive(self, frame: FeedFrame) -> None:
        """Take a frame.

        :raises FeedUnreachable: if that fails, whatever the reason: the feed is to be opened anew.
        """
        try:
            await self._take(frame)
        except Exception as exc:
            logger.exception("a frame of the listener's feed could not be taken: name=%s", frame.name)
            raise FeedUnreachable("a frame of the feed could not be taken") from exc

    async def _take(self, frame: FeedFrame) -> None:
        if frame.event is not None:
            if await self.absorb([frame.event]):
                self._states.poll(doubted=[frame.event.ref.job_id])
                self._states.request([frame.event.ref.job_id])
        elif frame.name in ("hello", "reset", "job"):
            if frame.name == "reset":
                logger.info("the listener's feed begins anew: reason=%s", frame.data.get("reason"))
            elif frame.name == "job":
                logger.warning(
                    "an event of the listener's feed can't be read, reading the states: cursor=%s", frame.cursor
                )
            # What happened before the stream was joined is in the states.
            self._states.request(self._waiters.job_ids)
            self._gap.set()

    async def absorb(self, reported: Iterable[JobEvent]) -> list[JobEvent]:
        """Take over what the listener reports of jobs that somebody waits for, and of connections with subscribers.

        :return: states of jobs that somebody waits for which may be another job's: Airbyte is to be asked.
        """
        ours: list[JobEvent] = []
        doubted: list[JobEvent] = []
        for state in reported:
            if not self._waiters.of(state.ref.job_id):
                if self._subscribers.want(state):
                    if self._identity.is_ours(state):
                        ours.append(state)
                    else:
                        self._identity.doubt([state])
            elif not self._waiters.fit(state):
                # The listener's is another job, or the number that somebody waits for was given to another meanwhile.
                self._identity.doubt([state], disputed=True)
                doubted.append(state)
            elif state.ref.job_id in self._states.unlisted or not self._waiters.settle(state):
                doubted.append(state)
            else:
                ours.append(state)
        if not self._link.left:
            await self._monitor.absorb(ours)
        return doubted

    async def enrich(self, states: Sequence[JobEvent]) -> None:
        """Take over what the listener knows of jobs that Airbyte has reported: names, failure reasons, workspaces."""
        mine = {state.ref: state for state in states}
        reported = await self._link.report(states) or ()
        self._identity.doubt((each for each in reported if not same_job(each, mine[each.ref])), disputed=True)
        if not self._link.left:
            await self._monitor.absorb(
                [each for each in reported if same_job(each, mine[each.ref]) and each.status is mine[each.ref].status]
            )

    async def close_gaps(self) -> None:
        """List what completed while the stream was not open, whenever it is joined, until cancelled."""
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
