"""What the API reports of a job, as an event, and what a webhook adds where the API has no value.

Anybody who knows the webhook's URL can send notifications. The API's values count wherever it has any; what only a
notification says is taken if nothing in it contradicts the API, and is marked as unconfirmed. Of several notifications
of a job the one that agrees best with the API is taken, whichever came first or last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

from airbyte_events._utils.times import utcnow
from airbyte_events.events import PUSHED_JOB_TYPES, Identity, JobEvent, JobRef, JobStatus, Origin, same_job
from airbyte_events.jobs import Announcement, Job
from airbyte_events.store.reconcile import annotate, missing
from airbyte_events.store.records import Outcome, States, StoredNotification


def event_of(instance: str, job: Job, origin: Origin = Origin.POLL) -> JobEvent:
    """Return what the API reports of a job of the instance, as an event."""
    terminal = job.status.terminal
    finished_at = job.updated_at if terminal else None
    if terminal and finished_at is None and job.started_at is not None and job.duration_seconds is not None:
        finished_at = job.started_at + timedelta(seconds=job.duration_seconds)
    return JobEvent(
        ref=JobRef(instance, job.job_id),
        status=job.status,
        observed_at=utcnow(),
        origin=origin,
        connection_id=job.connection_id,
        job_type=job.job_type,
        started_at=job.started_at,
        finished_at=finished_at,
        records=job.records if terminal else None,
        bytes=job.bytes if terminal else None,
        duration_seconds=job.duration_seconds if terminal else None,
    )


def is_news(known: JobEvent | None, observed: JobEvent) -> bool:
    """Return whether the job's state is another than that which is known, or another job has its number."""
    return known is None or known.status is not observed.status or not same_job(known, observed)


def announceable(event: JobEvent) -> bool:
    """Return whether Airbyte sends a webhook for it, where webhooks are enabled."""
    return event.job_type in PUSHED_JOB_TYPES and event.status in (JobStatus.SUCCEEDED, JobStatus.FAILED)


PRECISION = timedelta(seconds=2)
"""Airbyte reports times in whole seconds, cut or rounded."""

_CLOCKS = timedelta(minutes=1)
"""So far the listener's clock may be behind Airbyte's, where a notification has no completion time."""


def may_be_of(event: JobEvent, told: Announcement, received_at: datetime) -> bool:
    """Return whether a notification can be that of a job in the state that the API reports.

    It claims the same end, of the same connection, and came no earlier than the end: one that came before the job was
    created is that of an earlier job of the number.

    :param received_at: when it came, by the listener's clock.
    """
    if told.expected_status is not event.status or not Identity(told.connection_id).fits(event):
        return False
    moments = [moment for moment in (event.started_at, event.finished_at) if moment is not None]
    return not moments or received_at >= max(moments) - _CLOCKS or _near(told.finished_at, event.finished_at)


def _is_within(event: JobEvent, moment: datetime, received_at: datetime) -> bool:
    """Whether a time lies in the job's life: up to its end, or to when the notification came."""
    started = event.started_at is None or event.started_at - PRECISION <= moment
    return started and moment <= (event.finished_at or received_at) + PRECISION


class Received(NamedTuple):
    """A notification as it was received.

    :param id: its id in the inbox.
    :param received_at: when, by the listener's clock.
    """

    id: int
    received_at: datetime
    notification: Announcement

    @classmethod
    def of(cls, stored: StoredNotification, read: Callable[[bytes], Announcement]) -> Received:
        """Read one of the inbox.

        :param read: :meth:`~airbyte_events.jobs.JobSystem.read_notification`.
        """
        return cls(stored.id, stored.received_at, read(stored.body))


class Confirmation(dict[int, Sequence[Received]]):
    """Notifications that are being confirmed, by job.

    :param known: what was known of these jobs when the notifications were taken from the inbox; None: it was not read.
    :param announced: the jobs of which the inbox has other notifications of their completion.
    :param wanted: the jobs whose states are kept in :attr:`states`.
    """

    def __init__(
        self,
        notifications: Mapping[int, Sequence[Received]] | None = None,
        *,
        known: States | None = None,
        announced: Collection[JobRef] = (),
        wanted: Collection[int] = (),
    ) -> None:
        super().__init__(notifications or {})
        self.known = known
        self.announced = frozenset(announced)
        self.wanted = frozenset(wanted)
        self.states: dict[int, JobEvent] = {}
        """The latest states of the jobs that the API returned."""
        self.settled: dict[int, Outcome] = {}
        """The outcomes that were stored with an event."""

    def outcomes(self, events: Iterable[JobEvent]) -> dict[int, Outcome]:
        """Return the outcomes of the notifications of these jobs, by id."""
        return {each.id: outcome_of(each, event) for event in events for each in self.get(event.ref.job_id, ())}


def outcome_of(received: Received, state: JobEvent | None) -> Outcome:
    """Return the outcome of a notification.

    :param state: of its job; None if the API does not know the job.
    """
    told = received.notification
    if told.expected_status is None:
        return Outcome.IGNORED
    if state is None:
        return Outcome.UNKNOWN_JOB
    return Outcome.CONFIRMED if may_be_of(state, told, received.received_at) else Outcome.UNCONFIRMED


@dataclass(frozen=True, slots=True)
class Witnesses:
    """The notifications that may be true of a job, the one that agrees best with the API first.

    :param event: what the API reports.
    :param airbyte_url: where the API is: links to another site than Airbyte's are not taken.
    """

    event: JobEvent
    told: Sequence[Received]
    airbyte_url: str

    @classmethod
    def among(cls, received: Iterable[Received], event: JobEvent, airbyte_url: str) -> Witnesses:
        """Choose among what was received for the job's number."""
        return cls(event, ranked(received, event), airbyte_url)

    def enriched(self) -> JobEvent:
        """Return what the API reports, with what the best of them adds."""
        return self._with(self.told[0]) if self.told else self.event

    def improve(self, known: JobEvent) -> bool:
        """Return whether :meth:`enriched` adds to what is known of the job, or is better than that.

        What is known unconfirmed gives way if the notification that said it is at hand, and agrees less; and to one
        that agrees in all that the API says, counts included, which a stranger can't know.
        """
        if not self.told:
            return False
        sources = (self._with(told) for told in self.told)
        if _agreement(self.event, *self.told[0][1:]) == _WHOLE or any(
            all(getattr(each, name) == getattr(known, name) for name in known.unconfirmed) for each in sources
        ):
            return annotate(known, self.enriched()) != known
        return False

    def _with(self, received: Received) -> JobEvent:
        told = received.notification
        finish = told.finished_at
        brought = {
            "workspace_id": told.workspace_id,
            "finished_at": finish if finish and _is_within(self.event, finish, received.received_at) else None,
            "records": told.records,
            "bytes": told.bytes,
            "duration_seconds": told.duration_seconds,
            "error": told.error if self.event.status is JobStatus.FAILED else None,
            "names": told.names,
            "url": told.url if told.url and _is_page_of(told.url, self.event, self.airbyte_url) else None,
        }
        taken = missing(self.event, brought)
        return replace(self.event, **taken, unconfirmed=self.event.unconfirmed | taken.keys())


def ranked(received: Iterable[Received], event: JobEvent) -> list[Received]:
    """Return those that may be true of a job, the one that agrees best with what the API reports first.

    Among equals it is the first that came after the job's end.
    """

    def rank(each: Received) -> tuple[int, bool, datetime]:
        early = event.finished_at is not None and each.received_at < event.finished_at - PRECISION
        return -_agreement(event, *each[1:]), early, each.received_at

    return sorted((each for each in received if may_be_of(event, each.notification, each.received_at)), key=rank)


_WHOLE = 6


def _agreement(event: JobEvent, received_at: datetime, told: Announcement) -> int:
    """In how much a notification agrees with what the API reports, up to :data:`_WHOLE`; -1 if its times contradict."""
    times = [moment for moment in (told.started_at, told.finished_at) if moment is not None]
    if not all(_is_within(event, moment, received_at) for moment in times):
        return -1
    return sum(
        [
            told.connection_id is not None,
            told.started_at is not None,
            2 * _near(told.finished_at, event.finished_at),
            told.records is not None and told.records == event.records,
            told.bytes is not None and told.bytes == event.bytes,
        ]
    )


def _near(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and other is not None and abs(one - other) <= PRECISION


def _is_page_of(url: str, event: JobEvent, airbyte_url: str) -> bool:
    """Whether an address can be the page of the job's connection: it names that, on Airbyte's own site.

    Where the API's address is one that people can't be sent to (a cluster's service, an IP address), the site is not
    known, and the connection's id has to do.
    """
    page, own = urlsplit(url), urlsplit(airbyte_url).hostname or ""
    if event.connection_id is not None and f"/connections/{event.connection_id}".lower() not in page.path.lower():
        return False
    labels = own.split(".")
    if len(labels) < 2 or labels[-1].isdigit() or ":" in own or labels[-1] in _PRIVATE:
        return True
    return (page.hostname or "").split(".")[-2:] == labels[-2:]


_PRIVATE = frozenset({"cluster", "internal", "local", "localhost", "svc"})
"""The last labels of names that only a cluster or a private network knows."""
