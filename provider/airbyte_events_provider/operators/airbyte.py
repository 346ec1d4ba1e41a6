"""The operator that runs an Airbyte sync."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseOperator, conf

from airbyte_events.events import JobStatus
from airbyte_events_provider.connections import SECTION
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.outcome import CANCELLED, SUCCESS, TIMEOUT, missing_records
from airbyte_events_provider.submission import How, Submission
from airbyte_events_provider.triggers.airbyte import AirbyteSyncTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_STARTED = {
    How.STARTED: "Airbyte job %s of connection %s was started",
    How.ATTACHED: "Airbyte job %s of connection %s runs already: waiting for that one",
    How.FOUND: "Airbyte job %s of connection %s was started, though Airbyte's answer was lost",
}


class AirbyteTriggerSyncOperator(BaseOperator):
    """Starts a sync in Airbyte and waits for its end: told by a listener where there is one, by polling otherwise.

    Three ways: in the worker (the default), in the triggerer (``deferrable=True``, which takes no worker slot), or by a
    later :class:`~airbyte_events_provider.sensors.airbyte.AirbyteJobSensor` (``asynchronous=True``). In each the
    task's result is the job id.

    While a sync of the connection runs already, that is the one that is waited for. A failed job fails the task with
    Airbyte's reason. A job that somebody cancelled in Airbyte fails it for good: a retry does not undo a person's
    decision.

    :param connection_id: the Airbyte connection (UUID). Templated.
    :param airbyte_conn_id: the Airflow connection of the Airbyte. Templated.
    :param asynchronous: return the job id as soon as the job is started.
    :param deferrable: wait in the triggerer; by default as ``[operators] default_deferrable`` says.
    :param api_version: only ``v1`` exists.
    :param wait_seconds: between looks at Airbyte where no listener tells. Deferred tasks share their looks, which come
        no more often than ``[airbyte_events] poll_interval`` says.
    :param timeout: seconds to wait. Then the task fails, and the job goes on.
    :param listener_conn_id: the Airflow connection of the listener; by default the one that the Airbyte's connection or
        Airflow's configuration names. An empty string is none. Templated.
    :param min_records: a success that moved fewer records fails the task: Airbyte can call a job successful that never
        ran.
    :param execution_timeout: how long the task may take (a ``timedelta``). Then the job is cancelled, and the task
        fails.
    """

    template_fields: Sequence[str] = ("connection_id", "airbyte_conn_id", "listener_conn_id")
    ui_color = "#6C51FD"

    def __init__(
        self,
        connection_id: str,
        airbyte_conn_id: str = "airbyte_default",
        asynchronous: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        api_version: str = "v1",
        wait_seconds: float = 3,
        timeout: float = 3600,
        *,
        listener_conn_id: str | None = None,
        min_records: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.connection_id = connection_id
        self.airbyte_conn_id = airbyte_conn_id
        self.asynchronous = asynchronous
        self.deferrable = deferrable
        self.api_version = api_version
        self.wait_seconds = wait_seconds
        self.timeout = timeout
        self.listener_conn_id = listener_conn_id
        self.min_records = min_records
        self.job_id: int | None = None
        self._killed = False

    @cached_property
    def hook(self) -> AirbyteHook:
        """The hook, with the templates rendered."""
        return AirbyteHook(self.airbyte_conn_id, self.api_version, listener_conn_id=self.listener_conn_id)

    def execute(self, context: Context) -> int:
        """Start the sync, and wait for its end unless told otherwise.

        :return: the job id.
        """
        began = time.time()
        submission = self.hook.submit(self.connection_id)
        job_id = self.job_id = submission.job.job_id
        self.log.info(_STARTED[submission.how], job_id, self.connection_id)
        if self.asynchronous:
            return job_id
        if self.deferrable and not submission.job.status.terminal:
            self._defer(submission, began)
        told = self.hook.wait(
            job_id,
            connection_id=submission.job.connection_id,
            until=began + self.timeout,
            poll_interval=self.wait_seconds,
        )
        return self._finish(told)

    def _defer(self, submission: Submission, began: float) -> None:
        limit = self.execution_timeout
        # Airflow's own time-out of a deferral would not ask for the job's status before it strikes.
        self.defer(
            trigger=AirbyteSyncTrigger(
                submission.job.job_id,
                self.airbyte_conn_id,
                end_time=began + self.timeout,
                poll_interval=max(self.wait_seconds, conf.getfloat(SECTION, "poll_interval", fallback=10.0)),
                execution_deadline=None if limit is None else began + limit.total_seconds(),
                listener_conn_id=self.listener_conn_id,
                connection_id=submission.job.connection_id,
            ),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> int:
        """Go on where the trigger has fired.

        :return: the job id.
        """
        self.job_id = event["job_id"]
        return self._finish(event)

    def _finish(self, told: Mapping[str, Any]) -> int:
        job_id: int = told["job_id"]
        status, message = told["status"], told["message"]
        if status == SUCCESS:
            if (shortage := missing_records(told, self.min_records)) is not None:
                raise AirflowException(shortage)
            self.log.info("%s", message)
            return job_id
        if status == CANCELLED and self._killed:
            raise AirflowException(f"Airbyte job {job_id} was cancelled, since its task was ended from outside.")
        self.log.error("%s", message)
        if status == CANCELLED:
            raise AirflowFailException(
                f"{message} A retry would undo that decision, so there is none: clear the task to sync again."
            )
        if status == TIMEOUT:
            return self._cancel_overdue(job_id, message)
        raise AirflowException(message)

    def _cancel_overdue(self, job_id: int, message: str) -> int:
        try:
            job = self.hook.cancel_job(job_id)
        except AirflowException as exc:
            raise AirflowException(f"{message} The job could not be cancelled: {exc}") from exc
        if job.status is JobStatus.SUCCEEDED:
            self.log.warning("Airbyte job %s has succeeded after all, before it could be cancelled", job_id)
            return job_id
        raise AirflowException(f"{message} The job is {job.status.value} now.")

    def on_kill(self) -> None:
        """Cancel the job, if it runs."""
        if self.job_id is None:
            return
        self._killed = True
        try:
            job = self.hook.cancel_job(self.job_id)
        except AirflowException as exc:
            self.log.warning("Airbyte job %s could not be cancelled: %s", self.job_id, exc)
        else:
            self.log.info("The task was ended from outside: Airbyte job %s is %s", self.job_id, job.status.value)
