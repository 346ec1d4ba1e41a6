"""The sensors that wait for Airbyte jobs which something else has started."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airbyte_events._utils.times import format_time
from airbyte_events.errors import AirbyteEventsError
from airbyte_events.events import JobEvent
from airbyte_events_provider.arguments import (
    WrongArgument,
    check_count,
    check_flag,
    check_job_id,
    check_text,
    is_template,
    seconds,
)
from airbyte_events_provider.blocking import run_blocking
from airbyte_events_provider.config import poll_interval
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.triggers.airbyte import AirbyteConnectionSyncTrigger, AirbyteSyncTrigger
from airbyte_events_provider.waiting.connection_sync import Sought, find_sync, moment
from airbyte_events_provider.waiting.payloads import with_values
from airbyte_events_provider.waiting.result import SUCCESS, TIMEOUT, missing_records, push

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk import XComArg

    from airbyte_events.airbyte import Job

_WEEK = 7 * 24 * 3600.0
_REASON_SECONDS = 20.0


class AirbyteJobSensor(BaseSensorOperator):
    """Waits until an Airbyte job has succeeded: in the worker, rescheduled, or in the triggerer.

    A job that failed or was cancelled fails the sensor for good: a retry would look at the same job. Of one that
    succeeded later tasks find the result in XCom, see :func:`~airbyte_events_provider.waiting.result.xcoms`; the
    sensor itself returns nothing, as the official one.

    :param airbyte_job_id: which job. Templated.
    :param deferrable: wait in the triggerer, told by a listener where there is one; by default as ``[operators]
        default_deferrable`` says.
    :param airbyte_conn_id: the Airflow connection of the Airbyte. Templated.
    :param api_version: only ``v1`` exists.
    :param listener_conn_id: the Airflow connection of the listener; by default the one that the Airbyte's connection or
        Airflow's configuration names. An empty string is none. Templated.
    :param min_records: a success that moved fewer records fails the sensor. None: any success will do.
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
        min_records: int | None = None,
        **kwargs: Any,
    ) -> None:
        if deferrable:
            kwargs.setdefault("poke_interval", 5)
            kwargs.setdefault("timeout", _WEEK)
        super().__init__(**kwargs)
        check_job_id("airbyte_job_id", airbyte_job_id, templated=True)
        _check(deferrable, airbyte_conn_id, api_version, listener_conn_id, min_records)
        # Templated: an XComArg has become the job id when the task runs.
        self.airbyte_job_id = cast(int, airbyte_job_id)
        self.deferrable = deferrable
        self.airbyte_conn_id = airbyte_conn_id
        self.api_version = api_version
        self.listener_conn_id = listener_conn_id
        self.min_records = min_records

    @cached_property
    def hook(self) -> AirbyteHook:
        """The hook, with the templates rendered."""
        return AirbyteHook(self.airbyte_conn_id, self.api_version, listener_conn_id=self.listener_conn_id)

    def poke(self, context: Context) -> bool:
        """Look once.

        :return: whether the job has succeeded.
        """
        return self._succeeded(self.hook.get_job_details(self.airbyte_job_id), context)

    def _succeeded(self, job: Job, context: Context) -> bool:
        if not job.status.terminal:
            self.log.info("Airbyte job %s is %s", job.job_id, job.status.value)
            return False
        # Why it failed, and names, only a listener knows.
        told = self.hook.wait(
            job.job_id,
            connection_id=job.connection_id,
            started_at=job.started_at,
            until=time.time() + _REASON_SECONDS,
        )
        self._finish(told, context)
        return True

    def execute(self, context: Context) -> None:
        """Wait for the job."""
        if not self.deferrable:
            super().execute(context)
            return
        began = time.time()
        # Its connection and creation tell it from another job of the number, in another Airbyte or in a restored one.
        job = self.hook.get_job_details(self.airbyte_job_id)
        if self._succeeded(job, context):
            return
        deadline = _deadline(self)
        self.defer(
            trigger=AirbyteSyncTrigger(
                job.job_id,
                self.airbyte_conn_id,
                end_time=deadline,
                poll_interval=poll_interval(self.poke_interval),
                execution_deadline=deadline,
                listener_conn_id=self.listener_conn_id,
                connection_id=job.connection_id,
                started_at=seconds(job.started_at),
                # It only looks on.
                cancel_on_kill=False,
                began=began,
            ),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: Any = None) -> None:
        """Continue after the trigger's event: ours, or that of the official provider.

        :param event: without one the sensor begins again.
        """
        if not isinstance(event, Mapping):
            self.execute(context)
            return
        self._finish(with_values(self.hook, event), context)

    def _finish(self, told: Mapping[str, Any], context: Context) -> None:
        if told["status"] == SUCCESS:
            if (shortage := missing_records(told, self.min_records)) is not None:
                raise AirflowFailException(shortage)
            self.log.info("%s", told["message"])
            push(context, told)
            return
        self.log.error("%s", told["message"])
        if told["status"] == TIMEOUT:
            raise _overdue(self, f"Airbyte job {told['job_id']} did not end within the sensor's timeout.")
        raise (AirflowFailException if told["job"] else AirflowException)(told["message"])


class AirbyteSyncSensor(BaseSensorOperator):
    """Waits for a successful sync of a connection that ended after a given time, whoever started it: Airbyte's own
    schedule, a person, another DAG. One that has ended already completes the sensor at once.

    In the worker, rescheduled, or in the triggerer. A sync that fails in between is logged, and the sensor waits on. It
    returns the job id; for more, later tasks look into XCom, see :func:`~airbyte_events_provider.waiting.result.xcoms`.

    :param connection_id: the Airbyte connection (UUID). Templated.
    :param airbyte_conn_id: the Airflow connection of the Airbyte. Templated.
    :param after: when the sync ended at the earliest: a datetime, or ISO 8601 text such as ``{{ data_interval_end }}``;
        without an offset it is UTC. Airbyte's clock counts, whose times may be in whole seconds. By default the end of
        the DAG run's data interval; for a run without one its logical date, and for one without either (by hand, by an
        asset) its start. Templated.
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``. Airbyte reports a clear as ``reset``: either name
        means both. It announces syncs alone: the end of any other is found by polling.
    :param min_records: a success that moved fewer records is not the one: the sensor waits on. None: any success.
    :param deferrable: wait in the triggerer, told by a listener where there is one; by default as ``[operators]
        default_deferrable`` says.
    :param listener_conn_id: as for :class:`AirbyteJobSensor`. Templated.
    :param api_version: only ``v1`` exists.
    """

    template_fields: Sequence[str] = ("connection_id", "airbyte_conn_id", "after", "listener_conn_id")
    ui_color = "#6C51FD"

    def __init__(
        self,
        connection_id: str,
        airbyte_conn_id: str = "airbyte_default",
        *,
        after: datetime | str | None = None,
        job_type: str = "sync",
        min_records: int | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        listener_conn_id: str | None = None,
        api_version: str = "v1",
        **kwargs: Any,
    ) -> None:
        if deferrable:
            kwargs.setdefault("poke_interval", 5)
            kwargs.setdefault("timeout", _WEEK)
        super().__init__(**kwargs)
        check_text("connection_id", connection_id, templated=True)
        _check(deferrable, airbyte_conn_id, api_version, listener_conn_id, min_records)
        check_text("job_type", job_type)
        _check_after(after)
        self.connection_id = connection_id
        self.airbyte_conn_id = airbyte_conn_id
        self.after = after
        self.job_type = job_type
        self.min_records = min_records
        self.deferrable = deferrable
        self.listener_conn_id = listener_conn_id
        self.api_version = api_version

    @cached_property
    def hook(self) -> AirbyteHook:
        """The hook, with the templates rendered."""
        return AirbyteHook(self.airbyte_conn_id, self.api_version, listener_conn_id=self.listener_conn_id)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once.

        :return: whether there is such a sync, and its job id.
        """
        told = self._look(self._sought(context))
        if told is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._finish(told, context))

    def _sought(self, context: Context) -> Sought:
        try:
            after = moment(self.after) or _since(context)
        except ValueError as exc:
            raise AirflowFailException(f"after: {exc}") from exc
        return Sought(
            connection_id=self.connection_id, after=after, job_type=self.job_type, min_records=self.min_records
        )

    def _look(self, sought: Sought) -> Mapping[str, Any] | None:
        async def look() -> JobEvent | None:
            async with self.hook.open() as airbyte:
                return await find_sync(airbyte, sought)

        self.log.info("Looking for %s", sought)
        try:
            found = run_blocking(look)
        except AirbyteEventsError as exc:
            raise AirflowException(str(exc)) from exc
        if found is None:
            return None
        # Names, and records where the API does not tell them, only a listener knows.
        return self.hook.wait(
            found.ref.job_id,
            connection_id=found.connection_id,
            started_at=found.started_at,
            until=time.time() + _REASON_SECONDS,
        )

    def execute(self, context: Context) -> Any:
        """Wait for the sync.

        :return: its job id.
        """
        if not self.deferrable:
            return super().execute(context)
        began = time.time()
        sought = self._sought(context)
        if (told := self._look(sought)) is not None:
            return self._finish(told, context)
        return self.defer(
            trigger=AirbyteConnectionSyncTrigger(
                self.connection_id,
                self.airbyte_conn_id,
                after=format_time(sought.after) or "",
                end_time=_deadline(self),
                poll_interval=poll_interval(self.poke_interval),
                job_type=self.job_type,
                min_records=self.min_records,
                listener_conn_id=self.listener_conn_id,
                began=began,
            ),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Continue after the trigger's event; without one the sensor begins again.

        :return: the job id.
        """
        return self._finish(event, context) if isinstance(event, Mapping) else self.execute(context)

    def _finish(self, told: Mapping[str, Any], context: Context) -> int:
        if told["status"] == SUCCESS:
            self.log.info("%s", told["message"])
            push(context, told)
            job_id: int = told["job_id"]
            return job_id
        self.log.error("%s", told["message"])
        raise _overdue(self, told["message"]) if told["status"] == TIMEOUT else AirflowException(told["message"])


def _check(
    deferrable: object, airbyte_conn_id: object, api_version: object, listener_conn_id: object, min_records: object
) -> None:
    """:raises WrongArgument: if an argument is of the wrong type."""
    check_flag("deferrable", deferrable)
    check_text("airbyte_conn_id", airbyte_conn_id, templated=True)
    check_text("api_version", api_version)
    check_text("listener_conn_id", listener_conn_id, optional=True, templated=True)
    check_count("min_records", min_records, optional=True)


def _check_after(after: object) -> None:
    if is_template(after):
        return
    try:
        moment(after)
    except ValueError as exc:
        raise WrongArgument(f"after={after!r} is neither a datetime nor ISO 8601 text nor a template") from exc


def _deadline(sensor: BaseSensorOperator) -> float:
    """When a deferred sensor gives up, in seconds since the epoch."""
    limits = [sensor.timeout]
    if sensor.execution_timeout is not None:
        limits.append(sensor.execution_timeout.total_seconds())
    return time.time() + min(limits)


def _overdue(sensor: BaseSensorOperator, message: str) -> Exception:
    """Past ``timeout`` there is no retry, past ``execution_timeout`` there is: that is Airflow's rule for sensors."""
    limit = sensor.execution_timeout
    if limit is not None and limit.total_seconds() < sensor.timeout:
        return AirflowException(f"{message} (execution_timeout: {limit})")
    return AirflowSensorTimeout(message)


def _since(context: Context) -> datetime:
    """From when on a sync counts, where the task does not say."""
    run = context.get("dag_run")
    for value in (context.get("data_interval_end"), context.get("logical_date"), getattr(run, "start_date", None)):
        if isinstance(value, datetime):
            return value
    raise AirflowFailException("the DAG run has no time from which on a sync counts: give the sensor one (after)")
