"""Acting on the result of a wait: succeed, fail with or without a retry, or start another job."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airbyte_events._utils.times import parse_time
from airbyte_events.events import JobStatus
from airbyte_events_provider.retry.worker_job import WorkerJob
from airbyte_events_provider.waiting.result import CANCELLED, SUCCESS, TIMEOUT, missing_records

logger = logging.getLogger(__name__)


def complete(task: WorkerJob, result: Mapping[str, Any], *, killed: bool) -> Mapping[str, Any] | None:
    """Return the result of a job that succeeded; None: start another job.

    :param result: a trigger's event, or the result of a wait.
    :param killed: whether the task was killed, and has cancelled the job therefore.
    :raises AirflowFailException: if a person cancelled the task's own job, which a retry must not undo.
    :raises AirflowException: if the job failed, or did not complete in time.
    """
    if result["status"] == SUCCESS:
        if (shortage := missing_records(result, task.request.min_records)) is not None:
            task.state.give_up()
            raise AirflowException(shortage)
        return result
    if result["status"] == TIMEOUT:
        return complete(task, _cancel_overdue(task, result), killed=killed)
    if result["status"] == CANCELLED and not _fail_cancelled(task, result, killed):
        return None
    logger.error("%s", result["message"])
    raise AirflowException(result["message"])


def _fail_cancelled(task: WorkerJob, result: Mapping[str, Any], killed: bool) -> bool:
    """Return True if the cancelled job fails the task with a retry; False to start another job."""
    job_id, job, message = result["job_id"], result["job"] or {}, result["message"]
    if killed:
        task.state.give_up()
        raise AirflowException(f"Airbyte job {job_id} was cancelled because its task was killed.")
    record = task.state.read()
    if (
        record is not None
        and record.adopted
        and task.state.cancelled_by_clearing(parse_time(job.get("finished_at")), task.hook.clock_ahead())
    ):
        logger.info("starting another job: Airbyte job %s was cancelled because the task was cleared", job_id)
        return False
    if not task.owned:
        raise AirflowException(f"{message} This task had not started it: a retry starts another.")
    if task.hook.cancelled_by_airbyte(
        job_id,
        task.request.connection_id,
        job.get("job_type"),
        moved=bool(job.get("records") or job.get("bytes")),
        was_queued=job.get("previous_status") == JobStatus.QUEUED.value,
    ):
        task.state.give_up()
        raise AirflowException(
            f"{message} Airbyte itself cancelled it, for example in its queue: a retry starts another."
        )
    if not task.request.retry_cancelled:
        raise AirflowFailException(
            f"{message} A retry would undo that decision, so there is none: clear the task to sync again."
        )
    return True


def _cancel_overdue(task: WorkerJob, result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Cancel the task's own job; return its result if it has succeeded just before.

    :raises AirflowException: if it has not.
    """
    job_id, message = result["job_id"], result["message"]
    logger.error("%s", message)
    if not task.owned:
        raise AirflowException(f"{message} This task did not start the job, so it continues.")
    task.state.give_up()
    try:
        job = task.hook.cancel_job(job_id)
    except AirflowException as exc:
        raise AirflowException(f"{message} The job could not be cancelled: {exc}") from exc
    if job.status is not JobStatus.SUCCEEDED:
        raise AirflowException(f"{message} The job is {job.status.value} now.")
    logger.warning("Airbyte job %s succeeded before it could be cancelled", job_id)
    return task.hook.wait_for(job)
