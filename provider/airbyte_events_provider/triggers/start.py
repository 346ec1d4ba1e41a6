"""The trigger that starts a job and waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from airflow.triggers.base import TriggerEvent

from airbyte_events_provider.triggers.base import StoredTrigger
from airbyte_events_provider.triggers.importing import imported

if TYPE_CHECKING:
    from airbyte_events_provider.triggers.job_start import JobStart


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
    on_stall: str = "warn"
    timeout_after: datetime | None = field(default=None, init=False)
    """Airflow's deadline for the trigger; set by the triggerer."""
    _running: JobStart | None = field(default=None, init=False)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Start, wait, then fire once."""
        yield await (await self._start()).event()

    async def on_kill(self) -> None:
        """Cancel the job if it was started; see :meth:`AirbyteSyncTrigger.on_kill`."""
        if self.cancel_on_kill:
            await (await self._start()).on_kill()

    async def _start(self) -> JobStart:
        module = await imported("airbyte_events_provider.triggers.job_start")
        if self._running is None:
            self._running = module.JobStart(self)
        return self._running
