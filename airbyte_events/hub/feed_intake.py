"""Storing states that a listener reports, once it is certain that they are our Airbyte's and not another one's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import AirbyteError, FeedUnreachable
from airbyte_events.events import JobEvent, JobRef, same_job
from airbyte_events.feed.client import FeedFrame
from airbyte_events.hub.completions import Subscribers
from airbyte_events.hub.job_states import JobStates
from airbyte_events.hub.listener_link import ListenerLink
from airbyte_events.hub.waiting import WaitingTasks
from airbyte_events.jobs import Job
from airbyte_events.monitor.monitor import AGAIN_SECONDS, Monitor
from airbyte_events.monitor.observation import event_of

logger = logging.getLogger(__name__)

MOST_TOGETHER = 50
"""The most events of the feed to store at once: more would stall a triggerer's event loop."""

LIMIT = 10_000
"""The maximum of verified connections, and of states to verify."""

VERIFIED_SECONDS = 3600.0
"""How long a connection stays verified: a copy of our Airbyte has the same connections, but other new jobs."""

MAX_UNKNOWN = 3
"""A feed is another Airbyte's if it has reported so many jobs that our Airbyte does not have, and none that it has."""


@dataclass(eq=False, repr=False)
class FeedIntake:
    """Stores the states of a listener's feed and responses, unverified ones once Airbyte has returned the same job.

    A job that Airbyte does not know proves nothing about the listener. Two different jobs of one number do: one that
    Airbyte returns, and one that the listener reports at the same time.

    :param states: requests the jobs from Airbyte whose reported state may be another job's.
    :param reject: called with the reason why the feed is another Airbyte's.
    """

    monitor: Monitor
    link: ListenerLink
    states: JobStates
    waiting: WaitingTasks
    subscribers: Subscribers
    reject: Callable[[str], object]
    _gap: Wakeup = field(default_factory=Wakeup, init=False)
    # Events that arrived together are stored together.
    _arrived: dict[JobRef, JobEvent] = field(default_factory=dict, init=False)
    # By connection, by the event loop's clock.
    _verified_until: dict[str, float] = field(default_factory=dict, init=False)
    _unknown: set[int] = field(default_factory=set, init=False)
    _unverified: dict[int, JobEvent] = field(default_factory=dict, init=False)
    # Accepted only when verified by themselves, even of a verified connection.
    _conflicting: set[int] = field(default_factory=set, init=False)
    _verification_requested: Wakeup = field(default_factory=Wakeup, init=False)

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
            self.states.request(self.waiting.job_ids)
            self._gap.set()

    async def _store_arrived(self) -> None:
        arrived, self._arrived = self._arrived, {}
        if unverified := [state.ref.job_id for state in await self.absorb(arrived.values())]:
            self.states.poll(unverified=unverified)
            self.states.request(unverified)

    async def absorb(self, reported: Iterable[JobEvent]) -> list[JobEvent]:
        """Store reported states of jobs with waiting tasks, and of connections with subscribers.

        :return: states of jobs with waiting tasks that may be another job's, for a request to Airbyte.
        """
        ours: list[JobEvent] = []
        unverified: list[JobEvent] = []
        for state in reported:
            if not self.waiting.of(state.ref.job_id):
                if self.subscribers.want(state):
                    if self._is_verified(state):
                        ours.append(state)
                    else:
                        self._verify([state])
            elif not self.waiting.all_fit(state):
                # Another Airbyte's job, or Airbyte gave the number of the job to another one.
                self._verify([state], conflicting=True)
                unverified.append(state)
            elif state.ref.job_id in self.states.unlisted or not self.waiting.all_accept(state):
                unverified.append(state)
            else:
                ours.append(state)
        if ours and not self.link.left:
            await self.monitor.absorb(ours)
        return unverified

    async def enrich(self, states: Sequence[JobEvent]) -> None:
        """Add what only the listener reports of these jobs: names, failure reasons, workspaces."""
        mine = {state.ref: state for state in states}
        reported = await self.link.report(states) or ()
        same = [each for each in reported if same_job(each, mine[each.ref])]
        self._verify((each for each in reported if not same_job(each, mine[each.ref])), conflicting=True)
        if not self.link.left:
            await self.monitor.absorb([each for each in same if each.status is mine[each.ref].status])

    async def close_gaps(self) -> None:
        """Poll each time the stream opens, for completions while it was closed, until cancelled."""
        while True:
            await self._gap.wait()
            failures = 0
            while len(self.subscribers):
                try:
                    found = await self.monitor.poll()
                    if found and (state := await self.states.known(max(found))) is not None:
                        await self.enrich([state])
                    break
                except AirbyteError as exc:
                    failures += 1
                    logger.warning("could not list what completed while the feed was down, retrying: %s", exc)
                await anyio.sleep(pause(failures))

    def _is_verified(self, state: JobEvent) -> bool:
        """Return whether Airbyte itself returned a job of the connection that matches the listener's."""
        return self._verified_until.get((state.connection_id or "").lower(), 0.0) > anyio.current_time()

    def _verify(self, states: Iterable[JobEvent], *, conflicting: bool = False) -> None:
        """Request that states are verified, then accepted.

        :param conflicting: whether they differ from the known states of their jobs: each is verified by itself.
        """
        for state in states:
            # Polling finds the rest.
            if len(self._unverified) < LIMIT:
                self._unverified[state.ref.job_id] = state
                self._conflicting |= {state.ref.job_id} if conflicting else set()
                self._verification_requested.set()

    def forget(self) -> None:
        """Forget all results: the feed was left."""
        self._verified_until.clear()
        self._unknown.clear()
        self._unverified.clear()
        self._conflicting.clear()

    async def run_verifying(self) -> None:
        """Verify until cancelled: one job of each connection, and each job whose states conflict."""
        failures = 0
        while True:
            await self._verification_requested.wait()
            while self._unverified:
                job_id = next(iter(self._unverified))
                try:
                    await self._check(self._unverified[job_id])
                except AirbyteError as exc:
                    failures += 1
                    logger.warning(
                        "could not check a job that the listener reports, retrying: job_id=%d: %s", job_id, exc
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
        mine = event_of(self.monitor.instance, job)
        if not same_job(mine, state):
            await self.monitor.store_jobs([job])
            # The listener may not know yet that Airbyte gave the number again: now it requests the job.
            reported = {each.ref: each for each in await self.link.report([mine]) or ()}
            if mine.ref not in reported:
                return
            state = reported[mine.ref]
        if not same_job(mine, state):
            self.reject(
                f"its job {state.ref.job_id} has connection {state.connection_id} and was created at"
                f" {state.started_at}; our Airbyte's has connection {mine.connection_id} and was created at"
                f" {mine.started_at}"
            )
            return
        await self._accept_connection(state)

    async def _ask(self, job_id: int) -> Job | None:
        for again in (True, False):
            job = await self.monitor.system.find_job(job_id)
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
            self.reject(
                f"our Airbyte has none of the jobs {', '.join(map(str, sorted(self._unknown)))} that it reports"
            )

    async def _accept_connection(self, state: JobEvent) -> None:
        if len(self._verified_until) >= LIMIT:
            self._verified_until.clear()
        self._verified_until[(state.connection_id or "").lower()] = anyio.current_time() + VERIFIED_SECONDS
        self._unknown.clear()
        others = [each for each in self._unverified.values() if each.ref.job_id not in self._conflicting]
        accepted = [each for each in others if self._is_verified(each)]
        for each in accepted:
            del self._unverified[each.ref.job_id]
        await self.monitor.absorb([state, *accepted])
