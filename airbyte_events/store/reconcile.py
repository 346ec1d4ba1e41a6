"""What an observation means for what is known of its job."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from enum import Enum

from airbyte_events.events import FOLLOWED_BY, TOLD_BY_WEBHOOKS, Cursor, Identity, JobEvent, same_job


class Verdict(Enum):
    """What an observation means for what is already known of the job."""

    NEW = "new"
    """A change: it becomes an event."""
    REPEAT = "repeat"
    """Nothing that was not known."""
    CONTRADICTION = "contradiction"
    """The job has ended otherwise, and that stands."""
    REUSED = "reused"
    """Another job has the number now: it becomes an event, and nothing of the job before is kept for it."""


NEWS = frozenset({Verdict.NEW, Verdict.REUSED})
"""The verdicts on what enters the log."""


LATE = timedelta(seconds=60)
"""How long after a job was read an answer that was under way by then may still arrive."""


def reconcile(known: JobEvent | None, observed: JobEvent) -> Verdict:
    """Judge an observation against the job's latest event: a terminal status is absorbed once, for ever.

    A job is its number, its connection and when it was created: an observation that differs is another job's, and what
    Airbyte says now counts.
    """
    if known is None:
        return Verdict.NEW
    if not same_job(known, observed):
        return Verdict.REPEAT if _is_late(known, observed) else Verdict.REUSED
    if known.status is observed.status:
        return Verdict.REPEAT
    if observed.status in FOLLOWED_BY[known.status]:
        return Verdict.NEW
    # What was read before the end and arrives after it is late, not contradictory.
    return Verdict.CONTRADICTION if observed.terminal else Verdict.REPEAT


def _is_late(known: JobEvent, observed: JobEvent) -> bool:
    """Whether an observation of another job was read before the known one, and only arrives after it.

    A number is given again to a job that is created later. An earlier one of the connection is Airbyte's answer of now
    only after a while: when an older copy of Airbyte has taken the place.
    """
    after = observed.observed_at - known.observed_at
    if not Identity(known.connection_id).fits(observed) or known.started_at is None or observed.started_at is None:
        return after < timedelta(0)
    return observed.started_at < known.started_at and after <= LATE


_LASTING = {"workspace_id", "names", "url"}


def succeed(known: JobEvent | None, observed: JobEvent, cursor: Cursor) -> JobEvent:
    """Return the event to store for an observation that is news: what is known of the job and not told again stays."""
    if known is None or not same_job(known, observed):
        return replace(observed, cursor=cursor, previous_status=None)
    kept = {name for name in known.unconfirmed & _LASTING if not getattr(observed, name)}
    return replace(
        observed,
        cursor=cursor,
        previous_status=known.status,
        connection_id=observed.connection_id or known.connection_id,
        workspace_id=observed.workspace_id or known.workspace_id,
        job_type=observed.job_type or known.job_type,
        started_at=observed.started_at or known.started_at,
        names=observed.names or known.names,
        url=observed.url or known.url,
        unconfirmed=observed.unconfirmed | kept,
    )


def annotate(known: JobEvent, told: JobEvent) -> JobEvent:
    """Fill in what the known state lacks, or has unconfirmed, from another report of it; what the API said stays.

    A report of another status, or of another job of that number, changes nothing.
    """
    if known.status is not told.status or not same_job(known, told):
        return known
    taken = {
        name: getattr(told, name)
        for name in TOLD_BY_WEBHOOKS
        if getattr(told, name) not in (None, {}) and (name in known.unconfirmed or getattr(known, name) in (None, {}))
    }
    unconfirmed = known.unconfirmed - taken.keys() | told.unconfirmed & taken.keys()
    return replace(known, **taken, unconfirmed=unconfirmed)
