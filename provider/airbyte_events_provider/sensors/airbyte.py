"""The sensor that waits for an Airbyte job which something else has started."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    BaseSensorOperator,
    conf,
)

from airbyte_events.events import JobStatus
from airbyte_events_provider.connections import SECTION
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.outcome import SUCCESS, TIMEOUT
from airbyte_events_provider.triggers.airbyte import AirbyteSyncTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk import XComArg

    from airbyte_events.airbyte import Job

_WEEK = 7 * 24 * 3600.0
_REASON_SECONDS = 20.0


class AirbyteJobSensor(BaseSensorOperator):
    """Waits until an Airbyte job has succeeded: in the worker, rescheduled, or in the triggerer.

    A job that failed or was cancelled fails the sensor for good: a retry would look at the same job.

    :param airbyte_job_id: which job. Templated.
    :param deferrable: wait in the triggerer, told by a listener where there is one; by default as ``[operators]
        default_deferrable`` says.
    :param airbyte_conn_id: the Airflow connection of the Airbyte. Templated.
    :param api_version: only ``v1`` exists.
    :param listener_conn_id: the Airflow connection of the listener; by default the one that the Airbyte's connection or
        Airflow's configuration names. An empty string is none. Templated.
    """

    template_fields: Sequence[str] = ("airbyte_job_id", "airbyte_conn_id", "listener_conn_id")
    ui_color = "#6C51FD"

    def __init__(
        self,
        *,
        airbyte_job_id: int | XComArg,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        airbyte_conn_id: str = "airbyte_default",
        api_version: str = "v1",
        listener_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        if deferrable:
            kwargs.setdefault("poke_interval", 5)
            kwargs.setdefault("timeout", _WEEK)
        super().__init__(**kwargs)
        # Templated: an XComArg has become the job id when the task runs.
        self.airbyte_job_id = cast(int, airbyte_job_id)
        self.deferrable = deferrable
        self.airbyte_conn_id = airbyte_conn_id
        self.api_version = api_version
        self.listener_conn_id = listener_conn_id

    @cached_property
    def hook(self) -> AirbyteHook:
        """The hook, with the templates rendered."""
        return AirbyteHook(self.airbyte_conn_id, self.api_version, listener_conn_id=self.listener_conn_id)

    def poke(self, context: Context) -> bool:
        """Look once.

        :return: whether the job has succeeded.
        """
        return self._succeeded(self.hook.get_job_details(self.airbyte_job_id))

    def _succeeded(self, job: Job) -> bool:
        if job.status.terminal and job.status is not JobStatus.SUCCEEDED:
            # Why it failed only a listener knows.
            told = self.hook.wait(job.job_id, connection_id=job.connection_id, until=time.time() + _REASON_SECONDS)
            self._finish(told)
        self.log.info("Airbyte job %s is %s", job.job_id, job.status.value)
        return job.status is JobStatus.SUCCEEDED

    def execute(self, context: Context) -> None:
        """Wait for the job."""
        if not self.deferrable:
            super().execute(context)
            return
        # Its Airbyte connection tells it from a job of the same number in another Airbyte.
        job = self.hook.get_job_details(self.airbyte_job_id)
        if self._succeeded(job):
            return
        deadline = time.time() + self.timeout
        if self.execution_timeout is not None:
            deadline = min(deadline, time.time() + self.execution_timeout.total_seconds())
        self.defer(
            trigger=AirbyteSyncTrigger(
                job.job_id,
                self.airbyte_conn_id,
                end_time=deadline,
                poll_interval=max(self.poke_interval, conf.getfloat(SECTION, "poll_interval", fallback=10.0)),
                execution_deadline=deadline,
                listener_conn_id=self.listener_conn_id,
                connection_id=job.connection_id,
                # It only looks on.
                cancel_on_kill=False,
            ),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> None:
        """Go on where the trigger has fired."""
        self._finish(event)

    def _finish(self, told: Mapping[str, Any]) -> None:
        if told["status"] == SUCCESS:
            self.log.info("%s", told["message"])
            return
        self.log.error("%s", told["message"])
        if told["status"] == TIMEOUT:
            raise AirflowSensorTimeout(f"Airbyte job {told['job_id']} did not end within the sensor's timeout.")
        raise (AirflowFailException if told["job"] else AirflowException)(told["message"])
