"""What a wait came to: the object that a trigger's event carries, in words for the task log, and what the task does."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from typing import Any

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.errors import AirbyteEventsError, UnknownJob, WaitTimeout
from airbyte_events.events import JobError, JobEvent, JobStatus, Origin

SUCCESS = "success"
ERROR = "error"
CANCELLED = "cancelled"
TIMEOUT = "timeout"
BEGIN = "begin"
"""The key of an event that hands the task over to a worker, to begin there. Its status is ``error``: a task whose
import was changed to the official provider meanwhile takes every status that it does not know for a success. Release
0.1.0 had it as the status."""

_STATUSES = {JobStatus.SUCCEEDED: SUCCESS, JobStatus.CANCELLED: CANCELLED}

_HOW = {
    Origin.WEBHOOK: "told by webhook, {after:.0f} ms after the listener confirmed it",
    Origin.POLL: "found by polling, {after:.0f} ms ago",
    Origin.SUBMIT: "found when it was asked for, {after:.0f} ms ago",
    Origin.UNKNOWN: "told by the listener, {after:.0f} ms after it knew",
}


async def conclude(
    wait: Awaitable[JobEvent], job_id: int, end_time: float | None, execution_deadline: float | None = None
) -> dict[str, Any]:
    """What the wait came to, as a trigger's event has it: ``status``, ``message``, ``job_id`` and ``job``.

    ``status`` is ``success``, ``error``, ``cancelled`` or, past the execution deadline, ``timeout``. ``job`` is the
    job's event data, or None if the wait ended before the job did.

    :param wait: for the job's end, until the earlier of the two.
    :param end_time: how long the task waits, in seconds since the epoch.
    :param execution_deadline: how long the job may run, likewise.
    """
    try:
        return outcome(await wait)
    except WaitTimeout as exc:
        hard = execution_deadline is not None and (end_time is None or execution_deadline <= end_time)
        message = f"Airbyte: {exc}; {_too_late(end_time, execution_deadline, hard=hard)}"
        return _ended_early(TIMEOUT if hard else ERROR, message, job_id)
    except UnknownJob as exc:
        message = f"{exc}. Is it a job of this Airbyte, and may the client see it?"
        return _ended_early(ERROR, message, job_id)
    except AirbyteEventsError as exc:
        return _ended_early(ERROR, f"Can't wait for Airbyte job {job_id}: {exc}", job_id)


def _too_late(end_time: float | None, execution_deadline: float | None, *, hard: bool) -> str:
    moment = execution_deadline if hard else end_time
    when = datetime.fromtimestamp(moment or 0, UTC).isoformat(timespec="seconds")
    if hard:
        return f"the time that it may take was over at {when}."
    return (
        f"the time to wait for it was over at {when}. The job was not cancelled: it goes on in Airbyte. "
        "Give the task a longer timeout, or wait for the job by AirbyteJobSensor."
    )


def _ended_early(status: str, message: str, job_id: int) -> dict[str, Any]:
    return {"status": status, "message": message, "job_id": job_id, "job": None}


def outcome(event: JobEvent) -> dict[str, Any]:
    """A job's end as a trigger's event has it."""
    return {
        "status": _STATUSES.get(event.status, ERROR),
        "message": describe(event),
        "job_id": event.ref.job_id,
        "job": event.data(),
    }


def describe(event: JobEvent) -> str:
    """A job's end in words: what happened, why, and what to do."""
    job = f"Airbyte job {event.ref.job_id} of {_connection(event)}"
    if event.status is JobStatus.SUCCEEDED:
        return f"{job} succeeded{_amount(event)}."
    if event.status is JobStatus.CANCELLED:
        return f"{job} was cancelled in Airbyte{_amount(event)}."
    if event.status is JobStatus.FAILED:
        return f"{job} failed: {_reason(event)}"
    return f"{job} is {event.status.value}."


def _connection(event: JobEvent) -> str:
    name = event.names.get("connection")
    return f"connection {name} ({event.connection_id})" if name else f"connection {event.connection_id or 'unknown'}"


def _amount(event: JobEvent) -> str:
    amounts = [
        f"{value:,} {unit}" for value, unit in ((event.records, "records"), (event.bytes, "bytes")) if value is not None
    ]
    amounts += [f"{event.duration_seconds:g} s"] if event.duration_seconds is not None else []
    return f" ({', '.join(amounts)})" if amounts else ""


def _reason(event: JobEvent) -> str:
    page = f" See {event.url}" if event.url else ""
    if event.error is None:
        return f"Airbyte's API tells no reason; the job's log in Airbyte does.{page}"
    return f"{event.error}. {_advice(event.error)}{page}"


def _advice(error: JobError) -> str:
    where = f"the {error.origin}" if error.origin else "the connection, its source and its destination"
    if error.type == "config_error":
        return f"Correct the settings of {where} in Airbyte, then clear the task."
    if error.type == "transient_error":
        return "A retry of the task may succeed."
    return f"The job's log in Airbyte has the details; look at {where} first."


def arrival(event: JobEvent) -> str:
    """How and when the job's end got here, for the timeline."""
    after = max(0.0, (utcnow() - event.observed_at).total_seconds() * 1000)
    ended = f"; it ended at {format_time(event.finished_at)}" if event.finished_at else ""
    return f"job {event.ref.job_id} {event.status.value}: {_HOW[event.origin].format(after=after)}{ended}"


_RESULT = ("status", "records", "bytes", "started_at", "finished_at", "duration_seconds")


def xcoms(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a task that waited for a job to succeed leaves for those after it, by XCom key.

    ``return_value`` is the job id, as with the official provider. ``job`` is the job's event data (see
    :meth:`airbyte_events.events.JobEvent.data`), of which ``status``, ``records``, ``bytes``, ``started_at``,
    ``finished_at`` (RFC 3339, UTC) and ``duration_seconds`` have keys of their own, too. Unknown is None.

    :param told: the trigger's event.
    """
    job = told["job"] or {}
    return {"return_value": told["job_id"], "job": told["job"], **{key: job.get(key) for key in _RESULT}}


def push(context: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Leave :func:`xcoms` for later tasks, but for the return value."""
    ti = context.get("ti")
    for key, value in xcoms(told).items():
        if ti is not None and key != "return_value":
            ti.xcom_push(key=key, value=value)


def missing_records(told: Mapping[str, Any], min_records: int | None) -> str | None:
    """Why a success is none: a job that Airbyte calls successful may never have run.

    What Airbyte's API counts decides; a count that a webhook alone brought does not.

    :param told: the trigger's event.
    :param min_records: how many records it must have moved.
    """
    if min_records is None:
        return None
    job = told.get("job") or {}
    records = None if "records" in job.get("unconfirmed", ()) else job.get("records")
    if records is not None and records >= min_records:
        return None
    moved = "says not how many records it moved" if records is None else f"moved {records:,} records"
    return (
        f"Airbyte job {told['job_id']} succeeded, but {moved}, and min_records wants {min_records:,}: "
        "the job may not have run at all; its log in Airbyte tells."
    )
