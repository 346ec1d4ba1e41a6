"""The stores that there are, by the scheme of their URL. A new one has a folder of its own, and a line here."""

from __future__ import annotations

from airbyte_events.store.location import StoreLocation
from airbyte_events.store.memory.location import MemoryLocation
from airbyte_events.store.postgres.url import PostgresURL
from airbyte_events.store.sqlite.location import SQLiteLocation

LOCATIONS: dict[str, type[StoreLocation]] = {
    "sqlite": SQLiteLocation,
    "postgresql": PostgresURL,
    "postgres": PostgresURL,
    "memory": MemoryLocation,
    "mem": MemoryLocation,
}


def store_location(url: str) -> StoreLocation:
    """Read the URL of a store.

    :raises ValueError: if the text is not the URL of a store that this version has; the message holds nothing of it.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in LOCATIONS:
        raise ValueError("no such store in this version, which has sqlite, postgresql and memory")
    return LOCATIONS[scheme].parse(url)
