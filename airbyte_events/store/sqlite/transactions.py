"""Methods of a store, each of which runs in a transaction of a SQLite database."""

from __future__ import annotations

import functools
import sqlite3
from abc import abstractmethod
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.events import JobEvent, JobRef
from airbyte_events.store.memory.database import MemoryDatabase
from airbyte_events.store.memory.leases import Leases
from airbyte_events.store.queries import Queries
from airbyte_events.store.records import Lease
from airbyte_events.store.rows import Row
from airbyte_events.store.sqlite.connection import SQLiteFile

HEAD = "SELECT seq FROM sqlite_sequence WHERE name = 'events'"

P = ParamSpec("P")
S = TypeVar("S", bound="SQLiteTransactions")
T = TypeVar("T")
_Function = Callable[Concatenate[S, sqlite3.Connection, P], T]
_Method = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]


def transaction(function: _Function[S, P, T]) -> _Method[S, P, T]:
    """Let a method run in a transaction."""

    @functools.wraps(function)
    async def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._file.transact(lambda connection: function(self, connection, *args, **kwargs))

    return method


class SQLiteTransactions(Queries):
    """A store with a SQLite database: its values and watches, and the leases of its process."""

    _s = "main"
    _head = f"coalesce(({HEAD}), 0)"

    _file: SQLiteFile | MemoryDatabase

    def __init__(self) -> None:
        super().__init__()
        # Not in the database: the holders of a previous process are gone.
        self._leases = Leases()

    async def _query(self, sql: str, values: Sequence[object], read: Callable[[list[Row]], T]) -> T:
        return await self._file.read(lambda connection: read(connection.execute(sql, values).fetchall()))

    @staticmethod
    def _among(column: str, values: Collection[object]) -> tuple[str, list[object]]:
        return f"{column} IN ({', '.join('?' * len(values))})", [*values]

    @transaction
    def remember(self, connection: sqlite3.Connection, key: str, value: str, *, lease: Lease | None = None) -> None:
        self._leases.ensure(lease)
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # Leases change within transactions, so that no guarded transaction loses its lease while it runs.

    async def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        now = anyio.current_time()
        return await self._file.transact(lambda _: self._leases.acquire(name, holder, now, seconds))

    async def release(self, lease: Lease) -> None:
        topics = [f"leases/{lease.name}"]
        await self._file.transact(lambda _: self._leases.release(lease), lambda _: self._wakeups.wake(topics))

    async def holders(self) -> dict[str, str]:
        now = anyio.current_time()
        return await self._file.transact(lambda _: self._leases.holders(now))

    async def watch(self, refs: Collection[JobRef], seconds: float) -> None:
        await self._file.transact(lambda c: self._watch(c, refs, seconds), self._waking("watches"))

    def _watch(self, connection: sqlite3.Connection, refs: Collection[JobRef], seconds: float) -> set[str]:
        """Watch jobs and return the instances with newly watched ones."""
        now = utcnow()
        since, until = format_time(now), format_time(now + timedelta(seconds=seconds))
        connection.execute("DELETE FROM watches WHERE until <= ?", (since,))
        fresh = set()
        for ref in refs:
            if self._has_completed(connection, ref):
                continue
            watched = connection.execute(
                "UPDATE watches SET until = max(until, ?) WHERE instance = ? AND job_id = ?", (until, *ref)
            )
            if not watched.rowcount:
                connection.execute("INSERT INTO watches VALUES (?, ?, ?, ?)", (*ref, since, until))
                fresh.add(ref.instance)
        return fresh

    @abstractmethod
    def _has_completed(self, connection: sqlite3.Connection, ref: JobRef) -> bool:
        """Return whether a job's latest state is terminal."""


def unwatch(connection: sqlite3.Connection, events: Iterable[JobEvent]) -> None:
    """Remove the watches of completed jobs."""
    refs = [event.ref for event in events if event.terminal]
    connection.executemany("DELETE FROM watches WHERE instance = ? AND job_id = ?", refs)
