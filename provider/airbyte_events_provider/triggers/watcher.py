"""The trigger of asset watchers, which fires for each job of its connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airbyte_events_provider.arguments import check_arguments, check_named
from airbyte_events_provider.triggers.base import StoredTrigger
from airbyte_events_provider.triggers.importing import imported
from airbyte_events_provider.triggers.producer import SHARES_STREAMS, Producer

if TYPE_CHECKING:
    from airbyte_events_provider.triggers.watcher_run import WatcherRun


class AirbyteSyncEventTrigger(StoredTrigger, BaseEventTrigger):
    """Fire each time a job of a connection completes, however it was started; for an asset's watcher.

    ::

        Asset("orders", watchers=[AssetWatcher(name="synced", trigger=AirbyteSyncEventTrigger(connection_ids="…"))])

    Its events are the jobs' event data (:meth:`airbyte_events.events.JobEvent.data`): ``instance``, ``job_id``,
    ``connection_id``, ``workspace_id``, ``job_type``, ``status``, ``previous_status``, ``started_at``, ``finished_at``,
    ``observed_at``, ``records``, ``bytes``, ``duration_seconds``, ``origin``, ``error`` (``message``, ``type``,
    ``origin``), and ``names`` and ``url`` where a webhook reported them. Tasks of the DAG read them from the asset
    event's ``extra["payload"]``.

    It fires once for each completed job, from when it first runs. No failure of Airbyte, the listener or Airflow's
    connections ends it. From Airflow 3.3 on it resumes after the crash of a triggerer, and repeats at most events that
    Airflow had not acknowledged.

    :param airbyte_conn_id: the Airflow connection of the Airbyte.
    :param connection_ids: the Airbyte connection (UUID), or several; None: all.
    :param workspace_ids: only connections in this Airbyte workspace (UUID), or these; None: all.
    :param job_types: ``sync``, ``reset``, ``clear``, ``refresh``; empty: all. Airbyte reports a clear as ``reset``:
        either name means both.
    :param statuses: ``succeeded``, ``failed``, ``cancelled``; empty: all.
    :param listener_conn_id: the Airflow connection of the listener; None: the one that the Airbyte's connection or
        Airflow's configuration names. An empty string: none.
    :param poll_interval: seconds between polls without a listener; None: ``[airbyte_events] poll_interval``. All
        triggers of one Airbyte share their polls; the shortest interval applies.
    :param connection_name: the name of the Airbyte connection, or several, instead of ``connection_ids``. Airbyte is
        asked for the ids when the watch begins, and again until all names are known.
    :param workspace_id: the workspace (UUID) of the connections with these names.
    :raises WrongArgument: if an argument is of the wrong type.
    :raises ValueError: if no job completes with such a status.
    """

    def __init__(
        self,
        airbyte_conn_id: str = "airbyte_default",
        *,
        connection_ids: str | Iterable[str] | None = None,
        workspace_ids: str | Iterable[str] | None = None,
        job_types: str | Iterable[str] = ("sync",),
        statuses: str | Iterable[str] = ("succeeded",),
        listener_conn_id: str | None = None,
        poll_interval: float | None = None,
        connection_name: str | Iterable[str] | None = None,
        workspace_id: str | None = None,
    ) -> None:
        super().__init__()
        check_arguments(AirbyteSyncEventTrigger, locals())
        names = sorted_values(connection_name)
        if names or workspace_id is not None:
            check_named(connection_ids or None, names or None, workspace_id)
        self.airbyte_conn_id = airbyte_conn_id
        # Sorted: the same values in another order are the same trigger.
        self.connection_ids = sorted_values(connection_ids)
        self.workspace_ids = sorted_values(workspace_ids)
        self.job_types = sorted_values(job_types)
        self.statuses = sorted_values(statuses)
        self.listener_conn_id = listener_conn_id
        self.poll_interval = poll_interval
        self.connection_name = names
        self.workspace_id = workspace_id
        _check_statuses(self.statuses)
        self._running: WatcherRun | None = None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire for each job, before Airflow 3.3, which has shared streams."""
        async with aclosing((await self._run()).events()) as events:
            async for event in events:
                yield event

    def shared_stream_key(self) -> Hashable | None:
        """Return a key that is the same for all watchers of one Airbyte by one listener."""
        return ("airbyte-events", self.airbyte_conn_id, self.listener_conn_id) if SHARES_STREAMS else None

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> Producer:
        """Return the producer for all triggers with the same :meth:`shared_stream_key`."""
        return Producer(kwargs["airbyte_conn_id"], kwargs["listener_conn_id"])

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Subscribe to the stream, and fire for this watcher's items."""
        async with aclosing((await self._run()).events_of(shared_stream)) as events:
            async for event in events:
                yield event

    async def _run(self) -> WatcherRun:
        module = await imported("airbyte_events_provider.triggers.watcher_run")
        run: WatcherRun = module.WatcherRun(self)
        self._running = run
        return run

    async def cleanup(self) -> None:
        if self._running is not None:
            self._running.leave()


def sorted_values(values: str | Iterable[str] | None) -> list[str]:
    """Return the values as a sorted list without duplicates."""
    return sorted({values} if isinstance(values, str) else set(values or ()))


def _check_statuses(statuses: Iterable[str]) -> None:
    """:raises ValueError: if no job completes with such a status."""
    # Not when the module is imported: other triggers do without it.
    from airbyte_events.events.status import parse_status

    for name in statuses:
        if not parse_status(name).terminal:
            raise ValueError(f"statuses={name!r}: no job completes with it: write succeeded, failed or cancelled")
