"""The location of a memory store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from airbyte_events.store.location import StoreLocation
from airbyte_events.store.memory.store import MemoryStore

WRITTEN = "a store in memory is written memory:, a file sqlite:///relative.db or sqlite:////absolute.db"


@dataclass(frozen=True, slots=True)
class MemoryLocation(StoreLocation):
    """``memory:``"""

    kind = "memory"
    durable = False

    @classmethod
    def parse(cls, url: str) -> Self:
        if url != "memory:":
            raise ValueError(WRITTEN)
        return cls()

    def store(self) -> MemoryStore:
        return MemoryStore()

    async def check(self) -> str:
        return "is in memory: a restart of the listener loses it"

    def __str__(self) -> str:
        return "memory:"
