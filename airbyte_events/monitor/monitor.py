"""The monitor of one Airbyte instance: requests jobs, reconciles the responses, writes events.

Only a response of the API becomes an event. A notification triggers a request; what only it contains (why a job failed,
how many records were committed) is added if the API agrees with it.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from datetime import datetime, timedelta

import anyio

from airbyte_events._utils.json_values import instant
from airbyte_events._utils.priority_limiter import PriorityLimiter
from airbyte_events._utils.times import format_time, utcnow
from airbyte_events._utils.token_bucket import Charges, TokenBucket, charged, refund
from airbyte_events.errors import AirbyteError, StoreError
from airbyte_events.events import PUSHED_JOB_TYPES, JobEvent, JobRef, Origin
from airbyte_events.jobs import Job, JobSystem
from airbyte_events.monitor.observation import Confirmation, Received
from airbyte_events.monitor.recorder import TOGETHER, Recorder
from airbyte_events.monitor.watchlist import Watches
from airbyte_events.store.base import EventStore, ValueTable
from airbyte_events.store.records import Lease

logger = logging.getLogger(__name__)

BURST = 4
"""The number of jobs from which on one list of changed jobs replaces a request for each."""

OVERLAP = timedelta(seconds=30)
"""The overlap of two lists: more than the clocks of Airbyte's web server and database differ by."""

LOOKBACK = timedelta(minutes=10)
"""How far the first list reaches back; further if a job has been watched for longer."""

MAX_LISTED = 5_000
"""The most jobs that a triggerer stores from one list; if more have changed, it reads the watched ones one by one."""

ASKED_AT_ONCE = 100
ASKED_PER_SECOND = 10.0
"""The limit of requests to Airbyte that webhooks cause: a sender who knows their URL can name any number of jobs.

Requests that confirm a completion are refunded: Airbyte's own webhooks do not reach the limit.
"""

PUSHED_BURST = 16
"""The same as :data:`BURST` for jobs that webhooks announce: a list takes as long as a dozen reads, and its first page
has others at a high rate of completions."""

NAMELESS_PAGES = 10
"""The most pages to list for webhooks without a job id."""

FAILURES = 8
"""The failed reads, without a success, after which the others are left to the next poll: lists and webhooks wait."""

POLLED_TOGETHER = 25
"""The jobs that a poll stores at a time. Before the next ones, it waits for webhooks."""

PRECEDENCE_SECONDS = 0.1
"""The longest that a poll waits for webhooks each time. The jobs of a long list, one page after the other, would hold
them up for as long as the list takes."""

AGAIN_SECONDS = 0.5
"""The delay before an unknown job that a subscriber waits for is requested once more."""

_SECOND = timedelta(seconds=1)  # webhooks have whole seconds

_CONCURRENT_READS = 4  # Airbyte serves five requests of the public API at a time: one is left to others

_PRIORITIES = {Origin.WEBHOOK: 0, Origin.POLL: 1, Origin.SUBMIT: 2}
"""The order of reads: jobs that Airbyte has just announced before those with a new subscriber."""

Doubt = Callable[[JobEvent], bool]


async def polled_at(store: ValueTable, instance: str) -> datetime | None:
    """Return when the last complete list of changed jobs was served, by Airbyte's clock; None: none was."""
    return instant(await store.recall(f"looked_at/{instance}"))


@dataclass(eq=False, repr=False)
class Monitor:
    """A monitor of one Airbyte instance.

    :param lease: for a store that several listeners share: writes are refused once another one holds it.
    :param marking: store where the next list begins. One monitor of an instance does, at a time.
    :param beside: another monitor of the instance, to share counters and limits with.
    :param naming: request the names of connections that no webhook reported.
    :param explaining: returns whether to request the reasons of failures that no webhook explained.
    :param on_list: called after a list of changed jobs was stored, with the time at which it was served, by Airbyte's
        clock, and whether it was complete.
    """

    instance: str
    system: JobSystem
    store: EventStore
    _: KW_ONLY
    max_listed: int = MAX_LISTED
    lease: Lease | None = None
    marking: bool = True
    beside: InitVar[Monitor | None] = None
    naming: bool = False
    explaining: Callable[[], bool] = lambda: True
    on_list: Callable[[datetime, bool], object] = lambda served_at, complete: None
    watches: Watches = field(default_factory=Watches, init=False)

    def __post_init__(self, beside: Monitor | None) -> None:
        self.request_bucket: TokenBucket = (
            TokenBucket(rate=ASKED_PER_SECOND, burst=ASKED_AT_ONCE) if beside is None else beside.request_bucket
        )
        """The limit of requests that webhooks cause."""
        before = None if beside is None else beside._recorder
        self._recorder: Recorder = Recorder(
            self.instance, self.system, self.store, self.watches, self.lease, self.naming, self.explaining, before
        )
        self.counters = self._recorder.counters
        self.late_reasons = self._recorder.late_reasons
        self.generations = self._recorder.generations
        # As this monitor stored it, and the epoch of the log then. While it has its lease, nobody else stores one.
        self._looked_at: tuple[str, datetime] | None = None
        self._polling = anyio.Lock()
        self._confirmed = anyio.Event()
        self._confirmed.set()
        self._reading: PriorityLimiter = PriorityLimiter(_CONCURRENT_READS) if beside is None else beside._reading

    @property
    def push_proven(self) -> bool:
        """Whether webhooks announced the last syncs before polling found them completed."""
        return self._recorder.push_proven

    async def explain(self, event: JobEvent) -> JobEvent:
        """Return a failure with its reason, if the job system reports that now."""
        return await self._recorder.request_reason(event) or event

    async def watch(self, job_ids: Collection[int], doubt: Doubt | None = None) -> dict[int, JobEvent | None]:
        """Watch these jobs from now on, and return their states: None for one that Airbyte does not know.

        Requests a job only if no state is known, or the known one may be another job's.

        :param doubt: returns whether a known state may be another job's. States from before the ids were reused
            always may.
        :return: without jobs that could not be requested.
        :raises AirbyteError: if none could be requested. The jobs are watched all the same.
        """
        fresh = self.watches.add(job_ids)
        states: dict[int, JobEvent | None] = {}
        try:
            states = await self.states(job_ids, doubt)
            self.watches.update(filter(None, states.values()), polled=False)
        finally:
            self.watches.settle(fresh, states.keys())
        return states

    async def states(self, job_ids: Collection[int], doubt: Doubt | None = None) -> dict[int, JobEvent | None]:
        """Return the states of these jobs, as :meth:`watch` does, without watching them."""
        known = await self.store.states([JobRef(self.instance, job_id) for job_id in job_ids])
        outdated = await self.generations.outdated(known.values())
        states: dict[int, JobEvent | None] = {
            ref.job_id: state
            for ref, state in known.items()
            if ref.job_id not in outdated and not (doubt is not None and doubt(state))
        }
        return states | await self._confirm_beside(states, [job_id for job_id in job_ids if job_id not in states])

    async def _confirm_beside(self, states: Collection[int], job_ids: Collection[int]) -> dict[int, JobEvent | None]:
        try:
            found = await self.confirm(job_ids, Origin.SUBMIT)
            unknown = [job_id for job_id, state in found.items() if state is None][:TOGETHER]
            if unknown:
                # A replica that lags or cached permissions give the same response.
                await anyio.sleep(AGAIN_SECONDS)
                found |= await self.confirm(unknown, Origin.SUBMIT)
            return found
        except AirbyteError as exc:
            if not states:
                raise
            logger.warning(
                "could not request job states, retrying: instance=%s jobs=%d: %s", self.instance, len(job_ids), exc
            )
            return {}

    @contextlib.contextmanager
    def preceding_polls(self) -> Iterator[None]:
        """Let what is done in the block precede what a poll has yet to store, see :data:`PRECEDENCE_SECONDS`."""
        confirmed = self._confirmed = anyio.Event()
        try:
            yield
        finally:
            confirmed.set()

    async def confirm(
        self, job_ids: Collection[int], origin: Origin, notifications: Mapping[int, Sequence[Received]] | None = None
    ) -> dict[int, JobEvent | None]:
        """Request these jobs now, many of them by one list.

        Requests for webhooks are charged to :attr:`request_bucket`, and refunded for completions that are confirmed.
        Beyond it, jobs that a list leaves out count as unknown.

        :return: their states; None for one that Airbyte does not know. Jobs that could not be requested are left out.
        :raises AirbyteError: if none could be requested.
        """
        confirmation = notifications if isinstance(notifications, Confirmation) else Confirmation(notifications)
        confirmation.wanted, confirmation.origin = frozenset(job_ids), origin
        if origin is not Origin.WEBHOOK:
            return await self._confirm(confirmation, None)
        with charged(self.request_bucket) as charges:
            return await self._confirm(confirmation, charges)

    async def _confirm(self, confirmation: Confirmation, charges: Charges | None) -> dict[int, JobEvent | None]:
        missing = set(confirmation.wanted)
        listed = False
        burst = BURST if charges is None else PUSHED_BURST
        if len(missing) >= burst or (charges is not None and self.request_bucket.left < len(missing)):
            try:
                missing -= await (self.poll(confirmation) if charges is None else self._list_pages(confirmation))
                listed = True
            except AirbyteError as exc:
                # Some releases can't list jobs. If Airbyte is down, the reads fail as well.
                logger.info(
                    "could not list jobs, reading them one by one: instance=%s jobs=%d: %s",
                    *(self.instance, len(missing), exc),
                )
        try:
            if charges is None:
                returned = await self.read(missing, confirmation)
            else:
                returned = await self._read_charged(missing, confirmation, charges)
        except AirbyteError:
            if len(missing) == len(confirmation.wanted):
                raise
            # The list had the others.
            returned = {}
        unknown = missing - confirmation.requested if listed else set()
        found: dict[int, JobEvent | None] = dict.fromkeys(unknown)
        gone = {job_id for job_id, job in returned.items() if job is None}
        found |= dict.fromkeys(gone)
        left_out = missing - set(returned) - unknown
        if charges is None:
            # The stored state may be that of an earlier job with the id.
            left_out |= gone
        states = confirmation.states
        if unread := confirmation.wanted - states.keys() - left_out:
            stored = await self.store.states([JobRef(self.instance, job_id) for job_id in unread])
            states = states | {ref.job_id: state for ref, state in stored.items()}
        return found | {job_id: state for job_id, state in states.items() if job_id not in left_out}

    async def _read_charged(
        self, job_ids: Collection[int], confirmation: Confirmation, charges: Charges
    ) -> dict[int, Job | None]:
        """Read as many of these jobs as :attr:`request_bucket` allows, then as many as were refunded, and so on."""
        returned: dict[int, Job | None] = {}
        # At random: a flood of webhooks must not determine which jobs are left out.
        waiting = random.sample(sorted(job_ids), len(job_ids))
        allowed = self.request_bucket.left
        while some := waiting[:allowed]:
            del waiting[:allowed]
            refunded = charges.refunded
            try:
                returned |= await self.read(some, confirmation)
            except AirbyteError:
                if not returned:
                    raise
                break
            allowed = min(self.request_bucket.left, int(charges.refunded - refunded))
        return returned

    async def poll(self, confirmation: Confirmation | None = None) -> set[int]:
        """List every job that changed since the last list, and store them.

        :param confirmation: the jobs that are not requested by polling.
        :return: the ids of the jobs that the API listed.
        :raises AirbyteError: if the API can't list jobs.
        """
        async with self._polling:
            started, cut, epoch = utcnow(), self.counters.cut, self.store.epoch
            since = await self._begin(started)
            why = Confirmation() if confirmation is None else confirmation
            found, served_at = await self._store_changed(since, started, why)
            if served_at < since:
                # Airbyte's clock counts: this one is far ahead of it, or Airbyte's was put back.
                since = served_at - max(LOOKBACK, started - since)
                found, served_at = await self._store_changed(since, served_at, why)
            if self.marking:
                await self._remember("looked_at", served_at)
                self._looked_at = None if self.lease is None else (epoch, served_at)
            self.on_list(served_at, self.counters.cut == cut)
            return found

    async def poll_for_webhooks(self, count: int) -> None:
        """List changed jobs for webhooks without a job id: :data:`NAMELESS_PAGES`, the rest is left to polling.

        :raises AirbyteError: if the API can't list jobs.
        """
        with charged(self.request_bucket):
            now = utcnow()
            await self._store_changed(await self._begin(now), now, Confirmation(nameless=count), NAMELESS_PAGES)

    async def _begin(self, now: datetime) -> datetime:
        """Return where a list begins: earlier changes are stored."""
        if self._looked_at is not None and self._looked_at[0] == self.store.epoch:
            return self._looked_at[1] - OVERLAP
        return (await polled_at(self.store, self.instance) or await self._first_mark(now)) - OVERLAP

    async def _first_mark(self, started: datetime) -> datetime:
        """Return where the first list begins: it stays while lists fail."""
        began = instant(await self.store.recall(f"looking_since/{self.instance}"))
        if began is None:
            began = started - LOOKBACK + OVERLAP
            if self.marking:
                await self._remember("looking_since", began)
        return min(began, self.watches.began() or started)

    async def cut_at(self) -> datetime | None:
        """Return when a list was last cut: any job that was watched before may have completed."""
        return instant(await self.store.recall(f"cut_at/{self.instance}"))

    async def _remember(self, what: str, moment: datetime) -> None:
        await self.store.remember(f"{what}/{self.instance}", format_time(moment) or "", lease=self.lease)

    async def _list_pages(self, confirmation: Confirmation) -> set[int]:
        """List changed jobs for webhooks; since the first completion if they report the time of each."""
        now, wanted = utcnow(), confirmation.wanted
        since = await self._begin(now)
        times = [[each.notification.finished_at for each in confirmation.get(job_id, ())] for job_id in wanted]
        known = [min(some) for each in times if (some := [time for time in each if time is not None])]
        # A forged time of years ago would have all jobs listed.
        if known and len(known) == len(wanted):
            since = max(since, min(known)) - _SECOND
        # Jobs that this leaves out are read one by one, or found by the next poll, whose start is not changed.
        # At most a page for every BURST jobs, see REQUESTS_OF_ONE.
        found, _ = await self._store_changed(since, now, confirmation, max(1, len(wanted) // BURST))
        return found

    async def _store_changed(
        self, since: datetime, started: datetime, confirmation: Confirmation, pages: int | None = None
    ) -> tuple[set[int], datetime]:
        """Store the jobs that changed since, page by page: a page is stored even if the next one fails.

        :param pages: how many to list at most, within :attr:`request_bucket`, of which only the wanted jobs are stored
            if any are, and the list ends with the last of them; None for all, up to :data:`MAX_LISTED` jobs.
        """
        wanted = confirmation.wanted
        found: set[int] = set()
        served_at: datetime | None = None
        # Webhooks announce no other jobs.
        job_types = PUSHED_JOB_TYPES if pages is not None else ()
        async for page in self.system.list_changed(since=since, job_types=job_types):
            served_at = served_at or page.served_at or started
            jobs = page.jobs
            if pages is None and found:
                # Further pages are of many jobs that changed together: they delay no poll.
                refund(1)
            if pages is not None and wanted:
                # The others' own webhooks arrive in a moment, with names and failure reasons.
                jobs = tuple(job for job in jobs if job.job_id in wanted)
            step = POLLED_TOGETHER if pages is None else TOGETHER
            for start in range(0, len(jobs), step):
                if pages is None and (found or start):
                    with anyio.move_on_after(PRECEDENCE_SECONDS):
                        await self._confirmed.wait()
                await self._recorder.record(jobs[start : start + step], confirmation)
            found |= {job.job_id for job in jobs}
            if pages is not None:
                pages -= 1
                if not pages or not self.request_bucket.left or (wanted and found >= wanted):
                    break
            elif len(found) >= self.max_listed:
                logger.warning(
                    "too many changed jobs, the list was cut: instance=%s jobs=%d since=%s",
                    *(self.instance, len(found), since),
                )
                self.watches.mark_unread()
                self.counters.cut += 1
                if self.marking:
                    # Before the mark: a process that continues from there has to read the watched jobs.
                    await self._remember("cut_at", utcnow())
                break
        self.counters.lists += 1
        return found, served_at or started

    async def read(self, job_ids: Iterable[int], confirmation: Confirmation | None = None) -> dict[int, Job | None]:
        """Request these jobs one by one, a few at a time, and each once, in any order.

        :return: None for a job that Airbyte does not know. A job that could not be asked for is left out, and so are
            those that are left when the first :data:`FAILURES` of all have failed.
        :raises AirbyteError: if none could be asked for.
        :raises StoreError: if a job could not be stored.
        """
        answers: dict[int, Job | None] = {}
        failures: list[AirbyteError] = []
        why = Confirmation() if confirmation is None else confirmation
        faults: list[StoreError] = []
        returned: list[Job] = []
        recording = anyio.Lock()

        async def record() -> None:
            async with recording:
                jobs = returned.copy()
                returned.clear()
                try:
                    if jobs:
                        await self._recorder.record(jobs, why)
                except StoreError as exc:
                    faults.append(exc)
                    tasks.cancel_scope.cancel()

        async def read_one(job_id: int) -> None:
            async with self._reading.place(_PRIORITIES[why.origin_of(job_id)]):
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
            # With those that arrive meanwhile, so that a slow response holds up no other.
            returned.append(job)
            await record()

        # In any order, so that one job that Airbyte fails over is not always the one that the others wait for.
        wanted = list(set(job_ids))
        why.requested.update(wanted)
        random.shuffle(wanted)
        async with anyio.create_task_group() as tasks:
            for job_id in wanted:
                tasks.start_soon(read_one, job_id)
        if faults or (failures and not answers):
            raise (faults or failures)[0]
        return answers

    async def absorb(self, states: Sequence[JobEvent]) -> None:
        """Store states that a listener has confirmed."""
        await self._recorder.absorb(states)

    async def store_jobs(self, jobs: Collection[Job]) -> list[JobEvent]:
        """Store jobs that the API returned to another caller, and return their states."""
        confirmation = Confirmation(wanted=[job.job_id for job in jobs])
        await self._recorder.record(jobs, confirmation)
        return list(confirmation.states.values())
