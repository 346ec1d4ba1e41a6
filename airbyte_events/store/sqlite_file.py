"""One SQLite file, and the one connection to it.

All access goes over one connection (two in one process can corrupt a WAL in SQLite before 3.51.3, see
https://sqlite.org/wal.html#walresetbug) and in batches: what is asked for while a transaction is being synced to disk
runs together in the next one, so that a hundred concurrent writers pay for one sync.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.to_thread

from airbyte_events.errors import StoreError, StoreLocked

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

logger = logging.getLogger(__name__)

T = TypeVar("T")

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    instance TEXT NOT NULL, job_id INTEGER NOT NULL, connection_id TEXT, status TEXT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX events_by_job ON events (instance, job_id);
CREATE TABLE jobs (
    instance TEXT NOT NULL, job_id INTEGER NOT NULL, connection_id TEXT, status TEXT NOT NULL,
    sequence INTEGER NOT NULL, data TEXT NOT NULL,
    PRIMARY KEY (instance, job_id)
) WITHOUT ROWID;
CREATE INDEX jobs_by_sequence ON jobs (sequence);
CREATE TABLE notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance TEXT NOT NULL, digest BLOB NOT NULL UNIQUE, received_at TEXT NOT NULL, kind TEXT NOT NULL,
    job_id INTEGER, body BLOB NOT NULL, outcome TEXT NOT NULL, settled_at TEXT
);
CREATE INDEX notifications_pending ON notifications (instance, id) WHERE outcome = 'pending';
CREATE INDEX notifications_by_job ON notifications (instance, job_id) WHERE job_id IS NOT NULL;
"""


class _Operation(Generic[T]):
    """Something to run in a transaction, and whoever waits for it."""

    __slots__ = ("committed", "done", "error", "run", "value")

    def __init__(self, run: Callable[[sqlite3.Connection], T], committed: Callable[[T], object] | None) -> None:
        self.run = run
        self.committed = committed
        self.done = anyio.Event()
        self.error: Exception | None = None
        self.value: T


class SQLiteFile:
    """:param path: the database file; its folder is made. A ``.lock`` file beside it keeps other processes out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[_Operation[Any]] = []
        self._wake = anyio.Event()
        self._closing = False

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(_lock(self._path))
            self._connection = await anyio.to_thread.run_sync(_open, self._path)
            stack.callback(self._connection.close)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(self._run_batches)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._closing = True
        self._wake.set()
        # What the body raised is its own affair: a task group would wrap it.
        await self._stack.__aexit__(None, None, None)

    async def transact(
        self, run: Callable[[sqlite3.Connection], T], committed: Callable[[T], object] | None = None
    ) -> T:
        """Run it in a worker thread within a transaction, which is durable on return. It may be run twice.

        Whoever is cancelled meanwhile leaves; what was begun is finished all the same.

        :param committed: called in the event loop with the result once it is durable, also if nobody waits any more.
        :raises StoreError: if the database failed. What ``run`` raises is raised here, and its own changes are undone.
        """
        if self._closing:
            raise StoreError("the store is closed")
        operation = _Operation(run, committed)
        self._waiting.append(operation)
        self._wake.set()
        await operation.done.wait()
        if operation.error is not None:
            raise operation.error
        return operation.value

    async def _run_batches(self) -> None:
        # Shielded, so that a cancelled process still finishes and answers what it has begun.
        with anyio.CancelScope(shield=True):
            while not (self._closing and not self._waiting):
                await self._wake.wait()
                self._wake = anyio.Event()
                while self._waiting:
                    batch, self._waiting = self._waiting, []
                    await anyio.to_thread.run_sync(_run_batch, self._connection, batch)
                    for operation in batch:
                        operation.done.set()
                        if operation.committed is not None and operation.error is None:
                            operation.committed(operation.value)
                if self._closing:
                    self._wake.set()


def _run_batch(connection: sqlite3.Connection, batch: Sequence[_Operation[Any]]) -> None:
    try:
        _run_together(connection, batch)
    except Exception:
        # One has failed, and with it the transaction: now each has its own, and its own failure.
        for operation in batch:
            try:
                _run_together(connection, [operation])
            except sqlite3.Error as exc:
                operation.error = _failure(exc)
            except Exception as exc:  # belongs to the one who asked
                operation.error = exc


def _run_together(connection: sqlite3.Connection, batch: Sequence[_Operation[Any]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
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


def _failure(exc: sqlite3.Error) -> StoreError:
    failure = StoreError(f"the store failed: {exc}")
    failure.__cause__ = exc
    return failure


def _open(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as exc:
        raise StoreError(f"can't open the store {path}: {exc}") from exc
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the store {path} was written by a newer airbyte-events (schema {version}, this one knows"
            f" {SCHEMA_VERSION}): upgrade airbyte-events, or name another file"
        )
    if version == 0:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError(f"{path} is the database of something else: name another file")
        epoch = secrets.token_hex(8)
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} INSERT INTO meta VALUES ('epoch', '{epoch}');"
            f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
        logger.info("made the store %s, schema %d", path, SCHEMA_VERSION)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("a+")
    except OSError as exc:
        raise StoreError(f"can't make the store {path}: {exc.strerror}") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise StoreLocked(f"the store {path} is in use by process {holder}: stop it, or name another file") from exc
        except OSError as exc:
            raise StoreError(f"can't lock the store {path}: {exc.strerror}") from exc
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
