"""Finding the job of an earlier try, and deciding whether to resume it."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airbyte_events.airbyte.models import says_unknown
from airbyte_events.airbyte.submission import How, Submission, take_snapshot
from airbyte_events.errors import AirbyteError
from airbyte_events.events import Identity, JobStatus, same_job_type
from airbyte_events.jobs import Job
from airbyte_events_provider.retry.record import JobRecord, JobRequest
from airbyte_events_provider.retry.task_state import TaskState

if TYPE_CHECKING:
    from airbyte_events_provider.hooks.airbyte import AirbyteHook

logger = logging.getLogger(__name__)

SETTLING = (0.5, 0.5, 1.0, 2.0, 2.0)
"""Seconds between polls of a job that a triggerer may be about to cancel, because its task was cleared."""

_CLOCKS = timedelta(minutes=1)
"""The tolerance for an Airbyte's clock that is behind the scheduler's."""


def resume(hook: AirbyteHook, state: TaskState, request: JobRequest) -> Submission | None:
    """Return the job of an earlier try if it is active or has succeeded; None to start another job.

    After a person has cleared the task, completed jobs are not resumed: clearing means to run again. The task's own job
    that is still active then is cancelled, by the clearing or here.

    :raises AirflowFailException: if a person cancelled the task's job in Airbyte, which a retry must not undo.
    """
    record = state.read()
    if record is None:
        return None if state.available else _find_unrecorded(hook, state, request)
    known = (record.url, record.connection_id, record.job_type)
    if record.done or known != (hook.settings.url, request.connection_id, request.job_type):
        return None
    job = _find(hook, record)
    if job is None:
        return None
    cleared = record.max_tries != state.max_tries
    if cleared and request.cancel_on_kill and record.owned:
        job = _settle(hook, job)
    resumed = Submission(job=job, how=How.RESUMED, owned=record.owned)
    if not job.status.terminal:
        adopted = record.adopted or (cleared and record.owned)
        state.write(record.of(job, max_tries=state.max_tries, adopted=adopted))
        return resumed
    if cleared:
        return None
    if job.status is JobStatus.SUCCEEDED:
        return resumed
    if (
        job.status is JobStatus.CANCELLED
        and record.owned
        and not request.retry_cancelled
        and not state.cancelled_by_clearing(job.updated_at, hook.clock_ahead())
        and not hook.cancelled_by_airbyte(
            job.job_id,
            request.connection_id,
            job.job_type,
            moved=bool(job.records or job.bytes),
            was_queued=False,  # unknown
        )
    ):
        raise AirflowFailException(
            f"Airbyte job {job.job_id} of connection {request.connection_id}, which an earlier try of this task "
            "started, was cancelled in Airbyte. A retry would undo that decision, so there is none: clear the task to "
            "sync again."
        )
    logger.info("starting another job: Airbyte job %s of an earlier try is %s", job.job_id, job.status.value)
    return None


def _find(hook: AirbyteHook, record: JobRecord) -> Job | None:
    if record.job_id is not None:
        job = _read(hook, record.job_id)
        if job is None or Identity(record.connection_id, record.started_at).fits(job):
            return job
        logger.warning("Airbyte job %s is not the one that an earlier try started: Airbyte was reset", record.job_id)
        return None
    logger.info("an earlier try ended before Airbyte responded: searching for its job")
    return hook.call(record.find_created)


def _settle(hook: AirbyteHook, job: Job) -> Job:
    """Wait until the job of a cleared task completes; cancel it if the triggerer or worker has not."""
    for seconds in SETTLING:
        if job.status.terminal:
            return job
        logger.info("Airbyte job %s is %s; clearing its task may cancel it", job.job_id, job.status.value)
        time.sleep(seconds)
        job = hook.get_job_details(job.job_id)
    try:
        return hook.cancel_job(job.job_id)
    except AirflowException as exc:
        logger.warning("Airbyte job %s of the cleared task could not be cancelled: %s", job.job_id, exc)
        return job


def _read(hook: AirbyteHook, job_id: int) -> Job | None:
    try:
        return hook.get_job_details(job_id)
    except AirflowException as exc:
        if isinstance(exc.__cause__, AirbyteError) and says_unknown(exc.__cause__):
            logger.warning("Airbyte has no job %s any more, which an earlier try started: %s", job_id, exc)
            return None
        raise


def _find_unrecorded(hook: AirbyteHook, state: TaskState, request: JobRequest) -> Submission | None:
    """Return the connection's active job for a retry, where Airflow stores no task state.

    The task may not have started it, so it is not owned. Completed jobs are ignored: they may have been started before
    this task began.
    """
    if state.try_since_clearing <= 1 or state.run_started_at is None:
        return None
    listed = "refresh" if request.job_type == "refresh" else "sync"
    job = hook.call(lambda airbyte: take_snapshot(airbyte, request.connection_id, listed)).active
    if job is None or not same_job_type(job.job_type, request.job_type):
        return None
    if job.started_at is None or job.started_at < state.run_started_at - _CLOCKS:
        return None
    return Submission(job=job, how=How.RESUMED, owned=False)
