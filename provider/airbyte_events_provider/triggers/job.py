"""The trigger that waits for one job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

from airflow.triggers.base import TaskSuccessEvent, TriggerEvent
from asgiref.sync import sync_to_async

from airbyte_events.errors import AirbyteEventsError
from airbyte_events.events import Identity, JobEvent, parse_status
from airbyte_events.jobs import Job
from airbyte_events_provider.links.airflow import task_page
from airbyte_events_provider.retry.record import JobRecord
from airbyte_events_provider.stats import count_completion
from airbyte_events_provider.triggers.base import StoredTrigger
from airbyte_events_provider.triggers.on_kill import is_still_deferred, shielded
from airbyte_events_provider.triggers.xcoms import prepare, push_xcoms
from airbyte_events_provider.waiting.deferral import Deferral
from airbyte_events_provider.waiting.progress import WARN, ProgressWatch
from airbyte_events_provider.waiting.result import SUCCESS, Payload, completion_line, conclude, missing_records, xcoms
from airbyte_events_provider.waiting.shared_hub import HubKey, read_shared, shared_hub, wait_shared


@dataclass(eq=False, repr=False)
class AirbyteSyncTrigger(StoredTrigger):
    """Fire once, when an Airbyte job has completed.

    All triggers of a triggerer share one feed and one poll for each Airbyte. The event is an object with ``status``
    (``success``, ``error``, ``cancelled``, or ``timeout`` after the execution deadline), ``message``, ``job_id`` and
    ``job`` (the job's event data, None if it has not completed).

    :param job_id: the job.
    :param conn_id: the Airflow connection of the Airbyte.
    :param end_time: the deadline of the wait, in seconds since the epoch; None: no limit.
    :param poll_interval: seconds between polls without a listener. The triggers of one Airbyte share their polls; the
        shortest interval applies.
    :param execution_deadline: the deadline of the job, in seconds since the epoch. At this one and ``end_time`` the
        job's status is polled once more.
    :param listener_conn_id: the Airflow connection of the listener; None: the one that the Airbyte's connection or
        Airflow's configuration names. An empty string: none.
    :param connection_id: the job's Airbyte connection: a job of the same id in another Airbyte is ignored.
    :param cancel_on_kill: whether to cancel the job when a person fails, clears or marks the deferred task.
    :param end_from_trigger: whether a success ends the task without a worker.
    :param min_records: leave a success that moved fewer records to a worker, which fails the task.
    :param owned: whether the task created the job. Other jobs are never cancelled.
    :param began: when the task began, in seconds since the epoch. The event contains this, ``owned``, ``try_number``
        and ``connection_id``.
    :param try_number: the number of the task's try.
    :param started_at: when the job was created, in seconds since the epoch. Airbyte gives ids again after its database
        was restored: a job of another time is ignored.
    :param stalled_after: seconds without progress after which the job has stalled; None: never.
    :param on_stall: ``warn`` (log it), ``fail`` (fire with ``error``) or ``cancel`` (fire with ``timeout``).
    :raises WrongArgument: if an argument is of the wrong type.
    """

    job_id: int
    conn_id: str
    end_time: float | None
    poll_interval: float
    execution_deadline: float | None = None
    listener_conn_id: str | None = None
    connection_id: str | None = None
    cancel_on_kill: bool = True
    end_from_trigger: bool = False
    min_records: int | None = None
    owned: bool = True
    began: float | None = None
    try_number: int | None = None
    started_at: float | None = None
    stalled_after: float | None = None
    on_stall: str = WARN
    _completion: str = field(default="", init=False)

    @classmethod
    def for_job(cls, job: Job | JobRecord, conn_id: str, **arguments: Any) -> Self:
        """Return the trigger for a job that was started; later jobs of the same id are ignored."""
        started_at = None if job.started_at is None else job.started_at.timestamp()
        known: dict[str, Any] = {"job_id": job.job_id, "connection_id": job.connection_id, "started_at": started_at}
        return cls(conn_id=conn_id, **known, **arguments)

    @property
    def _hub_key(self) -> HubKey:
        return HubKey(self.conn_id, self.listener_conn_id)

    @property
    def _created_at(self) -> datetime | None:
        return None if self.started_at is None else datetime.fromtimestamp(self.started_at, UTC)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire once."""
        deferral = Deferral(self.task_instance, self.began)
        event = await self.event(self.task_instance)
        if not isinstance(event, TaskSuccessEvent):
            await deferral.over()
        # No task group or cancel scope may be open here: another asyncio task may end the generator.
        yield event

    async def event(self, ti: Any) -> TriggerEvent:
        """Wait, then return the event to fire.

        :param ti: the waiting task instance; None without a triggerer.
        """
        if self.end_from_trigger:
            await prepare(ti)
        result = await self._guarded(
            conclude(self._wait(ti), int(self.job_id), self.end_time, self.execution_deadline),
            f"Airbyte job {self.job_id}",
            self.job_id,
        )
        result |= {"owned": self.owned, "began": self.began, "try_number": self.try_number}
        result |= {"connection_id": self.connection_id}
        succeeded = result["status"] == SUCCESS and missing_records(result, self.min_records) is None
        # A failure resumes in a worker, which can fail the task without a retry and send e-mails.
        if self.end_from_trigger and succeeded and await push_xcoms(ti, xcoms(result)):
            # No worker logs it. Not before: a log line blocks the event loop while Airflow's supervisor is busy, and it
            # is free now.
            self.log.info("%s", self._completion)
            return TaskSuccessEvent()
        return TriggerEvent(Payload(result))  # type: ignore[no-untyped-call]

    async def _wait(self, ti: Any) -> JobEvent:
        deadlines = [each for each in (self.end_time, self.execution_deadline) if each is not None]
        wait = wait_shared(
            self._hub_key,
            int(self.job_id),
            self.poll_interval,
            self.log.info,
            connection_id=self.connection_id,
            started_at=self._created_at,
            until=min(deadlines, default=None),
            task_url=task_page(ti),
        )
        watch = ProgressWatch(log=self.log, stalled_after=self.stalled_after, on_stall=self.on_stall)
        event = await watch.during(wait, partial(read_shared, self._hub_key, int(self.job_id)))
        count_completion(event)
        self._completion = completion_line(event)
        return event

    async def is_still_running(self, hook: Any) -> bool:
        """Return whether the job is active, as the official trigger does.

        :param hook: an ``AirbyteHook``, ours or the official provider's.
        """
        status = await sync_to_async(hook.get_job_status)(self.job_id)
        return not parse_status(getattr(status, "value", status)).terminal

    async def on_kill(self) -> None:
        """Cancel the task's own job after a person failed, cleared or marked the waiting task."""
        if self.cancel_on_kill and self.owned:
            await shielded(self._on_kill())

    async def _on_kill(self) -> None:
        if not await is_still_deferred(self.task_instance):
            await self.cancel()

    async def cancel(self) -> None:
        """Cancel the job if it is active; a failure is logged."""
        try:
            async with shared_hub(self._hub_key) as shared:
                job = await shared.airbyte.cancel_job(int(self.job_id), Identity(self.connection_id, self._created_at))
        except AirbyteEventsError as exc:
            self.log.warning("Airbyte job %s could not be cancelled: %s", self.job_id, exc)
        else:
            self.log.info("a person ended the task: Airbyte job %s is %s", self.job_id, job.status.value)
