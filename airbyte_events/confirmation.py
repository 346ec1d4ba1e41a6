"""What the API says of a job, as an event, and what a webhook adds to it once both agree."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from airbyte_events.airbyte import Job
from airbyte_events.events import PUSHED_JOB_TYPES, JobEvent, JobRef, JobStatus, Origin, same_job, utcnow
from airbyte_events.notifications import Notification


def event_of(instance: str, job: Job, origin: Origin = Origin.POLL) -> JobEvent:
    """What the API tells of a job of the instance, as an event."""
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


def agree(event: JobEvent | None, told: Notification) -> bool:
    """Whether the API says what the notification does."""
    return event is not None and told.expected_status is event.status


def announceable(event: JobEvent) -> bool:
    """Whether Airbyte sends a webhook for it, where it has been told to."""
    return event.job_type in PUSHED_JOB_TYPES and event.status in (JobStatus.SUCCEEDED, JobStatus.FAILED)


def enriched(event: JobEvent, told: Notification | None) -> JobEvent:
    """Add what a notification knows."""
    if told is None:
        return event
    return replace(
        event,
        workspace_id=told.workspace_id,
        started_at=event.started_at or told.started_at,
        finished_at=told.finished_at or event.finished_at,
        records=event.records if told.records is None else told.records,
        bytes=event.bytes if told.bytes is None else told.bytes,
        duration_seconds=event.duration_seconds if event.duration_seconds is not None else told.duration_seconds,
        error=told.error if event.status is JobStatus.FAILED else None,
        names=told.names,
        url=told.url,
    )
