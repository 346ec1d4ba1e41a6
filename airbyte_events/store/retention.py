"""What is kept how long: old events and notifications are removed now and then."""

from __future__ import annotations

import logging
import random
from datetime import timedelta

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events.errors import StoreError
from airbyte_events.store.base import Maintenance
from airbyte_events.store.records import Lease, Pruned

logger = logging.getLogger(__name__)

PRUNE_SECONDS = 600.0
"""From one time to the next."""


class Retention:
    """Keeps a store to its bounds, for whichever listener holds the lease.

    :param store: an open store.
    :param age: how long events and settled notifications are kept.
    :param events: how many events are kept at most.
    :param every: see :data:`PRUNE_SECONDS`.
    """

    def __init__(self, store: Maintenance, *, age: timedelta, events: int, every: float = PRUNE_SECONDS) -> None:
        self._store = store
        self._age = age
        self._events = events
        self._every = every

    async def run(self, lease: Lease) -> None:
        """Prune until cancelled. Two that do so at once, because a lease has passed on, do no harm."""
        while True:
            try:
                await self.prune()
            except StoreError as exc:
                logger.warning("what is too old could not be removed, trying again later: %s", exc)
            await anyio.sleep(self._every * random.uniform(0.8, 1.2))  # noqa: S311

    async def prune(self) -> Pruned:
        """Remove what is too old or too much.

        :raises StoreError: if the store can't; what was removed by then is gone.
        """
        pruned = await self._store.prune(utcnow() - self._age, keep=self._events)
        if pruned.events or pruned.notifications:
            logger.info("removed %d old events and %d old notifications", pruned.events, pruned.notifications)
        return pruned
