"""Connections to PostgreSQL, each used by one at a time, none for longer than it may take.

A pool of our own, because of four things that are wanted of it together: whoever waits gets an answer in time though
a connection has gone silent and no packet will ever tell so; what was begun is finished though whoever asked has left;
the first who asks after an outage finds it over, instead of the next turn of a back-off; and a connection to a server
that does not write any more is not used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.abc
import psycopg
from psycopg import conninfo, pq
from psycopg.types.datetime import TimestamptzLoader

from airbyte_events.errors import StoreError, StoreFull
from airbyte_events.store.postgres.url import PostgresURL

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from psycopg.abc import Buffer

logger = logging.getLogger(__name__)

T = TypeVar("T")
Connection = psycopg.AsyncConnection[Any]
Work = Callable[[Connection], Awaitable[T]]

SECONDS = 5.0
"""What takes longer has failed."""

SIZE = 5
"""Connections."""

_DEFAULTS: dict[str, Any] = {
    "application_name": "airbyte-events",
    "client_encoding": "utf8",
    "connect_timeout": 3,
    # A peer that is gone without a word is noticed by the kernel, too.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8_000,
}

_QUIET_SECONDS = 60.0
"""From one warning that a server only reads to the next."""

_READ_ONLY = "25006"
"""SQLSTATE ``read_only_sql_transaction``: nothing was done."""

_FULL = "53"
"""Class of SQLSTATEs: no space, no memory, no connection left."""

_ANOTHER_SERVER = (_READ_ONLY, "57P", "08")
"""SQLSTATEs, or how they begin, of a server that has become a standby, shuts down or has lost the connection: a new
connection may reach another one (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


async def connect(url: PostgresURL) -> Connection:
    """A connection that commits every statement by itself and leaves nothing behind in the session.

    :raises StoreError: if there is none to be had.
    """
    try:
        given = conninfo.conninfo_to_dict(url.conninfo)
        defaults = _DEFAULTS | _writing(given)
        text = conninfo.make_conninfo(url.conninfo, **{k: v for k, v in defaults.items() if k not in given})
        # Prepared statements belong to a session, and behind a pooler the next statement may have another one.
        connection = await psycopg.AsyncConnection.connect(text, autocommit=True, prepare_threshold=None)
    except psycopg.Error as exc:
        reason = " ".join(str(exc).split()).removeprefix("connection failed: ")
        raise StoreError(f"can't connect to the store {url}: {url.hide(reason)}") from None
    connection.adapters.register_loader("timestamptz", _Time)
    return connection


class _Time(TimestamptzLoader):
    """A time, or None for one that no calendar of ours has, such as infinity: it spoils its row, not the query."""

    def load(self, data: Buffer) -> datetime | None:  # type: ignore[override]
        try:
            return super().load(data)
        except psycopg.DataError:
            return None


def _writing(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of several hosts the one that can be written to, unless somebody has said which."""
    hosts = str(given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST", ""))
    chosen = "PGTARGETSESSIONATTRS" in os.environ or "service" in given
    return {"target_session_attrs": "read-write"} if "," in hosts and not chosen else {}


def sever(connection: Connection) -> None:
    """Let whoever waits for an answer on it fail at once."""
    # The descriptor stays open, so that it can't become somebody else's while the event loop watches it.
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def translated(url: PostgresURL) -> Iterator[None]:
    """Raise StoreError for what psycopg raises, without the details: they can hold what was stored."""
    try:
        yield
    except psycopg.Error as exc:
        message = exc.diag.message_primary or next(iter(str(exc).splitlines()), "") or type(exc).__name__
        full = (exc.sqlstate or "").startswith(_FULL)
        raise (StoreFull if full else StoreError)(f"the store failed: {url.hide(message)}") from None
    except UnicodeEncodeError:
        raise StoreError("the store failed: half a surrogate pair is no text") from None


class _Operation(Generic[T]):
    """Something to do on a connection, and whoever waits for it."""

    __slots__ = ("deadline", "done", "error", "value", "work")

    def __init__(self, work: Work[T], deadline: float) -> None:
        self.work = work
        self.deadline = deadline
        self.done = anyio.Event()
        self.error: Exception | None = StoreError("the store is closed")
        self.value: T


class PostgresPool:
    """:param url: of the database.
    :param size: see :data:`SIZE`.
    """

    def __init__(self, url: PostgresURL, *, size: int = SIZE) -> None:
        self._url = url
        self._size = size
        # The server's process behind each connection.
        self._processes: dict[Connection, int] = {}
        self._idle: list[Connection] = []
        self._closing = False
        self._quiet_until = -math.inf

    async def __aenter__(self) -> Self:
        self._free = anyio.Semaphore(self._size)
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._closing = True
        # Connecting ends; what was begun on a connection is finished, in its time.
        self._tasks.cancel_scope.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._discard_idle()

    def is_served_by(self, process: int) -> bool:
        """Return whether a connection has that process of the server."""
        return process in self._processes.values()

    async def run(self, work: Work[T], *, seconds: float = SECONDS) -> T:
        """Do something on a connection: one statement, or one transaction.

        Whoever is cancelled meanwhile leaves; what was begun is finished all the same.

        :param seconds: how long it may take, waiting for a connection included.
        :raises StoreError: if it failed, or took longer: then it may have been done.
        """
        if self._closing:
            raise StoreError("the store is closed")
        operation = _Operation(work, anyio.current_time() + seconds)
        with anyio.move_on_after(seconds):
            await self._free.acquire()
            self._tasks.start_soon(self._perform, operation)
            await operation.done.wait()
            if operation.error is not None:
                raise operation.error
            return operation.value
        raise StoreError(f"the store gave no answer for {seconds:g} s")

    async def _perform(self, operation: _Operation[Any]) -> None:
        try:
            if await self._is_refused(operation):
                await self._is_refused(operation)
        except Exception as exc:  # belongs to the one who asked
            operation.error = exc
        finally:
            operation.done.set()
            self._free.release()

    async def _is_refused(self, operation: _Operation[Any]) -> bool:
        """Do it; whether a server that only reads has refused, which is worth another try."""
        # Connecting has a time limit of its own: with several hosts it can take longer than anybody waits, and
        # whoever comes next finds the connection there.
        connection = self._take_idle() or await self._connect()
        # Shielded, so that a cancelled process still finishes what it has begun.
        with anyio.CancelScope(shield=True):
            state = await self._work_on(connection, operation)
        if state != _READ_ONLY:
            return False
        if anyio.current_time() >= self._quiet_until:
            self._quiet_until = anyio.current_time() + _QUIET_SECONDS
            logger.warning("the PostgreSQL server refuses to write, its connections are closed: %s", operation.error)
        return True

    async def _work_on(self, connection: Connection, operation: _Operation[Any]) -> str:
        """The SQLSTATE with which it failed, if it did so with one."""
        state = ""
        try:
            if anyio.current_time() < operation.deadline:
                with translated(self._url), cut_off_at(operation.deadline, connection):
                    try:
                        operation.value = await operation.work(connection)
                    except psycopg.Error as exc:
                        state = exc.sqlstate or ""
                        raise
                operation.error = None
        except StoreError as exc:
            operation.error = exc
        finally:
            if state.startswith(_ANOTHER_SERVER):
                # The others lead to the same server.
                self._finish(connection)
                self._discard_idle()
            elif connection.info.transaction_status == pq.TransactionStatus.IDLE:
                self._idle.append(connection)
            else:
                self._finish(connection)
        return state

    async def _connect(self) -> Connection:
        connection = await connect(self._url)
        self._processes[connection] = connection.pgconn.backend_pid
        return connection

    def _finish(self, connection: Connection) -> None:
        self._processes.pop(connection, None)
        connection.pgconn.finish()

    def _discard_idle(self) -> None:
        for connection in self._idle:
            self._finish(connection)
        self._idle.clear()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not _has_ended(connection):
                return connection
            self._finish(connection)
        return None


@contextlib.contextmanager
def cut_off_at(deadline: float, connection: Connection) -> Iterator[None]:
    """Sever a connection on which there is no answer by then, by the event loop's clock."""
    cut = asyncio.get_running_loop().call_at(deadline, sever, connection)
    try:
        yield
    finally:
        cut.cancel()


def _has_ended(connection: Connection) -> bool:
    """Whether the other side has closed it while nobody used it, which costs no round trip to see."""
    try:
        # The first reading may get its last words, and only the second the end.
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    return connection.pgconn.status != pq.ConnStatus.OK
