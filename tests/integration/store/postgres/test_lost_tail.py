"""The log loses its last events, and others get their numbers: every reader is told, and every end is found again."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from airbyte_events.bus.bus import EventBus
from airbyte_events.errors import CursorExpired, LeaseLost, StoreError
from airbyte_events.events import Cursor, JobRef, JobStatus
from airbyte_events.store.postgres.store import PostgresStore
from postgres_server import PostgresServer
from support.stored import event
from support.waiting import until

pytestmark = pytest.mark.anyio

SUCCEEDED = JobStatus.SUCCEEDED


@contextlib.asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    async with PostgresStore(url) as one, PostgresStore(url) as other:
        yield one, other


def put_back(url: str, to: int) -> None:
    """The database as it was when the log ended there."""
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM airbyte_events.events WHERE sequence > %s", [to])
        connection.execute("DELETE FROM airbyte_events.jobs WHERE sequence > %s", [to])
        connection.execute("UPDATE airbyte_events.log SET head = %s", [to])


async def renamed(store: PostgresStore, epoch: str) -> str:
    await until(lambda: store.epoch != epoch)
    return store.epoch


@pytest.mark.parametrize("more", [0, 1, 2, 3])
async def test_i5_other_events_under_the_same_numbers_are_another_log(url: str, more: int) -> None:
    """Whether the new log is shorter than what was seen, as long, or longer."""
    async with two(url) as (one, other):
        epoch = one.epoch
        await one.append([event(job) for job in (1, 2, 3, 4)])
        for store in (one, other):
            assert (await store.read(0)).position == 4
        async with EventBus(one) as here, EventBus(other) as there:
            put_back(url, 2)
            async with PostgresStore(url) as writer:
                await writer.append([event(job, SUCCEEDED) for job in range(5, 5 + more)])
                for bus in (here, there):
                    with bus.subscribe(after=Cursor(epoch, 4)) as events, pytest.raises(CursorExpired):
                        with anyio.fail_after(30):
                            await events.receive(1)
                assert await renamed(one, epoch) == await renamed(other, epoch)
                for store in (one, other):
                    assert [each.ref.job_id for each in (await store.read(0, epoch=one.epoch)).events] == [
                        1,
                        2,
                        *range(5, 5 + more),
                    ]
                    with pytest.raises(CursorExpired):
                        await store.read(4, epoch=epoch)


async def test_i5_no_reader_gets_an_event_of_the_new_log_under_a_cursor_of_the_old(url: str) -> None:
    """However it comes between two looks."""
    async with PostgresStore(url) as store:
        epoch = store.epoch
        await store.append([event(1), event(2)])
        await store.read(0)
        put_back(url, 1)
        with psycopg.connect(url) as connection:
            connection.execute(
                "INSERT INTO airbyte_events.events SELECT g, instance, job_id + 10, connection_id, status, observed_at,"
                " data FROM airbyte_events.events, generate_series(2, 3) g"
            )
            connection.execute("UPDATE airbyte_events.log SET head = 3")
        with pytest.raises(CursorExpired):
            await store.read(2, epoch=epoch)
        assert store.epoch != epoch
        assert (await store.read(2)).position == 3


async def test_i5_a_lost_tail_is_found_where_the_server_s_identity_may_not_be_read(
    server: PostgresServer, database: str
) -> None:
    owner = f"owner_{database}"
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {owner} LOGIN PASSWORD 'secret'")
        connection.execute(f"GRANT CREATE ON DATABASE {database} TO {owner}")
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    url = server.url(database).replace("postgres:correct%2Fhorse%40battery", f"{owner}:secret")
    async with PostgresStore(url) as store:
        epoch = store.epoch
        await store.append([event(1), event(2)])
        await store.read(0)
        assert await store.recall("place") is None
        put_back(url, 1)
        await renamed(store, epoch)


async def test_a_log_that_is_pruned_is_the_same(url: str) -> None:
    async with two(url) as (one, other):
        epoch = one.epoch
        await one.append([event(1), event(2), event(3)])
        await one.read(0)
        await one.prune(event().observed_at.replace(year=2030), keep=0)
        assert (await one.read(3, epoch=epoch)).position == 3
        await other.append([event(4)])
        assert (await one.read(3, epoch=epoch)).position == 4
        await one.prune(event().observed_at.replace(year=2030), keep=0)
        await other.append([event(5), event(6)])
        await other.prune(event().observed_at.replace(year=2000), keep=1)
        assert [each.ref.job_id for each in (await one.read(5, epoch=epoch)).events] == [6]
        assert one.epoch == other.epoch == epoch


async def test_i2_who_held_a_lease_begins_anew(url: str) -> None:
    """What it remembers of the log may not be so any more, and its next look begins before what was lost."""
    async with PostgresStore(url) as store:
        epoch = store.epoch
        await store.append([event(1), event(2)])
        await store.read(0)
        lease = await store.acquire("sources/default", "me", 60)
        assert lease is not None
        await store.remember("looked_at/default", "2024-01-01T12:00:00.000000Z", lease=lease)
        await store.remember("looked_at/other", "nonsense")
        put_back(url, 1)
        await renamed(store, epoch)
        with pytest.raises(LeaseLost):
            await store.remember("looked_at/default", "2024-01-01T12:00:01.000000Z", lease=lease)
        assert await store.recall("looked_at/default") == "2024-01-01T11:00:00.000000Z"
        again = await store.acquire("sources/default", "another", 60)
        assert again is not None
        assert again.fence > lease.fence


async def test_a_new_name_by_hand_is_taken_up(url: str) -> None:
    async with two(url) as (one, other):
        epoch = one.epoch
        await one.append([event(1)])
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE airbyte_events.log SET epoch = substr(md5(random()::text), 1, 16)")
        assert await renamed(one, epoch) == await renamed(other, epoch)
        await other.append([event(2)])
        assert (await one.read(0, epoch=one.epoch)).position == 2


class TestMissingEpoch:
    async def test_is_made_anew_at_the_start(self, url: str) -> None:
        async with PostgresStore(url) as store:
            epoch = store.epoch
            await store.append([event(1), event(2)])
        with psycopg.connect(url) as connection:
            connection.execute("DELETE FROM airbyte_events.log")
        async with two(url) as (one, other):
            assert one.epoch == other.epoch != epoch
            await other.append([event(3)])
            assert [each.ref.job_id for each in (await one.read(0)).events] == [1, 2, 3]

    async def test_is_made_anew_while_in_use(self, url: str) -> None:
        async with two(url) as (one, other), EventBus(one) as bus:
            epoch = one.epoch
            await one.append([event(1), event(2)])
            await until(lambda: bus.position == 2)
            with psycopg.connect(url) as connection:
                connection.execute("DELETE FROM airbyte_events.log")
            with pytest.raises(CursorExpired):
                await one.read(0)
            assert await renamed(one, epoch) == await renamed(other, epoch)
            await until(lambda: bus.cursor == Cursor(one.epoch, 2))
            with bus.subscribe() as events, anyio.fail_after(30):
                await other.append([event(3)])
                assert [each.ref for each in await events.receive(1)] == [JobRef("default", 3)]


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class TestServers:
    """Real ones, each with a folder of its own."""

    async def test_i5_the_files_of_an_earlier_moment(self, folder: Path) -> None:
        server = PostgresServer(folder, {})
        await anyio.to_thread.run_sync(server.init)
        await anyio.to_thread.run_sync(server.start)
        try:
            async with two(server.url()) as (one, other):
                epoch = one.epoch
                await one.append([event(1), event(2)])
                await anyio.to_thread.run_sync(server.stop)
                copy = folder / "copy"
                await anyio.to_thread.run_sync(lambda: server.copy(copy))
                await anyio.to_thread.run_sync(server.start)
                await _again(lambda: one.append([event(3, SUCCEEDED)]))
                await other.read(0)
                await anyio.to_thread.run_sync(server.stop)
                await anyio.to_thread.run_sync(lambda: server.put_back(copy))
                await anyio.to_thread.run_sync(server.start)
                async with PostgresStore(server.url()) as writer:
                    await writer.append([event(4, SUCCEEDED), event(5, SUCCEEDED)])
                assert await renamed(one, epoch) == await renamed(other, epoch)
        finally:
            server.stop()

    async def test_i5_a_standby_that_lacked_the_last_events_takes_over(self, folder: Path) -> None:
        """No listener of before is left; readers are, with cursors of what is gone."""
        primary = PostgresServer(folder, {"wal_level": "replica", "max_wal_senders": "4"})
        await anyio.to_thread.run_sync(primary.init)
        await anyio.to_thread.run_sync(primary.start)
        standby = primary.standby(folder / "standby")
        try:
            async with PostgresStore(primary.url()) as store:
                epoch = store.epoch
                await store.append([event(1), event(2)])
                await anyio.to_thread.run_sync(standby.start)
                await anyio.to_thread.run_sync(lambda: standby.stop())
                await store.append([event(3, SUCCEEDED), event(4, SUCCEEDED)])
            await anyio.to_thread.run_sync(primary.stop)
            await anyio.to_thread.run_sync(standby.start)
            await anyio.to_thread.run_sync(standby.promote)
            async with PostgresStore(standby.url()) as store:
                await store.append([event(job, SUCCEEDED) for job in (5, 6, 7)])
                assert store.epoch != epoch
                with pytest.raises(CursorExpired):
                    await store.read(4, epoch=epoch)
        finally:
            primary.stop()
            standby.stop()

    async def test_i5_a_restored_dump_is_another_log(self, server: PostgresServer, url: str) -> None:
        async with PostgresStore(url) as store:
            epoch = store.epoch
            await store.append([event(1), event(2)])
        dump = await anyio.to_thread.run_sync(lambda: server.run("pg_dump", "--schema=airbyte_events", "-d", url))
        async with PostgresStore(url) as store:
            await store.append([event(3, SUCCEEDED)])
            assert store.epoch == epoch
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA airbyte_events CASCADE")
        await anyio.to_thread.run_sync(lambda: server.run("psql", "-q", "-d", url, input=dump))
        async with PostgresStore(url) as store:
            await store.append([event(4, SUCCEEDED), event(5, SUCCEEDED)])
            assert store.epoch != epoch
            with pytest.raises(CursorExpired):
                await store.read(3, epoch=epoch)


async def _again(work: Callable[[], Any]) -> None:
    with anyio.fail_after(30):
        while True:
            try:
                await work()
                return
            except StoreError:
                await anyio.sleep(0.05)
