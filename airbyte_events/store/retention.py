"""Remove old events and notifications periodically."""

from __future__ import annotations

import logging
import random
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events.errors import StoreError
from airbyte_events.store.base import Maintenance
from airbyte_events.store.records import Lease, Pruned

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Retention:
    """A task that prunes an open store while this process holds the lease."""

    store: Maintenance
    _: KW_ONLY
    age: timedelta
    """Maximum age of events and settled notifications."""
    events: int
    """Maximum number of events."""
    every: float = 600.0
    """Mean interval in seconds."""

    async def run(self, lease: Lease) -> None:
        """Prune until cancelled. Two processes may do so at once."""
        while True:
            try:
                await self.prune()
            except StoreError as exc:
                logger.warning("pruning failed, trying again later: %s", exc)
            await anyio.sleep(self.every * random.uniform(0.8, 1.2))  # noqa: S311

    async def prune(self) -> Pruned:
        """Remove events and notifications beyond the limits.

        :raises StoreError: if the store fails; some may have been removed.
        """
        pruned = await self.store.prune(utcnow() - self.age, keep=self.events)
        if pruned.events or pruned.notifications:
            logger.info("removed %d old events and %d old notifications", pruned.events, pruned.notifications)
        return pruned
