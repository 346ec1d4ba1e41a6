"""News of a PostgreSQL store: notifications of the database, and a look each second at what they may have missed."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import anyio

from airbyte_events.errors import StoreError
from airbyte_events.store.postgres.pool import Connection, connect, cut_off_at, sever, translated
from airbyte_events.store.postgres.url import PostgresURL

if TYPE_CHECKING:
    from psycopg import Notify

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""From one look to the next while notifications come."""

POLL_SECONDS = 0.25
"""The same while none can come: behind a pooler that gives every transaction another session."""

ANSWER_SECONDS = 3.0
"""A connection that does not answer a look in this time is given up."""

_GREETING = "hello "


class PostgresNews:
    """Runs until it is closed, over a connection of its own, which is replaced when it fails.

    :param url: of the database; its schema is the channel.
    :param look: reads where the log ends; called each :data:`LOOK_SECONDS`, which shows whether the connection lives.
    :param tell: called with the topics that there is news of; None: there may be news of any.
    :param is_own: whether a server process serves this program, which knows what it does itself.
    """

    def __init__(
        self,
        url: PostgresURL,
        look: Callable[[Connection], Any],
        tell: Callable[[Iterable[str] | None], None],
        is_own: Callable[[int], bool],
    ) -> None:
        self._url = url
        self._look = look
        self._tell = tell
        self._is_own = is_own
        self._scope = anyio.CancelScope(shield=True)
        self._connection: Connection | None = None
        self._closing = False

    def close(self) -> None:
        self._closing = True
        if self._connection is None:
            self._scope.cancel()
        else:
            # Cancelled, psycopg would ask the server to cancel, too, and wait for that.
            sever(self._connection)

    async def run(self) -> None:
        failures = 0
        with self._scope:
            while not self._closing:
                try:
                    self._connection = await connect(self._url)
                    if failures:
                        logger.info("the store %s is there again", self._url)
                    failures = 0
                    await self._follow(self._connection)
                except StoreError as exc:
                    failures += 1
                    if failures == 1 and not self._closing:
                        logger.warning("no news of the store, trying again each second: %s", exc)
                if self._connection is not None:
                    self._connection.pgconn.finish()
                    self._connection = None
                if not self._closing:
                    await anyio.sleep(LOOK_SECONDS)

    async def _follow(self, connection: Connection) -> None:
        listens = await self._listen(connection)
        if not listens:
            logger.info(
                "a pooler stands before the store %s: it is read %g times a second", self._url, 1 / POLL_SECONDS
            )
        # What came while nobody listened was not announced here.
        self._tell(None)
        looked_at = -math.inf
        while not self._closing:
            left = looked_at + LOOK_SECONDS - anyio.current_time()
            if not listens or left <= 0:
                looked_at, left = anyio.current_time(), LOOK_SECONDS
                await self._answer(connection, self._look(connection))
            if not listens:
                await anyio.sleep(POLL_SECONDS)
                self._tell(None)
                continue
            for told in await self._notified(connection, left):
                if told.payload.startswith(_GREETING) or self._is_own(told.pid):
                    continue
                topics = told.payload.split()
                if not {"*", "log"}.isdisjoint(topics):
                    looked_at = -math.inf
                self._tell(None if topics == ["*"] else topics)

    async def _listen(self, connection: Connection) -> bool:
        """Ask for notifications; False if none arrive."""
        row = await self._answer(connection, _first(connection, "SELECT pg_backend_pid()"))
        if row is None or row[0] != connection.pgconn.backend_pid:
            # It is not the server that was connected to, so there may be another one next time, and that this one is
            # to listen would stay behind with it.
            return False
        await self._answer(connection, connection.execute(f'LISTEN "{self._url.schema}"'))
        greeting = _GREETING + secrets.token_hex(8)
        await self._answer(connection, connection.execute("SELECT pg_notify(%s, %s)", [self._url.schema, greeting]))
        deadline = anyio.current_time() + ANSWER_SECONDS
        while anyio.current_time() < deadline:
            if any(told.payload == greeting for told in await self._notified(connection, LOOK_SECONDS)):
                return True
        return False

    async def _notified(self, connection: Connection, seconds: float) -> list[Notify]:
        with translated(self._url):
            return [told async for told in connection.notifies(timeout=seconds, stop_after=1)]

    async def _answer(self, connection: Connection, question: Any) -> Any:
        with translated(self._url), cut_off_at(anyio.current_time() + ANSWER_SECONDS, connection):
            return await question


async def _first(connection: Connection, sql: str) -> Any:
    return await (await connection.execute(sql)).fetchone()
