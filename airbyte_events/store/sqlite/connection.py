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
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread

from airbyte_events._utils.batching import Batcher, Failed
from airbyte_events.errors import StoreError, StoreFull
from airbyte_events.store.sqlite.files import FileIdentity, lock
from airbyte_events.store.sqlite.schema import add_now, ensure_newest, migrate

T = TypeVar("T")

Connect = Callable[[Path], sqlite3.Connection]

_LARGEST_WAL = 64 * 2**20
"""Bytes to which the write-ahead log is truncated after a checkpoint."""


class _Work(NamedTuple):
    """What runs on a connection.

    :param committed: called in the event loop with the result.
    """

    run: Callable[[sqlite3.Connection], Any]
    committed: Callable[[Any], object] | None = None


class SQLiteFile:
    """A SQLite file with its connections.

    :param connect: opens it for writing, for example with another build of SQLite.
    """

    def __init__(self, path: Path, *, read_only: bool = False, connect: Connect | None = None) -> None:
        # SQLite resolves symbolic links and creates the write-ahead log next to the target.
        self._path = path.resolve()
        self._given = path
        self._connect = connect or _connect
        self._read_only = read_only
        self._writing = _batcher(self._run_batch)
        # One by one, so that no read waits for another's result.
        self._reading = self._writing if read_only else _batcher(self._read, max_items=1)

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
            for batcher in {self._writing, self._reading}:
                await stack.enter_async_context(batcher)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.__aexit__(None, None, None)

    async def transact(
        self, run: Callable[[sqlite3.Connection], T], committed: Callable[[T], object] | None = None
    ) -> T:
        """Call ``run`` in a worker thread within a transaction that is durable on return. It may be called twice.

        If the caller is cancelled a started transaction completes, and a waiting one is not started.

        :param committed: called in the event loop with the result after the commit, even if the caller was cancelled.
        :raises StoreError: if the database failed. Exceptions of ``run`` propagate, and its changes are rolled back.
        """
        return await _submit(self._writing, run, committed)

    async def read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Call ``run``, which only reads, in a worker thread, concurrently with writers. It sees all earlier commits.

        :raises StoreError: if the database failed. Exceptions of ``run`` propagate.
        """
        return await _submit(self._reading, run)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._files.size

    def _read(self, batch: Sequence[_Work]) -> list[Any]:
        return [_attempt(self._read_one, work) for work in batch]

    def _read_one(self, work: _Work) -> Any:
        self._files.ensure()
        self._reader.execute("BEGIN")
        try:
            return work.run(self._reader)
        finally:
            if self._reader.in_transaction:
                self._reader.execute("ROLLBACK")

    def _run_batch(self, batch: Sequence[_Work]) -> list[Any]:
        try:
            return self._run_together(batch)
        except Exception:
            # The transaction was rolled back: run each operation in its own.
            return [_attempt(lambda work: self._run_together([work])[0], work) for work in batch]

    def _run_together(self, batch: Sequence[_Work]) -> list[Any]:
        connection = self._connection
        if self._read_only:  # in the transaction begun on opening
            return [work.run(connection) for work in batch]
        self._files.ensure()
        connection.execute("BEGIN")
        try:
            results = [work.run(connection) for work in batch]
            connection.execute("COMMIT")
        except BaseException:
            # Some errors, such as a full disk, roll back by themselves.
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        # Again: writes to removed files are lost.
        self._files.ensure()
        return results


def _batcher(run: Callable[[Sequence[_Work]], list[Any]], *, max_items: int | None = None) -> Batcher[_Work, Any]:
    """Return a batcher that runs in a worker thread, whatever number of threads others use."""
    thread = anyio.CapacityLimiter(1)

    async def run_in_thread(batch: Sequence[_Work]) -> list[Any]:
        results = await anyio.to_thread.run_sync(run, batch, limiter=thread)
        for work, result in zip(batch, results, strict=True):
            if work.committed is not None and not isinstance(result, Failed):
                work.committed(result)
        return results

    return Batcher(run_in_thread, max_items=max_items)


async def _submit(
    batcher: Batcher[_Work, Any],
    run: Callable[[sqlite3.Connection], T],
    committed: Callable[[T], object] | None = None,
) -> T:
    try:
        result: T = await batcher.submit(_Work(run, committed))
    except anyio.ClosedResourceError:
        raise StoreError("the store is closed") from None
    return result


def _attempt(run: Callable[[_Work], Any], work: _Work) -> Any:
    """Return the result, or the error for the caller of this work alone."""
    try:
        return run(work)
    except sqlite3.Error as exc:
        return Failed(_failure(exc))
    except Exception as exc:
        return Failed(exc)


def _failure(exc: sqlite3.Error) -> StoreError:
    full = getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    failure = (StoreFull if full else StoreError)(f"the store failed: {exc}")
    failure.__cause__ = exc
    return failure


def _connect(path: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(path, uri=uri, isolation_level=None, check_same_thread=False, timeout=5)


@contextlib.contextmanager
def _opening(path: Path, connect: Connect, verb: str = "open") -> Iterator[sqlite3.Connection]:
    """Connect, and close the connection if its setup fails."""
    try:
        connection = connect(path)
        # Decode invalid UTF-8, too: only its row is unreadable, not the result.
        connection.text_factory = lambda data: data.decode(errors="surrogateescape")
        add_now(connection)
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
