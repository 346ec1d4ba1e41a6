"""The pipeline of one Airbyte instance: inbox and poller feed the monitor, on the listener that leads the instance."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

import anyio
from structlog.contextvars import bound_contextvars

from airbyte_events._utils.times import utcnow
from airbyte_events.errors import AirbyteError, LeaseLost, StoreError
from airbyte_events.events import Identity, JobEvent, JobRef, TaskReceipt
from airbyte_events.jobs import JobSystem
from airbyte_events.listener.inbox import Inbox
from airbyte_events.monitor.monitor import Monitor, polled_at
from airbyte_events.monitor.poller import Poller, Ticks
from airbyte_events.monitor.progress import ProgressReader
from airbyte_events.monitor.watchlist import WATCH_SECONDS
from airbyte_events.store.base import EventStore
from airbyte_events.store.records import Lease

logger = logging.getLogger(__name__)

RECOUNT_SECONDS = 60.0
"""The time between two reads of the watched jobs when no notice of a change arrives."""

MAX_POLLED_JOBS = 100_000
"""Changed jobs that one poll processes, watched or not: DAGs can run on every completion. A large Airbyte has some
ten thousand a day."""

FAILING_SECONDS = 15.0
FAILED_POLLS = 3
"""Another listener should try after this time without a response, or after this many failed polls."""

_REST_SECONDS = 0.2
_RETRY_SECONDS = 1.0


class ReceivedBy(NamedTuple):
    """A task's receipt, and which job it means."""

    identity: Identity
    receipt: TaskReceipt


class Pipeline:
    """Turn webhooks and polls of one instance into events."""

    def __init__(self, instance: str, airbyte: JobSystem, store: EventStore, ticks: Ticks | None = None) -> None:
        self.instance = instance
        self.airbyte = airbyte
        # Every listener reads unknown jobs on demand; only the leader sets where the next poll starts.
        self._on_demand = Monitor(instance, airbyte, store, marking=False, naming=True)
        self.counters = self._on_demand.counters
        self.generations = self._on_demand.generations
        self.monitor: Monitor | None = None
        """The state of the instance; None unless this listener leads it."""
        self.poller: Poller | None = None
        """None unless this listener leads the instance."""
        self.progress = ProgressReader(airbyte, on_active=self._confirm)
        """The progress of the instance's jobs, on every listener."""
        self._store = store
        self._ticks = ticks

    async def watch(self, jobs: Mapping[int, Identity]) -> dict[int, JobEvent | None]:
        """Watch jobs from now on and return their states.

        A job is requested only if it is unknown here, or known as another job with the same id.

        :return: None for a job that Airbyte does not have. A job that could not be read is left out.
        :raises AirbyteError: if no job could be read. They are watched all the same.
        """
        states: dict[int, JobEvent | None] = {}
        try:
            with bound_contextvars(instance=self.instance):
                states = await self._on_demand.states(jobs, lambda state: not jobs[state.ref.job_id].fits(state))
        finally:
            finished = {job_id for job_id, state in states.items() if state is None or state.terminal}
            refs = [JobRef(self.instance, job_id) for job_id in jobs if job_id not in finished]
            # Only now is it known which of them can still change.
            if refs:
                await self._store.watch(refs, WATCH_SECONDS)
        return states

    async def link(
        self, states: Mapping[int, JobEvent | None], jobs: Mapping[int, Identity], task_urls: Mapping[int, str]
    ) -> None:
        """Store the pages of the tasks that wait for these jobs, where none is stored yet.

        A failure is logged: nothing depends on a link.

        :param jobs: which jobs the tasks mean.
        """
        linked = [
            replace(state, task_url=task_urls[job_id])
            for job_id, state in states.items()
            if state is not None and state.task_url is None and job_id in task_urls and jobs[job_id].fits(state)
        ]
        try:
            if linked:
                await self._store.annotate(linked)
        except StoreError as exc:
            logger.warning("could not store links to tasks: instance=%s jobs=%d: %s", self.instance, len(linked), exc)

    async def receive(self, reported: Sequence[tuple[JobRef, ReceivedBy]]) -> list[tuple[JobEvent, TaskReceipt]]:
        """Store which tasks have received completions; those of jobs that have not completed here are ignored.

        :return: the stored receipts with their jobs' states.
        """
        states = await self._store.states({ref for ref, _ in reported})
        received = [
            (state, receipt)
            for ref, (identity, receipt) in reported
            if (state := states.get(ref)) is not None and state.terminal and identity.fits(state)
        ]
        # A task that could not give its page when it began to wait.
        await self._store.annotate(
            [
                replace(each, task_url=each.task_url or receipt.task_url, receipts=(receipt,))
                for each, receipt in received
            ]
        )
        return received

    async def as_of(self) -> datetime | None:
        """Return when the last successful poll was served, by Airbyte's clock: all earlier changes are stored."""
        return await polled_at(self._store, self.instance)

    def view(self, seconds: float) -> None:
        """Poll more often for so many seconds, if this listener leads the instance: a client reads its jobs."""
        if self.monitor is not None:
            self.monitor.watches.view(seconds)

    def _confirm(self, job_id: int) -> None:
        if self.monitor is not None:
            self.monitor.watches.confirm(job_id)

    @property
    def failing(self) -> bool:
        """Whether Airbyte can't be reached from here."""
        failed_polls = 0 if self.poller is None else self.poller.failures
        return self.airbyte.failing_for >= FAILING_SECONDS or failed_polls >= FAILED_POLLS

    async def recovered(self) -> bool:
        try:
            async for _ in self.airbyte.list_changed(since=utcnow()):
                break
        except AirbyteError:
            return False
        return True

    async def run(self, lease: Lease) -> None:
        """Confirm notifications and poll until cancelled. Return if the lease turns out to be lost."""
        monitor = self.monitor = Monitor(
            self.instance,
            self.airbyte,
            self._store,
            lease=lease,
            beside=self._on_demand,
            max_listed=MAX_POLLED_JOBS,
            naming=True,
        )
        watches_read = anyio.Event()

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._follow_watches, monitor, watches_read)
                tasks.start_soon(Inbox(monitor, self._store).run)
                # The first poll reaches back to the time at which the first job was watched.
                await watches_read.wait()
                self.poller = Poller(monitor, self._ticks or Ticks())
                tasks.start_soon(monitor.late_reasons.run)
                tasks.start_soon(self.poller.run)
        except* LeaseLost as lost:
            error = lost.exceptions[0]
            logger.warning("lease lost, stopping the pipeline: instance=%s error=%s", self.instance, error)
        finally:
            self.monitor = self.poller = None

    async def _follow_watches(self, monitor: Monitor, watches_read: anyio.Event) -> None:
        """Keep the watched jobs of all listeners up to date."""
        with self._store.news(f"watches/{self.instance}") as wakeup:
            while True:
                began = anyio.current_time()
                try:
                    await self._take_watches(monitor)
                    watches_read.set()
                except StoreError as exc:
                    logger.warning("could not read watched jobs, retrying: instance=%s error=%s", self.instance, exc)
                # With thousands of watches, one more must not cause a read of all.
                await anyio.sleep(max(_REST_SECONDS, 10 * (anyio.current_time() - began)))
                with anyio.move_on_after(RECOUNT_SECONDS if watches_read.is_set() else _RETRY_SECONDS):
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
        watches.update(states.values(), polled=False)
        watches.settle(fresh, {ref.job_id for ref in states} - unread)
