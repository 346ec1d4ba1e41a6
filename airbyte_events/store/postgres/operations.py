"""Methods of a PostgreSQL store, each of which runs on a connection of its pool."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from airbyte_events.errors import StoreError
from airbyte_events.store.database import DatabaseStore
from airbyte_events.store.postgres.identity import Identity
from airbyte_events.store.postgres.pool import SECONDS, Connection, PostgresPool, T, Work
from airbyte_events.store.postgres.url import PostgresURL

P = ParamSpec("P")
S = TypeVar("S", bound="PostgresOperations")


class PostgresOperations(DatabaseStore):
    """A connection pool, and the name of the schema in quotes."""

    _pool: PostgresPool

    def __init__(self, url: PostgresURL) -> None:
        super().__init__()
        self._url = url
        self._s = f'"{url.schema}"'
        self._identity = Identity(url.schema)
        # A permanent failure.
        self._fault: str | None = None

    async def _run(self, work: Work[T], *, seconds: float = SECONDS) -> T:
        if self._fault is not None:
            raise StoreError(self._fault)
        return await self._pool.run(work, seconds=seconds)

    async def _run_waking(self, topic: str, work: Work[list[str]]) -> None:
        """Wake waiting tasks of this process, which ignores its own database notifications."""

        async def waking(connection: Connection) -> None:
            self._waking(topic)(await work(connection))

        await self._run(waking)


def operation(
    function: Callable[Concatenate[S, Connection, P], Awaitable[T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Let a method run on a connection, see :meth:`PostgresPool.run`."""

    @functools.wraps(function)
    async def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(lambda connection: function(self, connection, *args, **kwargs))

    return method
