"""The wait of :class:`AirbyteSyncTrigger` for its job, and the job's cancellation."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

from airflow.triggers.base import TaskSuccessEvent, TriggerEvent
from asgiref.sync import sync_to_async

from airbyte_events.errors import AirbyteEventsError
from airbyte_events.events import Identity, JobEvent, parse_status
from airbyte_events_provider.links.airflow import task_page
from airbyte_events_provider.stats import count_completion
from airbyte_events_provider.triggers.job import AirbyteSyncTrigger
from airbyte_events_provider.triggers.on_kill import is_still_deferred, shielded
from airbyte_events_provider.triggers.xcoms import prepare, push_xcoms
from airbyte_events_provider.waiting.deferral import Deferral
from airbyte_events_provider.waiting.progress import ProgressWatch
from airbyte_events_provider.waiting.result import (
    SUCCESS,
    Payload,
    completion_line,
    conclude,
    guarded,
    missing_records,
    xcoms,
)
from airbyte_events_provider.waiting.shared_hub import HubKey, read_shared, shared_hub, wait_shared


class JobWait:
    """What a trigger does.

    :param trigger: with the arguments.
    """

    def __init__(self, trigger: AirbyteSyncTrigger) -> None:
        self._trigger = trigger
        self._job_id = int(trigger.job_id)
        self._hub_key = HubKey(trigger.conn_id, trigger.listener_conn_id)
        self._completion = ""

    @property
    def _created_at(self) -> datetime | None:
        started_at = self._trigger.started_at
        return None if started_at is None else datetime.fromtimestamp(started_at, UTC)

    async def fire(self) -> TriggerEvent:
        """Wait, then return the event to fire once Airflow can resume the task."""
        ti = self._trigger.task_instance
        deferral = Deferral(ti, self._trigger.began)
        event = await self.event(ti)
        if not isinstance(event, TaskSuccessEvent):
            await deferral.over()
        return event

    async def event(self, ti: Any) -> TriggerEvent:
        """Wait, then return the event to fire.

        :param ti: the waiting task instance; None without a triggerer.
        """
        trigger = self._trigger
        if trigger.end_from_trigger:
            await prepare(ti)
        result = await guarded(
            conclude(self._wait(ti), self._job_id, trigger.end_time, trigger.execution_deadline),
            f"Airbyte job {trigger.job_id}",
            trigger.log,
            trigger.job_id,
        )
        result |= {"owned": trigger.owned, "began": trigger.began, "try_number": trigger.try_number}
        result |= {"connection_id": trigger.connection_id}
        succeeded = result["status"] == SUCCESS and missing_records(result, trigger.min_records) is None
        # A failure resumes in a worker, which can fail the task without a retry and send e-mails.
        if trigger.end_from_trigger and succeeded and await push_xcoms(ti, xcoms(result)):
            # No worker logs it. Not before: a log line blocks the event loop while Airflow's supervisor is busy, and it
            # is free now.
            trigger.log.info("%s", self._completion)
            return TaskSuccessEvent()
        return TriggerEvent(Payload(result))  # type: ignore[no-untyped-call]

    async def _wait(self, ti: Any) -> JobEvent:
        trigger = self._trigger
        deadlines = [each for each in (trigger.end_time, trigger.execution_deadline) if each is not None]
        wait = wait_shared(
            self._hub_key,
            self._job_id,
            trigger.poll_interval,
            trigger.log.info,
            connection_id=trigger.connection_id,
            started_at=self._created_at,
            until=min(deadlines, default=None),
            task_url=task_page(ti),
        )
        watch = ProgressWatch(log=trigger.log, stalled_after=trigger.stalled_after, on_stall=trigger.on_stall)
        event = await watch.during(wait, partial(read_shared, self._hub_key, self._job_id))
        count_completion(event)
        self._completion = completion_line(event)
        return event

    async def is_still_running(self, hook: Any) -> bool:
        """See :meth:`AirbyteSyncTrigger.is_still_running`."""
        status = await sync_to_async(hook.get_job_status)(self._trigger.job_id)
        return not parse_status(getattr(status, "value", status)).terminal

    async def on_kill(self) -> None:
        """Cancel the job if a person ended the task."""
        await shielded(self._on_kill())

    async def _on_kill(self) -> None:
        if not await is_still_deferred(self._trigger.task_instance):
            await self.cancel()

    async def cancel(self) -> None:
        """Cancel the job if it is active; a failure is logged."""
        identity = Identity(self._trigger.connection_id, self._created_at)
        try:
            async with shared_hub(self._hub_key) as shared:
                job = await shared.airbyte.cancel_job(self._job_id, identity)
        except AirbyteEventsError as exc:
            self._trigger.log.warning("Airbyte job %s could not be cancelled: %s", self._trigger.job_id, exc)
        else:
            self._trigger.log.info(
                "a person ended the task: Airbyte job %s is %s", self._trigger.job_id, job.status.value
            )
