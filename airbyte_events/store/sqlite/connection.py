"""One SQLite file, and the one connection that writes to it.

All writing goes over one connection (two that write or checkpoint can corrupt a WAL in SQLite before 3.51.3, see
https://sqlite.org/wal.html#walresetbug) and in batches: what is asked for while a transaction is being synced to disk
runs together in the next one, so that a hundred concurrent writers pay for one sync. What reads much has a connection
of its own, which does neither, so that nobody who writes waits for those who catch up.

Another process may read the file meanwhile. What it sees is the file at the moment when it began, and it neither writes
nor checkpoints, which is what two must not do at once.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread

from airbyte_events.errors import StoreError, StoreFull
from airbyte_events.store.sqlite.executor import Lane, Operation
from airbyte_events.store.sqlite.file_identity import Place
from airbyte_events.store.sqlite.lock import lock
from airbyte_events.store.sqlite.schema import ensure_newest, migrate

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

T = TypeVar("T")

Connect = Callable[[Path], sqlite3.Connection]

_LARGEST_WAL = 64 * 2**20
"""Bytes that a write-ahead log keeps once it has been worked off."""


class SQLiteFile:
    """:param path: the database file; its folder is made. A ``.lock`` file beside it keeps other processes out.
    :param read_only: read what a file holds at this moment, whether or not another process has it open.
    :param connect: opens it for writing; another build of SQLite can be behind it.
    """

    def __init__(self, path: Path, *, read_only: bool = False, connect: Connect | None = None) -> None:
        # SQLite follows symbolic links to the file, whose write-ahead log lies beside what they lead to.
        self._path = path.resolve()
        self._named = path
        self._connect = connect or _connect
        self._read_only = read_only
        self._writing = Lane(self._run_batch)
        # One by one, so that each is answered as soon as it can be.
        self._reading = self._writing if read_only else Lane(self._read, most=1)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            if not self._read_only:
                stack.enter_context(lock(self._path))
            opened = partial(_read, self._path) if self._read_only else partial(_open, self._path, self._connect)
            self._connection = await anyio.to_thread.run_sync(opened)
            stack.callback(self._connection.close)
            self._place = Place(self._named, self._path)
            if not self._read_only:
                self._reader = await anyio.to_thread.run_sync(_open_reader, self._path, self._connect)
                stack.callback(self._reader.close)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            for lane in {self._writing, self._reading}:
                tasks.start_soon(lane.serve)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._writing.close()
        self._reading.close()
        # What the body raised is its own affair: a task group would wrap it.
        await self._stack.__aexit__(None, None, None)

    async def transact(
        self, run: Callable[[sqlite3.Connection], T], committed: Callable[[T], object] | None = None
    ) -> T:
        """Run it in a worker thread within a transaction, which is durable on return. It may be run twice.

        Whoever is cancelled meanwhile leaves; what was begun is finished all the same, and nothing else.

        :param committed: called in the event loop with the result once it is durable, also if nobody waits any more.
        :raises StoreError: if the database failed. What ``run`` raises is raised here, and its own changes are undone.
        """
        return await self._writing.do(run, committed)

    async def read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Run what only reads in a worker thread, beside those who write. It sees all that was durable before.

        :raises StoreError: if the database failed. What ``run`` raises is raised here.
        """
        return await self._reading.do(run)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._place.size

    def _read(self, batch: Sequence[Operation[Any]]) -> None:
        for operation in batch:
            try:
                self._place.ensure()
                self._reader.execute("BEGIN")
                try:
                    operation.value = operation.run(self._reader)
                finally:
                    if self._reader.in_transaction:
                        self._reader.execute("ROLLBACK")
            except sqlite3.Error as exc:
                operation.error = _failure(exc)
            except Exception as exc:  # belongs to the one who asked
                operation.error = exc

    def _run_batch(self, batch: Sequence[Operation[Any]]) -> None:
        try:
            self._run_together(batch)
        except Exception:
            # One has failed, and with it the transaction: now each has its own, and its own failure.
            for operation in batch:
                try:
                    self._run_together([operation])
                except sqlite3.Error as exc:
                    operation.error = _failure(exc)
                except Exception as exc:  # belongs to the one who asked
                    operation.error = exc

    def _run_together(self, batch: Sequence[Operation[Any]]) -> None:
        connection = self._connection
        if self._read_only:  # all in the one transaction that it was opened with
            for operation in batch:
                operation.value = operation.run(connection)
            return
        self._place.ensure()
        connection.execute("BEGIN")
        try:
            for operation in batch:
                operation.value = operation.run(connection)
            connection.execute("COMMIT")
        except BaseException:
            # A full disk, for one, has ended the transaction already.
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        # Once more: what was written to files that nobody can find any more is not kept.
        self._place.ensure()


def _failure(exc: sqlite3.Error) -> StoreError:
    full = getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    failure = (StoreFull if full else StoreError)(f"the store failed: {exc}")
    failure.__cause__ = exc
    return failure


def _read(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise StoreError(f"there is no store {path}")
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, timeout=5
        )
        connection.text_factory = _text
        try:
            connection.execute("BEGIN")
            ensure_newest(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as exc:
        raise StoreError(f"can't read the store {path}: {exc}") from exc
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)


def _text(data: bytes) -> str:
    """Text that is not UTF-8 any more spoils the row that it is in, not the query."""
    return data.decode(errors="surrogateescape")


def _open_reader(path: Path, connect: Connect) -> sqlite3.Connection:
    try:
        connection = connect(path)
        connection.text_factory = _text
        # Without writing it does not checkpoint either: the other connection is closed after it.
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as exc:
        raise StoreError(f"can't open the store {path}: {exc}") from exc
    return connection


def _open(path: Path, connect: Connect) -> sqlite3.Connection:
    try:
        connection = connect(path)
        connection.text_factory = _text
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {_LARGEST_WAL}")
            migrate(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as exc:
        raise StoreError(f"can't open the store {path}: {exc}") from exc
    return connection
