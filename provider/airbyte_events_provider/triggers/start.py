"""The trigger that starts a job and waits for it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from airflow.triggers.base import TriggerEvent

from airbyte_events.airbyte.submission import OnConflict
from airbyte_events.errors import AirbyteError
from airbyte_events.jobs import JobSystem
from airbyte_events_provider.operators.start_args import began_at
from airbyte_events_provider.retry.record import JobRecord, JobRequest
from airbyte_events_provider.retry.refresh_arguments import parse_refresh
from airbyte_events_provider.retry.task_state import TriggerState
from airbyte_events_provider.retry.triggerer_job import NotStarted, start
from airbyte_events_provider.triggers.base import StoredTrigger
from airbyte_events_provider.triggers.job import AirbyteSyncTrigger
from airbyte_events_provider.triggers.on_kill import is_still_deferred, shielded
from airbyte_events_provider.waiting.progress import WARN
from airbyte_events_provider.waiting.result import BEGIN, ERROR
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub

_BEFORE_AIRFLOW = 3.0


@dataclass(eq=False, repr=False)
class AirbyteStartTrigger(StoredTrigger):
    """Start an Airbyte job and wait for it, without a worker.

    The events are those of :class:`AirbyteSyncTrigger`. In all other cases (a retry, another running job, a refusal by
    Airbyte) the task begins in a worker, after an event with ``begin`` and a ``message``.

    Airflow may start the trigger more than once. It records its request as an XCom of the task, so that it starts no
    job twice, and takes no other job for its own.

    :param connection_id: the Airbyte connection (UUID); None: the one with ``connection_name``. Templated.
    :param airbyte_conn_id: the Airflow connection of the Airbyte. Templated.
    :param listener_conn_id: see :class:`AirbyteSyncTrigger`. Templated.
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``.
    :param on_conflict: see :class:`~airbyte_events.airbyte.submission.OnConflict`.
    :param timeout: seconds to wait, counted from when the task began; None: no limit.
    :param execution_timeout: the task's, in seconds.
    :param poll_interval: see :class:`AirbyteSyncTrigger`, as for the rest.
    :param connection_name: the connection's name. Templated.
    :param workspace_id: the workspace (UUID) of the connection with this name. Templated.
    :param refresh_mode: of a refresh: ``merge`` (the default) or ``truncate``.
    :param streams: the streams of a refresh; all by default. Templated.
    :raises WrongArgument: if an argument is of the wrong type.
    """

    connection_id: str | None
    airbyte_conn_id: str
    listener_conn_id: str | None = None
    job_type: str = "sync"
    on_conflict: str = "attach"
    timeout: float | None = None
    execution_timeout: float | None = None
    poll_interval: float = 3.0
    cancel_on_kill: bool = True
    end_from_trigger: bool = False
    min_records: int | None = None
    connection_name: str | None = None
    workspace_id: str | None = None
    refresh_mode: str | None = None
    streams: Sequence[str] | None = None
    stalled_after: float | None = None
    on_stall: str = WARN
    timeout_after: datetime | None = field(default=None, init=False)
    """Airflow's deadline for the trigger; set by the triggerer."""
    _state: TriggerState | None = field(default=None, init=False)

    @property
    def _hub_key(self) -> HubKey:
        # Not before it runs: until then the arguments are templates.
        return HubKey(self.airbyte_conn_id, self.listener_conn_id)

    @property
    def _began(self) -> float | None:
        return began_at(self.timeout_after, self.execution_timeout)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Start, wait, then fire once."""
        yield await self._event()

    async def _event(self) -> TriggerEvent:
        try:
            return await self._waiting(await self._start()).event(self.task_instance)
        except NotStarted as exc:
            message = str(exc)
        except Exception as exc:
            self.log.exception("starting a job of Airbyte connection %s failed", self._label)
            message = f"{type(exc).__name__}: {exc}"
        message = f"Starting in a worker: {message}"
        event = {"status": ERROR, BEGIN: True, "message": message, "job_id": None, "began": self._began}
        return TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _start(self) -> JobRecord:
        if (getattr(self.task_instance, "try_number", 1) or 1) > 1:
            raise NotStarted("this is not the task's first try.")
        state = self._state = TriggerState(self.task_instance)
        until = None if self.timeout is None else (self._began or time.time()) + self.timeout
        async with shared_hub(self._hub_key) as shared, shared.starting:
            request = JobRequest(
                connection_id=self.connection_id or await self._find_connection(shared.airbyte, state),
                connection_name=self.connection_name,
                workspace_id=self.workspace_id,
                job_type=self.job_type,
                on_conflict=OnConflict(self.on_conflict),
                refresh=parse_refresh(self.job_type, self.refresh_mode, self.streams),
            )
            return await start(shared.airbyte, state, request, until)

    async def _find_connection(self, airbyte: JobSystem, state: TriggerState) -> str:
        name, workspace_id = self.connection_name or "", self.workspace_id or None
        record = await state.read()
        if record is not None and (known := record.connection_of(name, workspace_id, airbyte.url)) is not None:
            return known
        try:
            return await airbyte.find_connection(name, workspace_id)
        except AirbyteError as exc:
            raise NotStarted(str(exc)) from exc

    @property
    def _label(self) -> str:
        return self.connection_id or repr(self.connection_name)

    def _waiting(self, record: JobRecord) -> AirbyteSyncTrigger:
        # By our clock, not from the job's start: the job may be older than the task, and its time is Airbyte's.
        began = self._began or record.asked_at.timestamp()
        limit = self.execution_timeout
        return AirbyteSyncTrigger.for_job(
            record,
            self.airbyte_conn_id,
            end_time=None if self.timeout is None else began + self.timeout,
            poll_interval=self.poll_interval,
            # Shortly before Airflow's own timeout, which would fail the task and leave the job running.
            execution_deadline=None if limit is None else began + limit - min(_BEFORE_AIRFLOW, limit / 10),
            listener_conn_id=self.listener_conn_id,
            end_from_trigger=self.end_from_trigger,
            min_records=self.min_records,
            stalled_after=self.stalled_after,
            on_stall=self.on_stall,
            owned=record.owned,
            began=began,
        )

    async def on_kill(self) -> None:
        """Cancel the job if it was started; see :meth:`AirbyteSyncTrigger.on_kill`."""
        if self.cancel_on_kill:
            await shielded(self._on_kill())

    async def _on_kill(self) -> None:
        if self.task_instance is None or await is_still_deferred(self.task_instance):
            return
        try:
            state = self._state or TriggerState(self.task_instance)
            record = state.record or await state.read()
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
            self.log.warning("the job of Airbyte connection %s could not be cancelled: %s", self._label, exc)
