"""A SQLite file with one connection for writes and one for reads.

Only one connection writes and checkpoints (two can corrupt a WAL in SQLite before 3.51.3, see
https://sqlite.org/wal.html#walresetbug), in batches: operations that arrive while a transaction is synced to disk share
the next one, so that a hundred concurrent writers share one sync. Large reads use the other connection, so that they do
not delay writers.

Another process may read a snapshot of the file; it neither writes nor checkpoints.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread

from airbyte_events.errors import StoreError, StoreFull
from airbyte_events.store.sqlite.executor import Lane, Operation
from airbyte_events.store.sqlite.file_identity import FileIdentity
from airbyte_events.store.sqlite.lock import lock
from airbyte_events.store.sqlite.schema import ensure_newest, migrate

T = TypeVar("T")

Connect = Callable[[Path], sqlite3.Connection]

_LARGEST_WAL = 64 * 2**20
"""Bytes to which the write-ahead log is truncated after a checkpoint."""


class SQLiteFile:
    """A SQLite file with its connections.

    :param path: the database file; its folder is created. A ``.lock`` file next to it keeps other processes out.
    :param read_only: read a snapshot of the file, even if another process has it open.
    :param connect: opens it for writing, for example with another build of SQLite.
    """

    def __init__(self, path: Path, *, read_only: bool = False, connect: Connect | None = None) -> None:
        # SQLite resolves symbolic links and creates the write-ahead log next to the target.
        self._path = path.resolve()
        self._given = path
        self._connect = connect or _connect
        self._read_only = read_only
        self._writing = Lane(self._run_batch)
        # One by one, so that no read waits for another's result.
        self._reading = self._writing if read_only else Lane(self._read, most=1)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            if not self._read_only:
                stack.enter_context(lock(self._path))
            open_ = partial(_open_snapshot) if self._read_only else partial(_open_writer, connect=self._connect)
            self._connection = await anyio.to_thread.run_sync(open_, self._path)
            stack.callback(self._connection.close)
            self._files = FileIdentity(self._given, self._path)
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
        # Without the exception, which a task group would wrap.
        await self._stack.__aexit__(None, None, None)

    async def transact(
        self, run: Callable[[sqlite3.Connection], T], committed: Callable[[T], object] | None = None
    ) -> T:
        """Call ``run`` in a worker thread within a transaction that is durable on return. It may be called twice.

        If the caller is cancelled a started transaction completes, and a waiting one is not started.

        :param committed: called in the event loop with the result after the commit, even if the caller was cancelled.
        :raises StoreError: if the database failed. Exceptions of ``run`` propagate, and its changes are rolled back.
        """
        return await self._writing.do(run, committed)

    async def read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Call ``run``, which only reads, in a worker thread, concurrently with writers. It sees all earlier commits.

        :raises StoreError: if the database failed. Exceptions of ``run`` propagate.
        """
        return await self._reading.do(run)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._files.size

    def _read(self, batch: Sequence[Operation[Any]]) -> None:
        for operation in batch:
            with _passing_errors_to(operation):
                self._files.ensure()
                self._reader.execute("BEGIN")
                try:
                    operation.value = operation.run(self._reader)
                finally:
                    if self._reader.in_transaction:
                        self._reader.execute("ROLLBACK")

    def _run_batch(self, batch: Sequence[Operation[Any]]) -> None:
        try:
            self._run_together(batch)
        except Exception:
            # The transaction was rolled back: run each operation in its own.
            for operation in batch:
                with _passing_errors_to(operation):
                    self._run_together([operation])

    def _run_together(self, batch: Sequence[Operation[Any]]) -> None:
        connection = self._connection
        if self._read_only:  # in the transaction begun on opening
            for operation in batch:
                operation.value = operation.run(connection)
            return
        self._files.ensure()
        connection.execute("BEGIN")
        try:
            for operation in batch:
                operation.value = operation.run(connection)
            connection.execute("COMMIT")
        except BaseException:
            # Some errors, such as a full disk, roll back by themselves.
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        # Again: writes to removed files are lost.
        self._files.ensure()


@contextlib.contextmanager
def _passing_errors_to(operation: Operation[Any]) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        full = getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        operation.error = (StoreFull if full else StoreError)(f"the store failed: {exc}")
        operation.error.__cause__ = exc
    except Exception as exc:  # raised in the caller
        operation.error = exc


def _connect(path: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(path, uri=uri, isolation_level=None, check_same_thread=False, timeout=5)


@contextlib.contextmanager
def _opening(path: Path, connect: Connect, verb: str = "open") -> Iterator[sqlite3.Connection]:
    """Connect, and close the connection if its setup fails."""
    try:
        connection = connect(path)
        # Decode invalid UTF-8, too: only its row is unreadable, not the result.
        connection.text_factory = lambda data: data.decode(errors="surrogateescape")
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as exc:
        raise StoreError(f"can't {verb} the store {path}: {exc}") from exc


def _open_snapshot(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise StoreError(f"there is no store {path}")
    with _opening(path, lambda path: _connect(f"file:{quote(str(path))}?mode=ro", uri=True), "read") as connection:
        connection.execute("BEGIN")
        ensure_newest(connection, path)
    return connection


def _open_reader(path: Path, connect: Connect) -> sqlite3.Connection:
    with _opening(path, connect) as connection:
        # A connection that does not write does not checkpoint either; the other one is closed later.
        connection.execute("PRAGMA query_only = ON")
    return connection


def _open_writer(path: Path, connect: Connect) -> sqlite3.Connection:
    with _opening(path, connect) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_LARGEST_WAL}")
        migrate(connection, path)
    return connection
