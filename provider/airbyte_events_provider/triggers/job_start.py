"""The start of a job by :class:`AirbyteStartTrigger`, and its cancellation."""

from __future__ import annotations

import time

from airflow.triggers.base import TriggerEvent

from airbyte_events.airbyte.submission import OnConflict
from airbyte_events.errors import AirbyteError
from airbyte_events.jobs import JobSystem
from airbyte_events_provider.operators.start_args import began_at
from airbyte_events_provider.retry.record import JobRecord, JobRequest
from airbyte_events_provider.retry.refresh_arguments import parse_refresh
from airbyte_events_provider.retry.triggerer_job import NotStarted, TriggererJob
from airbyte_events_provider.triggers.job import AirbyteSyncTrigger
from airbyte_events_provider.triggers.job_wait import JobWait
from airbyte_events_provider.triggers.on_kill import is_still_deferred, shielded
from airbyte_events_provider.triggers.start import AirbyteStartTrigger
from airbyte_events_provider.waiting.result import BEGIN, ERROR
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub

_BEFORE_AIRFLOW = 3.0


class JobStart:
    """What a trigger does.

    :param trigger: with the arguments, whose templates are rendered.
    """

    def __init__(self, trigger: AirbyteStartTrigger) -> None:
        self._trigger = trigger
        self._job = TriggererJob(trigger.task_instance)

    @property
    def _hub_key(self) -> HubKey:
        return HubKey(self._trigger.airbyte_conn_id, self._trigger.listener_conn_id)

    @property
    def _began(self) -> float | None:
        return began_at(self._trigger.timeout_after, self._trigger.execution_timeout)

    async def event(self) -> TriggerEvent:
        """Start, wait, then return the event to fire."""
        try:
            return await self._waiting(await self._start()).event(self._trigger.task_instance)
        except NotStarted as exc:
            message = str(exc)
        except Exception as exc:
            self._trigger.log.exception("starting a job of Airbyte connection %s failed", self._label)
            message = f"{type(exc).__name__}: {exc}"
        message = f"Starting in a worker: {message}"
        event = {"status": ERROR, BEGIN: True, "message": message, "job_id": None, "began": self._began}
        return TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _start(self) -> JobRecord:
        if (getattr(self._trigger.task_instance, "try_number", 1) or 1) > 1:
            raise NotStarted("this is not the task's first try.")
        until = None if self._trigger.timeout is None else (self._began or time.time()) + self._trigger.timeout
        async with shared_hub(self._hub_key) as shared, shared.starting:
            request = JobRequest(
                connection_id=self._trigger.connection_id or await self._find_connection(shared.airbyte),
                connection_name=self._trigger.connection_name,
                workspace_id=self._trigger.workspace_id,
                job_type=self._trigger.job_type,
                on_conflict=OnConflict(self._trigger.on_conflict),
                refresh=parse_refresh(self._trigger.job_type, self._trigger.refresh_mode, self._trigger.streams),
            )
            return await self._job.start(shared.airbyte, request, until)

    async def _find_connection(self, airbyte: JobSystem) -> str:
        name, workspace_id = self._trigger.connection_name or "", self._trigger.workspace_id or None
        record = await self._job.read()
        if record is not None and (known := record.connection_of(name, workspace_id, airbyte.url)) is not None:
            return known
        try:
            return await airbyte.find_connection(name, workspace_id)
        except AirbyteError as exc:
            raise NotStarted(str(exc)) from exc

    @property
    def _label(self) -> str:
        return self._trigger.connection_id or repr(self._trigger.connection_name)

    def _waiting(self, record: JobRecord) -> JobWait:
        # By our clock, not from the job's start: the job may be older than the task, and its time is Airbyte's.
        began = self._began or record.asked_at.timestamp()
        limit = self._trigger.execution_timeout
        trigger = AirbyteSyncTrigger.for_job(
            record,
            self._trigger.airbyte_conn_id,
            end_time=None if self._trigger.timeout is None else began + self._trigger.timeout,
            poll_interval=self._trigger.poll_interval,
            # Shortly before Airflow's own timeout, which would fail the task and leave the job running.
            execution_deadline=None if limit is None else began + limit - min(_BEFORE_AIRFLOW, limit / 10),
            listener_conn_id=self._trigger.listener_conn_id,
            end_from_trigger=self._trigger.end_from_trigger,
            min_records=self._trigger.min_records,
            stalled_after=self._trigger.stalled_after,
            on_stall=self._trigger.on_stall,
            owned=record.owned,
            began=began,
        )
        return JobWait(trigger)

    async def on_kill(self) -> None:
        """Cancel the job if it was started, and a person ended the task."""
        await shielded(self._on_kill())

    async def _on_kill(self) -> None:
        if self._trigger.task_instance is None or await is_still_deferred(self._trigger.task_instance):
            return
        try:
            record = self._job.record or await self._job.read()
            if record is None or record.done or not record.owned:
                return
            if record.job_id is None:
                # The request may have been interrupted.
                async with shared_hub(self._hub_key) as shared:
                    job = await record.find_created(shared.airbyte)
                if job is None:
                    return
                record = record.of(job)
            await self._waiting(record).cancel()
        except Exception as exc:
            # Airflow raises errors of many types.
            self._trigger.log.warning("the job of Airbyte connection %s could not be cancelled: %s", self._label, exc)
