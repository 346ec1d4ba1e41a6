"""A store in one SQLite file: durable, for one process."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

import anyio

from airbyte_events.errors import StoreError
from airbyte_events.store.base import MovableStore
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
