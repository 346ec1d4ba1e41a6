"""Methods of a SQLite store, each of which runs in a transaction."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from airbyte_events.store.database import DatabaseStore
from airbyte_events.store.memory.leases import Leases
from airbyte_events.store.sqlite.connection import Connect, SQLiteFile

P = ParamSpec("P")
S = TypeVar("S", bound="SQLiteTransactions")
T = TypeVar("T")
_Function = Callable[Concatenate[S, sqlite3.Connection, P], T]
_Method = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]


class SQLiteTransactions(DatabaseStore):
    """A SQLite file and the leases of its process.

    :param path: the database file; its folder is created. A ``.lock`` file next to it keeps other processes out.
    :param read_only: read a snapshot of the file, even if another process has it open.
    """

    def __init__(self, path: Path, *, read_only: bool = False, connect: Connect | None = None) -> None:
        super().__init__()
        self._path = path
        self._read_only = read_only
        self._file = SQLiteFile(path, read_only=read_only, connect=connect)
        # Not in the file: the holders of a previous process are gone.
        self._leases = Leases()


def transaction(function: _Function[S, P, T]) -> _Method[S, P, T]:
    """Let a method run in a transaction, see :meth:`SQLiteFile.transact`."""

    @functools.wraps(function)
    async def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._file.transact(lambda connection: function(self, connection, *args, **kwargs))

    return method


def reading(function: _Function[S, P, T]) -> _Method[S, P, T]:
    """Let a method read beside writers, see :meth:`SQLiteFile.read`."""

    @functools.wraps(function)
    async def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._file.read(lambda connection: function(self, connection, *args, **kwargs))

    return method
