"""The interface through which Airflow reads a stream that all watchers of one Airbyte share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from airbyte_events_provider.triggers.importing import imported

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

    from airbyte_events_provider.waiting.shared_stream import Stream, Subscriber
else:
    try:
        from airflow.triggers.shared_stream import SharedStreamProducer
    except ImportError:  # before Airflow 3.3
        SharedStreamProducer = object

SHARES_STREAMS = SharedStreamProducer is not object
"""Whether this Airflow has shared streams in ack mode."""

_LEAVING_SECONDS = 1.0


class Producer(SharedStreamProducer):
    """Reads and acknowledges the items of a :class:`~airbyte_events_provider.waiting.shared_stream.Stream`.

    :param conn_id: the Airflow connection of the Airbyte.
    :param listener_conn_id: that of the listener, as in the watchers' arguments.
    """

    def __init__(self, conn_id: str, listener_conn_id: str | None = None) -> None:
        self._conn_ids = (conn_id, listener_conn_id)

    async def open_stream(self) -> AsyncIterator[tuple[Any, Any]]:
        stream = await self._stream()
        while True:
            item = await stream.get()
            yield item, item

    def get_advance_lane(self, broker_payload: Any) -> Hashable:
        number: int = broker_payload.subscriber.number
        return number

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        subscriber: Subscriber = batch[0].broker_payload.subscriber
        if not all(outcome.is_clean for _, outcome in batch):
            # A watcher has failed. If it is this one, it unsubscribes now.
            await asyncio.sleep(_LEAVING_SECONDS)
        if subscriber.left:
            return
        stored = []
        for item, outcome in batch:
            if outcome.is_clean or item.fired:
                stored.append(item)
            else:
                # The watcher did not receive it.
                (await self._stream()).requeue(item)
        subscriber.acknowledge(stored)

    async def aclose(self) -> None:
        await (await self._stream()).saved()

    async def _stream(self) -> Stream:
        module = await imported("airbyte_events_provider.waiting.shared_stream")
        stream: Stream = module.stream_of(module.HubKey(*self._conn_ids))
        return stream
