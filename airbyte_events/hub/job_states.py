"""Requesting the states of jobs with waiting tasks: from the listener while its feed is up, else from Airbyte."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field

import anyio

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import AirbyteError
from airbyte_events.events import JobEvent, JobRef, same_job
from airbyte_events.hub.listener_link import ListenerLink
from airbyte_events.hub.waiting import WaitingTasks
from airbyte_events.monitor.monitor import BURST, Monitor
from airbyte_events.monitor.poller import Poller
from airbyte_events.monitor.recorder import TOGETHER
from airbyte_events.store.base import EventStore

logger = logging.getLogger(__name__)

_HELLO_SECONDS = 2.0


@dataclass(eq=False, repr=False)
class JobStates:
    """Requests states for all waiting tasks in batches, and watches each job while a task waits for it.

    Airbyte reuses job ids after its database was restored or recreated. A state that may be another job's is
    *unverified*: it is requested from Airbyte.

    :param absorb: stores states that the listener reports; returns those that are unverified.
    """

    monitor: Monitor
    poller: Poller
    store: EventStore
    waiting: WaitingTasks
    link: ListenerLink
    absorb: Callable[[Iterable[JobEvent]], Awaitable[list[JobEvent]]]
    unlisted: set[int] = field(default_factory=set, init=False)
    """Jobs that the listener does not report."""
    _unverified: set[int] = field(default_factory=set, init=False)
    _unwatched: set[int] = field(default_factory=set, init=False)
    """Jobs whose watch the listener did not accept though its feed is open. They are polled until it accepts."""
    _poll_requested: Wakeup = field(default_factory=Wakeup, init=False)
    _requests: dict[int, anyio.Event] = field(default_factory=dict, init=False)
    _requested: Wakeup = field(default_factory=Wakeup, init=False)

    async def known(self, job_id: int) -> JobEvent | None:
        ref = JobRef(self.monitor.instance, job_id)
        return (await self.store.states([ref])).get(ref)

    def request(self, job_ids: Iterable[int]) -> list[anyio.Event]:
        """Request the states of these jobs.

        :return: for each job, an event that is set once Airbyte or the listener was asked.
        """
        self._requested.set()
        return [self._requests.setdefault(job_id, anyio.Event()) for job_id in job_ids]

    def poll(self, job_ids: Iterable[int] = (), *, unverified: Iterable[int] = ()) -> None:
        """Poll Airbyte for jobs: each interval, or until Airbyte has returned those that are unverified."""
        self.unlisted |= self.waiting.job_ids & set(job_ids)
        self._unverified |= self.waiting.job_ids & set(unverified)
        self._poll_requested.set()

    def forget(self, job_id: int) -> None:
        """Stop watching a job: no task waits for it any more."""
        self.unlisted.discard(job_id)
        self._unverified.discard(job_id)
        self._unwatched.discard(job_id)
        self.monitor.watches.forget(job_id)

    def close(self) -> None:
        for asked in self._requests.values():
            asked.set()

    async def run(self) -> None:
        """Process requests in batches until cancelled."""
        while True:
            await self._requested.wait()
            # Once the stream is open, the listener responds: a request to Airbyte is saved.
            with anyio.move_on_after(_HELLO_SECONDS):
                await self.link.tried()
            while self._requests:
                asked = {job_id: self._requests.pop(job_id) for job_id in list(self._requests)[:TOGETHER]}
                try:
                    await self._watch([job_id for job_id in asked if job_id in self.waiting.job_ids])
                finally:
                    for event in asked.values():
                        event.set()

    async def _watch(self, job_ids: list[int]) -> None:
        """Watch jobs at the listener and here; request those from Airbyte that the listener does not report."""
        refs = {JobRef(self.monitor.instance, job_id): self.waiting.identity(job_id) for job_id in job_ids}
        task_urls = {ref: url for ref in refs if (url := self.waiting.task_url(ref.job_id)) is not None}
        answer = await self.link.watch(refs, task_urls)
        unverified: list[JobEvent] = []
        if answer is None and self.link.up:
            # They may have completed before the stream was open: their stored states are not enough.
            self._unwatched |= self.waiting.job_ids & set(job_ids)
            self.poll(job_ids)
        elif answer is not None:
            self._unwatched -= set(job_ids)
            unverified = await self.absorb(answer.states.values())
            self.poll(unverified=[each.ref.job_id for each in unverified])
            # A job that is missing from the response may be known to the listener later, or never.
            self.unlisted -= set(job_ids)
            self.poll(ref.job_id for ref in answer.unknown)
        await self._ask(job_ids)
        # The listener may know more of the same job than Airbyte has just returned.
        await self.store.annotate(unverified)
        mine = await self.store.states([each.ref for each in unverified])
        # A job that the listener does not know yet, it would not watch.
        others = [mine[each.ref] for each in unverified if each.ref in mine and not same_job(mine[each.ref], each)]
        await self.link.report(others)

    async def _ask(self, job_ids: Collection[int], *, again: bool = False) -> None:
        """Watch jobs; request those from Airbyte whose state is unknown or unverified, or all (``again``)."""

        def is_unverified(state: JobEvent) -> bool:
            return (
                again
                or state.ref.job_id in self._unverified
                or not self.waiting.all_fit(state)
                or not self.waiting.all_accept(state)
            )

        known = await self.store.states([JobRef(self.monitor.instance, job_id) for job_id in job_ids])
        unverified = {ref.job_id for ref, state in known.items() if is_unverified(state)}
        states: dict[int, JobEvent | None] = {}
        try:
            states = await self.monitor.watch(job_ids, is_unverified)
        except AirbyteError as exc:
            logger.warning("could not request job states, retrying: jobs=%d: %s", len(job_ids), exc)
        finally:
            for left in set(job_ids) - self.waiting.job_ids:
                self.monitor.watches.forget(left)
        completed = {ref.job_id for ref, state in known.items() if state.terminal}
        unknown = set(job_ids) - {ref.job_id for ref in known}
        for job_id, state in states.items():
            self._unverified.discard(job_id)
            if state is None or job_id in unverified | unknown:
                self._answer(job_id, state, wake=again and job_id in completed)
        # A stored completion that may be another job's is not published again by itself.
        self.poll(unverified=unverified - states.keys())

    def _answer(self, job_id: int, state: JobEvent | None, *, wake: bool) -> None:
        """Confirm the job's waiting tasks with Airbyte's own state, None if Airbyte does not know the job.

        :param wake: whether no waiting task awaits this response.
        """
        for task in self.waiting.of(job_id):
            if state is not None and task.identity.fits(state):
                task.confirm(state)
                if not wake:
                    continue
            # The task requests the job once more, and ends if Airbyte confirms.
            task.scope.cancel()

    async def run_polling(self) -> None:
        """Poll for the jobs that the listener does not report, or whose state is unverified, until cancelled."""
        while True:
            while not self.unlisted and not self._unverified:
                await self._poll_requested.wait()
            await anyio.sleep(self.poller.interval)
            asked = sorted(self._unverified)[:TOGETHER]
            try:
                if self.link.up and len(self.unlisted) >= BURST:
                    await self.poller.tick()
                elif self.link.up:
                    asked += self.unlisted - self._unverified
                await self._ask(asked, again=True)
                self.request(self._unwatched)
            except AirbyteError as exc:
                logger.warning("could not poll for jobs that the listener does not report: %s", exc)
