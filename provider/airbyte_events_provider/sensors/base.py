"""The base class of the sensors."""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowSensorTimeout, BaseSensorOperator

from airbyte_events._utils.times import utcnow
from airbyte_events.events import Identity
from airbyte_events.monitor.pace import Pace
from airbyte_events_provider.config import poll_interval
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.links.airbyte import AirbyteConnectionLink, AirbyteJobLink, ListenerJobLink
from airbyte_events_provider.links.airflow import task_page
from airbyte_events_provider.waiting.payloads import with_job, with_reason
from airbyte_events_provider.waiting.wait_start import WaitStart, wait_start

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airbyte_events.events import JobEvent
    from airbyte_events.jobs import Job

_POKE_SECONDS = 3.0
_WEEK = 7 * 24 * 3600.0
_DETAIL_SECONDS = 20.0


class AirbyteSensor(BaseSensorOperator):
    """A sensor that waits for a job."""

    airbyte_conn_id: str
    api_version: str
    listener_conn_id: str | None
    operator_extra_links = (AirbyteConnectionLink(), AirbyteJobLink(), ListenerJobLink())
    ui_color = "#6C51FD"

    def __init__(self, *, deferrable: bool, **kwargs: Any) -> None:
        # What the DAG's author wrote applies; otherwise deferred sensors share polls, and others poke as often.
        own_interval = "poke_interval" in kwargs
        if deferrable:
            kwargs = {"poke_interval": 5, "timeout": _WEEK} | kwargs
        elif kwargs.get("mode", "poke") == "poke":
            kwargs = {"poke_interval": _POKE_SECONDS} | kwargs
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self._own_interval = own_interval
        self._pace = Pace(time.monotonic)
        self._waiting_since: datetime | None = None

    def _poll_interval(self) -> float:
        """Return the seconds between polls of a deferred sensor."""
        return poll_interval(self.poke_interval if self._own_interval else 0.0)

    @contextlib.contextmanager
    def _measured(self) -> Iterator[None]:
        """Record how long a poll takes: slow ones are repeated less often."""
        began = time.monotonic()
        yield
        self._pace.record(time.monotonic() - began)

    def _get_next_poke_interval(self, *args: Any, **kwargs: Any) -> float:
        return self._pace.interval(super()._get_next_poke_interval(*args, **kwargs))

    @cached_property
    def hook(self) -> AirbyteHook:
        return AirbyteHook(self.airbyte_conn_id, self.api_version, listener_conn_id=self.listener_conn_id)

    def _result_of(self, context: Context, job_id: int, job: Job | JobEvent) -> dict[str, Any]:
        """Return a completed job's result, with the failure reason and names that only a listener reports."""
        return self.hook.wait(
            job_id,
            connection_id=job.connection_id,
            started_at=job.started_at,
            until=time.time() + _DETAIL_SECONDS,
            task_url=task_page(context.get("ti")),
            waiting_since=self._waiting_since,
        )

    def execute(self, context: Context) -> Any:
        """Wait, and return the sensor's result."""
        ti = context.get("ti")
        # Of a task that is rescheduled, an earlier process began to wait.
        first = ti.get_first_reschedule_date(context) if self.reschedule and ti is not None else None
        self._waiting_since = first or utcnow()
        return self._wait_deferred(context, time.time()) if self.deferrable else super().execute(context)

    @abstractmethod
    def _wait_deferred(self, context: Context, began: float) -> Any:
        """Return the result if it is there; else defer."""

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Resume after the event of a trigger, ours or the official provider's; without one, begin again."""
        if not isinstance(event, Mapping):
            return self.execute(context)
        return self._complete(with_reason(self.hook, with_job(self.hook, event)), context)

    @abstractmethod
    def _complete(self, result: Mapping[str, Any], context: Context) -> Any:
        """Return the sensor's result, or raise its failure."""

    def _link(self, context: Context, job_id: int, identity: Identity, *, named: bool = True) -> WaitStart:
        """Link from the task to its job."""
        begins = wait_start(self.hook, job_id, identity, poll_interval=self._poll_interval(), named=named)
        begins.push(context.get("ti"))
        return begins

    def _deadline(self) -> float:
        """Return the deadline of a deferred sensor, in seconds since the epoch."""
        limit = self.execution_timeout
        return time.time() + min(self.timeout, self.timeout if limit is None else limit.total_seconds())

    def _timeout_error(self, message: str) -> Exception:
        """Return the error for the deadline. Airflow retries after ``execution_timeout``, not after ``timeout``."""
        limit = self.execution_timeout
        if limit is not None and limit.total_seconds() < self.timeout:
            return AirflowException(f"{message} (execution_timeout: {limit})")
        return AirflowSensorTimeout(message)
