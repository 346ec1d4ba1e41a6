"""What an observation means for what is known of its job."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from typing import Any

from airbyte_events.events import FOLLOWED_BY, WEBHOOK_FIELDS, Cursor, Identity, JobEvent, same_job


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


_INHERITED = ("connection_id", "workspace_id", "job_type", "started_at", "names", "url")


def missing(state: JobEvent, values: Mapping[str, Any], *, replaceable: Collection[str] = ()) -> dict[str, Any]:
    """Return those of the values that a state does not have.

    :param replaceable: fields whose values are returned though the state has them.
    """
    return {
        name: value
        for name, value in values.items()
        if value not in (None, {}) and (name in replaceable or getattr(state, name) in (None, {}))
    }


def succeed(known: JobEvent | None, observed: JobEvent, cursor: Cursor) -> JobEvent:
    """Return the event to store for an observation that is news: it inherits what the API does not report again."""
    if known is None or not same_job(known, observed):
        return replace(observed, cursor=cursor, previous_status=None)
    inherited = missing(observed, {name: getattr(known, name) for name in _INHERITED})
    unconfirmed = observed.unconfirmed | known.unconfirmed & inherited.keys()
    return replace(observed, cursor=cursor, previous_status=known.status, unconfirmed=unconfirmed, **inherited)


def annotate(known: JobEvent, reported: JobEvent) -> JobEvent:
    """Fill in what the known state lacks, or has unconfirmed, from another report of it.

    What the API reported stays. A report of another status, or of another job of that number, changes nothing.
    """
    if known.status is not reported.status or not same_job(known, reported):
        return known
    values = {name: getattr(reported, name) for name in WEBHOOK_FIELDS}
    taken = missing(known, values, replaceable=known.unconfirmed)
    unconfirmed = known.unconfirmed - taken.keys() | reported.unconfirmed & taken.keys()
    return replace(known, **taken, unconfirmed=unconfirmed)
