"""Recording what the API returned: reconciled with what is known, enriched by webhooks, counted, stored as events."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from airbyte_events.events import JobEvent, JobRef, JobStatus, Origin
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

TOGETHER = 100
"""Jobs that are stored at a time: a thousand in one go would stall a triggerer's event loop."""

PROVEN_BY = 3
"""Push counts as proven when webhooks announced so many syncs in a row before polling found them completed."""

REMEMBERED = 1_000
"""Jobs whose contradictions were logged."""

_WITNESSED_AT_ONCE = 5
"""Jobs whose notifications are read together: two dozen of each, and one may have half a megabyte."""


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
    """Syncs that polling found completed without a webhook having come."""
    cut: int = 0
    """Lists that did not have all that had changed."""
    settled: dict[str, int] = field(default_factory=dict)
    """Notifications, by result."""


class MonitorStore(EventLog, NotificationInbox, ValueTable, Protocol):
    """The parts of a store that a monitor uses."""


class Recorder:
    """Writes states of one instance's jobs into a store.

    :param instance: its name.
    :param system: its API.
    :param store: where events go.
    :param watches: see each state that is recorded.
    :param lease: write only while this is held.
    :param beside: another recorder of the instance, to share what is known with.
    """

    def __init__(
        self,
        instance: str,
        system: JobSystem,
        store: MonitorStore,
        watches: Watches,
        lease: Lease | None,
        beside: Recorder | None,
    ) -> None:
        self.instance = instance
        self.system = system
        self.watches = watches
        self.counters: Counters = Counters() if beside is None else beside.counters
        self.generations: Generations = Generations(instance, store) if beside is None else beside.generations
        self._contradicted: dict[JobRef, JobStatus] = {} if beside is None else beside._contradicted
        self._store = store
        self._lease = lease
        self._pushes: deque[bool] = deque(maxlen=PROVEN_BY)

    @property
    def push_proven(self) -> bool:
        """Whether webhooks announced the last syncs before polling found them completed."""
        return len(self._pushes) == PROVEN_BY and all(self._pushes)

    async def absorb(self, states: Sequence[JobEvent]) -> None:
        """Store states that a listener has confirmed."""
        await self._append(states, await self._store.states({state.ref for state in states}))
        self.watches.see(states, asked=False)

    async def record(self, jobs: Iterable[Job], origins: Mapping[int, Origin], notifications: Confirmation) -> None:
        """Store the states of jobs that the API returned.

        :param origins: why they were asked for; polling unless given.
        """
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
        # Lists overlap: most of what they have is known.
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
        """Return what notifications add to these completions, where one of them can be true.

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
                # First: a reader of the event has to know by then that other known states may be of other jobs.
                await self.generations.contradicted(before, event, self._lease)
        appended = await self._store.append(events, lease=self._lease, known=known, settle=settle)
        self.counters.reused += appended.verdicts.count(Verdict.REUSED)
        return appended

    def _count(self, events: Sequence[JobEvent], verdicts: Sequence[Verdict], told: Collection[JobRef]) -> None:
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
                    "contradiction: the API reports %s for a job that has completed otherwise: job=%s",
                    event.status.value,
                    event.ref,
                    extra={"instance": event.ref.instance, "job_id": event.ref.job_id},
                )
            elif verdict in NEWS:
                self.counters.events += 1
                # Who reads the log knows its position, and logs it louder.
                about = {"instance": event.ref.instance, "job_id": event.ref.job_id}
                logger.debug(
                    "event: job=%s status=%s origin=%s", event.ref, event.status.value, event.origin.value, extra=about
                )
                if announceable(event):
                    announced = event.ref in told
                    self._pushes.append(announced)
                    self.counters.announced += announced
                    # A job that somebody begins to wait for may have completed long ago.
                    self.counters.missed += not announced and event.origin is Origin.POLL
