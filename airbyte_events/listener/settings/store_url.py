"""The address of the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path

from airbyte_events.errors import StoreError
from airbyte_events.store.base import EventStore
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.postgres.url import PostgresURL
from airbyte_events.store.sqlite.store import SQLiteStore


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLocation:
    """Where events are kept. What it shows of itself holds no password.

    :param kind: ``sqlite``, ``postgresql``, or ``memory`` for events that end with the process.
    :param path: the database file of ``sqlite``, as it was written: a relative one counts from the working directory.
    :param url: the database of ``postgresql``.
    """

    kind: Literal["sqlite", "postgresql", "memory"]
    path: Path | None = None
    url: PostgresURL | None = None

    @classmethod
    def parse(cls, url: str) -> StoreLocation:
        """:raises ValueError: if the text is not the URL of a store that this version has; the message holds nothing
        of it."""
        if url == "memory:":
            return cls(kind="memory")
        scheme, colon, rest = url.partition(":")
        if scheme in {"memory", "mem"} or (scheme == "sqlite" and rest in {"//", "///", "///:memory:"}):
            raise ValueError(
                "a store in memory is written memory:, a file sqlite:///relative.db or sqlite:////absolute.db"
            )
        if scheme in {"postgresql", "postgres"}:
            return cls(kind="postgresql", url=PostgresURL.parse(url))
        if scheme != "sqlite" or not colon:
            raise ValueError("no such store in this version, which has sqlite, postgresql and memory")
        if not rest.startswith("///"):
            raise ValueError("sqlite wants three slashes before a relative path and four before an absolute one")
        path = rest[3:]
        if path.startswith("~") or "?" in path or "#" in path or "\0" in path:
            raise ValueError("after sqlite:/// comes nothing but a path, without ~, ? and #")
        return cls(kind="sqlite", path=Path(path))

    @classmethod
    def default(cls) -> StoreLocation:
        """A file in the user's data folder."""
        return cls(kind="sqlite", path=user_data_path("airbyte-events", appauthor=False) / "events.db")

    def store(self) -> EventStore:
        """The store, yet to be opened.

        :raises StoreError: if the driver that it wants is not installed.
        """
        # Imported where it is wanted: not every installation has a driver.
        if self.url is not None:
            try:
                from airbyte_events.store.postgres.store import PostgresStore
            except ImportError as exc:
                raise StoreError(
                    f"there is no driver for PostgreSQL ({exc}): pip install 'airbyte-events[postgres]'"
                ) from None
            return PostgresStore(self.url)
        return MemoryStore() if self.path is None else SQLiteStore(self.path)

    def __str__(self) -> str:
        if self.url is not None:
            return str(self.url)
        return "memory:" if self.path is None else f"sqlite:///{self.path}"
