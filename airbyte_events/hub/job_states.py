"""Finding out the states of jobs that somebody waits for: from the listener while its feed is up, else from Airbyte."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable

import anyio

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import AirbyteError
from airbyte_events.events import JobEvent, JobRef, same_job
from airbyte_events.hub.listener_link import ListenerLink
from airbyte_events.hub.waiting import Waiter, Waiters
from airbyte_events.monitor.monitor import BURST, Monitor
from airbyte_events.monitor.poller import Poller
from airbyte_events.monitor.recorder import TOGETHER
from airbyte_events.store.base import EventStore

logger = logging.getLogger(__name__)

_HELLO_SECONDS = 2.0


class JobStates:
    """Requests states for all who wait, many at a time, and has each job watched until nobody waits for it.

    A number is given again once Airbyte's database was restored or made anew. Where a state may be another job's, it
    is *doubted*, and Airbyte is asked.

    :param waiters: who waits.
    :param absorb: takes over states that the listener reports; returns those that are doubted.
    """

    def __init__(
        self,
        monitor: Monitor,
        poller: Poller,
        store: EventStore,
        waiters: Waiters,
        link: ListenerLink,
        absorb: Callable[[Iterable[JobEvent]], Awaitable[list[JobEvent]]],
    ) -> None:
        self._monitor = monitor
        self._poller = poller
        self._store = store
        self._waiters = waiters
        self._link = link
        self._absorb = absorb
        self.unlisted: set[int] = set()
        """Jobs that the listener can't report."""
        self._doubted: set[int] = set()
        self._unconfirmed = Wakeup()
        self._requests: dict[int, anyio.Event] = {}
        self._requested = Wakeup()

    async def known(self, job_id: int) -> JobEvent | None:
        """Return the job's state, as far as it is known here."""
        ref = JobRef(self._monitor.instance, job_id)
        return (await self._store.states([ref])).get(ref)

    def request(self, job_ids: Iterable[int]) -> list[anyio.Event]:
        """Request the states of these jobs, together with all that are requested already.

        :return: for each, what is set once its state was asked for.
        """
        self._requested.set()
        return [self._requests.setdefault(job_id, anyio.Event()) for job_id in job_ids]

    def poll(self, job_ids: Iterable[int] = (), *, doubted: Iterable[int] = ()) -> None:
        """Have Airbyte asked for jobs: at the poll interval, or until it has reported those that are doubted."""
        self.unlisted |= self._waiters.job_ids & set(job_ids)
        self._doubted |= self._waiters.job_ids & set(doubted)
        self._unconfirmed.set()

    def forget(self, job_id: int) -> None:
        """Nobody waits for the job any more."""
        self.unlisted.discard(job_id)
        self._doubted.discard(job_id)
        self._monitor.watches.forget(job_id)

    def close(self) -> None:
        """Release all who wait for a request."""
        for asked in self._requests.values():
            asked.set()

    async def run(self) -> None:
        """Answer the requests that came while the last ones were answered together, until cancelled."""
        while True:
            await self._requested.wait()
            # A stream that is about to be joined saves asking twice.
            with anyio.move_on_after(_HELLO_SECONDS):
                await self._link.tried()
            while self._requests:
                asked = {job_id: self._requests.pop(job_id) for job_id in list(self._requests)[:TOGETHER]}
                try:
                    await self._watch([job_id for job_id in asked if job_id in self._waiters.job_ids])
                finally:
                    for event in asked.values():
                        event.set()

    async def _watch(self, job_ids: list[int]) -> None:
        """Watch jobs at the listener and here: what it can't report is asked of Airbyte."""
        refs = {JobRef(self._monitor.instance, job_id): self._waiters.identity(job_id) for job_id in job_ids}
        answer = await self._link.watch(refs)
        doubted: list[JobEvent] = []
        if answer is not None:
            doubted = await self._absorb(answer.states.values())
            self.poll(doubted=[each.ref.job_id for each in doubted])
            # An answer without a job says nothing of it: the listener may get to know it later, or never.
            self.unlisted -= set(job_ids)
            self.poll(ref.job_id for ref in answer.unknown)
        await self._ask(job_ids)
        # Of the same job, the listener may know more than Airbyte has just reported.
        await self._store.annotate(doubted)
        mine = await self._store.states([each.ref for each in doubted])
        # Another one it does not know yet, and would not watch.
        others = [mine[each.ref] for each in doubted if each.ref in mine and not same_job(mine[each.ref], each)]
        await self._link.report(others)

    async def _ask(self, job_ids: Collection[int], *, again: bool = False) -> None:
        """Watch jobs: Airbyte is asked for those of which nothing is known, or perhaps another job's state.

        :param again: ask for all of them.
        """

        def doubt(state: JobEvent) -> bool:
            return (
                again
                or state.ref.job_id in self._doubted
                or not self._waiters.fit(state)
                or not self._waiters.settle(state)
            )

        known = await self._store.states([JobRef(self._monitor.instance, job_id) for job_id in job_ids])
        doubted = {ref.job_id for ref, state in known.items() if doubt(state)}
        states: dict[int, JobEvent | None] = {}
        try:
            states = await self._monitor.watch(job_ids, doubt)
        except AirbyteError as exc:
            logger.warning("could not ask for job states, trying again: jobs=%d: %s", len(job_ids), exc)
        finally:
            for left in set(job_ids) - self._waiters.job_ids:
                self._monitor.watches.forget(left)
        completed = {ref.job_id for ref, state in known.items() if state.terminal}
        unknown = set(job_ids) - {ref.job_id for ref in known}
        for job_id, state in states.items():
            self._doubted.discard(job_id)
            if state is None or job_id in doubted | unknown:
                self._answer(job_id, state, wake=again and job_id in completed)
        # A completion that is known, and may be another job's, does not come again by itself.
        self.poll(doubted=doubted - states.keys())

    def _answer(self, job_id: int, state: JobEvent | None, *, wake: bool) -> None:
        """Take over what Airbyte itself has reported of a job; None if it does not know it.

        :param wake: nobody waits for this answer.
        """
        waiter: Waiter
        for waiter in self._waiters.of(job_id):
            if state is not None and waiter.identity.fits(state):
                waiter.confirm(state)
                if not wake:
                    continue
            # It asks once more, and gives up if it is so.
            waiter.scope.cancel()

    async def run_polling(self) -> None:
        """Poll for those jobs alone that the listener can't report, or whose state is doubted, until cancelled."""
        while True:
            while not self.unlisted and not self._doubted:
                await self._unconfirmed.wait()
            await anyio.sleep(self._poller.interval)
            asked = sorted(self._doubted)[:TOGETHER]
            try:
                if self._link.up and len(self.unlisted) >= BURST:
                    await self._poller.tick()
                elif self._link.up:
                    asked += self.unlisted - self._doubted
                await self._ask(asked, again=True)
            except AirbyteError as exc:
                logger.warning("could not poll for jobs that the listener does not report: %s", exc)
