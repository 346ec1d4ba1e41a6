"""The sensors that wait for Airbyte jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, PokeReturnValue, conf

from airbyte_events._utils.times import format_time
from airbyte_events.events import Identity, read_event
from airbyte_events_provider.arguments import (
    WrongArgument,
    check_arguments,
    check_named,
    format_value,
    is_template,
)
from airbyte_events_provider.links.airflow import task_page
from airbyte_events_provider.sensors.base import AirbyteSensor
from airbyte_events_provider.triggers.airbyte import AirbyteConnectionSyncTrigger, AirbyteSyncTrigger
from airbyte_events_provider.waiting.connection_sync import SyncCriteria, find_sync, parse_moment
from airbyte_events_provider.waiting.result import SUCCESS, TIMEOUT, missing_records, push

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk import XComArg

    from airbyte_events.events import JobEvent
    from airbyte_events.jobs import Job


class AirbyteJobSensor(AirbyteSensor):
    """Wait until an Airbyte job has succeeded: in the worker, rescheduled, or in the triggerer.

    A job that failed or was cancelled fails the sensor without a retry, which would wait for the same job. Like the
    official one, the sensor returns nothing. After a success it pushes XComs, see
    :func:`~airbyte_events_provider.waiting.result.xcoms`.

    :param airbyte_job_id: the job. Templated.
    :param deferrable: wait in the triggerer, where a listener's push ends the wait; by default as ``[operators]
        default_deferrable`` says.
    :param airbyte_conn_id: the Airflow connection of the Airbyte. Templated.
    :param api_version: only ``v1`` exists.
    :param listener_conn_id: the Airflow connection of the listener; None: the one that the Airbyte's connection or
        Airflow's configuration names. An empty string: none. Templated.
    :param min_records: fail the sensor if the job succeeded but moved fewer records.
    :raises WrongArgument: if an argument has the wrong type.
    """

    template_fields: Sequence[str] = ("airbyte_job_id", "airbyte_conn_id", "listener_conn_id")

    def __init__(
        self,
        *,
        airbyte_job_id: int | XComArg,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        airbyte_conn_id: str = "airbyte_default",
        api_version: str = "v1",
        listener_conn_id: str | None = None,
        min_records: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(deferrable=deferrable, **kwargs)
        check_arguments(AirbyteJobSensor, locals())
        # When the task runs, Airflow has replaced an XComArg.
        self.airbyte_job_id = cast(int, airbyte_job_id)
        self.airbyte_conn_id = airbyte_conn_id
        self.api_version = api_version
        self.listener_conn_id = listener_conn_id
        self.min_records = min_records
        self._is_linked = False

    def poke(self, context: Context) -> bool:
        """Poll the job once, and return whether it has succeeded."""
        with self._measured():
            job = self.hook.get_job_details(self.airbyte_job_id)
        if job.status.terminal or not self._is_linked:
            self._is_linked = True
            # A rescheduled task loses its XComs each time: no request to Airbyte for them before the job has completed.
            self._link(context, job.job_id, _identity(job), named=job.status.terminal or not self.reschedule)
            if not job.status.terminal:
                self.hook.link_task(job, task_page(context.get("ti")))
        return self._has_succeeded(job, context)

    def _has_succeeded(self, job: Job, context: Context) -> bool:
        if not job.status.terminal:
            self.log.info("Airbyte job %s is %s", job.job_id, job.status.value)
            return False
        self._complete(self._result_of(context, job.job_id, job), context)
        return True

    def _wait_deferred(self, context: Context, began: float) -> None:
        job = self.hook.get_job_details(self.airbyte_job_id)
        begins = self._link(context, job.job_id, _identity(job))
        if self._has_succeeded(job, context):
            return
        deadline, interval = self._deadline(), self._poll_interval()
        begins.log()
        trigger = AirbyteSyncTrigger.for_job(
            job,
            self.airbyte_conn_id,
            end_time=deadline,
            poll_interval=interval,
            execution_deadline=deadline,
            listener_conn_id=self.listener_conn_id,
            cancel_on_kill=False,  # the sensor did not start it
            began=began,
        )
        self.defer(trigger=trigger, method_name="execute_complete")

    def _complete(self, result: Mapping[str, Any], context: Context) -> None:
        if result["status"] == SUCCESS:
            if (shortage := missing_records(result, self.min_records)) is not None:
                raise AirflowFailException(shortage)
            self.log.info("%s", result["message"])
            push(context, result)
            return
        self.log.error("%s", result["message"])
        if result["status"] == TIMEOUT:
            raise self._timeout_error(f"Airbyte job {result['job_id']} did not complete within the sensor's timeout.")
        raise (AirflowFailException if result["job"] else AirflowException)(result["message"])


class AirbyteSyncSensor(AirbyteSensor):
    """Wait for a successful sync of a connection that completed after a given time, however it was started: by
    Airbyte's schedule, a person or another DAG.

    It waits in the worker, rescheduled, or in the triggerer. It logs failed syncs, and continues to wait. The sensor
    returns the job id, and pushes XComs, see :func:`~airbyte_events_provider.waiting.result.xcoms`.

    :param connection_id: the Airbyte connection (UUID), or give its name by ``connection_name``. Templated.
    :param airbyte_conn_id: the Airflow connection of the Airbyte. Templated.
    :param after: the earliest time of completion: a datetime, or ISO 8601 text such as ``{{ data_interval_end }}``,
        without an offset in UTC. It is compared with Airbyte's clock, which may have whole seconds. By default the end
        of the DAG run's data interval, else its logical date, else (triggered manually or by an asset) its start.
        Templated.
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``. Airbyte reports a clear as ``reset``: either name
        means both. Airbyte sends webhooks for syncs alone: others are found by polling.
    :param min_records: ignore a success that moved fewer records.
    :param deferrable: as for :class:`AirbyteJobSensor`.
    :param listener_conn_id: likewise. Templated.
    :param connection_name: the name of the Airbyte connection, instead of ``connection_id``. Airbyte is asked for its
        id when the sensor runs. Templated.
    :param workspace_id: the workspace (UUID) of the connection with this name. Templated.
    :param api_version: only ``v1`` exists.
    :raises WrongArgument: if an argument has the wrong type.
    """

    template_fields: Sequence[str] = (
        "connection_id",
        "connection_name",
        "workspace_id",
        "airbyte_conn_id",
        "after",
        "listener_conn_id",
    )

    def __init__(
        self,
        connection_id: str | None = None,
        airbyte_conn_id: str = "airbyte_default",
        *,
        after: datetime | str | None = None,
        job_type: str = "sync",
        min_records: int | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        listener_conn_id: str | None = None,
        api_version: str = "v1",
        connection_name: str | None = None,
        workspace_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(deferrable=deferrable, **kwargs)
        check_arguments(AirbyteSyncSensor, locals())
        check_named(connection_id, connection_name, workspace_id)
        if not is_template(after):
            try:
                parse_moment(after)
            except ValueError as exc:
                raise WrongArgument(
                    f"after={format_value(after)} is neither a datetime nor ISO 8601 text nor a template"
                ) from exc
        self.connection_id = connection_id
        self.connection_name = connection_name
        self.workspace_id = workspace_id
        self.airbyte_conn_id = airbyte_conn_id
        self.after = after
        self.job_type = job_type
        self.min_records = min_records
        self.listener_conn_id = listener_conn_id
        self.api_version = api_version

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll the connection's jobs once, and return whether there was such a sync, and its job id."""
        criteria = self._criteria(context)
        with self._measured():
            result = self._find(criteria, context)
        if result is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._complete(result, context))

    def _criteria(self, context: Context) -> SyncCriteria:
        try:
            after = parse_moment(self.after) or _run_time(context)
        except ValueError as exc:
            raise AirflowFailException(f"after: {exc}") from exc
        if not self.connection_id and self.connection_name is not None:
            self.connection_id = self.hook.find_connection(self.connection_name, self.workspace_id or None)
        return SyncCriteria(
            connection_id=self.connection_id or "", after=after, job_type=self.job_type, min_records=self.min_records
        )

    def _find(self, criteria: SyncCriteria, context: Context) -> Mapping[str, Any] | None:
        self.log.info("looking for %s", criteria)
        found = self.hook.call(lambda airbyte: find_sync(airbyte, criteria))
        return None if found is None else self._result_of(context, found.ref.job_id, found)

    def _wait_deferred(self, context: Context, began: float) -> Any:
        criteria = self._criteria(context)
        if (result := self._find(criteria, context)) is not None:
            return self._complete(result, context)
        trigger = AirbyteConnectionSyncTrigger(
            criteria.connection_id,
            self.airbyte_conn_id,
            after=format_time(criteria.after) or "",
            end_time=self._deadline(),
            poll_interval=self._poll_interval(),
            job_type=self.job_type,
            min_records=self.min_records,
            listener_conn_id=self.listener_conn_id,
            began=began,
        )
        return self.defer(trigger=trigger, method_name="execute_complete")

    def _complete(self, result: Mapping[str, Any], context: Context) -> int:
        if result["status"] == SUCCESS:
            self.log.info("%s", result["message"])
            push(context, result)
            job_id: int = result["job_id"]
            # Only now is it known which job the task waited for.
            if (job := read_event(result["job"])) is not None:
                self._link(context, job_id, _identity(job))
            return job_id
        message = result["message"]
        self.log.error("%s", message)
        raise self._timeout_error(message) if result["status"] == TIMEOUT else AirflowException(message)


def _identity(job: Job | JobEvent) -> Identity:
    return Identity(job.connection_id, job.started_at)


def _run_time(context: Context) -> datetime:
    run = context.get("dag_run")
    for value in (context.get("data_interval_end"), context.get("logical_date"), getattr(run, "start_date", None)):
        if isinstance(value, datetime):
            return value
    raise AirflowFailException("the DAG run has no time from which on a sync counts: give the sensor one (after)")
