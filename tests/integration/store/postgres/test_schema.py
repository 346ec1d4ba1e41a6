"""How a database gets its schema, also where several versions of the program meet on it."""

from __future__ import annotations

from pathlib import Path

import anyio
import psycopg
import pytest

from airbyte_events.errors import StoreError
from airbyte_events.store.postgres.schema import MIGRATIONS, Migration, migrate
from airbyte_events.store.postgres.store import PostgresStore
from airbyte_events.store.reconcile import Verdict
from postgres_server import PostgresServer
from support.stored import event, received

pytestmark = pytest.mark.anyio

ADDS = Migration(version=2, compatible_with=1, sql="ALTER TABLE {s}.events ADD COLUMN note text NOT NULL DEFAULT '';")
BREAKS = Migration(version=3, compatible_with=2, sql="DROP FUNCTION {s}.append_1;")


async def upgrade(url: str, *further: Migration, schema: str = "airbyte_events") -> None:
    """What a newer version does at its start."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await migrate(connection, schema, [*MIGRATIONS, *further])


async def version(url: str) -> tuple[object, ...] | None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return await (await connection.execute("SELECT * FROM airbyte_events.schema_version")).fetchone()


async def test_many_that_start_together_make_one_log(url: str) -> None:
    epochs = []

    async def start() -> None:
        async with PostgresStore(url) as store:
            epochs.append(store.epoch)
            await store.check()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(start)
    assert len(epochs) == 8
    assert len(set(epochs)) == 1


async def test_an_older_version_goes_on_beside_a_newer_one(store: PostgresStore, url: str) -> None:
    await store.append([event(1)])
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(upgrade, url, ADDS)
        tasks.start_soon(store.append, [event(2)])
    assert await version(url) == (2, 1)
    assert (await store.append([event(3)])).verdicts == [Verdict.NEW]
    await received(store, b"body", targets=["t"])
    # One more of the older version starts, as happens where machines come and go in an upgrade.
    async with PostgresStore(url) as late:
        assert (late.epoch, await late.head()) == (store.epoch, 3)
        assert (await late.append([event(4)])).verdicts == [Verdict.NEW]
    await upgrade(url, ADDS)


async def test_what_a_newer_version_has_replaced_is_refused(store: PostgresStore, url: str) -> None:
    await upgrade(url, ADDS, BREAKS)
    with pytest.raises(StoreError, match=r"newer airbyte-events \(version 3, this one knows 1\): upgrade"):
        async with PostgresStore(url):
            pass
    # The one that runs finds out by itself, and does nothing any more.
    with pytest.raises(StoreError, match="upgrade airbyte-events"), anyio.fail_after(30):
        await _used_on_and_on(store)
    with pytest.raises(StoreError, match="upgrade"):
        await received(store, b"body")


async def _used_on_and_on(store: PostgresStore) -> None:
    while True:
        await store.head()
        await anyio.sleep(0.05)


async def test_a_migration_that_fails_leaves_what_there_was(store: PostgresStore, url: str) -> None:
    broken = Migration(version=2, compatible_with=1, sql="CREATE TABLE {s}.half (x int); SELECT nonsense;")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        await upgrade(url, broken)
    assert await version(url) == (1, 1)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regclass('airbyte_events.half')").fetchone() == (None,)
    await store.append([event(1)])


async def test_every_function_of_this_version_names_its_schema(url: str) -> None:
    """Two logs in one database, and nobody's search path matters."""
    async with PostgresStore(f"{url}?schema=a"), PostgresStore(f"{url}?schema=b") as second:
        await second.append([event(1)])
        async with PostgresStore(f"{url}?schema=a") as first:
            assert await first.head() == 0
            assert first.epoch != second.epoch


async def test_tables_of_something_else_are_left_alone(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA airflow; CREATE TABLE airflow.dag (id int)")
    with pytest.raises(StoreError, match="airflow holds the tables of something else"):
        async with PostgresStore(f"{url}?schema=airflow"):
            pass


async def test_a_database_that_can_not_hold_all_text_is_refused(server: PostgresServer, database: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}_ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    with pytest.raises(StoreError, match="UTF8"):
        async with PostgresStore(server.url(f"{database}_ascii")):
            pass


async def test_another_isolation_is_refused(url: str, database: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'")
    with pytest.raises(StoreError, match="ALTER ROLE"):
        async with PostgresStore(url):
            pass


async def test_no_more_rights_are_wanted_than_documented(server: PostgresServer, database: str) -> None:
    page = (Path(__file__).parents[4] / "docs" / "postgresql.md").read_text(encoding="utf-8")
    grants = page.partition("## Fewer rights")[2].partition("```sql\n")[2].partition("```")[0]
    async with PostgresStore(server.url(database)):
        pass
    writer = f"writer_{database}"
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        connection.execute(grants.replace("airbyte_events_writer", writer))
    await upgrade(server.url(database), Migration(version=2, compatible_with=1, sql="CREATE TABLE {s}.later (x int);"))
    url = server.url(database).replace("postgres:correct%2Fhorse%40battery", f"{writer}:secret")
    async with PostgresStore(url) as store:
        await store.append([event(1)])
        await received(store, b"body", targets=["t"])
        await store.check()
        await store.prune(event().observed_at, keep=0)
        await store.stats()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO airbyte_events.later VALUES (1)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DROP TABLE airbyte_events.events")
