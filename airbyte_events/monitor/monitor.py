"""Keeping a store true to one Airbyte instance: asks the API, reconciles its responses, writes events.

Only what the API said becomes an event. A notification is a reason to ask; what it alone knows (why a job failed, how
many records were committed) is added when the API agrees with it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import anyio

from airbyte_events._utils.json_values import instant
from airbyte_events._utils.priority_limiter import PriorityLimiter
from airbyte_events._utils.times import format_time, utcnow
from airbyte_events._utils.token_bucket import TokenBucket, charged
from airbyte_events.errors import AirbyteError, StoreError
from airbyte_events.events import PUSHED_JOB_TYPES, JobEvent, JobRef, Origin
from airbyte_events.jobs import Job, JobSystem
from airbyte_events.monitor.observation import (
    Confirmation,
    Received,
)
from airbyte_events.monitor.recorder import TOGETHER, MonitorStore, Recorder
from airbyte_events.monitor.watchlist import Watches
from airbyte_events.store.records import Lease

logger = logging.getLogger(__name__)

BURST = 4
"""From so many jobs on, one list of changed jobs replaces a request for each."""

OVERLAP = timedelta(seconds=30)
"""How far a list reaches back behind the one before: more than Airbyte's web server and database differ by."""

LOOKBACK = timedelta(minutes=10)
"""How far the first list reaches back, at least: to when the first of the watched jobs was watched."""

MAX_LISTED = 5_000
"""Jobs that one list of a triggerer's stores. After an absence in which more have changed, those that are watched are
read."""

ASKED_AT_ONCE = 100
ASKED_PER_SECOND = 10.0
"""HTTP requests to Airbyte that webhooks cause: a sender who knows their URL could name any number of jobs."""

NAMELESS_PAGES = 10
"""Pages that are listed for webhooks which name no job, at most."""

FAILURES = 8
"""When so many reads of jobs have failed, and none has succeeded, the rest is left to the next time: meanwhile lists
and webhooks wait."""

AGAIN_SECONDS = 0.5
"""After so long Airbyte is asked once more for a job that it did not know and that somebody waits for."""

_SECOND = timedelta(seconds=1)  # webhooks have whole seconds

_CONCURRENT_READS = 4  # Airbyte serves five requests of the public API at a time: one is left to others

_PRIORITIES = {Origin.WEBHOOK: 0, Origin.POLL: 1, Origin.SUBMIT: 2}
"""Which reads go first: jobs that Airbyte has just announced before those that somebody begins to wait for."""


Doubt = Callable[[JobEvent], bool]


class Monitor:
    """Keeps a store true to one Airbyte instance.

    :param instance: its name.
    :param system: its API.
    :param store: where its events go.
    :param max_listed: see :data:`MAX_LISTED`.
    :param lease: where several listeners share the store: what is written after this has passed on is refused.
    :param marking: whether its lists decide where the next one begins. One monitor of an instance does, at a time.
    :param beside: another monitor of the instance, to share counters and limits with.
    :param on_list: called once a list of changed jobs was stored, with when it was served, by Airbyte's clock, and
        whether it had all that had changed.
    """

    def __init__(
        self,
        instance: str,
        system: JobSystem,
        store: MonitorStore,
        *,
        max_listed: int = MAX_LISTED,
        lease: Lease | None = None,
        marking: bool = True,
        beside: Monitor | None = None,
        on_list: Callable[[datetime, bool], object] = lambda served_at, complete: None,
    ) -> None:
        self.instance = instance
        self.system = system
        self.request_bucket: TokenBucket = (
            TokenBucket(rate=ASKED_PER_SECOND, burst=ASKED_AT_ONCE) if beside is None else beside.request_bucket
        )
        """For requests that webhooks cause."""
        self.watches = Watches()
        before = None if beside is None else beside._recorder
        self._recorder: Recorder = Recorder(instance, system, store, self.watches, lease, before)
        self.counters = self._recorder.counters
        self.generations = self._recorder.generations
        self._lease = lease
        self._on_list = on_list
        self._marking = marking
        self._store = store
        self._max_listed = max_listed
        self._looking = anyio.Lock()
        self._reading: PriorityLimiter = PriorityLimiter(_CONCURRENT_READS) if beside is None else beside._reading

    @property
    def push_proven(self) -> bool:
        """Whether webhooks announced the last syncs before polling found them completed."""
        return self._recorder.push_proven

    async def watch(self, job_ids: Collection[int], doubt: Doubt | None = None) -> dict[int, JobEvent | None]:
        """Watch these jobs from now on, and return their states: None for one that Airbyte does not know.

        Asks Airbyte only for those of which nothing is known, or what is known may be another job's.

        :param doubt: whether a known state may be another job's, beside what is known from before the numbers began
            anew.
        :return: one that could not be asked for is left out.
        :raises AirbyteError: if none could be asked for. The jobs are watched all the same.
        """
        fresh = self.watches.add(job_ids)
        states: dict[int, JobEvent | None] = {}
        try:
            known = await self._known(job_ids, doubt)
            self.watches.see(known.values(), asked=False)
            states.update(known)
            states |= await self._confirm_beside(states, [job_id for job_id in job_ids if job_id not in states])
        finally:
            self.watches.settle(fresh, states.keys())
        return states

    async def states(self, job_ids: Collection[int], doubt: Doubt | None = None) -> dict[int, JobEvent | None]:
        """Return the states of these jobs, as :meth:`watch` does, without watching them."""
        states: dict[int, JobEvent | None] = {**await self._known(job_ids, doubt)}
        return states | await self._confirm_beside(states, [job_id for job_id in job_ids if job_id not in states])

    async def _known(self, job_ids: Collection[int], doubt: Doubt | None) -> dict[int, JobEvent]:
        known = await self._store.states([JobRef(self.instance, job_id) for job_id in job_ids])
        outdated = await self.generations.outdated(known.values())
        return {
            ref.job_id: state
            for ref, state in known.items()
            if ref.job_id not in outdated and not (doubt is not None and doubt(state))
        }

    async def _confirm_beside(self, states: Collection[int], job_ids: Collection[int]) -> dict[int, JobEvent | None]:
        try:
            found = await self.confirm(job_ids, Origin.SUBMIT)
            unknown = [job_id for job_id, state in found.items() if state is None][:TOGETHER]
            if unknown:
                # One such answer is no verdict: it also comes of a database that is behind, or of rights in a cache.
                await anyio.sleep(AGAIN_SECONDS)
                found |= await self.confirm(unknown, Origin.SUBMIT)
            return found
        except AirbyteError as exc:
            if not states:
                raise
            logger.warning(
                "could not ask for job states, trying again: instance=%s jobs=%d: %s", self.instance, len(job_ids), exc
            )
            return {}

    async def confirm(
        self,
        job_ids: Collection[int],
        origin: Origin,
        notifications: Mapping[int, Sequence[Received]] | None = None,
    ) -> dict[int, JobEvent | None]:
        """Ask the API about these jobs now, many of them by one list.

        Requests for webhooks are charged to :attr:`request_bucket`. Beyond it, jobs that a list leaves out count as
        unknown.

        :return: their states; None for one that Airbyte does not know. One that could not be asked for is left out.
        :raises AirbyteError: if none could be asked for.
        """
        told = notifications if isinstance(notifications, Confirmation) else Confirmation(notifications)
        told.wanted = frozenset(job_ids)
        origins = dict.fromkeys(job_ids, origin)
        if origin is not Origin.WEBHOOK:
            return await self._confirm(origins, told, bounded=False)
        with charged(self.request_bucket):
            return await self._confirm(origins, told, bounded=True)

    async def _confirm(
        self, origins: Mapping[int, Origin], told: Confirmation, *, bounded: bool
    ) -> dict[int, JobEvent | None]:
        missing = set(origins)
        listed = False
        if len(missing) >= BURST or (bounded and self.request_bucket.left < len(missing)):
            # A page for every BURST jobs at most: reading these jobs alone would cost little more.
            pages = max(1, min(len(missing) // BURST, self.request_bucket.left)) if bounded else None
            try:
                missing -= await self._list_for(origins, told, pages)
                listed = True
            except AirbyteError as exc:
                # Each job is asked for alone: some releases can't list, and what is down is down for that too.
                logger.info(
                    "could not list jobs, reading them one by one: instance=%s jobs=%d: %s",
                    self.instance,
                    len(missing),
                    exc,
                )
        # By chance: a flood does not decide which are not asked for.
        asked = set(random.sample(sorted(missing), min(len(missing), self.request_bucket.left))) if bounded else missing
        unknown = missing - asked if listed else set()
        try:
            answers = await self.read(asked, origins, told)
        except AirbyteError:
            if len(missing) == len(origins):
                raise
            # The list had the others.
            answers = {}
        found: dict[int, JobEvent | None] = dict.fromkeys(unknown)
        gone = {job_id for job_id, job in answers.items() if job is None}
        found |= dict.fromkeys(gone)
        left_out = missing - set(answers) - unknown
        if not bounded:
            # What is known of the number is not its job's any more, if it ever was.
            left_out |= gone
        states = told.states
        if unread := origins.keys() - states.keys() - left_out:
            stored = await self._store.states([JobRef(self.instance, job_id) for job_id in unread])
            states = states | {ref.job_id: state for ref, state in stored.items()}
        return found | {job_id: state for job_id, state in states.items() if job_id not in left_out}

    async def poll(self, origins: Mapping[int, Origin] | None = None) -> set[int]:
        """List every job that changed since the last list, and store them.

        :param origins: why jobs are asked for, where it is not for polling's sake.
        :return: the ids of the jobs that the API listed.
        :raises AirbyteError: if the API can't list jobs.
        """
        async with self._looking:
            started, cut = utcnow(), self.counters.cut
            since = await self._begin(started)
            why = origins or {}, Confirmation()
            found, served_at = await self._store_changed(since, started, *why)
            if served_at < since:
                # This clock is far ahead of Airbyte's, which is the one that counts, or Airbyte's was put back.
                since = served_at - max(LOOKBACK, started - since)
                found, served_at = await self._store_changed(since, served_at, *why)
            if self._marking:
                await self._remember("looked_at", served_at)
            self._on_list(served_at, self.counters.cut == cut)
            return found

    async def poll_for_webhooks(self) -> None:
        """List what webhooks announced that name no job: :data:`NAMELESS_PAGES`, the rest is left to polling.

        :raises AirbyteError: if the API can't list jobs.
        """
        with charged(self.request_bucket):
            now = utcnow()
            pages = max(1, min(NAMELESS_PAGES, self.request_bucket.left))
            await self._store_changed(await self._begin(now), now, {}, Confirmation(), pages)

    async def _begin(self, now: datetime) -> datetime:
        """Return where a list begins: what changed before is stored."""
        mark = instant(await self._store.recall(f"looked_at/{self.instance}"))
        return (mark or await self._first_mark(now)) - OVERLAP

    async def _first_mark(self, started: datetime) -> datetime:
        """Return where the first list begins: it stays while lists fail."""
        began = instant(await self._store.recall(f"looking_since/{self.instance}"))
        if began is None:
            began = started - LOOKBACK + OVERLAP
            if self._marking:
                await self._remember("looking_since", began)
        return min(began, self.watches.began() or started)

    async def cut_at(self) -> datetime | None:
        """Return when a list last left out changed jobs: any that was watched before may have completed."""
        return instant(await self._store.recall(f"cut_at/{self.instance}"))

    async def _remember(self, what: str, moment: datetime) -> None:
        await self._store.remember(f"{what}/{self.instance}", format_time(moment) or "", lease=self._lease)

    async def _list_for(
        self, origins: Mapping[int, Origin], notifications: Confirmation, pages: int | None
    ) -> set[int]:
        """List changed jobs for these; where webhooks report when each completed, since the first of these times.

        :param pages: how many may be listed; None for as many as there are.
        """
        if pages is None:
            return await self.poll(origins)
        now = utcnow()
        since = await self._begin(now)
        times = [[each.notification.finished_at for each in notifications.get(job_id, ())] for job_id in origins]
        known = [min(some) for each in times if (some := [time for time in each if time is not None])]
        # A forged time of years ago would have all jobs listed.
        if known and len(known) == len(origins):
            since = max(since, min(known)) - _SECOND
        # Jobs that this leaves out are read alone, or found by the next poll: where that begins is not changed.
        found, _ = await self._store_changed(since, now, origins, notifications, pages)
        return found

    async def _store_changed(
        self,
        since: datetime,
        started: datetime,
        origins: Mapping[int, Origin],
        notifications: Confirmation,
        pages: int | None = None,
    ) -> tuple[set[int], datetime]:
        """Store the jobs that changed since, page by page: a page is stored though the next one fails.

        :param pages: how many to list at most; None for as many as there are, up to the limit.
        """
        found: set[int] = set()
        served_at: datetime | None = None
        # Webhooks announce no other jobs.
        job_types = PUSHED_JOB_TYPES if pages is not None else ()
        async for page in self.system.list_changed(since=since, job_types=job_types):
            served_at = served_at or page.served_at or started
            await self._recorder.record(page.jobs, origins, notifications)
            found |= {job.job_id for job in page.jobs}
            if pages is not None:
                pages -= 1
                if not pages:
                    break
            elif len(found) >= self._max_listed:
                logger.warning(
                    "too many changed jobs, the list was cut: instance=%s jobs=%d since=%s",
                    self.instance,
                    len(found),
                    since,
                )
                self.watches.unsee()
                self.counters.cut += 1
                if self._marking:
                    # Before the mark: a process that goes on from there has to read them.
                    await self._remember("cut_at", utcnow())
                break
        self.counters.looks += 1
        return found, served_at or started

    async def read(
        self,
        job_ids: Iterable[int],
        origins: Mapping[int, Origin] | None = None,
        notifications: Confirmation | None = None,
    ) -> dict[int, Job | None]:
        """Request these jobs one by one, a few at a time, and each once, in any order.

        :return: None for a job that Airbyte does not know. A job that could not be asked for is left out, and so are
            those that are left when the first :data:`FAILURES` of all have failed.
        :raises AirbyteError: if none could be asked for.
        :raises StoreError: if a job could not be stored.
        """
        answers: dict[int, Job | None] = {}
        failures: list[AirbyteError] = []
        why = origins or {}
        confirmation = Confirmation() if notifications is None else notifications
        unabsorbed: list[Job] = []
        absorbing = anyio.Lock()
        faults: list[StoreError] = []

        async def read_one(job_id: int) -> None:
            async with self._reading.place(_PRIORITIES[why.get(job_id, Origin.POLL)]):
                self.counters.reads += 1
                self.watches.ask(job_id)
                try:
                    job = answers[job_id] = await self.system.find_job(job_id, once=True)
                except AirbyteError as exc:
                    failures.append(exc)
                    if len(failures) >= FAILURES and not answers:
                        tasks.cancel_scope.cancel()
                    return
            if job is None:
                self.watches.miss(job_id)
                return
            unabsorbed.append(job)
            # All that came during one transaction is the next one: a slow response holds up no other.
            async with absorbing:
                batch, unabsorbed[:] = unabsorbed[:], []
                try:
                    await self._recorder.record(batch, why, confirmation)
                except StoreError as exc:
                    faults.append(exc)
                    tasks.cancel_scope.cancel()

        # In any order, so that one job that Airbyte fails over is not always the one that the others wait for.
        wanted = list(set(job_ids))
        random.shuffle(wanted)
        async with anyio.create_task_group() as tasks:
            for job_id in wanted:
                tasks.start_soon(read_one, job_id)
        if faults:
            raise faults[0]
        if failures and not answers:
            raise failures[0]
        return answers

    async def absorb(self, states: Sequence[JobEvent]) -> None:
        """Store states that a listener has confirmed."""
        await self._recorder.absorb(states)

    async def store_jobs(self, jobs: Collection[Job]) -> list[JobEvent]:
        """Store jobs that the API returned to another caller, and return their states."""
        confirmation = Confirmation(wanted=[job.job_id for job in jobs])
        await self._recorder.record(jobs, {}, confirmation)
        return list(confirmation.states.values())
