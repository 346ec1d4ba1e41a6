"""The trigger that waits for one job of a connection, however that was started."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from airflow.triggers.base import TriggerEvent

from airbyte_events_provider.triggers.base import StoredTrigger
from airbyte_events_provider.triggers.importing import imported


@dataclass(eq=False, repr=False)
class AirbyteConnectionSyncTrigger(StoredTrigger):
    """Fire once, when a job of a connection has succeeded that completed after a given time, however it was started.

    The events are those of :class:`AirbyteSyncTrigger`: ``success``, ``timeout`` after the end time, or ``error`` if
    neither Airbyte nor a listener responds.

    :param connection_id: the Airbyte connection (UUID).
    :param after: the earliest time of completion, ISO 8601.
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``.
    :param min_records: ignore a success that moved fewer records.
    :param end_time: see :class:`AirbyteSyncTrigger`, as for the rest.
    :raises WrongArgument: if an argument is of the wrong type.
    """

    connection_id: str
    conn_id: str
    after: str
    end_time: float | None
    poll_interval: float
    job_type: str = "sync"
    min_records: int | None = None
    listener_conn_id: str | None = None
    began: float | None = None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire once."""
        waiting = await imported("airbyte_events_provider.triggers.connection_wait")
        event = await waiting.fire(self)
        # No task group or cancel scope may be open here: another asyncio task may end the generator.
        yield event
