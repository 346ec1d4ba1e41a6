"""What a process that waits for jobs embeds: one feed and one poller for all its waiting tasks.

Push makes it fast and polling makes it certain: the hub follows a listener's feed where one is configured, asks Airbyte
itself while the feed is down, and polls now and then even when all seems well.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.supervision import supervise
from airbyte_events._utils.times import format_time
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.bus.bus import EventBus
from airbyte_events.errors import AirbyteError, CursorExpired, HubClosed, UnknownJob, WaitTimeout
from airbyte_events.events import EventFilter, Identity, JobEvent
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.catch_up import CatchUp
from airbyte_events.hub.completions import Completions, Subscribers
from airbyte_events.hub.failure_reasons import FailureReasons, lacks_reason
from airbyte_events.hub.feed_identity import FeedIdentity
from airbyte_events.hub.feed_intake import FeedIntake
from airbyte_events.hub.job_states import JobStates
from airbyte_events.hub.listener_link import ListenerLink
from airbyte_events.hub.position import Position
from airbyte_events.hub.waiting import Waiter, Waiters
from airbyte_events.jobs import Job, JobSystem
from airbyte_events.monitor.monitor import LOOKBACK, Monitor
from airbyte_events.monitor.observation import event_of
from airbyte_events.monitor.poller import Poller, Ticks
from airbyte_events.monitor.watchlist import WATCH_SECONDS
from airbyte_events.store.memory.store import MemoryStore

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

logger = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
"""A feed that is down for so long is replaced by polling until it is back."""

RECHECK_SECONDS = 600.0
"""So often the hub polls by itself while the feed is up: a listener can be alive and blind."""

AWAY_SECONDS = 300.0
"""See :class:`~airbyte_events.hub.listener_link.ListenerLink`."""

_LAST_CHECK_SECONDS = 30.0


class Hub:
    """Waits for jobs of one Airbyte instance: ``async with Hub(...) as hub: event = await hub.wait(17)``.

    :param system: the instance's API.
    :param feed: a listener's client; None to do without.
    :param instance: the instance's name at that listener.
    :param ticks: how often to poll while there is no feed.
    :param grace: seconds that the feed may be down before polling takes over.
    :param recheck: see :data:`RECHECK_SECONDS`.
    :param away: seconds until a feed that was left, because it is another Airbyte's, is followed again.
    """

    def __init__(
        self,
        system: JobSystem,
        feed: FeedClient | None = None,
        *,
        instance: str = "default",
        ticks: Ticks | None = None,
        grace: float = GRACE_SECONDS,
        recheck: float = RECHECK_SECONDS,
        away: float = AWAY_SECONDS,
    ) -> None:
        self.instance = instance
        self._recheck_every = min(recheck, WATCH_SECONDS / 2)
        self._store = MemoryStore()
        self._bus = EventBus(self._store)
        self._monitor = Monitor(instance, system, self._store, on_list=self._listed)
        self._poller = Poller(self._monitor, ticks)
        self._waiters = Waiters()
        self._subscribers = Subscribers(self._bus)
        self._link = ListenerLink(
            feed,
            instance,
            self._poller,
            lambda frame: self._intake.receive(frame),
            lambda: self._identity.forget(),
            grace=grace,
            away=away,
        )
        self._states = JobStates(
            self._monitor,
            self._poller,
            self._store,
            self._waiters,
            self._link,
            lambda reported: self._intake.absorb(reported),
        )
        self._identity = FeedIdentity(self._monitor, self._link.report, self._monitor.absorb, self._refute)
        self._intake = FeedIntake(
            self._monitor, self._link, self._identity, self._states, self._waiters, self._subscribers
        )
        self._catch_up = CatchUp(self._monitor, self._subscribers, self._intake.enrich)
        self._reasons = None if feed is None else FailureReasons(feed, self._store)
        self._leaving = anyio.Lock()
        self._list_served_at: datetime | None = None
        self._list_served = Wakeup()

    async def __aenter__(self) -> Self:
        await self._bus.__aenter__()
        self._tasks = await anyio.create_task_group().__aenter__()
        sources = [
            self._link.run,
            self._states.run,
            self._states.run_polling,
            self._catch_up.run,
            self._bookmark,
            self._recheck,
        ]
        if self._reasons is not None:
            sources += [self._intake.close_gaps, self._identity.run, self._reasons.run]
        for source in sources:
            self._tasks.start_soon(self._run, source)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        try:
            # What the body raised is its own affair: a task group would wrap it.
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self._bus.__aexit__(None, None, None)

    async def _run(self, source: Callable[[], Awaitable[None]]) -> None:
        try:
            await supervise(f"the hub of {self.instance}", source, {})
        except BaseException:
            # The hub has ended: who waits is released rather than left waiting.
            self._bus.close()
            self._subscribers.close()
            self._states.close()
            raise

    @property
    def waiting(self) -> int:
        """How many jobs are waited for."""
        return len(self._waiters)

    @property
    def followers(self) -> int:
        """How many subscribers of completions have caught up."""
        return self._subscribers.caught_up

    @property
    def following(self) -> bool:
        """Whether the listener's feed is up."""
        return self._link.up

    async def wait(
        self,
        job_id: int,
        *,
        connection_id: str | None = None,
        started_at: datetime | None = None,
        until: float | None = None,
    ) -> JobEvent:
        """Wait for a job's completion.

        Subscribes, then reads the job's state, then waits: no completion falls between. A failure that was found
        before the listener reported its reason waits a moment for that.

        Numbers are given again once Airbyte's database was restored or made anew. Without the connection and the start
        time it is the completion of the job that has the number: Airbyte is asked for it, where a completion is known
        from before the wait.

        :param job_id: which job.
        :param connection_id: the Airbyte connection that it is known to be of.
        :param started_at: when it is known to have been created.
        :param until: when to give up, in seconds since the epoch. The job's status is requested once more before.
        :return: the job's terminal event.
        :raises UnknownJob: if Airbyte has no such job, or another one of that number.
        :raises WaitTimeout: if the job has not completed by then.
        :raises HubClosed: if the hub ends before.
        """
        deadline = math.inf if until is None else anyio.current_time() + until - time.time()
        checks = 0
        waiter = Waiter(Identity(connection_id, started_at))
        self._waiters.add(job_id, waiter)
        try:
            event: JobEvent | None = None
            while event is None:
                with anyio.CancelScope(deadline=deadline) as waiter.scope:
                    if checks:
                        # Airbyte says one thing and then another: not in a circle as fast as it goes.
                        await anyio.sleep(pause(checks - 1, first=0.5, least=0))
                    event = await self._completion(job_id, waiter)
                event = event or await self._last_check(job_id, waiter, deadline)
                checks += 1
            event = await self.explain(event)
            # One in each turn of the event loop: what hundreds do that are woken at once would hold it up.
            async with self._leaving:
                return event
        except anyio.EndOfStream as exc:
            raise HubClosed(f"the wait for job {job_id} ended with the hub") from exc
        finally:
            if self._waiters.remove(job_id, waiter):
                self._states.forget(job_id)

    @contextlib.contextmanager
    def follow(self, wanted: EventFilter, position: Position) -> Iterator[Completions]:
        """Subscribe to completions: ``with hub.follow(wanted, position) as completions: await completions.receive()``.

        Subscribes, then lists what has completed since the position, then goes on with what completes: each completion
        is delivered once. When the hub ends, so do they, after what was taken in is delivered.

        :param wanted: which completions; events that are not terminal are left out.
        :param position: where to begin. It is taken over; a caller that needs it still makes a copy.
        """
        with self._subscribers.joined(wanted, position) as completions, self._monitor.watches.followed():
            yield completions

    async def explain(self, event: JobEvent) -> JobEvent:
        """Return a failure with its reason, where a listener reports it within a moment; any other event as it is."""
        if self._reasons is None or not self._link.up or self._link.left or not lacks_reason(event):
            return event
        return await self._reasons.explain(event)

    async def _completion(self, job_id: int, waiter: Waiter) -> JobEvent:
        wanted = EventFilter(instances=frozenset([self.instance]), job_ids=frozenset([job_id]), terminal=True)
        while True:
            with contextlib.suppress(CursorExpired), self._bus.subscribe(wanted=wanted) as events:
                while (event := await self._state(job_id, waiter)) is None:
                    event = (await events.receive(1))[0]
                    if waiter.accepts(event):
                        return event
                    # It may be another job's completion: Airbyte is asked.
                    self._states.poll(doubted=[job_id])
                return event

    async def _state(self, job_id: int, waiter: Waiter) -> JobEvent | None:
        """Return the job's terminal event, if it has completed."""
        if self._bus.closed:
            raise anyio.EndOfStream
        await self._states.request([job_id])[0].wait()
        state = await self._states.known(job_id)
        return state if state is not None and waiter.accepts(state) else None

    async def _last_check(self, job_id: int, waiter: Waiter, deadline: float) -> JobEvent | None:
        """Ask Airbyte itself, when the time is up or the job is reported unknown; None if that was too early."""
        reason = f"Airbyte did not report the status of job {job_id} in time"
        cause: AirbyteError | None = None
        url = self._monitor.system.url
        try:
            with anyio.move_on_after(_LAST_CHECK_SECONDS):
                job = (await self._monitor.read([job_id]))[job_id] or await self._find_listed(job_id, waiter)
                if job is not None:
                    self._confirm(waiter, event_of(self.instance, job))
                    reason = f"job {job_id} is {job.status.value}"
                elif (state := await self._states.known(job_id)) is None or not waiter.accepts(state):
                    raise UnknownJob(f"Airbyte at {url} knows no job {job_id}")
        except AirbyteError as exc:
            reason, cause = (
                f"job {job_id} had not completed when last seen, and Airbyte does not respond: {exc}",
                exc,
            )
        state = await self._states.known(job_id)
        if state is not None and waiter.accepts(state):
            return state
        if anyio.current_time() < deadline:
            # A job that was created just now may not be known everywhere in Airbyte yet.
            return None
        raise WaitTimeout(reason) from cause

    async def _find_listed(self, job_id: int, waiter: Waiter) -> Job | None:
        """Return a job that Airbyte says it does not know, if it lists it: some releases deny jobs that are there."""
        state = await self._states.known(job_id)
        connection_id = waiter.identity.connection_id or (state.connection_id if state is not None else None)
        started_at = waiter.identity.started_at or (state.started_at if state is not None else None)
        if connection_id is None:
            return None
        since = (started_at or waiter.began) - LOOKBACK
        async for page in self._monitor.system.list_changed(since=since, connection_id=connection_id):
            if found := [job for job in page.jobs if job.job_id == job_id]:
                await self._monitor.store_jobs(found)
                return found[0]
        return None

    def _confirm(self, waiter: Waiter, state: JobEvent) -> None:
        """:raises UnknownJob: if that is another job than the one that is waited for."""
        if not waiter.identity.fits(state):
            mine = waiter.identity
            raise UnknownJob(
                f"Airbyte at {self._monitor.system.url} knows no job {state.ref.job_id} of connection"
                f" {mine.connection_id} that was created at {format_time(mine.started_at)}: the job of that number is"
                f" of connection {state.connection_id} and was created at {format_time(state.started_at)}. Airbyte"
                " gives numbers again when its database was restored or made anew"
            )
        waiter.confirm(state)

    def _refute(self, reason: str) -> None:
        """Leave the feed, which reports another Airbyte's jobs, forget what it reported, and ask Airbyte itself."""
        self._link.leave(reason)
        self._store.forget_states()
        self._states.request(self._waiters.job_ids)

    async def _recheck(self) -> None:
        """Renew the watches before they run out, and poll now and then though all seems well."""
        while True:
            await anyio.sleep(self._recheck_every * random.uniform(0.9, 1.1))  # noqa: S311
            if not self._waiters and not self._subscribers:
                continue
            self._states.request(self._waiters.job_ids)
            if self._link.up:
                try:
                    await self._poller.tick()
                except AirbyteError as exc:
                    logger.warning("could not poll Airbyte beside the feed: %s", exc)

    def _listed(self, served_at: datetime, complete: bool) -> None:
        """Note that a list of changed jobs is in the log."""
        if complete:
            self._list_served_at = served_at
            self._list_served.set()
        else:
            for each in self._subscribers:
                each.miss()

    async def _bookmark(self) -> None:
        """Bookmark what lists have brought once the bus has handed it out, until cancelled."""
        while True:
            await self._list_served.wait()
            served_at, head = self._list_served_at, await self._store.head()
            await self._bus.reached(head)
            for each in self._subscribers:
                if served_at is not None:
                    each.bookmark(served_at, head)
