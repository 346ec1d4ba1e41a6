"""The watch of :class:`AirbyteSyncEventTrigger` for completed jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from airflow.triggers.base import TriggerEvent

from airbyte_events.events import EventFilter, JobEvent, parse_status
from airbyte_events.hub.position import Position
from airbyte_events_provider.stats import count_completion
from airbyte_events_provider.triggers.watcher import AirbyteSyncEventTrigger
from airbyte_events_provider.waiting.asset_state import StoredPosition
from airbyte_events_provider.waiting.result import completion_line
from airbyte_events_provider.waiting.shared_hub import HubKey
from airbyte_events_provider.waiting.shared_stream import Subscriber, stream_of
from airbyte_events_provider.waiting.watch import Watch, follow


class WatcherRun:
    """What a trigger does.

    :param trigger: with the arguments.
    """

    def __init__(self, trigger: AirbyteSyncEventTrigger) -> None:
        self._trigger = trigger
        self._watch = Watch(
            key=HubKey(trigger.airbyte_conn_id, trigger.listener_conn_id),
            wanted=EventFilter(
                connection_ids=frozenset(trigger.connection_ids),
                job_types=frozenset(trigger.job_types),
                statuses=frozenset(map(parse_status, trigger.statuses)),
            ),
            workspace_ids=frozenset(map(str.lower, trigger.workspace_ids)),
            poll_interval=trigger.poll_interval,
            connection_names=frozenset(trigger.connection_name),
            names_workspace_id=trigger.workspace_id,
        )
        self._subscriber: Subscriber | None = None

    async def events(self) -> AsyncGenerator[TriggerEvent, None]:
        """See :meth:`AirbyteSyncEventTrigger.run`."""
        async for item in follow(self._watch, Position()):
            if isinstance(item, JobEvent):
                yield self._event(item)

    async def events_of(self, shared_stream: AsyncIterator[Any]) -> AsyncGenerator[TriggerEvent, None]:
        """See :meth:`AirbyteSyncEventTrigger.filter_shared_stream`."""
        stored = StoredPosition(getattr(self._trigger, "asset_state_store", None), self._trigger.serialize()[1])
        subscriber = self._subscriber = Subscriber(stream_of(self._watch.key), self._watch, stored)
        try:
            async for item in shared_stream:
                if item.subscriber is subscriber:
                    yield self._event(item.event)
                    item.fired = True
        finally:
            subscriber.leave()

    def _event(self, event: JobEvent) -> TriggerEvent:
        self._trigger.log.info("%s", completion_line(event))
        count_completion(event)
        return TriggerEvent(event.data())  # type: ignore[no-untyped-call]

    def leave(self) -> None:
        """Unsubscribe."""
        if self._subscriber is not None:
            self._subscriber.leave()
