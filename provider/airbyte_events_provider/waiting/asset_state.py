"""Where an asset's watcher is, kept in the asset's state store, which outlives triggerers (Airflow 3.3)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from airbyte_events._utils.backoff import pause
from airbyte_events.hub.subscription import Place

logger = logging.getLogger(__name__)

_SECONDS = 30.0


class Accessor(Protocol):
    """One asset's state."""

    async def aget(self, key: str, default: Any = None) -> Any: ...

    async def aset(self, key: str, value: Any) -> None: ...


class Cursors:
    """One watcher's place, in the state of each asset that it watches for.

    :param store: what Airflow gives to the trigger; None where there is none.
    :param arguments: the trigger's. Watchers with others have a place of their own, though the asset may be the same.
    """

    def __init__(self, store: object | None, arguments: Mapping[str, Any]) -> None:
        self._accessors = list(_accessors(store))
        digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
        self.key = f"airbyte_events_{digest[:16]}"

    async def load(self) -> Place:
        """Where the watcher was, the earliest of all that is known; a place for what ends from now on if nothing is.

        While the store gives no answer it is asked again: to begin without it would lose what ended meanwhile.
        """
        places = [place for accessor in self._accessors if (place := await self._load(accessor)) is not None]
        known = [place for place in places if place.since is not None]
        return min(known, key=lambda place: place.since.timestamp() if place.since else 0.0, default=Place())

    async def _load(self, accessor: Accessor) -> Place | None:
        failures = 0
        while True:
            try:
                value = await asyncio.wait_for(accessor.aget(self.key), _SECONDS)
                break
            except Exception as exc:
                # Airflow's errors here are of many kinds, and none of them may end the watch.
                failures += 1
                logger.warning("the asset's state can't be read, trying again: %s: %s", type(exc).__name__, exc)
                await asyncio.sleep(pause(failures))
        try:
            return None if value is None else Place.from_data(value)
        except ValueError as exc:
            logger.error("the asset's state has no place to go on from, beginning with what ends from now on: %s", exc)
            return None

    async def save(self, place: Place) -> None:
        """Keep the place. If that fails, what was told since the last one that was kept may be told again."""
        for accessor in self._accessors:
            try:
                await asyncio.wait_for(accessor.aset(self.key, place.data()), _SECONDS)
            except Exception as exc:
                logger.warning("the asset's state can't be written: %s: %s", type(exc).__name__, exc)


def _accessors(store: object | None) -> Iterable[Accessor]:
    """The state of each asset: Airflow's public way names them, and a trigger does not know the names."""
    found: list[Accessor] = []
    for name in ("_by_name", "_by_uri"):
        found += getattr(store, name, {}).values()
    if not found and store is not None:
        found = [store]  # type: ignore[list-item]
    return found
