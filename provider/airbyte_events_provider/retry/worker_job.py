"""The Airbyte job of a task that runs in a worker: started once, and resumed by retries."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airbyte_events.airbyte.submission import How, Submission, take_snapshot
from airbyte_events.errors import MaybeStarted, UnknownStream, Unsupported
from airbyte_events_provider.retry.record import JobRecord, JobRequest
from airbyte_events_provider.retry.resume import resume
from airbyte_events_provider.retry.task_state import TaskState

if TYPE_CHECKING:
    from airbyte_events_provider.hooks.airbyte import AirbyteHook

logger = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class WorkerJob:
    """The job of a task.

    :param state: the task's state, which its tries share.
    :param request: the job that the task requests.
    :param job_id: the job of a task that was deferred.
    :param owned: whether the task created it.
    """

    hook: AirbyteHook
    state: TaskState
    request: JobRequest
    job_id: int | None = None
    owned: bool = True
    usual_seconds: float | None = field(default=None, init=False)
    """The usual duration of such jobs; None if unknown, as after resuming a job."""
    _pending: JobRecord | None = field(default=None, init=False)  # requested, without a response yet

    def start(self, until: float | None, *, resuming: bool = True) -> Submission:
        """Resume the job of an earlier try, or start one; ``BLOCKED``: another job must complete first.

        :param until: the deadline for finding out whether a job was started, in seconds since the epoch.
        :param resuming: whether to resume the job of an earlier try.
        :raises AirflowFailException: if this Airbyte starts no such job: a retry would not, either.
        :raises AirflowException: if no job was started, or if that is unknown.
        """
        submission = (resume(self.hook, self.state, self.request) if resuming else None) or self._submit(until)
        if submission.how is not How.BLOCKED:
            self.job_id, self.owned = submission.job.job_id, submission.owned
        return submission

    def _submit(self, until: float | None) -> Submission:
        request, state = self.request, self.state
        before = self.hook.call(lambda airbyte: take_snapshot(airbyte, request.connection_id, request.job_type))
        self.usual_seconds = before.usual_seconds
        record = request.record(self.hook.settings.url, before.newest_id, state.max_tries)
        self._pending = record
        state.write(record)
        try:
            submission = self.hook.call(lambda airbyte: request.submit(airbyte, before, until))
        except AirflowException as exc:
            if not isinstance(exc.__cause__, MaybeStarted):
                self._pending = None
                state.delete()
            if isinstance(exc.__cause__, (UnknownStream, Unsupported)):
                raise AirflowFailException(str(exc)) from exc
            raise
        self._pending = None
        if submission.how is How.BLOCKED:
            state.delete()
        else:
            adopted = submission.how is How.ATTACHED and state.just_cleared
            state.write(record.of(submission.job, owned=submission.owned, adopted=adopted))
        return submission

    def cancel_at_kill(self, *, overdue: bool) -> None:
        """Cancel the job because Airflow kills its task.

        :param overdue: whether because of ``execution_timeout``, which may have interrupted the request for the job.
        """
        if self.job_id is not None:
            self.cancel(self.job_id)
        elif overdue and (record := self._pending) is not None:
            with contextlib.suppress(AirflowException):
                job = self.hook.call(record.find_created)
                if job is not None:
                    self.cancel(job.job_id)

    def cancel(self, job_id: int) -> None:
        """Cancel the job if it is the task's own; a failure is logged."""
        if not self.owned:
            logger.info("Airbyte job %s continues: this task did not start it", job_id)
            return
        try:
            job = self.hook.cancel_job(job_id)
        except AirflowException as exc:
            logger.warning("Airbyte job %s could not be cancelled: %s", job_id, exc)
        else:
            logger.info("the task was killed: Airbyte job %s is %s", job_id, job.status.value)
        # Last, because it may fail: a task that was cleared has no access to its state any more.
        with contextlib.suppress(AirflowException):
            self.state.give_up()
