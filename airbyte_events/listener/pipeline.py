"""What brings one instance's events: its inbox and its poller, for whichever listener holds the lease."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import anyio
from anyio.abc import TaskGroup
from structlog.contextvars import bound_contextvars

from airbyte_events._utils.times import utcnow
from airbyte_events.errors import AirbyteError, LeaseLost, StoreError
from airbyte_events.events import Identity, JobEvent, JobRef
from airbyte_events.jobs import JobSystem
from airbyte_events.listener.inbox import Inbox
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.monitor.poller import Poller, Ticks
from airbyte_events.monitor.watchlist import WATCH_SECONDS
from airbyte_events.store.base import EventStore
from airbyte_events.store.records import Lease

logger = logging.getLogger(__name__)

RECOUNT_SECONDS = 60.0
"""So often it is looked up which jobs are watched, though nothing says that they are others."""

LARGEST_LOOK = 100_000
"""Jobs that a look takes in. Others than those that are watched are waited for, too: by DAGs that every end runs. A day
of a large Airbyte is some ten thousand."""

FAILING_SECONDS = 15.0
FAILED_TICKS = 3
"""After so long without an answer, or so many looks that failed otherwise, another listener had better try."""

_REST_SECONDS = 0.2
_RETRY_SECONDS = 1.0


class Pipeline:
    """One instance's pipelines.

    :param instance: its name.
    :param airbyte: its API.
    :param store: where its events go.
    :param ticks: how often to poll.
    """

    def __init__(self, instance: str, airbyte: JobSystem, store: EventStore, ticks: Ticks | None = None) -> None:
        self.instance = instance
        self.airbyte = airbyte
        # Any listener asks for jobs of which nothing is known. Where the next look begins is the holder's to say.
        self._asking = Monitor(instance, airbyte, store, marking=False)
        self.counters = self._asking.counters
        self.generations = self._asking.generations
        self.monitor: Monitor | None = None
        """What is known here of the instance while the lease is held."""
        self.poller: Poller | None = None
        """What looks at it meanwhile."""
        self._store = store
        self._ticks = ticks

    async def watch(self, jobs: Mapping[int, Identity]) -> dict[int, JobEvent | None]:
        """Have these jobs watched from now on, by whoever polls, and return their states.

        Asks Airbyte only for those of which nothing is known, or another job of that number.

        :return: None for a job that Airbyte does not know. One that could not be asked for is left out.
        :raises AirbyteError: if none could be asked for. The jobs are watched all the same.
        """
        told: dict[int, JobEvent | None] = {}
        try:
            with bound_contextvars(instance=self.instance):
                told = await self._asking.tell(jobs, lambda state: not jobs[state.ref.job_id].fits(state))
        finally:
            over = {job_id for job_id, state in told.items() if state is None or state.terminal}
            refs = [JobRef(self.instance, job_id) for job_id in jobs if job_id not in over]
            # Afterwards: only now is it known which of them are worth a look.
            if refs:
                await self._store.watch(refs, WATCH_SECONDS)
        return told

    @property
    def failing(self) -> bool:
        """Whether Airbyte can't be asked from here."""
        looks = 0 if self.poller is None else self.poller.failures
        return self.airbyte.failing_for >= FAILING_SECONDS or looks >= FAILED_TICKS

    async def recovered(self) -> bool:
        """Whether Airbyte lists jobs now."""
        try:
            async for _ in self.airbyte.list_changed(since=utcnow()):
                break
        except AirbyteError:
            return False
        return True

    async def run(self, lease: Lease) -> None:
        """Confirm what webhooks tell, and poll, until cancelled. Returns when it turns out that the lease is lost."""
        monitor = self.monitor = Monitor(
            self.instance,
            self.airbyte,
            self._store,
            lease=lease,
            beside=self._asking,
            largest_look=LARGEST_LOOK,
        )
        known = anyio.Event()

        async def until_lost(source: Callable[[], Awaitable[None]], tasks: TaskGroup) -> None:
            try:
                await source()
            except LeaseLost as exc:
                logger.warning("%s: %s", self.instance, exc)
                tasks.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._follow_watches, monitor, known)
                tasks.start_soon(until_lost, Inbox(monitor, self._store).run, tasks)
                # The first look of all reaches back to when the first of them was watched.
                await known.wait()
                self.poller = Poller(monitor, self._ticks)
                tasks.start_soon(until_lost, self.poller.run, tasks)
        finally:
            self.monitor = self.poller = None

    async def _follow_watches(self, monitor: Monitor, known: anyio.Event) -> None:
        """Keep to what all listeners were asked to watch."""
        with self._store.news(f"watches/{self.instance}") as wakeup:
            while True:
                began = anyio.current_time()
                try:
                    await self._take_watches(monitor)
                    known.set()
                except StoreError as exc:
                    logger.warning("which jobs of %s are watched is not known: %s", self.instance, exc)
                # Thousands of them are not read again for each that comes.
                await anyio.sleep(max(_REST_SECONDS, 10 * (anyio.current_time() - began)))
                with anyio.move_on_after(RECOUNT_SECONDS if known.is_set() else _RETRY_SECONDS):
                    await wakeup.wait()

    async def _take_watches(self, monitor: Monitor) -> None:
        watches = monitor.watches
        watched = await self._store.watched(self.instance)
        fresh = watched.keys() - watches.elsewhere
        states: dict[JobRef, JobEvent] = {}
        unread: set[int] = set()
        if fresh:
            states = await self._store.states([JobRef(self.instance, job_id) for job_id in fresh])
            cut_at = await monitor.cut_at()
            unread = {job_id for job_id in fresh if cut_at is not None and watched[job_id] < cut_at}
        watches.follow(watched)
        watches.see(states.values(), asked=False)
        watches.settle(fresh, {ref.job_id for ref in states} - unread)
