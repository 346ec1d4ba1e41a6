"""The recorder: reconciles the API's responses with known states, enriches them by webhooks, and stores events."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from datetime import timedelta

import anyio

from airbyte_events._utils.token_bucket import refund
from airbyte_events.events import JobEvent, JobRef, JobStatus, Origin, same_job
from airbyte_events.jobs import DescribesConnections, ExplainsFailures, Job, JobSystem
from airbyte_events.monitor.generations import Generations
from airbyte_events.monitor.late_reasons import LateReasons
from airbyte_events.monitor.observation import (
    PRECISION,
    Candidates,
    Confirmation,
    Received,
    announceable,
    event_of,
    is_news,
    with_reason,
)
from airbyte_events.monitor.watchlist import Watches
from airbyte_events.store.base import EventStore
from airbyte_events.store.reconcile import APPENDED, Verdict, reconcile
from airbyte_events.store.records import Appended, Lease, Settle, States

logger = logging.getLogger(__name__)

TOGETHER = 100
"""The jobs stored at a time: a thousand would stall a triggerer's event loop."""

PROVEN_BY = 3
"""The number of syncs in a row that webhooks must announce before polling finds them, so that push is proven."""

REMEMBERED = 1_000
"""The most jobs to remember whose contradictions were logged."""

STORED = 5_000
"""The most jobs to remember as stored: lists overlap, and most of their jobs come several times."""

REQUESTS_OF_ONE = 1.25
"""The most requests that a webhook costs: its share of a list that leaves its job out, and a read."""

_AWAITED = timedelta(minutes=1)
"""How long the job's own webhook may arrive after its completion was found."""

_READ_AT_ONCE = 5
"""The jobs whose notifications are read together: two dozen each, of up to half a megabyte."""


@dataclass(slots=True)
class Counters:
    """The counters of a monitor, for metrics and logs."""

    lists: int = 0
    reads: int = 0
    events: int = 0
    contradictions: int = 0
    reused: int = 0
    """Jobs with the id of another one."""
    announced: int = 0
    missed: int = 0
    """Syncs that polling found completed before a webhook came."""
    cut: int = 0
    """Lists that were cut."""
    settled: dict[str, int] = field(default_factory=dict)
    """Notifications by outcome."""


NAMING_SECONDS = 2.0
"""The longest that events wait for the names of their connections."""


@dataclass(eq=False, repr=False)
class Recorder:
    """A recorder of the states of one instance's jobs, with the options of its monitor."""

    instance: str
    system: JobSystem
    store: EventStore
    watches: Watches
    lease: Lease | None
    naming: bool
    explaining: Callable[[], bool]
    beside: InitVar[Recorder | None]

    def __post_init__(self, beside: Recorder | None) -> None:
        self.counters: Counters = Counters() if beside is None else beside.counters
        self.generations: Generations = Generations(self.instance, self.store) if beside is None else beside.generations
        self.late_reasons: LateReasons = (
            LateReasons(self.instance, self.request_reason, self.store) if beside is None else beside.late_reasons
        )
        self._contradicted: dict[JobRef, JobStatus] = {} if beside is None else beside._contradicted
        self._pushes: deque[bool] = deque(maxlen=PROVEN_BY)
        # As the API returned them, and the epoch of the log that has them.
        self._stored: dict[int, Job] = {}
        self._stored_in = ""

    @property
    def push_proven(self) -> bool:
        """Whether webhooks announced the last syncs before polling found them completed."""
        return len(self._pushes) == PROVEN_BY and all(self._pushes)

    async def absorb(self, states: Sequence[JobEvent]) -> None:
        await self._append(states, await self.store.states({state.ref for state in states}))
        self.watches.update(states, polled=False)

    async def record(self, jobs: Iterable[Job], notifications: Confirmation) -> None:
        """Store the states of jobs that the API returned."""
        returned = list(jobs)
        if self._stored_in != self.store.epoch:
            self._stored, self._stored_in = {}, self.store.epoch
        for start in range(0, len(returned), TOGETHER):
            some = returned[start : start + TOGETHER]
            observed = {
                JobRef(self.instance, job.job_id): event_of(self.instance, job, notifications.origin_of(job.job_id))
                for job in some
                if not self._is_stored(job, notifications)
            }
            if observed:
                await self._reconcile(observed, notifications)
            self.generations.reported(job.job_id for job in some)
            self.watches.update(observed.values(), polled=True)
            self._remember(some)

    def _is_stored(self, job: Job, notifications: Confirmation) -> bool:
        """Return whether this state was stored before, and no notification and no subscriber waits for the job."""
        awaited = job.job_id in notifications.wanted or job.job_id in notifications or job.job_id in self.watches
        return not awaited and self._stored.get(job.job_id) == _without_progress(job)

    def _remember(self, jobs: Iterable[Job]) -> None:
        self._stored.update({job.job_id: _without_progress(job) for job in jobs})
        while len(self._stored) > STORED:
            del self._stored[next(iter(self._stored))]

    async def _reconcile(self, returned: Mapping[JobRef, JobEvent], notifications: Confirmation) -> None:
        known = notifications.known
        if known is None or not returned.keys() <= known.refs:
            known = await self.store.states(returned)
        states: dict[JobRef, JobEvent] = {**known}
        # Lists overlap: most of their jobs are known.
        observed = {
            ref: event
            for ref, event in returned.items()
            if is_news(known.get(ref), event) or ref.job_id in notifications
        }
        if observed:
            states |= await self._append_observed(observed, known, notifications)
        notifications.states |= {
            ref.job_id: states[ref] for ref in returned if ref.job_id in notifications.wanted and ref in states
        }

    async def _append_observed(
        self, observed: Mapping[JobRef, JobEvent], known: States, notifications: Confirmation
    ) -> Mapping[JobRef, JobEvent]:
        found = await self._candidates([event for event in observed.values() if event.terminal], notifications)
        events = [found[ref].enriched() if ref in found else event for ref, event in observed.items()]
        unexplained: set[JobRef] = set()
        events = await self._name(await self._explain(events, known, unexplained), known)
        appended = await self._append(events, known, notifications.outcomes)
        self.late_reasons.add(unexplained)
        notifications.settled |= appended.outcomes
        self._count(events, appended.verdicts, found)
        refund(REQUESTS_OF_ONE * self._confirmed(events, appended.verdicts, known, notifications))
        better = [
            event
            for event, verdict in zip(events, appended.verdicts, strict=True)
            if verdict is Verdict.REPEAT
            and event.ref in found
            and (state := known.get(event.ref)) is not None
            and found[event.ref].improve(state)
        ]
        if not better:
            return appended.states
        await self.store.annotate(better)
        return {**appended.states, **await self.store.states([event.ref for event in better])}

    def _confirmed(
        self, events: Sequence[JobEvent], verdicts: Sequence[Verdict], known: States, notifications: Confirmation
    ) -> int:
        """Count the completions that notifications announced: once each, whatever a sender repeats or invents.

        A completion counts if it is new, or was found just before the first notification of the job came.
        """

        def is_awaited(event: JobEvent) -> bool:
            state = known.get(event.ref)
            found_before = state is not None and state.terminal and event.observed_at - state.observed_at > _AWAITED
            return not found_before and event.ref not in notifications.announced

        confirmed = nameless = 0
        for event, verdict in zip(events, verdicts, strict=True):
            new = event.terminal and verdict in APPENDED
            if event.ref.job_id in notifications:
                confirmed += new or (event.terminal and verdict is Verdict.REPEAT and is_awaited(event))
            elif new and nameless < notifications.nameless:
                nameless += 1
        notifications.nameless -= nameless
        return confirmed + nameless

    async def request_reason(self, event: JobEvent) -> JobEvent | None:
        """Return a failure with the job system's reason, if it has one; None if it can't be read now."""
        system = self.system
        if not isinstance(system, ExplainsFailures):
            return event
        failure = await system.failure(event.ref.job_id)
        return None if failure is None else with_reason(event, failure)

    async def _explain(self, events: list[JobEvent], known: States, unexplained: set[JobRef]) -> list[JobEvent]:
        """Return the events, new failures that no webhook has explained with the job system's reason.

        :param unexplained: receives those whose reason can't be read now.
        """
        explained = list(events)
        if not self.explaining():
            return events

        async def explain(place: int, event: JobEvent) -> None:
            explanation = await self.request_reason(event)
            if explanation is None:
                unexplained.add(event.ref)
            else:
                explained[place] = explanation

        async with anyio.create_task_group() as tasks:
            for place, event in enumerate(events):
                if event.status is not JobStatus.FAILED or event.error is not None:
                    continue
                if reconcile(known.get(event.ref), event) in APPENDED:
                    tasks.start_soon(explain, place, event)
        return explained

    async def _name(self, events: list[JobEvent], known: States) -> list[JobEvent]:
        """Return the events, new ones of connections that no webhook has named with the job system's name."""
        system = self.system
        if not self.naming or not isinstance(system, DescribesConnections):
            return events
        names: dict[str, str | None] = {}

        async def name(connection_id: str) -> None:
            names[connection_id] = (await system.describe_connection(connection_id)).name

        unnamed: set[str] = set()
        for event in events:
            before = known.get(event.ref)
            named = event.names or (before is not None and before.names and same_job(before, event))
            if event.connection_id and not named and reconcile(before, event) in APPENDED:
                unnamed.add(event.connection_id)
        # Names are optional: what is not there by then is published without.
        with anyio.move_on_after(NAMING_SECONDS):
            async with anyio.create_task_group() as tasks:
                for connection_id in unnamed:
                    tasks.start_soon(name, connection_id)
        return [
            replace(event, names={"connection": found})
            if event.connection_id in unnamed and not event.names and (found := names.get(event.connection_id or ""))
            else event
            for event in events
        ]

    async def _candidates(self, completed: Sequence[JobEvent], notifications: Confirmation) -> dict[JobRef, Candidates]:
        """Return the notifications that may be those of these completions.

        :param notifications: those that came just now; the store may not return them.
        """
        read, found = self.system.read_notification, dict[JobRef, Candidates]()
        # The store has no others of a job whose one notification was taken from the inbox just now.
        complete = notifications.known.refs - notifications.announced if notifications.known is not None else ()
        for start in range(0, len(completed), _READ_AT_ONCE):
            some = {event.ref: event for event in completed[start : start + _READ_AT_ONCE]}
            since = {
                ref: event.finished_at and event.finished_at - PRECISION
                for ref, event in some.items()
                if ref not in complete
            }
            stored = await self.store.announcements(since) if since else {}
            for ref, event in some.items():
                received = [Received.of(each, read) for each in stored.get(ref, ())]
                received += notifications.get(ref.job_id, ())
                candidates = Candidates.among(received, event, self.system.url)
                if candidates.notifications:
                    found[ref] = candidates
        return found

    async def _append(self, events: Sequence[JobEvent], known: States, settle: Settle | None = None) -> Appended:
        for event in events:
            before = known.get(event.ref)
            if before is not None and reconcile(before, event) is Verdict.REUSED:
                # First: by the time the event is read, other known states must be outdated.
                await self.generations.contradicted(before, event, self.lease)
        appended = await self.store.append(events, lease=self.lease, known=known, settle=settle)
        self.counters.reused += appended.verdicts.count(Verdict.REUSED)
        return appended

    def _count(self, events: Sequence[JobEvent], verdicts: Sequence[Verdict], notified: Collection[JobRef]) -> None:
        for event, verdict in zip(events, verdicts, strict=True):
            if verdict is Verdict.CONTRADICTION:
                # Lists overlap, and webhooks repeat.
                if self._contradicted.get(event.ref) is event.status:
                    continue
                self._contradicted[event.ref] = event.status
                if len(self._contradicted) > REMEMBERED:
                    del self._contradicted[next(iter(self._contradicted))]
                self.counters.contradictions += 1
                logger.warning(
                    "contradiction: the API reports %s for a job that has completed with another status: job=%s",
                    event.status.value,
                    event.ref,
                    extra={"instance": event.ref.instance, "job_id": event.ref.job_id},
                )
            elif verdict in APPENDED:
                self.counters.events += 1
                # Readers of the event log know its position and log it at a higher level.
                about = {"instance": event.ref.instance, "job_id": event.ref.job_id}
                logger.debug(
                    "event: job=%s status=%s origin=%s", event.ref, event.status.value, event.origin.value, extra=about
                )
                if announceable(event):
                    announced = event.ref in notified
                    self._pushes.append(announced)
                    self.counters.announced += announced
                    # A job with a new subscriber may have completed long ago.
                    self.counters.missed += not announced and event.origin is Origin.POLL


def _without_progress(job: Job) -> Job:
    """Leave out what changes while a job is active, which no event has."""
    if job.status.terminal:
        return job
    return replace(job, updated_at=None, duration_seconds=None, bytes=None, records=None)
