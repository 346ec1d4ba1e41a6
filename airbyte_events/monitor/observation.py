"""Events from the API's job objects, and the values that a webhook adds where the API has none.

Anybody who knows the webhook's URL can send notifications. So the API's values take precedence; a value that only a
notification has is used if nothing in it contradicts the API, and marked as unconfirmed. Of several notifications of a
job, in any order, the one that agrees best with the API is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

from airbyte_events._utils.times import utcnow
from airbyte_events.events import PUSHED_JOB_TYPES, Identity, JobEvent, JobRef, JobStatus, Origin, same_job
from airbyte_events.jobs import Announcement, Failure, Job
from airbyte_events.store.reconcile import annotate, missing
from airbyte_events.store.records import Outcome, States, StoredNotification


def event_of(instance: str, job: Job, origin: Origin = Origin.POLL) -> JobEvent:
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


def lacks_reason(event: JobEvent) -> bool:
    """Return whether Airbyte may know why the job failed: where it reported the attempts, it had no reason."""
    return event.status is JobStatus.FAILED and event.error is None and event.attempts is None


def with_reason(event: JobEvent, failure: Failure) -> JobEvent:
    """Return the failed job's event with its reason; unchanged if that is the reason of another job with its id."""
    if not Identity(failure.connection_id).fits(event):
        return event
    return replace(event, error=failure.error, attempts=failure.attempts)


def is_news(known: JobEvent | None, observed: JobEvent) -> bool:
    """Return whether the job's state differs from the known one, or another job has its id."""
    return known is None or known.status is not observed.status or not same_job(known, observed)


def announceable(event: JobEvent) -> bool:
    """Return whether Airbyte sends a webhook for it, if webhooks are enabled."""
    return event.job_type in PUSHED_JOB_TYPES and event.status in (JobStatus.SUCCEEDED, JobStatus.FAILED)


PRECISION = timedelta(seconds=2)
"""The precision of Airbyte's times: whole seconds, cut or rounded."""

_CLOCKS = timedelta(minutes=1)
"""How far the listener's clock may be behind Airbyte's, if a notification has no completion time."""


def may_be_of(event: JobEvent, notification: Announcement, received_at: datetime) -> bool:
    """Return whether a notification can be that of a job in the state that the API reports.

    It announces the same status, of the same connection, and came no earlier than the completion: a notification from
    before the job was created is that of an earlier job with the same id.

    :param received_at: by the listener's clock.
    """
    if notification.expected_status is not event.status or not Identity(notification.connection_id).fits(event):
        return False
    moments = [moment for moment in (event.started_at, event.finished_at) if moment is not None]
    return not moments or received_at >= max(moments) - _CLOCKS or _near(notification.finished_at, event.finished_at)


def _is_within(event: JobEvent, moment: datetime, received_at: datetime) -> bool:
    started = event.started_at is None or event.started_at - PRECISION <= moment
    return started and moment <= (event.finished_at or received_at) + PRECISION


class Received(NamedTuple):
    """A received notification.

    :param id: its id in the inbox.
    :param received_at: by the listener's clock.
    """

    id: int
    received_at: datetime
    notification: Announcement

    @classmethod
    def of(cls, stored: StoredNotification, read: Callable[[bytes], Announcement]) -> Received:
        """Read a notification of the inbox.

        :param read: :meth:`~airbyte_events.jobs.JobSystem.read_notification`.
        """
        return cls(stored.id, stored.received_at, read(stored.body))


class Confirmation(dict[int, Sequence[Received]]):
    """Jobs that are being requested, and the notifications that announce them, by job.

    :param known: the jobs' states when the notifications were taken from the inbox; None if they were not read.
    :param announced: the jobs whose completion other notifications in the inbox announce.
    :param nameless: the number of notifications without a job id.
    :param wanted: the jobs whose states are kept in :attr:`states`. A list may return others, too.
    :param origin: why they are requested.
    """

    def __init__(
        self,
        notifications: Mapping[int, Sequence[Received]] | None = None,
        *,
        known: States | None = None,
        announced: Collection[JobRef] = (),
        nameless: int = 0,
        wanted: Collection[int] = (),
        origin: Origin = Origin.POLL,
    ) -> None:
        super().__init__(notifications or {})
        self.known = known
        self.announced = frozenset(announced)
        self.nameless = nameless
        self.wanted = frozenset(wanted)
        self.origin = origin
        self.requested: set[int] = set()
        """The jobs that were requested one by one."""
        self.states: dict[int, JobEvent] = {}
        """The latest states of the jobs that the API returned."""
        self.settled: dict[int, Outcome] = {}
        """The outcomes that were stored with an event."""

    def origin_of(self, job_id: int) -> Origin:
        return self.origin if job_id in self.wanted else Origin.POLL

    def outcomes(self, events: Iterable[JobEvent]) -> dict[int, Outcome]:
        """Return the outcomes of these jobs' notifications, by notification id."""
        return {each.id: outcome_of(each, event) for event in events for each in self.get(event.ref.job_id, ())}


def outcome_of(received: Received, state: JobEvent | None) -> Outcome:
    """Return the outcome of a notification.

    :param state: of its job; None if the API does not know the job.
    """
    notification = received.notification
    if notification.expected_status is None:
        return Outcome.IGNORED
    if state is None:
        return Outcome.UNKNOWN_JOB
    return Outcome.CONFIRMED if may_be_of(state, notification, received.received_at) else Outcome.UNCONFIRMED


@dataclass(frozen=True, slots=True)
class Candidates:
    """The notifications that may be those of a job, the one that agrees best with the API first.

    :param event: from the API.
    :param airbyte_url: the API's address: links to another site are not used.
    """

    event: JobEvent
    notifications: Sequence[Received]
    airbyte_url: str

    @classmethod
    def among(cls, received: Iterable[Received], event: JobEvent, airbyte_url: str) -> Candidates:
        """Select the candidates from all notifications with the job's id."""
        return cls(event, ranked(received, event), airbyte_url)

    def enriched(self) -> JobEvent:
        """Return the event with the values that the best candidate adds."""
        return self._with(self.notifications[0]) if self.notifications else self.event

    def improve(self, known: JobEvent) -> bool:
        """Return whether :meth:`enriched` completes or corrects the known event.

        Unconfirmed values are corrected if the notification that they are from is among the candidates and agrees less,
        or if the best one agrees with all of the API's values, counts included, which a forger can't know.
        """
        if not self.notifications:
            return False
        sources = map(self._with, self.notifications)
        if _agreement(self.event, *self.notifications[0][1:]) == _FULL_AGREEMENT or any(
            all(getattr(each, name) == getattr(known, name) for name in known.unconfirmed) for each in sources
        ):
            return annotate(known, self.enriched()) != known
        return False

    def _with(self, received: Received) -> JobEvent:
        given = received.notification
        finish = given.finished_at
        values = {
            "workspace_id": given.workspace_id,
            "finished_at": finish if finish and _is_within(self.event, finish, received.received_at) else None,
            "records": given.records,
            "bytes": given.bytes,
            "duration_seconds": given.duration_seconds,
            "error": given.error if self.event.status is JobStatus.FAILED else None,
            "names": given.names,
            "url": given.url if given.url and _is_page_of(given.url, self.event, self.airbyte_url) else None,
        }
        added = missing(self.event, values)
        return replace(self.event, **added, unconfirmed=self.event.unconfirmed | added.keys())


def ranked(received: Iterable[Received], event: JobEvent) -> list[Received]:
    """Return the notifications that may be those of a job, the one that agrees best with the API first.

    Of equals, the first that came after the completion precedes the others.
    """

    def rank(each: Received) -> tuple[int, bool, datetime]:
        early = event.finished_at is not None and each.received_at < event.finished_at - PRECISION
        return -_agreement(event, *each[1:]), early, each.received_at

    return sorted((each for each in received if may_be_of(event, each.notification, each.received_at)), key=rank)


_FULL_AGREEMENT = 6


def _agreement(event: JobEvent, received_at: datetime, given: Announcement) -> int:
    """Score how far a notification agrees with the API, up to :data:`_FULL_AGREEMENT`; -1 if its times contradict."""
    times = [moment for moment in (given.started_at, given.finished_at) if moment is not None]
    if not all(_is_within(event, moment, received_at) for moment in times):
        return -1
    return sum(
        [
            given.connection_id is not None,
            given.started_at is not None,
            2 * _near(given.finished_at, event.finished_at),
            given.records is not None and given.records == event.records,
            given.bytes is not None and given.bytes == event.bytes,
        ]
    )


def _near(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and other is not None and abs(one - other) <= PRECISION


def _is_page_of(url: str, event: JobEvent, airbyte_url: str) -> bool:
    """Return whether a URL can be the page of the job's connection: it contains its id, on Airbyte's own site.

    If the API's address is internal (a cluster's service, an IP address), the site is unknown and not checked.
    """
    page, own = urlsplit(url), urlsplit(airbyte_url).hostname or ""
    if event.connection_id is not None and f"/connections/{event.connection_id}".lower() not in page.path.lower():
        return False
    labels = own.split(".")
    if len(labels) < 2 or labels[-1].isdigit() or ":" in own or labels[-1] in _PRIVATE:
        return True
    return (page.hostname or "").split(".")[-2:] == labels[-2:]


_PRIVATE = frozenset({"cluster", "internal", "local", "localhost", "svc"})
"""The last labels of host names in a cluster or private network."""
