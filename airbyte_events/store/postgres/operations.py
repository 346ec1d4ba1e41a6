"""Methods of a PostgreSQL store, each of which runs on a connection of its pool."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from airbyte_events.errors import LeaseLost, StoreError
from airbyte_events.events import JobRef
from airbyte_events.store.postgres.identity import Identity
from airbyte_events.store.postgres.pool import SECONDS, Connection, PostgresPool, T, Work, fetch_all, fetch_one
from airbyte_events.store.postgres.url import PostgresURL
from airbyte_events.store.queries import Queries
from airbyte_events.store.records import Lease
from airbyte_events.store.rows import Row

P = ParamSpec("P")
S = TypeVar("S", bound="PostgresOperations")


_MAX_LEASE_FACTOR = 20
"""A lease that expires later than so many times its duration from now is expired."""


def operation(
    function: Callable[Concatenate[S, Connection, P], Awaitable[T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Let a method run on a connection, see :meth:`PostgresPool.run`."""

    @functools.wraps(function)
    async def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(lambda connection: function(self, connection, *args, **kwargs))

    return method


class PostgresOperations(Queries):
    """A store with a PostgreSQL database: its values, leases and watches."""

    shared = True

    _pool: PostgresPool

    def __init__(self, url: PostgresURL) -> None:
        super().__init__()
        self._url = url
        self._s = f'"{url.schema}"'
        self._head = f"coalesce((SELECT head FROM {self._s}.log), 0)"
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

    async def _query(self, sql: str, values: Sequence[object], read: Callable[[list[Row]], T]) -> T:
        return read(await self._run(lambda connection: fetch_all(connection, sql.replace("?", "%s"), *values)))

    @staticmethod
    def _among(column: str, values: Collection[object]) -> tuple[str, list[object]]:
        return f"{column} = ANY (?)", [list(values)]

    @operation
    async def remember(self, connection: Connection, key: str, value: str, *, lease: Lease | None = None) -> None:
        held, lease_key = "SELECT", list[object]()
        if lease is not None:
            held = f"SELECT FROM {self._s}.leases WHERE name = %s AND holder = %s AND fence = %s FOR SHARE"
            lease_key = list(key_of(lease))
        done = await connection.execute(
            f"WITH held AS ({held}) INSERT INTO {self._s}.meta SELECT %s, %s FROM held"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [*lease_key, key, value],
        )
        if not done.rowcount:
            raise lost(lease)

    @operation
    async def acquire(self, connection: Connection, name: str, holder: str, seconds: float) -> Lease | None:
        row = await fetch_one(
            connection,
            f"INSERT INTO {self._s}.leases AS l"
            " VALUES (%s, %s, 1, clock_timestamp() + make_interval(secs => %s)) ON CONFLICT (name) DO UPDATE SET"
            " holder = excluded.holder, fence = l.fence + (l.holder IS DISTINCT FROM excluded.holder)::int,"
            " expires_at = clock_timestamp() + make_interval(secs => %s)"
            " WHERE l.holder = excluded.holder OR l.expires_at NOT BETWEEN clock_timestamp()"
            " AND clock_timestamp() + make_interval(secs => %s) RETURNING fence",
            # An implausibly late expiry is infinite, or the clock was set back. A live holder renews it in time.
            *(name, holder, seconds, seconds, _MAX_LEASE_FACTOR * seconds),
        )
        return None if row is None else Lease(name=name, holder=holder, fence=row[0])

    async def release(self, lease: Lease) -> None:
        await self._release(lease)
        self._wakeups.wake([f"leases/{lease.name}"])

    @operation
    async def _release(self, connection: Connection, lease: Lease) -> None:
        await connection.execute(
            f"WITH given AS (UPDATE {self._s}.leases SET holder = NULL, expires_at = '-infinity'"
            " WHERE name = %s AND holder = %s AND fence = %s RETURNING name)"
            f" SELECT {self._s}.tell_1(ARRAY['leases/' || name]) FROM given",
            key_of(lease),
        )

    @operation
    async def holders(self, connection: Connection) -> dict[str, str]:
        sql = f"SELECT name, holder FROM {self._s}.leases WHERE holder IS NOT NULL AND expires_at > clock_timestamp()"
        return {str(name): str(holder) for name, holder in await fetch_all(connection, sql)}

    async def watch(self, refs: Collection[JobRef], seconds: float) -> None:
        await self._run_waking("watches", lambda c: self._watch(c, refs, seconds))

    async def _watch(self, connection: Connection, refs: Collection[JobRef], seconds: float) -> list[str]:
        """Return the instances with newly watched jobs."""
        await connection.execute(
            f"DELETE FROM {self._s}.watches WHERE (instance, job_id) IN (SELECT instance, job_id"
            f" FROM {self._s}.watches WHERE until <= now() LIMIT 1000 FOR UPDATE SKIP LOCKED)"
        )
        # Ordered by job, so that concurrent calls do not deadlock.
        row = await fetch_one(
            connection,
            f"WITH written AS (INSERT INTO {self._s}.watches AS w"
            " SELECT instance, job_id, now(), now() + make_interval(secs => %s)"
            " FROM (SELECT DISTINCT * FROM unnest(%s::text[], %s::bigint[])) AS r (instance, job_id) WHERE NOT EXISTS"
            f" (SELECT FROM {self._s}.jobs j WHERE (j.instance, j.job_id) = (r.instance, r.job_id) AND j.terminal)"
            " ORDER BY instance, job_id ON CONFLICT (instance, job_id) DO UPDATE SET"
            " since = CASE WHEN w.until > now() THEN w.since ELSE now() END, until = greatest(w.until, excluded.until)"
            " RETURNING instance, since = now() AS fresh), news AS (SELECT DISTINCT instance FROM written WHERE fresh)"
            f" SELECT array_agg(instance), {self._s}.tell_1(array_agg('watches/' || instance)) FROM news",
            seconds,
            *columns(refs),
        )
        return row[0] or []


def columns(refs: Collection[JobRef]) -> tuple[list[str], list[int]]:
    return [ref.instance for ref in refs], [ref.job_id for ref in refs]


def key_of(lease: Lease) -> tuple[str, str, int]:
    return lease.name, lease.holder, lease.fence


def lost(lease: Lease | None) -> LeaseLost:
    return LeaseLost("nothing was written" if lease is None else f"the lease {lease.name} has passed to another")
