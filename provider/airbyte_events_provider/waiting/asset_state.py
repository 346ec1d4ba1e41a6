"""The position of an asset's watcher, stored in the asset's state, which outlives triggerers (Airflow 3.3)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from airbyte_events._utils.backoff import pause
from airbyte_events.hub.position import Position

logger = logging.getLogger(__name__)

_SECONDS = 30.0


class Accessor(Protocol):
    """The state of one asset."""

    async def aget(self, key: str, default: Any = None) -> Any: ...

    async def aset(self, key: str, value: Any) -> None: ...


class Cursors:
    """One watcher's position, in the state of each asset that it watches for.

    :param store: what Airflow gives to the trigger; None where there is none.
    :param arguments: the trigger's. Watchers with other arguments have positions of their own, for the same asset, too.
    """

    def __init__(self, store: object | None, arguments: Mapping[str, Any]) -> None:
        self._accessors = _accessors(store)
        digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
        self.key = f"airbyte_events_{digest[:16]}"

    async def load(self) -> Position:
        """Return the earliest stored position; where there is none, one that begins now.

        A store that does not respond is asked again: to begin without it would lose what completed meanwhile.
        """
        places = [place for accessor in self._accessors if (place := await self._load(accessor)) is not None]
        known = [place for place in places if place.since is not None]
        return min(known, key=lambda place: place.since.timestamp() if place.since else 0.0, default=Position())

    async def _load(self, accessor: Accessor) -> Position | None:
        failures = 0
        while True:
            try:
                value = await asyncio.wait_for(accessor.aget(self.key), _SECONDS)
                break
            except Exception as exc:
                # Airflow's errors here are of many kinds, and none of them may end the watch.
                failures += 1
                logger.warning("asset state can't be read, trying again: %s: %s", type(exc).__name__, exc)
                await asyncio.sleep(pause(failures))
        try:
            return None if value is None else Position.from_data(value)
        except ValueError as exc:
            logger.error("asset state has no valid position, beginning now: %s", exc)
            return None

    async def save(self, place: Position) -> None:
        """Store the position. If that fails, jobs since the last stored one may be repeated."""
        for accessor in self._accessors:
            try:
                await asyncio.wait_for(accessor.aset(self.key, place.data()), _SECONDS)
            except Exception as exc:
                logger.warning("asset state can't be written: %s: %s", type(exc).__name__, exc)


def _accessors(store: Any) -> list[Accessor]:
    # Airflow's public way finds an asset's state by the asset's name, which a trigger does not know.
    found = [each for name in ("_by_name", "_by_uri") for each in getattr(store, name, {}).values()]
    return found or ([] if store is None else [store])
