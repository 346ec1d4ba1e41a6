"""The server that was the primary goes on as one that only reads: nobody stays with it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

import anyio
import psycopg
import pytest

from airbyte_events.errors import StoreError
from airbyte_events.store.postgres.pool import SIZE, PostgresPool, connect
from airbyte_events.store.postgres.store import PostgresStore
from airbyte_events.store.postgres.url import PostgresURL
from postgres_server import PostgresServer
from support.stored import event, received
from support.waiting import until

pytestmark = pytest.mark.anyio


@contextlib.contextmanager
def switched_over(server: PostgresServer, database: str) -> Iterator[None]:
    """Sessions that are open can't write any more, new ones can."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = off")
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")


async def until_read_only(connection: psycopg.AsyncConnection[object]) -> None:
    async def is_read_only() -> bool:
        return await (await connection.execute("SHOW default_transaction_read_only")).fetchone() == ("on",)

    await until(is_read_only)


@pytest.fixture
async def onlooker(url: str) -> AsyncIterator[psycopg.AsyncConnection[object]]:
    """A session that was open before."""
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    async with connection:
        yield connection


async def test_i1_no_webhook_is_refused_after_it(
    server: PostgresServer,
    database: str,
    url: str,
    onlooker: psycopg.AsyncConnection[object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with PostgresStore(url) as store:
        async with anyio.create_task_group() as tasks:
            for number in range(2 * SIZE):
                tasks.start_soon(received, store, b"before %d" % number)
                tasks.start_soon(store.head)
        with switched_over(server, database):
            await until_read_only(onlooker)
            async with anyio.create_task_group() as tasks:
                for number in range(2 * SIZE):
                    tasks.start_soon(received, store, b"after %d" % number)
                    tasks.start_soon(store.append, [event(number + 1)])
            await store.check()
            assert len(await store.notifications()) == 4 * SIZE
            assert await store.head() == 2 * SIZE
            # The log says so once, however many connections led there.
            assert caplog.text.count("refuses to write") == 1


async def test_what_listens_moves_to_the_new_one_too(
    server: PostgresServer,
    database: str,
    url: str,
    onlooker: psycopg.AsyncConnection[object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with PostgresStore(url) as store, PostgresStore(url) as other:
        # Both listen, in sessions that are open before.
        await other.append([event(1)])
        await store.changed(0)
        await store.append([event(2)])
        await other.changed(1)
        with switched_over(server, database), anyio.fail_after(30):
            await until_read_only(onlooker)
            await until(lambda: caplog.text.count("reconnected to the store") >= 2)
            await other.append([event(3)])
            await store.changed(2)
        assert caplog.text.count("can't listen to the store") == 2


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        *((state, False) for state in ("25006", "57P01", "57P02", "57P03", "08006", "08P01")),
        *((state, True) for state in ("23505", "42501", "55P03", "57014", "53100")),
    ],
)
async def test_a_connection_is_used_again_unless_it_leads_to_what_does_not_serve(
    url: str, state: str, kept: bool
) -> None:
    """By the SQLSTATE of what failed on it."""
    pids = []

    async def note(connection: psycopg.AsyncConnection[object]) -> None:
        pids.append(connection.info.backend_pid)

    async def fail(connection: psycopg.AsyncConnection[object]) -> None:
        await note(connection)
        await connection.execute(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$")

    async with PostgresPool(PostgresURL.parse(url)) as pool:
        await pool.run(note)
        with pytest.raises(StoreError, match="no"):
            await pool.run(fail)
        await pool.run(note)
    assert pids[0] == pids[1]
    assert (pids[-1] == pids[0]) is kept
    # What was refused because the server only reads is tried once more, elsewhere.
    assert len(set(pids)) == (1 if kept else 3 if state == "25006" else 2)


@pytest.mark.parametrize(
    ("query", "environ", "wanted"),
    [
        ("", {}, "read-write"),
        ("?connect_timeout=2", {}, "read-write"),
        ("?target_session_attrs=any", {}, None),
        ("?target_session_attrs=primary", {}, "primary"),
        ("", {"PGTARGETSESSIONATTRS": "primary"}, "primary"),
    ],
)
async def test_of_several_hosts_the_one_that_writes(
    server: PostgresServer,
    database: str,
    onlooker: psycopg.AsyncConnection[object],
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    environ: dict[str, str],
    wanted: str | None,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    several = server.url(database).replace(f":{server.port}", f":{server.port},127.0.0.1:{server.port}") + query
    connection = await connect(PostgresURL.parse(several))
    try:
        assert connection.info.get_parameters().get("target_session_attrs") == wanted
    finally:
        await connection.close()


async def test_of_several_hosts_none_is_taken_that_only_reads(server: PostgresServer, database: str) -> None:
    several = server.url(database).replace(f":{server.port}", f":{server.port},127.0.0.1:{server.port}")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    with pytest.raises(StoreError, match="read-only"):
        await connect(PostgresURL.parse(several))
