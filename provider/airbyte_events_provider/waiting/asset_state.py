"""The position of an asset's watcher, stored in the asset's state (Airflow 3.3)."""

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

_TIMEOUT = 30.0


class Accessor(Protocol):
    """The state of one asset."""

    async def aget(self, key: str, default: Any = None) -> Any: ...

    async def aset(self, key: str, value: Any) -> None: ...


class StoredPosition:
    """The position of one watcher, in the state of each of its assets.

    :param store: the trigger's ``asset_state_store``; None before Airflow 3.3.
    :param arguments: the trigger's arguments. An asset's watchers with different arguments have different positions.
    """

    def __init__(self, store: object | None, arguments: Mapping[str, Any]) -> None:
        self._accessors = _accessors_of(store)
        digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
        self.key = f"airbyte_events_{digest[:16]}"

    async def load(self) -> Position:
        """Return the earliest stored position, else one that begins now.

        Reads are retried until the store responds: beginning without a position would lose completions.
        """
        positions = [position for accessor in self._accessors if (position := await self._load(accessor)) is not None]
        known = [position for position in positions if position.since is not None]
        return min(
            known, key=lambda position: position.since.timestamp() if position.since else 0.0, default=Position()
        )

    async def _load(self, accessor: Accessor) -> Position | None:
        failures = 0
        while True:
            try:
                value = await asyncio.wait_for(accessor.aget(self.key), _TIMEOUT)
                break
            except Exception as exc:
                # Airflow raises errors of many types, and none may end the watch.
                failures += 1
                logger.warning("asset state can't be read, retrying: %s: %s", type(exc).__name__, exc)
                await asyncio.sleep(pause(failures))
        try:
            return None if value is None else Position.from_data(value)
        except ValueError as exc:
            logger.error("asset state has no valid position, starting now: %s", exc)
            return None

    async def save(self, position: Position) -> None:
        """Store the position. If that fails, jobs since the last stored position may be repeated."""
        for accessor in self._accessors:
            try:
                await asyncio.wait_for(accessor.aset(self.key, position.data()), _TIMEOUT)
            except Exception as exc:
                logger.warning("asset state can't be written: %s: %s", type(exc).__name__, exc)


def _accessors_of(store: Any) -> list[Accessor]:
    # Airflow's public API needs the asset's name, which a trigger does not know.
    found = [each for name in ("_by_name", "_by_uri") for each in getattr(store, name, {}).values()]
    return found or ([] if store is None else [store])
