"""A store in one SQLite file: durable, for one process."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

import anyio

from airbyte_events.errors import StoreError
from airbyte_events.store.base import MovableStore
from airbyte_events.store.location import WRITTEN, StoreLocation
from airbyte_events.store.migration import Batch
from airbyte_events.store.records import Pruned, StoreStats
from airbyte_events.store.sqlite import migration
from airbyte_events.store.sqlite.connection import Connect, SQLiteFile
from airbyte_events.store.sqlite.inbox import SQLiteInbox
from airbyte_events.store.sqlite.log import SQLiteLog


class SQLiteStore(SQLiteLog, SQLiteInbox, MovableStore):
    """A store in one SQLite file.

    :param path: the database file; its folder is created. A ``.lock`` file next to it keeps other processes out.
    :param read_only: read a snapshot of the file, even if another process has it open.
    """

    def __init__(self, path: Path, *, read_only: bool = False, connect: Connect | None = None) -> None:
        super().__init__()
        self._path = path
        self._read_only = read_only
        self._file = SQLiteFile(path, read_only=read_only, connect=connect)

    async def __aenter__(self) -> Self:
        await self._file.__aenter__()
        try:
            self._log = await self._file.transact(self._open)
            self._tail.restart(self._log.tail.sequence)
            if await self.recall(migration.RESTORING) is not None:
                raise StoreError(
                    f"{self._path} holds a migration that was cut off: remove the file, then migrate again"
                )
        except BaseException:
            await self._file.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._file.__aexit__()

    async def prune(self, before: datetime, *, keep: int) -> Pruned:
        events = 0
        while removed := await self._prune_events(before, keep):
            events += removed
        return Pruned(events=events, notifications=await self._prune_notifications(before))

    async def stats(self) -> StoreStats:
        return await self._stats(self._file.size)

    async def check(self) -> None:
        await self.remember("checked_by", secrets.token_hex(4))
        await self._renew()

    async def fill(self, epoch: str, head: int, batches: AsyncIterable[Batch]) -> None:
        with anyio.CancelScope(shield=True):
            await self._file.transact(migration.begin)
        try:
            async for batch in batches:
                await self._file.transact(partial(migration.fill, batch=batch))
            await self._file.transact(partial(migration.finish, epoch=epoch, head=head))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._file.transact(migration.undo)
            raise
        self._continue_with(await self._file.transact(self._open))


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
