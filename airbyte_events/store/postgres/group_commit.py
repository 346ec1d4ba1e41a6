"""Group commit: what comes while a batch is on its way to the database is the next batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

import anyio
import anyio.abc

from airbyte_events.errors import StoreError
from airbyte_events.store.postgres.inbox import Arrival
from airbyte_events.store.records import Receipt

BATCH = 256
"""Notifications."""

BATCH_BYTES = 4 * 2**20


class _Waiting:
    """A notification, and whoever waits for its receipt."""

    __slots__ = ("arrival", "done", "error", "receipt")

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.done = anyio.Event()
        self.error: StoreError | None = None
        self.receipt: Receipt


class Intake:
    """:param store: keeps a batch; a receipt for each.
    :param tasks: where batches are under way.
    """

    def __init__(
        self, store: Callable[[Sequence[Arrival]], Awaitable[Sequence[Receipt]]], tasks: anyio.abc.TaskGroup
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._waiting: dict[_Waiting, None] = {}
        self._busy = False

    async def receive(self, arrival: Arrival) -> Receipt:
        """Keep it; whoever is cancelled leaves, and if it is on its way it is kept all the same.

        :raises StoreError: if it could not be kept.
        """
        waiting = _Waiting(arrival)
        self._waiting[waiting] = None
        if not self._busy:
            self._busy = True
            self._tasks.start_soon(self._run)
        try:
            await waiting.done.wait()
        finally:
            self._waiting.pop(waiting, None)
        if waiting.error is not None:
            raise waiting.error
        return waiting.receipt

    async def _run(self) -> None:
        # Shielded, so that a cancelled process still finishes and answers what it has begun.
        with anyio.CancelScope(shield=True):
            while batch := self._next():
                try:
                    receipts = await self._store([each.arrival for each in batch])
                    for each, receipt in zip(batch, receipts, strict=True):
                        each.receipt = receipt
                except StoreError as exc:
                    for each in batch:
                        each.error = exc
                for each in batch:
                    each.done.set()
            self._busy = False

    def _next(self) -> list[_Waiting]:
        size = 0
        batch: list[_Waiting] = []
        for each in islice(self._waiting, BATCH):
            size += len(each.arrival.body)
            if batch and size > BATCH_BYTES:
                break
            batch.append(each)
        for each in batch:
            del self._waiting[each]
        return batch
