"""The trigger of asset watchers, which fires for each job of its connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterable
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airbyte_events.events import EventFilter, JobEvent
from airbyte_events.hub.position import Position
from airbyte_events_provider.arguments import check_arguments, check_named
from airbyte_events_provider.stats import count_completion
from airbyte_events_provider.triggers.base import StoredTrigger
from airbyte_events_provider.waiting.asset_state import StoredPosition
from airbyte_events_provider.waiting.result import completion_line
from airbyte_events_provider.waiting.shared_hub import HubKey
from airbyte_events_provider.waiting.shared_stream import SHARES_STREAMS, Producer, Subscriber, stream_of
from airbyte_events_provider.waiting.watch import Watch, follow, sorted_values, terminal_status


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
        self._watch = Watch(
            key=HubKey(airbyte_conn_id, listener_conn_id),
            wanted=EventFilter(
                connection_ids=frozenset(self.connection_ids),
                job_types=frozenset(self.job_types),
                statuses=frozenset(map(terminal_status, self.statuses)),
            ),
            workspace_ids=frozenset(map(str.lower, self.workspace_ids)),
            poll_interval=poll_interval,
            connection_names=frozenset(names),
            names_workspace_id=workspace_id,
        )
        self._subscriber: Subscriber | None = None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire for each job, before Airflow 3.3, which has shared streams."""
        async for item in follow(self._watch, Position()):
            if isinstance(item, JobEvent):
                yield self._event(item)

    def shared_stream_key(self) -> Hashable | None:
        """Return a key that is the same for all watchers of one Airbyte by one listener."""
        return ("airbyte-events", *self._watch.key) if SHARES_STREAMS else None

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> Producer:
        """Return the producer for all triggers with the same :meth:`shared_stream_key`."""
        return Producer(HubKey(kwargs["airbyte_conn_id"], kwargs["listener_conn_id"]))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Subscribe to the stream, and fire for this watcher's items."""
        stored = StoredPosition(getattr(self, "asset_state_store", None), self.serialize()[1])
        subscriber = self._subscriber = Subscriber(stream_of(self._watch.key), self._watch, stored)
        try:
            async for item in shared_stream:
                if item.subscriber is subscriber:
                    yield self._event(item.event)
                    item.fired = True
        finally:
            subscriber.leave()

    def _event(self, event: JobEvent) -> TriggerEvent:
        self.log.info("%s", completion_line(event))
        count_completion(event)
        return TriggerEvent(event.data())  # type: ignore[no-untyped-call]

    async def cleanup(self) -> None:
        if self._subscriber is not None:
            self._subscriber.leave()
