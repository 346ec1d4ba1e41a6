"""Waiting for jobs within a process, with one feed and one poller for all waiting tasks.

The hub follows a listener's feed where one is configured, polls Airbyte while the feed is down, and also polls now and
then while it is up.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from typing import Self

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.supervision import supervise
from airbyte_events._utils.times import format_time
from airbyte_events._utils.token_bucket import charged
from airbyte_events._utils.turns import Turns
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.bus.bus import EventBus
from airbyte_events.errors import AirbyteError, CursorExpired, HubClosed, UnknownJob, WaitTimeout
from airbyte_events.events import EventFilter, Identity, JobEvent, Progress
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.catch_up import CatchUp
from airbyte_events.hub.completions import Completions, Subscribers
from airbyte_events.hub.failure_reasons import FailureReasons, lacks_reason
from airbyte_events.hub.feed_intake import FeedIntake
from airbyte_events.hub.job_states import JobStates
from airbyte_events.hub.listener_link import ListenerLink
from airbyte_events.hub.position import Position
from airbyte_events.hub.receipts import Receipts
from airbyte_events.hub.waiting import WaitingTask, WaitingTasks
from airbyte_events.jobs import Job, JobSystem
from airbyte_events.monitor.monitor import LOOKBACK, MAX_LISTED, Monitor
from airbyte_events.monitor.observation import event_of
from airbyte_events.monitor.poller import Poller, Ticks
from airbyte_events.monitor.progress import FRESH_SECONDS, ProgressReader
from airbyte_events.monitor.watchlist import WATCH_SECONDS
from airbyte_events.store.memory.store import MemoryStore

logger = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
"""How long a feed may be down before polling replaces it."""

RECHECK_SECONDS = 600.0
"""How often the hub polls while the feed is up: a listener may run without receiving webhooks."""

AWAY_SECONDS = 300.0
"""See :class:`~airbyte_events.hub.listener_link.ListenerLink`."""

PROGRESS_PER_MINUTE = 2.0
"""The limit of requests for progress, one of them for log lines: with the polls, 20 requests a minute."""

_LAST_CHECK_SECONDS = 30.0


class Hub:
    """Waits for jobs of one Airbyte instance: ``async with Hub(...) as hub: event = await hub.wait(17)``.

    :param system: the instance's API.
    :param feed: a listener's client; None: poll only.
    :param instance: the instance's name at that listener.
    :param ticks: how often to poll without a feed.
    :param grace: see :data:`GRACE_SECONDS`.
    :param recheck: see :data:`RECHECK_SECONDS`.
    :param away: seconds until a feed of another Airbyte, which was left, is followed again.
    :param max_listed: see :data:`~airbyte_events.monitor.monitor.MAX_LISTED`.
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
        max_listed: int = MAX_LISTED,
    ) -> None:
        self.instance = instance
        # One for all waits.
        self._instances = frozenset([instance])
        self._recheck_every = min(recheck, WATCH_SECONDS / 2)
        self._store = MemoryStore()
        self._bus = EventBus(self._store)
        self._monitor = Monitor(
            instance,
            system,
            self._store,
            max_listed=max_listed,
            # A listener has requested them.
            explaining=lambda: not self._follows_listener,
            on_list=self._listed,
        )
        self._poller = Poller(self._monitor, ticks or Ticks())
        self._waiting = WaitingTasks()
        self._subscribers = Subscribers(self._bus)
        self._link = ListenerLink(
            feed,
            instance,
            self._poller,
            lambda frame: self._intake.receive(frame),
            lambda: self._intake.forget(),
            grace=grace,
            away=away,
        )
        self._states = JobStates(
            self._monitor,
            self._poller,
            self._store,
            self._waiting,
            self._link,
            lambda reported: self._intake.absorb(reported),
        )
        self._intake = FeedIntake(
            self._monitor, self._link, self._states, self._waiting, self._subscribers, self._reject
        )
        self._catch_up = CatchUp(self._monitor, self._subscribers, self._intake.enrich)
        self._reasons = None if feed is None else FailureReasons(feed, self._store)
        self._receipts = Receipts(lambda: self._link.up, self._link.send_receipts)
        self._progress = ProgressReader(
            system, fresh=0, per_minute=PROGRESS_PER_MINUTE, on_active=self._monitor.watches.confirm
        )
        self._leaving = Turns()
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
            sources += [self._intake.close_gaps, self._intake.run_verifying, self._reasons.run, self._receipts.run]
        for source in sources:
            self._tasks.start_soon(self._run, source)
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        try:
            try:
                if exc_type is None:
                    await self._receipts.close()
            finally:
                self._tasks.cancel_scope.cancel()
                # Without the body's error: a task group would wrap it.
                await self._tasks.__aexit__(None, None, None)
        finally:
            await self._bus.__aexit__(None, None, None)

    async def _run(self, source: Callable[[], Awaitable[None]]) -> None:
        try:
            await supervise(f"the hub of {self.instance}", source, {})
        except BaseException:
            # The hub has ended: release all waiting tasks.
            self._bus.close()
            self._subscribers.close()
            self._states.close()
            raise

    @property
    def waiting(self) -> int:
        """The number of jobs with waiting tasks."""
        return len(self._waiting)

    @property
    def followers(self) -> int:
        """The number of subscribers to completions that have caught up."""
        return self._subscribers.caught_up

    @property
    def _follows_listener(self) -> bool:
        return self._link.up and not self._link.left

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
        task_url: str | None = None,
        waiting_since: datetime | None = None,
    ) -> JobEvent:
        """Wait for a job's completion.

        It subscribes, then reads the job's state, then waits, so no completion is missed. If polling detects a failure,
        it waits up to 2 s for the listener to report the reason.

        Airbyte reuses job ids after its database was restored or recreated. Without connection and start time, the job
        is the one that has the id now: a completion from before the wait is confirmed with Airbyte.

        :param job_id: the job.
        :param connection_id: the job's Airbyte connection, if known.
        :param started_at: when the job was created, if known.
        :param until: the deadline, in seconds since the epoch. The job's status is requested once more then.
        :param task_url: the page of the task that waits: the listener links to it from the job.
        :param waiting_since: when the task began to wait, if it has waited before; the listener shows it.
        :return: the job's terminal event.
        :raises UnknownJob: if Airbyte has no such job, or another one of that number.
        :raises WaitTimeout: if the job has not completed by the deadline.
        :raises HubClosed: if the hub ends before.
        """
        deadline = math.inf if until is None else anyio.current_time() + until - time.time()
        checks = 0
        task = WaitingTask(Identity(connection_id, started_at), task_url)
        self._waiting.add(job_id, task)
        try:
            event: JobEvent | None = None
            while event is None:
                with anyio.CancelScope(deadline=deadline) as task.scope:
                    if checks:
                        # Airbyte's responses contradict each other: back off.
                        await anyio.sleep(pause(checks - 1, first=0.5, least=0))
                    event = await self._completion(job_id, task)
                event = event or await self._last_check(job_id, task, deadline)
                checks += 1
            event = await self.explain(event)
            self.report_receipt(event, waiting_since or task.began, task_url)
            # Hundreds that wake at once would block the event loop.
            await self._leaving.wait()
            return event
        except anyio.EndOfStream as exc:
            raise HubClosed(f"the wait for job {job_id} ended with the hub") from exc
        finally:
            if self._waiting.remove(job_id, task):
                self._states.forget(job_id)

    @contextlib.contextmanager
    def follow(self, wanted: EventFilter, position: Position) -> Iterator[Completions]:
        """Subscribe to completions: ``with hub.follow(wanted, position) as completions: await completions.receive()``.

        It subscribes, then lists the completions since the position, then continues with new ones, and delivers each
        completion once. It ends with the hub, after stored completions are delivered.

        :param wanted: which completions; events that are not terminal are skipped.
        :param position: where to begin. It is modified: pass a copy to keep it.
        """
        with self._subscribers.joined(wanted, position) as completions, self._monitor.watches.followed():
            yield completions

    async def progress(self, job_id: int, *, streams: bool = False, max_age: float = FRESH_SECONDS) -> Progress | None:
        """Return the progress of an active job, by the listener, else by Airbyte; None if neither reports it now.

        It may be from an earlier request, see :attr:`Progress.observed_at`: few are sent to Airbyte, see
        :data:`PROGRESS_PER_MINUTE`.

        :param streams: also request the streams, where Airbyte reports them.
        :param max_age: seconds, the age up to which an earlier response is as good.
        """
        found = await self._link.progress(job_id, streams=streams, max_age=max_age)
        if found is None:
            with charged(self._poller.pace.bucket):
                found = list((await self._progress.read([job_id], streams=streams, max_age=max_age)).values())
        return next((each for each in found if each.job_id == job_id), None)

    async def poll(self) -> None:
        """Poll Airbyte now.

        :raises AirbyteError: if it could not be polled.
        """
        await self._poller.tick()

    async def explain(self, event: JobEvent) -> JobEvent:
        """Return a failure with its reason if it has none yet; any other event unchanged.

        A listener that is up is asked for 2 s, then Airbyte: the listener may be blind. Without a listener, Airbyte was
        asked when the failure was detected.
        """
        if self._reasons is None or not self._follows_listener or not lacks_reason(event):
            return event
        explained = await self._reasons.explain(event)
        return explained if explained.error is not None else await self._monitor.explain(explained)

    def report_receipt(self, event: JobEvent, waiting_since: datetime, task_url: str | None) -> None:
        """Report to the listener, if it is up, that a task receives a completion now.

        :param task_url: the task's page.
        """
        self._receipts.add(event, waiting_since, task_url)

    async def _completion(self, job_id: int, task: WaitingTask) -> JobEvent:
        wanted = EventFilter(instances=self._instances, job_ids=frozenset([job_id]), terminal=True)
        while True:
            with contextlib.suppress(CursorExpired), self._bus.subscribe(wanted=wanted) as events:
                while (event := await self._state(job_id, task)) is None:
                    event = (await events.receive(1))[0]
                    if task.accepts(event):
                        return event
                    # It may be another job's completion: ask Airbyte.
                    self._states.poll(unverified=[job_id])
                return event

    async def _state(self, job_id: int, task: WaitingTask) -> JobEvent | None:
        if self._bus.closed:
            raise anyio.EndOfStream
        await self._states.request([job_id])[0].wait()
        state = await self._states.known(job_id)
        return state if state is not None and task.accepts(state) else None

    async def _last_check(self, job_id: int, task: WaitingTask, deadline: float) -> JobEvent | None:
        """Request the job at the deadline, or when it is reported unknown; return None to continue."""
        reason = f"Airbyte did not report the status of job {job_id} in time"
        cause: AirbyteError | None = None
        url = self._monitor.system.url
        try:
            with anyio.move_on_after(_LAST_CHECK_SECONDS):
                job = (await self._monitor.read([job_id]))[job_id] or await self._find_listed(job_id, task)
                if job is not None:
                    self._confirm(task, event_of(self.instance, job))
                    reason = f"job {job_id} is {job.status.value}"
                elif (state := await self._states.known(job_id)) is None or not task.accepts(state):
                    raise UnknownJob(f"Airbyte at {url} has no job {job_id}")
        except AirbyteError as exc:
            reason, cause = f"job {job_id} had not completed when last seen, and Airbyte does not respond: {exc}", exc
        state = await self._states.known(job_id)
        if state is not None and task.accepts(state):
            return state
        if anyio.current_time() < deadline:
            # A job that was just created may not be known everywhere in Airbyte yet.
            return None
        raise WaitTimeout(reason) from cause

    async def _find_listed(self, job_id: int, task: WaitingTask) -> Job | None:
        """Return the job if Airbyte lists it: some releases return 404 for jobs that exist."""
        state = await self._states.known(job_id)
        connection_id = task.identity.connection_id or (state.connection_id if state is not None else None)
        started_at = task.identity.started_at or (state.started_at if state is not None else None)
        if connection_id is None:
            return None
        since = (started_at or task.began) - LOOKBACK
        async for page in self._monitor.system.list_changed(since=since, connection_id=connection_id):
            if found := [job for job in page.jobs if job.job_id == job_id]:
                await self._monitor.store_jobs(found)
                return found[0]
        return None

    def _confirm(self, task: WaitingTask, state: JobEvent) -> None:
        if not task.identity.fits(state):
            mine = task.identity
            raise UnknownJob(
                f"Airbyte at {self._monitor.system.url} has no job {state.ref.job_id} of connection"
                f" {mine.connection_id} that was created at {format_time(mine.started_at)}: the job with that id is"
                f" of connection {state.connection_id} and was created at {format_time(state.started_at)}. Airbyte"
                " reuses job ids after its database was restored or recreated"
            )
        task.confirm(state)

    def _reject(self, reason: str) -> None:
        """Leave the feed of another Airbyte, forget its states, and ask our Airbyte."""
        self._link.leave(reason)
        self._store.forget_states()
        self._states.request(self._waiting.job_ids)

    async def _recheck(self) -> None:
        """Renew the watches before they expire, and poll now and then while the feed is up."""
        while True:
            await anyio.sleep(self._recheck_every * random.uniform(0.9, 1.1))  # noqa: S311
            if not self._waiting and not self._subscribers:
                continue
            self._states.request(self._waiting.job_ids)
            if self._link.up:
                try:
                    await self.poll()
                except AirbyteError as exc:
                    logger.warning("could not poll Airbyte while the feed is up: %s", exc)

    def _listed(self, served_at: datetime, complete: bool) -> None:
        if complete:
            self._list_served_at = served_at
            self._list_served.set()
        else:
            for each in self._subscribers:
                each.miss()

    async def _bookmark(self) -> None:
        """Deliver a bookmark for each list once the bus has published its events, until cancelled."""
        while True:
            await self._list_served.wait()
            served_at, head = self._list_served_at, await self._store.head()
            await self._bus.reached(head)
            for each in self._subscribers:
                if served_at is not None:
                    each.bookmark(served_at, head)
