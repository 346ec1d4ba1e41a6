"""The location of a SQLite file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from airbyte_events.errors import StoreError
from airbyte_events.store.location import StoreLocation
from airbyte_events.store.memory.location import WRITTEN
from airbyte_events.store.sqlite.store import SQLiteStore


@dataclass(frozen=True, slots=True)
class SQLiteLocation(StoreLocation):
    """``sqlite:///relative.db`` or ``sqlite:////absolute.db``.

    :param path: as written; a relative one is relative to the working directory.
    """

    path: Path

    kind = "sqlite"
    remedy = "restore a backup, or move it away"

    @classmethod
    def parse(cls, url: str) -> Self:
        rest = url.removeprefix("sqlite:")
        if rest in {"//", "///", "///:memory:"}:
            raise ValueError(WRITTEN)
        if not rest.startswith("///"):
            raise ValueError("sqlite needs three slashes before a relative path and four before an absolute one")
        path = rest[3:]
        if path.startswith("~") or "?" in path or "#" in path or "\0" in path:
            raise ValueError("after sqlite:/// comes nothing but a path, without ~, ? and #")
        return cls(Path(path))

    @property
    def file(self) -> Path:
        return self.path

    def store(self) -> SQLiteStore:
        return SQLiteStore(self.path)

    async def check(self) -> str:
        if self.path.is_dir():
            raise StoreError(f"{self.path} is a folder: set AIRBYTE_EVENTS_STORE to a file in it")
        if not self.path.exists():
            return f"{self.path} does not exist: no listener with these settings has run on this machine"
        try:
            async with SQLiteStore(self.path, read_only=True) as store:
                stats = await store.stats()
        except StoreError as exc:
            raise StoreError(f"{self.path} can't be read: {exc}") from exc
        return f"{self.path} can be read: {stats.bytes:,} bytes"

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"
