"""Starting the job of a task that begins in the triggerer, exactly once."""

from __future__ import annotations

from dataclasses import replace

from airbyte_events.airbyte.submission import How, take_snapshot
from airbyte_events.errors import AirbyteError, AirbyteEventsError, MaybeStarted
from airbyte_events.jobs import JobSystem
from airbyte_events_provider.retry.record import JobRecord, JobRequest
from airbyte_events_provider.retry.task_state import TriggerState


class NotStarted(AirbyteEventsError):
    """No job was started here; the message says why."""


async def start(airbyte: JobSystem, state: TriggerState, request: JobRequest, until: float | None = None) -> JobRecord:
    """Start the task's job unless it was started already, and return its record.

    The request is recorded first, so that a restarted trigger recognises its own job, even if that has completed while
    no triggerer ran.

    :param until: the deadline for finding out whether a job was started, in seconds since the epoch.
    :raises NotStarted: if the task has to begin in a worker.
    """
    try:
        record = await state.read()
        if record is not None and (found := await _find_earlier(airbyte, record)) is not None:
            await state.write(found)
            return found
        before = await take_snapshot(airbyte, request.connection_id, request.job_type)
        if record is None:
            record = request.record(airbyte.url, before.newest_id)
            await state.write(record)
        submission = await request.submit(airbyte, before, until)
    except MaybeStarted as exc:
        raise NotStarted(str(exc)) from exc
    except AirbyteError as exc:
        await _give_up(state)
        raise NotStarted(str(exc)) from exc
    job = submission.job
    if submission.how is How.BLOCKED:
        await _give_up(state)
        raise NotStarted(f"job {job.job_id} of the connection runs.")
    record = record.of(job, owned=submission.owned)
    await state.write(record)
    return record


async def _find_earlier(airbyte: JobSystem, record: JobRecord) -> JobRecord | None:
    """Return the record, completed with the job that an earlier run of the trigger started."""
    if record.job_id is not None or record.after_id is None:
        return record
    job = await record.find_created(airbyte)
    return None if job is None else record.of(job)


async def _give_up(state: TriggerState) -> None:
    """Record that no job was started, so that the worker does not look for one."""
    if state.record is not None and state.record.job_id is None:
        await state.write(replace(state.record, done=True))
