"""Reconcile observations with the known states of their jobs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from typing import Any

from airbyte_events.events import FOLLOWED_BY, WEBHOOK_FIELDS, Cursor, Identity, JobEvent, add_receipts, same_job


class Verdict(Enum):
    """The result of comparing an observation with the job's known state."""

    NEW = "new"
    """A change: it becomes an event."""
    REPEAT = "repeat"
    """It adds nothing."""
    CONTRADICTION = "contradiction"
    """The job already has another terminal status, which is kept."""
    REUSED = "reused"
    """Another job has the number now: it becomes an event and replaces the former job's state."""


APPENDED = frozenset({Verdict.NEW, Verdict.REUSED})
"""The verdicts of observations that are appended to the log."""

LATE = timedelta(seconds=60)
"""How long after a job was read an earlier response may still arrive."""


def reconcile(known: JobEvent | None, observed: JobEvent) -> Verdict:
    """Compare an observation with the job's latest event. The first terminal status is final.

    Number, connection and creation time identify a job: an observation that differs is of another job, and the newest
    response of the API counts.
    """
    if known is None:
        return Verdict.NEW
    if observed.signal is not None:
        # It is raised again once it was resolved.
        return Verdict.REPEAT if known.status is observed.status else Verdict.NEW
    if not same_job(known, observed):
        return Verdict.REPEAT if _is_late(known, observed) else Verdict.REUSED
    if known.status is observed.status:
        return Verdict.REPEAT
    if observed.status in FOLLOWED_BY[known.status]:
        return Verdict.NEW
    # An active status read before the completion may arrive after it: late, not contradictory.
    return Verdict.CONTRADICTION if observed.terminal else Verdict.REPEAT


def _is_late(known: JobEvent, observed: JobEvent) -> bool:
    """Return whether an observation of another job was read before the known one and arrived after it.

    A reused number belongs to a job created later. An earlier job of the connection is the API's current response only
    after a while: when an older copy of Airbyte was restored.
    """
    after = observed.observed_at - known.observed_at
    if not Identity(known.connection_id).fits(observed) or known.started_at is None or observed.started_at is None:
        return after < timedelta(0)
    return observed.started_at < known.started_at and after <= LATE


_INHERITED = ("connection_id", "workspace_id", "job_type", "started_at", "names", "url", "task_url")


def missing(state: JobEvent, values: Mapping[str, Any], *, replaceable: Collection[str] = ()) -> dict[str, Any]:
    """Return the values that a state lacks.

    :param replaceable: fields to return even if the state has them.
    """
    return {
        name: value
        for name, value in values.items()
        if value not in (None, {}) and (name in replaceable or getattr(state, name) in (None, {}))
    }


def succeed(known: JobEvent | None, observed: JobEvent, cursor: Cursor) -> JobEvent:
    """Return the event to append for a new observation, with known fields that the API does not report again."""
    if known is None or not same_job(known, observed):
        return replace(observed, cursor=cursor, previous_status=None)
    inherited = missing(observed, {name: getattr(known, name) for name in _INHERITED})
    unconfirmed = observed.unconfirmed | known.unconfirmed & inherited.keys()
    return replace(observed, cursor=cursor, previous_status=known.status, unconfirmed=unconfirmed, **inherited)


def annotate(known: JobEvent, reported: JobEvent) -> JobEvent:
    """Fill in missing and unconfirmed fields of the known state from another report.

    Fields that the API reported are kept. Reports of another job are ignored, and those of another status but for the
    waiting task.
    """
    if not same_job(known, reported):
        return known
    if known.task_url is None and reported.task_url is not None:
        known = replace(known, task_url=reported.task_url)
    if known.status is not reported.status:
        return known
    if known.terminal and reported.receipts:
        known = replace(known, receipts=add_receipts(known.receipts, reported.receipts))
    values = {name: getattr(reported, name) for name in (*WEBHOOK_FIELDS, "attempts")}
    taken = missing(known, values, replaceable=known.unconfirmed)
    unconfirmed = known.unconfirmed - taken.keys() | reported.unconfirmed & taken.keys()
    return replace(known, **taken, unconfirmed=unconfirmed)
