"""The trigger that waits for one job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from airflow.triggers.base import TriggerEvent

from airbyte_events_provider.triggers.base import StoredTrigger
from airbyte_events_provider.triggers.importing import imported

if TYPE_CHECKING:
    from airbyte_events.jobs import Job
    from airbyte_events_provider.retry.record import JobRecord
    from airbyte_events_provider.triggers.job_wait import JobWait


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
    :param listener_conn_id: see :class:`~airbyte_events_provider.operators.airbyte.AirbyteTriggerSyncOperator`, as for
        ``cancel_on_kill``, ``end_from_trigger`` and ``stalled_after``.
    :param connection_id: the job's Airbyte connection: a job of the same id in another Airbyte is ignored.
    :param min_records: leave a success that moved fewer records to a worker, which fails the task.
    :param owned: whether the task created the job. Other jobs are never cancelled.
    :param began: when the task began, in seconds since the epoch. The event contains this, ``owned``, ``try_number``
        and ``connection_id``.
    :param try_number: the number of the task's try.
    :param started_at: when the job was created, in seconds since the epoch. Airbyte gives ids again after its database
        was restored: a job of another time is ignored.
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
    on_stall: str = "warn"

    @classmethod
    def for_job(cls, job: Job | JobRecord, conn_id: str, **arguments: Any) -> Self:
        """Return the trigger for a job that was started; later jobs of the same id are ignored."""
        started_at = None if job.started_at is None else job.started_at.timestamp()
        known: dict[str, Any] = {"job_id": job.job_id, "connection_id": job.connection_id, "started_at": started_at}
        return cls(conn_id=conn_id, **known, **arguments)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire once."""
        event = await (await self._wait()).fire()
        # No task group or cancel scope may be open here: another asyncio task may end the generator.
        yield event

    async def is_still_running(self, hook: Any) -> bool:
        """Return whether the job is active, as the official trigger does.

        :param hook: an ``AirbyteHook``, ours or the official provider's.
        """
        return await (await self._wait()).is_still_running(hook)

    async def on_kill(self) -> None:
        """Cancel the task's own job after a person failed, cleared or marked the waiting task."""
        if self.cancel_on_kill and self.owned:
            await (await self._wait()).on_kill()

    async def _wait(self) -> JobWait:
        module = await imported("airbyte_events_provider.triggers.job_wait")
        wait: JobWait = module.JobWait(self)
        return wait
