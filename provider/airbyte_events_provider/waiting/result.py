"""The result of a wait: a trigger's event, XComs and log lines."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from logging import Logger
from typing import Any

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.errors import AirbyteEventsError, JobStalled, UnknownJob, WaitTimeout
from airbyte_events.events import JobError, JobEvent, JobStatus

SUCCESS = "success"
ERROR = "error"
CANCELLED = "cancelled"
TIMEOUT = "timeout"
BEGIN = "begin"
"""The key of an event after which the task begins in a worker. Its status is ``error``, because the official provider,
if the task resumes there, takes an unknown status for a success. Release 0.1.0 had ``begin`` as the status."""

_STATUSES = {JobStatus.SUCCEEDED: SUCCESS, JobStatus.CANCELLED: CANCELLED}


class Payload(dict[str, Any]):
    """The payload of a trigger's event, of which Airflow's log line has only the status and the job.

    Airflow logs each event's payload in the triggerer, where log lines block the event loop while Airflow's supervisor
    is busy. The resumed task logs the result.
    """

    def __repr__(self) -> str:
        return f"status={self.get('status')} job_id={self.get('job_id')}"


async def conclude(
    wait: Awaitable[JobEvent], job_id: int, end_time: float | None, execution_deadline: float | None = None
) -> dict[str, Any]:
    """Return the result of a wait: ``status``, ``message``, ``job_id`` and ``job``.

    ``status`` is ``success``, ``error``, ``cancelled`` or, after the execution deadline or if the job has stalled and
    shall be cancelled, ``timeout``. ``job`` is the
    job's event data, or None if the wait ended before the job completed.

    :param wait: the wait for the job, until the earlier of the two deadlines.
    :param end_time: the deadline of the wait, in seconds since the epoch; None: no limit.
    :param execution_deadline: the deadline of the job, likewise.
    """
    try:
        return outcome(await wait)
    except WaitTimeout as exc:
        hard = execution_deadline is not None and (end_time is None or execution_deadline <= end_time)
        limit = execution_deadline if hard else end_time
        when = datetime.fromtimestamp(limit or 0, UTC).isoformat(timespec="seconds")
        if hard:
            return without_job(TIMEOUT, f"Airbyte: {exc}; its execution deadline was {when}.", job_id)
        advice = (
            "The job was not cancelled: it continues in Airbyte. Set a longer timeout, or wait for the job by "
            "AirbyteJobSensor."
        )
        return without_job(ERROR, f"Airbyte: {exc}; the task's timeout was over at {when}. {advice}", job_id)
    except JobStalled as exc:
        if exc.cancel:
            return without_job(TIMEOUT, f"Airbyte: {exc}.", job_id)
        return without_job(ERROR, f"Airbyte: {exc}. The job was not cancelled: it continues in Airbyte.", job_id)
    except UnknownJob as exc:
        return without_job(ERROR, f"{exc}. Is it a job of this Airbyte, and may the client read it?", job_id)
    except AirbyteEventsError as exc:
        return without_job(ERROR, f"Waiting for Airbyte job {job_id} failed: {exc}", job_id)


async def guarded(
    wait: Awaitable[dict[str, Any]], what: str, log: Logger | Any, job_id: int | None = None
) -> dict[str, Any]:
    """Return the result of a trigger's wait, or of its failure: without an event, the task would fail silently.

    :param what: what it waits for.
    :param log: the trigger's.
    """
    try:
        return await wait
    except AirbyteEventsError as exc:
        message = f"Waiting for {what} failed: {exc}"
    except Exception as exc:
        log.exception("waiting for %s failed", what)
        message = f"Waiting for {what} failed: {type(exc).__name__}: {exc}"
    return without_job(ERROR, message, job_id)


def without_job(status: str, message: str, job_id: int | None = None) -> dict[str, Any]:
    """Return the result of a wait that ended before a job completed."""
    return {"status": status, "message": message, "job_id": job_id, "job": None}


def outcome(event: JobEvent) -> dict[str, Any]:
    """Return the result of a wait for a job that has completed."""
    return {
        "status": _STATUSES.get(event.status, ERROR),
        "message": describe(event),
        "job_id": event.ref.job_id,
        "job": event.data(),
    }


def describe(event: JobEvent) -> str:
    """Return a message about a completed job: the status, the reason and the remedy."""
    name = event.names.get("connection")
    connection = f"{name} ({event.connection_id})" if name else event.connection_id or "unknown"
    job = f"Airbyte job {event.ref.job_id} of connection {connection}"
    if event.status is JobStatus.SUCCEEDED:
        return f"{job} succeeded{_amount(event)}."
    if event.status is JobStatus.CANCELLED:
        return f"{job} was cancelled in Airbyte{_amount(event)}."
    if event.status is JobStatus.FAILED:
        tried = f" after {event.attempts} attempts" if (event.attempts or 0) > 1 else ""
        return f"{job} failed{tried}: {_reason(event)}"
    return f"{job} is {event.status.value}."


def _amount(event: JobEvent) -> str:
    counts = {"records": event.records, "bytes": event.bytes}
    amounts = [f"{value:,} {unit}" for unit, value in counts.items() if value is not None]
    amounts += [f"{event.duration_seconds:g} s"] if event.duration_seconds is not None else []
    return f" ({', '.join(amounts)})" if amounts else ""


def _reason(event: JobEvent) -> str:
    page = f" See {event.url}" if event.url else ""
    if event.error is None:
        return f"Airbyte's API has no reason; see the job's log in Airbyte.{page}"
    return f"{event.error}. {_advice(event.error)}{page}"


def _advice(error: JobError) -> str:
    where = f"the {error.origin}" if error.origin else "the connection, its source and its destination"
    if error.type == "config_error":
        return f"Correct the settings of {where} in Airbyte, then clear the task."
    if error.retryable is False:
        return f"Airbyte knows that a retry will not succeed; check {where} first."
    if error.retryable or error.type == "transient_error":
        return "A retry of the task may succeed."
    return f"The job's log in Airbyte has the details; check {where} first."


def completion_line(event: JobEvent) -> str:
    """Return the log line of a completed job: how and how many milliseconds ago it was detected."""
    delay = max(0.0, (utcnow() - event.observed_at).total_seconds() * 1000)
    return (
        f"Airbyte job {event.status.value}: job={event.ref.job_id} detected_by={event.origin.value} "
        f"delay_ms={delay:.0f} finished_at={format_time(event.finished_at) or 'unknown'}"
    )


_RESULT = ("status", "records", "bytes", "started_at", "finished_at", "duration_seconds")


def xcoms(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the XComs of a task whose job succeeded, by key.

    ``return_value`` is the job id, as with the official provider. ``job`` is the job's event data (see
    :meth:`airbyte_events.events.JobEvent.data`); its ``status``, ``records``, ``bytes``, ``started_at``,
    ``finished_at`` (RFC 3339, UTC) and ``duration_seconds`` are also separate XComs, None if unknown.
    """
    job = result["job"] or {}
    return {"return_value": result["job_id"], "job": result["job"], **{key: job.get(key) for key in _RESULT}}


def push(context: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Push :func:`xcoms`, except for the return value, which Airflow pushes."""
    ti = context.get("ti")
    for key, value in xcoms(result).items():
        if ti is not None and key != "return_value":
            ti.xcom_push(key=key, value=value)


def missing_records(result: Mapping[str, Any], min_records: int | None) -> str | None:
    """Return a message if a successful job moved too few records; else None.

    Airbyte can report success for a job that never ran. A count that only a webhook reported is ignored.

    :param min_records: the minimum; None: any number.
    """
    if min_records is None:
        return None
    job = result.get("job") or {}
    records = None if "records" in job.get("unconfirmed", ()) else job.get("records")
    if records is not None and records >= min_records:
        return None
    moved = "does not say how many records it moved" if records is None else f"moved {records:,} records"
    return (
        f"Airbyte job {result['job_id']} succeeded, but {moved}, and min_records is {min_records:,}: "
        "the job may not have run at all; see its log in Airbyte."
    )
