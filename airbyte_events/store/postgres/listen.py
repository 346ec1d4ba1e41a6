"""Changes to a PostgreSQL store: LISTEN, and a poll each second for changes that were not notified."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from airbyte_events.errors import StoreError
from airbyte_events.store.postgres.pool import Connection, connect, cut_off_at, fetch_one, sever, translated
from airbyte_events.store.postgres.url import PostgresURL

if TYPE_CHECKING:
    from psycopg import Notify

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Interval of polls while notifications arrive."""

POOLER_POLL_SECONDS = 0.25
"""Interval of polls if none can arrive: behind a pooler that assigns a session to each transaction."""

TIMEOUT_SECONDS = 3.0
"""After so long without a response the connection is replaced."""

_GREETING = "hello "


@dataclass(eq=False)
class PostgresListener:
    """A listener that reports changes of other processes, over its own connection, which is replaced when it fails.

    :param url: of the database; the schema is the channel.
    :param poll: reads the log's state; also checks the connection.
    :param wake: called with the changed topics; None if any may have changed.
    :param is_own: returns whether a server process serves this program, whose own changes are not reported.
    """

    url: PostgresURL
    poll: Callable[[Connection], Any]
    wake: Callable[[Iterable[str] | None], None]
    is_own: Callable[[int], bool]
    _scope: anyio.CancelScope = field(default_factory=lambda: anyio.CancelScope(shield=True), init=False)
    _connection: Connection | None = field(default=None, init=False)
    _closing: bool = field(default=False, init=False)

    def close(self) -> None:
        self._closing = True
        if self._connection is None:
            self._scope.cancel()
        else:
            # On cancellation psycopg would ask the server to cancel and wait for its response.
            sever(self._connection)

    async def run(self) -> None:
        failures = 0
        with self._scope:
            while not self._closing:
                try:
                    self._connection = await connect(self.url)
                    if failures:
                        logger.info("reconnected to the store %s", self.url)
                    failures = 0
                    await self._follow(self._connection)
                except StoreError as exc:
                    failures += 1
                    if failures == 1 and not self._closing:
                        logger.warning("can't listen to the store, reconnecting each second: %s", exc)
                if self._connection is not None:
                    self._connection.pgconn.finish()
                    self._connection = None
                if not self._closing:
                    await anyio.sleep(POLL_SECONDS)

    async def _follow(self, connection: Connection) -> None:
        listens = await self._listen(connection)
        if not listens:
            rate = 1 / POOLER_POLL_SECONDS
            logger.info("a pooler is in front of the store %s, reading it %g times a second", self.url, rate)
        # Changes before LISTEN were not notified.
        self.wake(None)
        polled_at = -math.inf
        while not self._closing:
            left = polled_at + POLL_SECONDS - anyio.current_time()
            if not listens or left <= 0:
                polled_at, left = anyio.current_time(), POLL_SECONDS
                await self._limited(connection, self.poll(connection))
            if not listens:
                await anyio.sleep(POOLER_POLL_SECONDS)
                self.wake(None)
                continue
            for notify in await self._notifies(connection, left):
                if notify.payload.startswith(_GREETING) or self.is_own(notify.pid):
                    continue
                topics = notify.payload.split()
                if not {"*", "log"}.isdisjoint(topics):
                    polled_at = -math.inf
                self.wake(None if topics == ["*"] else topics)

    async def _listen(self, connection: Connection) -> bool:
        """Start to listen; return False if no notifications arrive."""
        row = await self._limited(connection, fetch_one(connection, "SELECT pg_backend_pid()"))
        if row is None or row[0] != connection.pgconn.backend_pid:
            # A pooler: the next statement may run in another session, and LISTEN would remain in this one.
            return False
        await self._limited(connection, connection.execute(f'LISTEN "{self.url.schema}"'))
        greeting = _GREETING + secrets.token_hex(8)
        await self._limited(connection, connection.execute("SELECT pg_notify(%s, %s)", [self.url.schema, greeting]))
        deadline = anyio.current_time() + TIMEOUT_SECONDS
        while anyio.current_time() < deadline:
            if any(notify.payload == greeting for notify in await self._notifies(connection, POLL_SECONDS)):
                return True
        return False

    async def _notifies(self, connection: Connection, seconds: float) -> list[Notify]:
        with translated(self.url):
            return [notify async for notify in connection.notifies(timeout=seconds, stop_after=1)]

    async def _limited(self, connection: Connection, operation: Any) -> Any:
        with translated(self.url), cut_off_at(anyio.current_time() + TIMEOUT_SECONDS, connection):
            return await operation
