"""The available stores, by URL scheme."""

from __future__ import annotations

from airbyte_events.store.location import StoreLocation
from airbyte_events.store.memory.store import MemoryLocation
from airbyte_events.store.postgres.url import PostgresURL
from airbyte_events.store.sqlite.store import SQLiteLocation

LOCATIONS: dict[str, type[StoreLocation]] = {
    "sqlite": SQLiteLocation,
    "postgresql": PostgresURL,
    "postgres": PostgresURL,
    "memory": MemoryLocation,
    "mem": MemoryLocation,
}


def store_location(url: str) -> StoreLocation:
    """Parse the URL of a store.

    :raises ValueError: if the URL is invalid; the message contains no part of it.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in LOCATIONS:
        *others, last = dict.fromkeys(location.kind for location in LOCATIONS.values())
        raise ValueError(f"no such store in this version, which has {', '.join(others)} and {last}")
    return LOCATIONS[scheme].parse(url)
