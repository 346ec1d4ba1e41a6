"""Remove old events and notifications periodically."""

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
"""Mean interval."""


class Retention:
    """A task that prunes a store while this process holds the lease.

    :param store: an open store.
    :param age: maximum age of events and settled notifications.
    :param events: maximum number of events.
    :param every: mean interval in seconds.
    """

    def __init__(self, store: Maintenance, *, age: timedelta, events: int, every: float = PRUNE_SECONDS) -> None:
        self._store = store
        self._age = age
        self._events = events
        self._every = every

    async def run(self, lease: Lease) -> None:
        """Prune until cancelled. Two processes may do so at once."""
        while True:
            try:
                await self.prune()
            except StoreError as exc:
                logger.warning("pruning failed, trying again later: %s", exc)
            await anyio.sleep(self._every * random.uniform(0.8, 1.2))  # noqa: S311

    async def prune(self) -> Pruned:
        """Remove events and notifications beyond the limits.

        :raises StoreError: if the store fails; some may have been removed.
        """
        pruned = await self._store.prune(utcnow() - self._age, keep=self._events)
        if pruned.events or pruned.notifications:
            logger.info("removed %d old events and %d old notifications", pruned.events, pruned.notifications)
        return pruned
