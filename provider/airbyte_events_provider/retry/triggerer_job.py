"""The Airbyte job of a task that begins in the triggerer: started exactly once."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from airflow.sdk.bases.xcom import BaseXCom
from asgiref.sync import sync_to_async

from airbyte_events.airbyte.submission import How, take_snapshot
from airbyte_events.errors import AirbyteError, AirbyteEventsError, MaybeStarted
from airbyte_events.jobs import JobSystem
from airbyte_events_provider.retry.record import JobRecord, JobRequest
from airbyte_events_provider.retry.task_state import XCOM, read_xcom, xcom_location


class NotStarted(AirbyteEventsError):
    """No job was started here; the message says why."""


class TriggererJob:
    """The job of a task, recorded as an XCom, for when Airflow restarts the trigger.

    :param ti: the task instance.
    """

    def __init__(self, ti: Any) -> None:
        self.record: JobRecord | None = None
        """The record as it was last read or written."""
        self._ti = ti

    async def read(self) -> JobRecord | None:
        """Return the record; None if the task has requested no job."""
        with contextlib.suppress(ImportError):
            self.record = await sync_to_async(read_xcom)(self._ti)
        return self.record

    async def start(self, airbyte: JobSystem, request: JobRequest, until: float | None = None) -> JobRecord:
        """Start the task's job unless it was started already, and return its record.

        The request is recorded first, so that a restarted trigger recognises its own job, even if that has completed
        while no triggerer ran.

        :param until: the deadline for finding out whether a job was started, in seconds since the epoch.
        :raises NotStarted: if the task has to begin in a worker.
        """
        try:
            record = await self.read()
            if record is not None and record.job_id is None and record.after_id is not None:
                # An earlier run of the trigger may have started it.
                created = await record.find_created(airbyte)
                if created is not None:
                    return await self._write(record.of(created))
            elif record is not None:
                return record
            before = await take_snapshot(airbyte, request.connection_id, request.job_type)
            record = record or await self._write(request.record(airbyte.url, before.newest_id))
            submission = await request.submit(airbyte, before, until)
        except MaybeStarted as exc:
            raise NotStarted(str(exc)) from exc
        except AirbyteError as exc:
            await self._give_up()
            raise NotStarted(str(exc)) from exc
        job = submission.job
        if submission.how is How.BLOCKED:
            await self._give_up()
            raise NotStarted(f"job {job.job_id} of the connection runs.")
        return await self._write(record.of(job, owned=submission.owned))

    async def _give_up(self) -> None:
        """Record that no job was started, so that the worker does not look for one."""
        if self.record is not None and self.record.job_id is None:
            await self._write(replace(self.record, done=True))

    async def _write(self, record: JobRecord) -> JobRecord:
        self.record = record
        # Without a triggerer there is no store, and no restart.
        with contextlib.suppress(ImportError):
            await sync_to_async(BaseXCom.set)(XCOM, record.values(), **xcom_location(self._ti))
        return record
