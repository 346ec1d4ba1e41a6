"""The job that an earlier try of a task has started, and what becomes of it now."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte import Job, says_unknown
from airbyte_events.airbyte.submission import How, Submission
from airbyte_events.errors import AirbyteError
from airbyte_events.events import Identity, JobStatus, same_job_type
from airbyte_events_provider.retry.task_state import Entry, Ledger

if TYPE_CHECKING:
    from airbyte_events_provider.hooks.airbyte import AirbyteHook

logger = logging.getLogger(__name__)

SETTLING = (0.5, 0.5, 1.0, 2.0, 2.0)
"""Seconds between looks at a job that the clearing of its task may be about to cancel: a triggerer takes a few."""

_CLOCKS = timedelta(minutes=1)
"""By which an Airbyte's clock may be behind the scheduler's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWanted:
    """What a task wants of Airbyte.

    :param connection_id: the Airbyte connection (UUID).
    :param job_type: ``sync``, ``reset`` or ``clear``.
    :param retries: how often the task may be tried again.
    :param retry_cancelled: whether a retry starts a job anew that a person has cancelled.
    :param cancel_on_kill: whether to clear a waiting task cancels its job.
    """

    connection_id: str
    job_type: str
    retries: int
    retry_cancelled: bool = False
    cancel_on_kill: bool = True

    def entry(self, hook: AirbyteHook, ledger: Ledger, after_id: int) -> Entry:
        """Return what is written before the job is asked for: a worker can die before Airbyte has answered.

        :param after_id: see :class:`~airbyte_events_provider.retry.task_state.Entry`.
        """
        return Entry(
            url=hook.settings.url,
            connection_id=self.connection_id,
            job_type=self.job_type,
            asked_at=utcnow(),
            after_id=after_id,
            max_tries=ledger.max_tries,
        )


def resume(hook: AirbyteHook, ledger: Ledger, wanted: JobWanted) -> Submission | None:
    """Return the job that an earlier try has and that this one goes on with: it is active, or has succeeded since.

    A failed one is left behind. So is, after a person has cleared the task, each one that has completed: clearing means
    to do it again. One that is active then and the task's own is cancelled, by that clearing or else here.

    :return: None if a job is to be started.
    :raises AirflowFailException: if a person has cancelled the task's job in Airbyte. A retry does not undo that.
    """
    entry = ledger.read()
    if entry is None:
        return None if ledger.kept else _unrecorded(hook, ledger, wanted)
    if (entry.url, entry.connection_id, entry.job_type) != (
        hook.settings.url,
        wanted.connection_id,
        wanted.job_type,
    ) or entry.done:
        return None
    job = _find(hook, entry)
    if job is None:
        return None
    cleared = entry.max_tries != ledger.max_tries
    if cleared and wanted.cancel_on_kill and entry.owned:
        job = _settled(hook, job)
    if not job.status.terminal:
        adopted = entry.adopted or (cleared and entry.owned)
        ledger.write(
            replace(entry, job_id=job.job_id, started_at=job.started_at, max_tries=ledger.max_tries, adopted=adopted)
        )
        return Submission(job=job, how=How.RESUMED, owned=entry.owned)
    if cleared:
        return None
    if (
        job.status is JobStatus.CANCELLED
        and entry.owned
        and not wanted.retry_cancelled
        and not ledger.cleared_away(job.updated_at, hook.clock_ahead())
    ):
        raise AirflowFailException(
            f"Airbyte job {job.job_id} of connection {wanted.connection_id}, which an earlier try of this task "
            "started, was cancelled in Airbyte. A retry would undo that decision, so there is none: clear the task to "
            "sync again."
        )
    if job.status is not JobStatus.SUCCEEDED:
        logger.info("Airbyte job %s, which an earlier try started, is %s", job.job_id, job.status.value)
        return None
    return Submission(job=job, how=How.RESUMED, owned=entry.owned)


def _find(hook: AirbyteHook, entry: Entry) -> Job | None:
    if entry.job_id is not None:
        job = _read(hook, entry.job_id)
        if job is None or Identity(entry.connection_id, entry.started_at).fits(job):
            return job
        logger.warning("Airbyte job %s is another one now than that which an earlier try started", entry.job_id)
        return None
    if entry.after_id is None:
        return None
    logger.info("An earlier try was asking Airbyte for a job when it ended: looking for it")
    return hook.find_created(entry.connection_id, entry.job_type, entry.after_id)


def _settled(hook: AirbyteHook, job: Job) -> Job:
    """Return the job of a cleared task once it has completed: cancelled by the clearing, or else here.

    Nobody cancels it where the triggerer was down, or the worker killed.
    """
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
            logger.warning("Airbyte does not know job %s any more, which an earlier try started: %s", job_id, exc)
            return None
        raise


def _unrecorded(hook: AirbyteHook, ledger: Ledger, wanted: JobWanted) -> Submission | None:
    """Return the active job of the connection that a retry goes on with where Airflow keeps no entry.

    It may be somebody else's, so it is not owned. One that has completed is not taken: another task of the run, or
    Airbyte's schedule, may have started it before this task began.
    """
    if ledger.try_of_this_clearing <= 1 or ledger.run_began is None:
        return None
    job = hook.find_active(wanted.connection_id)
    if job is None or not same_job_type(job.job_type, wanted.job_type):
        return None
    if job.started_at is None or job.started_at < ledger.run_began - _CLOCKS:
        return None
    return Submission(job=job, how=How.RESUMED, owned=False)
