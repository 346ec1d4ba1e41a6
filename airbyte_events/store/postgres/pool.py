"""A connection pool for PostgreSQL with a time limit for each operation.

``psycopg_pool`` does not do these together: operations time out even if a connection is silently dead; a started
operation completes even if its caller is cancelled; the first operation after an outage reconnects at once instead of
after a back-off; and connections to a server that became read-only are closed.
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
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import anyio.abc
import psycopg
from psycopg import conninfo, pq
from psycopg.types.datetime import TimestamptzLoader

from airbyte_events._utils.batching import Failed, Operation
from airbyte_events.errors import StoreError, StoreFull
from airbyte_events.store.postgres.url import PostgresURL

if TYPE_CHECKING:
    from psycopg.abc import Buffer

logger = logging.getLogger(__name__)

T = TypeVar("T")
Connection = psycopg.AsyncConnection[Any]
Work = Callable[[Connection], Awaitable[T]]

SECONDS = 5.0
"""Default time limit of an operation."""

SIZE = 5
"""Maximum number of connections."""

_DEFAULTS: dict[str, Any] = {
    "application_name": "airbyte-events",
    "client_encoding": "utf8",
    "connect_timeout": 3,
    # The kernel detects dead peers, too.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8_000,
}

_QUIET_SECONDS = 60.0
"""Minimum interval of warnings that the server is read-only."""

_READ_ONLY = "25006"
"""SQLSTATE ``read_only_sql_transaction``: nothing was written."""

_FULL = "53"
"""SQLSTATE class: out of disk space, memory or connections."""

_ANOTHER_SERVER = (_READ_ONLY, "57P", "08")
"""Prefixes of SQLSTATEs after which a new connection may reach another server: read-only, shutdown, connection lost
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


async def connect(url: PostgresURL) -> Connection:
    """Open a connection in autocommit mode that sets no session state.

    :raises StoreError: if that fails.
    """
    try:
        given = conninfo.conninfo_to_dict(url.conninfo)
        defaults = _DEFAULTS | _writing(given)
        text = conninfo.make_conninfo(url.conninfo, **{k: v for k, v in defaults.items() if k not in given})
        # Behind a pooler the next statement may run in another session, without its prepared statements.
        connection = await psycopg.AsyncConnection.connect(text, autocommit=True, prepare_threshold=None)
    except psycopg.Error as exc:
        reason = " ".join(str(exc).split()).removeprefix("connection failed: ")
        raise StoreError(f"can't connect to the store {url}: {url.hide(reason)}") from None
    connection.adapters.register_loader("timestamptz", _Time)
    return connection


class _Time(TimestamptzLoader):
    """A loader of times that returns None for those out of range, such as infinity, so that only their rows fail."""

    def load(self, data: Buffer) -> datetime | None:  # type: ignore[override]
        try:
            return super().load(data)
        except psycopg.DataError:
            return None


def _writing(given: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the writable one of several hosts by default."""
    hosts = str(given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST", ""))
    chosen = "PGTARGETSESSIONATTRS" in os.environ or "service" in given
    return {"target_session_attrs": "read-write"} if "," in hosts and not chosen else {}


def sever(connection: Connection) -> None:
    """Make a pending operation on the connection fail at once."""
    # The descriptor stays open, so that its number is not reused while the event loop watches it.
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def translated(url: PostgresURL) -> Iterator[None]:
    """Raise StoreError for psycopg errors, without their details, which may contain stored data."""
    try:
        yield
    except psycopg.Error as exc:
        message = exc.diag.message_primary or next(iter(str(exc).splitlines()), "") or type(exc).__name__
        full = (exc.sqlstate or "").startswith(_FULL)
        raise (StoreFull if full else StoreError)(f"the store failed: {url.hide(message)}") from None
    except UnicodeEncodeError:
        raise StoreError("the store failed: text with a lone surrogate can't be encoded as UTF-8") from None


class PostgresPool:
    """A pool of at most :data:`SIZE` connections to the database at ``url``."""

    def __init__(self, url: PostgresURL) -> None:
        self._url = url
        self._backend_pids: dict[Connection, int] = {}
        self._idle: list[Connection] = []
        self._closing = False
        self._quiet_until = -math.inf

    async def __aenter__(self) -> Self:
        self._free = anyio.Semaphore(SIZE)
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        # Cancels connecting; operations on a connection are shielded and complete.
        self._tasks.cancel_scope.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._discard_idle()

    def has_backend(self, pid: int) -> bool:
        """Return whether that server process serves a connection of the pool."""
        return pid in self._backend_pids.values()

    async def run(self, work: Work[T], *, seconds: float = SECONDS) -> T:
        """Run one statement or transaction on a connection. A started one completes even if the caller is cancelled.

        :param seconds: time limit, including the wait for a connection.
        :raises StoreError: if it failed or timed out; after a timeout it may have been committed.
        """
        if self._closing:
            raise StoreError("the store is closed")
        operation: Operation[Work[T], T] = Operation(work)
        deadline = anyio.current_time() + seconds
        with anyio.move_on_after(seconds):
            await self._free.acquire()
            self._tasks.start_soon(self._perform, operation, deadline)
            return await operation.wait()
        raise StoreError(f"the store did not respond within {seconds:g} s")

    async def _perform(self, operation: Operation[Work[Any], Any], deadline: float) -> None:
        result: Any = Failed(StoreError("the store is closed"))
        try:
            result, refused = await self._attempt(operation.item, deadline)
            if refused:
                result, _ = await self._attempt(operation.item, deadline)
        except Exception as exc:  # raised in the caller
            result = Failed(exc)
        finally:
            operation.finish(result)
            self._free.release()

    async def _attempt(self, work: Work[T], deadline: float) -> tuple[T | Failed, bool]:
        """Return the result, and whether the server was read-only, so that another connection may succeed."""
        # Connecting has its own time limit: with several hosts it can take longer than the operation's, and the next
        # operation uses the connection.
        if (connection := self._take_idle()) is None:
            connection = await connect(self._url)
            self._backend_pids[connection] = connection.pgconn.backend_pid
        # Shielded, so that a cancelled process still completes started operations.
        with anyio.CancelScope(shield=True):
            result, state = await self._work_on(connection, work, deadline)
        if state != _READ_ONLY:
            return result, False
        if anyio.current_time() >= self._quiet_until:
            self._quiet_until = anyio.current_time() + _QUIET_SECONDS
            error = result.error if isinstance(result, Failed) else None
            logger.warning("the PostgreSQL server refuses to write, its connections are closed: %s", error)
        return result, True

    async def _work_on(self, connection: Connection, work: Work[T], deadline: float) -> tuple[T | Failed, str]:
        """Return the result, and the SQLSTATE of a failure; otherwise an empty string."""
        state = ""
        result: T | Failed = Failed(StoreError("the store did not respond in time"))
        try:
            if anyio.current_time() < deadline:
                with translated(self._url), cut_off_at(deadline, connection):
                    try:
                        result = await work(connection)
                    except psycopg.Error as exc:
                        state = exc.sqlstate or ""
                        raise
        except StoreError as exc:
            result = Failed(exc)
        finally:
            if state.startswith(_ANOTHER_SERVER):
                # The other connections reach the same server.
                self._finish(connection)
                self._discard_idle()
            elif connection.info.transaction_status == pq.TransactionStatus.IDLE:
                self._idle.append(connection)
            else:
                self._finish(connection)
        return result, state

    def _finish(self, connection: Connection) -> None:
        self._backend_pids.pop(connection, None)
        connection.pgconn.finish()

    def _discard_idle(self) -> None:
        for connection in self._idle:
            self._finish(connection)
        self._idle.clear()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not _is_closed(connection):
                return connection
            self._finish(connection)
        return None


@contextlib.contextmanager
def cut_off_at(deadline: float, connection: Connection) -> Iterator[None]:
    """Shut down the connection at a time of the event loop's clock."""
    cut = asyncio.get_running_loop().call_at(deadline, sever, connection)
    try:
        yield
    finally:
        cut.cancel()


def _is_closed(connection: Connection) -> bool:
    """Return whether the server closed the idle connection, without a round trip."""
    try:
        # The first read may return an error message, and only the second the end of the stream.
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    return connection.pgconn.status != pq.ConnStatus.OK


async def fetch_one(connection: Connection, sql: str, *values: object) -> Any:
    return await (await connection.execute(sql, values)).fetchone()


async def fetch_all(connection: Connection, sql: str, *values: object) -> list[Any]:
    return await (await connection.execute(sql, values)).fetchall()
