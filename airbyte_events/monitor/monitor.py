"""What is known of one Airbyte instance's jobs: asks the API, reconciles the answers, writes events.

Only what the API said becomes an event. A notification is a reason to ask; what it alone knows (why a job failed, how
many records were committed) is added when the API agrees with it.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import anyio

from airbyte_events._utils.json_values import instant
from airbyte_events._utils.priority_limiter import PriorityLimiter
from airbyte_events._utils.times import format_time, utcnow
from airbyte_events._utils.token_bucket import TokenBucket, charged
from airbyte_events.errors import AirbyteError, StoreError
from airbyte_events.events import PUSHED_JOB_TYPES, JobEvent, JobRef, JobStatus, Origin
from airbyte_events.jobs import Job, JobSystem
from airbyte_events.monitor.generations import Generations
from airbyte_events.monitor.observation import (
    PRECISION,
    Confirmation,
    Received,
    Witnesses,
    announceable,
    event_of,
    is_news,
)
from airbyte_events.monitor.watchlist import Watches
from airbyte_events.store.base import EventLog, NotificationInbox, ValueTable
from airbyte_events.store.reconcile import NEWS, Verdict, reconcile
from airbyte_events.store.records import Appended, Lease, Settle, States

logger = logging.getLogger(__name__)

BURST = 4
"""From so many jobs on, one look at the instance replaces a request for each."""

OVERLAP = timedelta(seconds=30)
"""How far a look reaches back behind the one before: more than Airbyte's web server and database differ by."""

LOOKBACK = timedelta(minutes=10)
"""How far the first look of all reaches back, at least: to when the first of the watched jobs was watched."""

TOGETHER = 100
"""Jobs that are taken in at a time: a thousand in one go would stall a triggerer's event loop."""

LARGEST_LOOK = 5_000
"""Jobs that one look of a triggerer's takes in. After an absence in which more have changed, those that are watched are
read."""

ASKED_AT_ONCE = 100
ASKED_PER_SECOND = 10.0
"""HTTP requests to Airbyte that webhooks cause: whoever knows their URL could have it asked for any number of jobs."""

NAMELESS_PAGES = 10
"""Pages that a webhook which names no job has listed, at most."""

PROVEN_BY = 3
"""So many syncs in a row must have been announced before polling found their end, for push to count as proven."""

REMEMBERED = 1_000
"""Jobs of which it is known that a contradiction was told."""

FAILURES = 8
"""When so many reads of jobs have failed, and none has not, the others are left to the next time: meanwhile looks and
webhooks wait."""

AGAIN_SECONDS = 0.5
"""After so long Airbyte is asked once more for a job that somebody waits for and that it said it does not know."""

_SECOND = timedelta(seconds=1)  # webhooks tell ends in whole seconds

_WITNESSED_AT_ONCE = 5
"""Jobs whose notifications are read together: two dozen of each, and one may have half a megabyte."""

_CONCURRENT_READS = 4  # Airbyte serves five requests of the public API at a time: one is left to others

_PRIORITIES = {Origin.WEBHOOK: 0, Origin.POLL: 1, Origin.SUBMIT: 2}
"""Which reads go first: jobs that Airbyte has just announced before those that somebody begins to wait for."""


Doubt = Callable[[JobEvent], bool]


@dataclass(slots=True)
class Counters:
    """What a monitor has done, for metrics and logs."""

    looks: int = 0
    reads: int = 0
    events: int = 0
    contradictions: int = 0
    reused: int = 0
    """Jobs that were given the number of another."""
    announced: int = 0
    missed: int = 0
    """Syncs that a look found to have ended without a webhook having come."""
    cut: int = 0
    """Looks that did not take in all that had changed."""
    settled: dict[str, int] = field(default_factory=dict)
    """Notifications, by what became of them."""


class MonitorStore(EventLog, NotificationInbox, ValueTable, Protocol):
    """The parts of a store that a monitor uses."""


class Monitor:
    """Keeps a store true to one Airbyte instance.

    :param instance: its name.
    :param system: its API.
    :param store: where its events go.
    :param largest_look: see :data:`LARGEST_LOOK`.
    :param lease: where several listeners share the store: what is written after this has passed on is refused.
    :param marking: whether its looks say where the next one begins. One monitor of an instance does, at a time.
    :param beside: another monitor of the instance, to count and to be patient with.
    :param on_list: called once a list of changed jobs was stored, with when it was served, by Airbyte's clock, and
        whether it had all that had changed.
    """

    def __init__(
        self,
        instance: str,
        system: JobSystem,
        store: MonitorStore,
        *,
        largest_look: int = LARGEST_LOOK,
        lease: Lease | None = None,
        marking: bool = True,
        beside: Monitor | None = None,
        on_list: Callable[[datetime, bool], object] = lambda served_at, complete: None,
    ) -> None:
        self.instance = instance
        self.system = system
        self.counters: Counters = Counters() if beside is None else beside.counters
        self.request_bucket: TokenBucket = (
            TokenBucket(rate=ASKED_PER_SECOND, burst=ASKED_AT_ONCE) if beside is None else beside.request_bucket
        )
        """For requests that webhooks cause."""
        self.watches = Watches()
        self._lease = lease
        self._on_list = on_list
        self._marking = marking
        self._store = store
        self._largest_look = largest_look
        self._pushes: deque[bool] = deque(maxlen=PROVEN_BY)
        self._contradicted: dict[JobRef, JobStatus] = {} if beside is None else beside._contradicted
        self.generations: Generations = Generations(instance, store) if beside is None else beside.generations
        self._looking = anyio.Lock()
        self._reading: PriorityLimiter = PriorityLimiter(_CONCURRENT_READS) if beside is None else beside._reading

    @property
    def push_proven(self) -> bool:
        """The last syncs that ended were announced by webhook before polling found them."""
        return len(self._pushes) == PROVEN_BY and all(self._pushes)

    async def watch(self, job_ids: Collection[int], doubt: Doubt | None = None) -> dict[int, JobEvent | None]:
        """Follow these jobs from now on, and return their states: None for one that Airbyte does not know.

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

    async def tell(self, job_ids: Collection[int], doubt: Doubt | None = None) -> dict[int, JobEvent | None]:
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
                "%d jobs of %s are watched, their states not known yet: %s", len(job_ids), self.instance, exc
            )
            return {}

    async def confirm(
        self,
        job_ids: Collection[int],
        origin: Origin,
        notifications: Mapping[int, Sequence[Received]] | None = None,
    ) -> dict[int, JobEvent | None]:
        """Ask the API about these jobs now, many of them by one look.

        Requests for webhooks are charged to :attr:`request_bucket`. Beyond it, what a look does not tell of counts as
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
        looked = False
        if len(missing) >= BURST or (bounded and self.request_bucket.left < len(missing)):
            # A page for every BURST jobs at most: reading these jobs alone would cost little more.
            pages = max(1, min(len(missing) // BURST, self.request_bucket.left)) if bounded else None
            try:
                missing -= await self._look_beside(origins, told, pages)
                looked = True
            except AirbyteError as exc:
                # Each job is asked for alone: some releases can't list, and what is down is down for that too.
                logger.info(
                    "listing the jobs of %s failed, reading %d one by one: %s", self.instance, len(missing), exc
                )
        # By chance: whoever floods has no say in which are not asked for.
        asked = set(random.sample(sorted(missing), min(len(missing), self.request_bucket.left))) if bounded else missing
        unknown = missing - asked if looked else set()
        try:
            answers = await self.read(asked, origins, told)
        except AirbyteError:
            if len(missing) == len(origins):
                raise
            # The look told of the others.
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

    async def look(
        self,
        origins: Mapping[int, Origin] | None = None,
    ) -> set[int]:
        """Ask once for every job that changed since the last look.

        :param origins: why jobs are looked for, where it is not for polling's sake.
        :return: the ids of the jobs that the API told of.
        :raises AirbyteError: if the API can't list jobs.
        """
        async with self._looking:
            started, cut = utcnow(), self.counters.cut
            since = await self._begin(started)
            why = origins or {}, Confirmation()
            found, served_at = await self._take_in_since(since, started, *why)
            if served_at < since:
                # This clock is far ahead of Airbyte's, which is the one that counts, or Airbyte's was put back.
                since = served_at - max(LOOKBACK, started - since)
                found, served_at = await self._take_in_since(since, served_at, *why)
            if self._marking:
                await self._remember("looked_at", served_at)
            self._on_list(served_at, self.counters.cut == cut)
            return found

    async def look_for_webhooks(self) -> None:
        """Look for what webhooks announced without saying which job: :data:`NAMELESS_PAGES`, the rest is polling's.

        :raises AirbyteError: if the API can't list jobs.
        """
        with charged(self.request_bucket):
            now = utcnow()
            pages = max(1, min(NAMELESS_PAGES, self.request_bucket.left))
            await self._take_in_since(await self._begin(now), now, {}, Confirmation(), pages)

    async def _begin(self, now: datetime) -> datetime:
        """Where a look begins: what changed before was taken in."""
        mark = instant(await self._store.recall(f"looked_at/{self.instance}"))
        return (mark or await self._first_mark(now)) - OVERLAP

    async def _first_mark(self, started: datetime) -> datetime:
        """Where the first look of all begins: it does not move on while looks fail."""
        began = instant(await self._store.recall(f"looking_since/{self.instance}"))
        if began is None:
            began = started - LOOKBACK + OVERLAP
            if self._marking:
                await self._remember("looking_since", began)
        return min(began, self.watches.began() or started)

    async def cut_at(self) -> datetime | None:
        """When a look last did not take in all that had changed: of what was watched before, any may have ended."""
        return instant(await self._store.recall(f"cut_at/{self.instance}"))

    async def _remember(self, what: str, moment: datetime) -> None:
        await self._store.remember(f"{what}/{self.instance}", format_time(moment) or "", lease=self._lease)

    async def _look_beside(
        self, origins: Mapping[int, Origin], notifications: Confirmation, pages: int | None
    ) -> set[int]:
        """Look for these jobs: no further back than to the first end that webhooks told of, if they told of each.

        :param pages: how many may be asked for; None for as many as there are.
        """
        if pages is None:
            return await self.look(origins)
        now = utcnow()
        since = await self._begin(now)
        ends = [[each.notification.finished_at for each in notifications.get(job_id, ())] for job_id in origins]
        known = [min(some) for each in ends if (some := [end for end in each if end is not None])]
        # An end of years ago, which anybody can write who knows the webhooks' URL, would have all jobs listed.
        if known and len(known) == len(origins):
            since = max(since, min(known)) - _SECOND
        # What this leaves out is read by itself, or found by the next look: where that begins is not changed.
        found, _ = await self._take_in_since(since, now, origins, notifications, pages)
        return found

    async def _take_in_since(
        self,
        since: datetime,
        started: datetime,
        origins: Mapping[int, Origin],
        notifications: Confirmation,
        pages: int | None = None,
    ) -> tuple[set[int], datetime]:
        """Take in what has changed since, page by page: what was read is kept though the next page is never had.

        :param pages: how many to ask for at most; None for as many as there are, up to the largest look.
        """
        found: set[int] = set()
        served_at: datetime | None = None
        # Webhooks announce no other jobs.
        job_types = PUSHED_JOB_TYPES if pages is not None else ()
        async for page in self.system.list_changed(since=since, job_types=job_types):
            served_at = served_at or page.served_at or started
            await self._absorb(page.jobs, origins, notifications)
            found |= {job.job_id for job in page.jobs}
            if pages is not None:
                pages -= 1
                if not pages:
                    break
            elif len(found) >= self._largest_look:
                logger.warning("more than %d jobs of %s have changed since %s", len(found), self.instance, since)
                self.watches.unsee()
                self.counters.cut += 1
                if self._marking:
                    # Before the mark: who goes on from there has to read them.
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
        """Ask for these jobs one by one, a few at a time, and each once, in any order.

        :return: None for a job that Airbyte does not know. A job that could not be asked for is left out, and so are
            those that are left when the first :data:`FAILURES` of all have failed.
        :raises AirbyteError: if none could be asked for.
        :raises StoreError: if what was answered could not be kept.
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
            # What has been answered does not wait for what has not: all that came during one transaction is the next.
            async with absorbing:
                batch, unabsorbed[:] = unabsorbed[:], []
                try:
                    await self._absorb(batch, why, confirmation)
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
        """Take over states that a listener has confirmed."""
        await self._append(states, await self._store.states({state.ref for state in states}))
        self.watches.see(states, asked=False)

    async def take_in(self, jobs: Collection[Job]) -> list[JobEvent]:
        """Take in what the API told somebody else, and tell these jobs' states."""
        confirmation = Confirmation(wanted=[job.job_id for job in jobs])
        await self._absorb(jobs, {}, confirmation)
        return list(confirmation.states.values())

    async def _absorb(self, jobs: Iterable[Job], origins: Mapping[int, Origin], notifications: Confirmation) -> None:
        answered = list(jobs)
        for start in range(0, len(answered), TOGETHER):
            observed = {
                JobRef(self.instance, job.job_id): event_of(self.instance, job, origins.get(job.job_id, Origin.POLL))
                for job in answered[start : start + TOGETHER]
            }
            await self._reconcile(observed, notifications)
            self.generations.reported(ref.job_id for ref in observed)
            self.watches.see(observed.values(), asked=True)

    async def _reconcile(self, answered: Mapping[JobRef, JobEvent], notifications: Confirmation) -> None:
        known = notifications.known
        if known is None or not answered.keys() <= known.refs:
            known = await self._store.states(answered)
        states: dict[JobRef, JobEvent] = {**known}
        # Looks overlap: most of what they tell was told before.
        observed = {
            ref: event
            for ref, event in answered.items()
            if is_news(known.get(ref), event) or ref.job_id in notifications
        }
        if observed:
            states |= await self._append_observed(observed, known, notifications)
        notifications.states |= {
            ref.job_id: states[ref] for ref in answered if ref.job_id in notifications.wanted and ref in states
        }

    async def _append_observed(
        self, observed: Mapping[JobRef, JobEvent], known: States, notifications: Confirmation
    ) -> Mapping[JobRef, JobEvent]:
        """Append what the API reports, with what notifications add to it, and return the jobs' latest states."""
        told = await self._witnesses([event for event in observed.values() if event.terminal], notifications)
        events = [told[ref].enriched() if ref in told else event for ref, event in observed.items()]
        appended = await self._append(events, known, notifications.outcomes)
        notifications.settled |= appended.outcomes
        self._count(events, appended.verdicts, told)
        better = [
            event
            for event, verdict in zip(events, appended.verdicts, strict=True)
            if verdict is Verdict.REPEAT
            and event.ref in told
            and (state := known.get(event.ref)) is not None
            and told[event.ref].improve(state)
        ]
        if not better:
            return appended.states
        await self._store.annotate(better)
        return {**appended.states, **await self._store.states([event.ref for event in better])}

    async def _witnesses(self, ended: Sequence[JobEvent], notifications: Confirmation) -> dict[JobRef, Witnesses]:
        """Return what notifications add to these ends, for those of which there is one that can be true.

        :param notifications: those that came just now: they may be more than the store finds.
        """
        read, found = self.system.read_notification, dict[JobRef, Witnesses]()
        for start in range(0, len(ended), _WITNESSED_AT_ONCE):
            some = {event.ref: event for event in ended[start : start + _WITNESSED_AT_ONCE]}
            since = {ref: event.finished_at and event.finished_at - PRECISION for ref, event in some.items()}
            # Of a job whose one notification was taken from the inbox just now there is nothing to be read.
            complete = notifications.known.refs - notifications.announced if notifications.known is not None else ()
            asked = {ref: moment for ref, moment in since.items() if ref not in complete}
            kept = await self._store.announcements(asked) if asked else {}
            for ref, event in some.items():
                received = [
                    *(Received.of(each, read) for each in kept.get(ref, ())),
                    *notifications.get(ref.job_id, ()),
                ]
                witnesses = Witnesses.among(received, event, self.system.url)
                if witnesses.told:
                    found[ref] = witnesses
        return found

    async def _append(self, events: Sequence[JobEvent], known: States, settle: Settle | None = None) -> Appended:
        for event in events:
            before = known.get(event.ref)
            if before is not None and reconcile(before, event) is Verdict.REUSED:
                # First: who reads the event knows by then that what else is known may be of other jobs.
                await self.generations.contradicted(before, event, self._lease)
        appended = await self._store.append(events, lease=self._lease, known=known, settle=settle)
        self.counters.reused += appended.verdicts.count(Verdict.REUSED)
        return appended

    def _count(self, events: Sequence[JobEvent], verdicts: Sequence[Verdict], told: Collection[JobRef]) -> None:
        for event, verdict in zip(events, verdicts, strict=True):
            if verdict is Verdict.CONTRADICTION:
                # Looks overlap, and a webhook may have told it, too.
                if self._contradicted.get(event.ref) is event.status:
                    continue
                self._contradicted[event.ref] = event.status
                if len(self._contradicted) > REMEMBERED:
                    del self._contradicted[next(iter(self._contradicted))]
                self.counters.contradictions += 1
                logger.warning(
                    "job %s is told to be %s, but it has ended otherwise",
                    event.ref,
                    event.status.value,
                    extra={"instance": event.ref.instance, "job_id": event.ref.job_id},
                )
            elif verdict in NEWS:
                self.counters.events += 1
                # Its place in the log is known to whoever reads that; there it is said aloud.
                about = {"instance": event.ref.instance, "job_id": event.ref.job_id}
                logger.debug("found: job %s is %s (%s)", event.ref, event.status.value, event.origin.value, extra=about)
                if announceable(event):
                    announced = event.ref in told
                    self._pushes.append(announced)
                    self.counters.announced += announced
                    # What is asked for because somebody waits for it may have ended long ago.
                    self.counters.missed += not announced and event.origin is Origin.POLL
