"""The job that an earlier try of a task has started, and what becomes of it now."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airbyte_events.airbyte import Job, says_unknown
from airbyte_events.errors import AirbyteError
from airbyte_events.events import JobStatus, utcnow
from airbyte_events_provider.ledger import Entry, Ledger

if TYPE_CHECKING:
    from airbyte_events_provider.hooks.airbyte import AirbyteHook

logger = logging.getLogger(__name__)

SETTLING = (0.5, 0.5, 1.0, 2.0, 2.0)
"""Seconds between looks at a job that the clearing of its task may be about to cancel: a triggerer takes a few."""

_ONE_LOOK = (0.0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWanted:
    """What a task wants of Airbyte.

    :param connection_id: the Airbyte connection (UUID).
    :param job_type: ``sync``, ``reset`` or ``clear``.
    :param retries: how often the task may be tried again.
    :param retry_cancelled: whether a retry starts a job anew that a person has cancelled.
    :param cancel_on_kill: whether to clear a waiting task cancels its job.
    :param begun_by_trigger: whether the task is begun in the triggerer, which leaves no entry.
    """

    connection_id: str
    job_type: str
    retries: int
    retry_cancelled: bool = False
    cancel_on_kill: bool = True
    begun_by_trigger: bool = False

    def entry(self, hook: AirbyteHook, ledger: Ledger) -> Entry:
        """To be written before the job is asked for: a worker can die before Airbyte has answered."""
        return Entry(
            url=hook.settings.url,
            connection_id=self.connection_id,
            job_type=self.job_type,
            asked_at=utcnow(),
            max_tries=ledger.max_tries,
        )


def resume(hook: AirbyteHook, ledger: Ledger, wanted: JobWanted) -> Job | None:
    """The job that an earlier try started and that this one goes on with: it is active, or has succeeded since.

    A failed one is left behind. So is, after a person has cleared the task, each one that has ended: clearing means to
    do it again. One that is active still then may be about to be cancelled by that clearing; it is waited for.

    :return: None if a job is to be started.
    :raises AirflowFailException: if a person has cancelled the job in Airbyte. A retry is no reason to undo that.
    """
    entry = ledger.read()
    if entry is None:
        return _newest(hook, ledger, wanted)
    if (entry.url, entry.connection_id, entry.job_type) != (
        hook.settings.url,
        wanted.connection_id,
        wanted.job_type,
    ) or entry.done:
        return None
    if entry.job_id is None:
        logger.info("An earlier try was asking Airbyte for a job when it ended: looking for it")
        job = hook.find_created(wanted.connection_id, wanted.job_type, entry.asked_at)
    else:
        job = _read(hook, entry.job_id)
    if job is None:
        return None
    cleared = entry.max_tries != ledger.max_tries
    if cleared and wanted.cancel_on_kill:
        job = _settled(hook, job)
    if not job.status.terminal:
        adopted = entry.adopted or cleared
        ledger.write(replace(entry, job_id=job.job_id, max_tries=ledger.max_tries, adopted=adopted))
        return job
    if cleared:
        return None
    if job.status is JobStatus.CANCELLED and not wanted.retry_cancelled and not ledger.cleared_away(job.updated_at):
        raise AirflowFailException(
            f"Airbyte job {job.job_id} of connection {wanted.connection_id}, which an earlier try of this task "
            "started, was cancelled in Airbyte. A retry would undo that decision, so there is none: clear the task to "
            "sync again."
        )
    if job.status is not JobStatus.SUCCEEDED:
        logger.info("Airbyte job %s, which an earlier try started, is %s", job.job_id, job.status.value)
        return None
    return job


def _settled(hook: AirbyteHook, job: Job) -> Job:
    for seconds in SETTLING:
        if job.status.terminal:
            break
        logger.info("Airbyte job %s is %s; clearing its task may cancel it", job.job_id, job.status.value)
        time.sleep(seconds)
        job = hook.get_job_details(job.job_id)
    return job


def _read(hook: AirbyteHook, job_id: int) -> Job | None:
    try:
        return hook.get_job_details(job_id)
    except AirflowException as exc:
        if isinstance(exc.__cause__, AirbyteError) and says_unknown(exc.__cause__):
            logger.warning("Airbyte does not know job %s any more, which an earlier try started: %s", job_id, exc)
            return None
        raise


def _newest(hook: AirbyteHook, ledger: Ledger, wanted: JobWanted) -> Job | None:
    """Where no entry can be: the newest job of the connection and type since the task began, if this is not its first
    try. It need not be the task's own, but a connection has one job at a time, and it did what the task wants."""
    count = ledger.tries_of_this_clearing(wanted.retries)
    if count > 1 and (wanted.begun_by_trigger or not ledger.kept):
        since = ledger.run_began
    else:
        since = ledger.prepared_at if wanted.begun_by_trigger else None
    if since is None:
        return None
    job = hook.find_created(wanted.connection_id, wanted.job_type, since, _ONE_LOOK)
    never_cleared = ledger.max_tries == wanted.retries
    if job is not None and not never_cleared and wanted.cancel_on_kill:
        job = _settled(hook, job)
    if job is None or not job.status.terminal:
        return job
    # What succeeded in this run may be what the task has been cleared to do again.
    return job if job.status is JobStatus.SUCCEEDED and never_cleared else None
