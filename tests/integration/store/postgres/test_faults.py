"""The server restarts, dies, goes silent, throws everybody out: what was acknowledged stays, and the store goes on."""

from __future__ import annotations

import logging
import signal
from dataclasses import dataclass, field

import anyio
import psycopg
import pytest

from airbyte_events.errors import StoreError
from airbyte_events.events import JobRef, JobStatus
from airbyte_events.store.postgres.store import PostgresStore
from airbyte_events.store.reconcile import Verdict
from postgres_server import PASSWORD, PostgresServer
from support.command import command
from support.process import environ_of
from support.stored import event, received
from support.waiting import until

from .pooler import wire

pytestmark = pytest.mark.anyio


@dataclass
class Load:
    """Writes and reads until it is told to stop, and keeps what was acknowledged and what was seen."""

    store: PostgresStore
    bodies: list[bytes] = field(default_factory=list)
    jobs: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    failures: int = 0
    stopped: bool = False

    async def receive(self, name: str) -> None:
        number = 0
        while not self.stopped:
            number += 1
            body = f"{name} {number}".encode()
            try:
                await received(self.store, body)
            except StoreError:
                await self._failed()
            else:
                self.bodies.append(body)

    async def append(self, first: int) -> None:
        job_id = first
        while not self.stopped:
            job_id += 1
            try:
                await self.store.append([event(job_id), event(job_id, JobStatus.SUCCEEDED)])
            except StoreError:
                await self._failed()
            else:
                self.jobs.append(job_id)

    async def follow(self) -> None:
        position = 0
        while not self.stopped or position < await self.store.head():
            try:
                page = await self.store.read(position, limit=50)
                self.seen += [each.cursor.sequence for each in page.events if each.cursor]
                position = page.position
                with anyio.move_on_after(0.2):
                    await self.store.changed(position)
            except StoreError:
                await self._failed()

    async def _failed(self) -> None:
        self.failures += 1
        await anyio.sleep(0.01)

    async def acknowledge(self, more: int) -> None:
        """Return once so many more of each were acknowledged."""
        bodies, jobs = len(self.bodies) + more, len(self.jobs) + more
        await until(lambda: len(self.bodies) >= bodies and len(self.jobs) >= jobs, within=60)

    async def is_whole(self) -> None:
        kept = {each.body for each in await self.store.notifications(limit=1_000_000)}
        assert kept >= set(self.bodies)
        head = await self.store.head()
        assert self.seen == list(range(1, head + 1))
        states = await self.store.states([JobRef("default", job_id) for job_id in self.jobs])
        assert len(states) == len(self.jobs)
        ends = [each.ref for each in (await self.store.read(0, limit=1_000_000)).events if each.terminal]
        assert len(ends) == len(set(ends)) >= len(self.jobs)
        assert {each.ref for each in states.values() if each.terminal} == set(states)

    async def run(self, during: list[object], server: PostgresServer) -> None:
        async with anyio.create_task_group() as tasks:
            for name in ("a", "b", "c"):
                tasks.start_soon(self.receive, name)
            tasks.start_soon(self.append, 0)
            tasks.start_soon(self.append, 1_000_000)
            tasks.start_soon(self.follow)
            await self.acknowledge(5)
            for fault in during:
                await anyio.to_thread.run_sync(fault)  # type: ignore[arg-type]
                await self.acknowledge(5)
            self.stopped = True
        await self.is_whole()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
async def test_i1_a_restart_under_load_loses_nothing(
    store: PostgresStore, server: PostgresServer, number: signal.Signals
) -> None:
    def restart() -> None:
        server.stop(number)
        server.start()

    load = Load(store)
    with anyio.fail_after(60):
        await load.run([restart, restart], server)
    assert load.failures


async def test_i1_killed_sessions_lose_nothing(store: PostgresStore, server: PostgresServer, url: str) -> None:
    def terminate() -> None:
        with psycopg.connect(url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    with anyio.fail_after(60):
        await Load(store).run([terminate] * 5, server)


async def test_sessions_that_ended_while_nobody_used_them_are_replaced_unseen(store: PostgresStore, url: str) -> None:
    await store.append([event(1)])
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert (await store.append([event(2)])).verdicts == [Verdict.NEW]
    await received(store, b"body")


async def test_i4_a_connection_that_goes_silent_fails_in_time_and_heals(
    server: PostgresServer, database: str, url: str
) -> None:
    async with wire(server.port) as line, PostgresStore(server.url(database, port=line.port)) as store:
        await store.append([event(1)])
        line.silence()
        for operation in (lambda: received(store, b"lost"), store.head, lambda: store.append([event(2)])):
            with anyio.fail_after(30), pytest.raises(StoreError):
                await operation()
        line.speak()
        async with PostgresStore(url) as other:
            with anyio.fail_after(30):
                while True:
                    try:
                        await received(store, b"found")
                        break
                    except StoreError:
                        await anyio.sleep(0.05)
                # News comes again, too.
                head = await other.head()
                await other.append([event(3)])
                await store.changed(head)


async def test_what_waits_beside_a_silent_connection_does_not_wait_for_it(
    server: PostgresServer, database: str
) -> None:
    async with wire(server.port) as line, PostgresStore(server.url(database, port=line.port)) as store:
        await store.head()
        line.silence()
        failed = 0

        async def receive(number: int) -> None:
            nonlocal failed
            with pytest.raises(StoreError):
                await received(store, f"{number}".encode())
            failed += 1

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for number in range(200):
                    tasks.start_soon(receive, number)
        assert failed == 200


async def test_closing_does_not_wait_for_a_silent_server(server: PostgresServer, database: str) -> None:
    async with wire(server.port) as line:
        async with PostgresStore(server.url(database, port=line.port)) as store:
            line.silence()
            with anyio.move_on_after(0.1):
                await store.head()
            closing = anyio.current_time()
        assert anyio.current_time() - closing < 15


@pytest.mark.parametrize("fault", ["refused", "password", "database", "option", "silent"])
async def test_i7_what_can_not_be_opened_is_named_without_its_password(
    server: PostgresServer, database: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = server.url(database)
    if fault == "refused":
        url = server.url(database, port=1)
    elif fault == "password":
        url = url.replace("correct", "wrong")
    elif fault == "database":
        url = server.url("nowhere")
    elif fault == "option":
        url = server.url(database, nonsense="1")
    async with wire(server.port) as line:
        if fault == "silent":
            line.silence()
            url = server.url(database, port=line.port, connect_timeout="1")
        with pytest.raises(StoreError) as caught, anyio.fail_after(40):
            async with PostgresStore(url):
                pass
    told = f"{caught.value} {caught.value!r} {caplog.text} {PostgresStore(url)!r} {caught.value.__cause__!r}"
    assert "postgresql://127.0.0.1:" in told
    for secret in (PASSWORD, PASSWORD.replace("correct", "wrong"), "correct%2F", "wrong%2F"):
        assert secret not in told


async def test_no_error_holds_what_was_stored(store: PostgresStore) -> None:
    with pytest.raises(StoreError) as caught:
        await store.remember("secret key", "canary\0")
    assert "canary" not in f"{caught.value!r} {caught.value.__cause__!r}"
    with pytest.raises(StoreError, match="store failed"):
        await store.remember("key", "\ud800")
    # Nobody else suffers for it.
    await store.remember("key", "value")


async def test_a_read_only_server_says_so_and_heals(store: PostgresStore, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER ROLE postgres SET default_transaction_read_only = on")
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        try:
            with pytest.raises(StoreError, match="read-only transaction"):
                await store.check()
            with pytest.raises(StoreError, match="read-only transaction"):
                await received(store, b"body")
            await store.head()
        finally:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER ROLE postgres RESET default_transaction_read_only")
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    await store.check()
    await received(store, b"body")


async def test_i8_a_listener_ends_while_its_store_does_not_open(url: str) -> None:
    """Somebody has the tables, as a migration or a backup has them: Ctrl-C works all the same."""
    async with PostgresStore(url):
        pass
    settings = {"AIRBYTE_URL": "http://127.0.0.1:9", "STORE": url}
    serve = [*command(), "serve", "--port", "0"]
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as onlooker:
        tables = holder.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'airbyte_events'").fetchall()
        for (table,) in tables:
            holder.execute(f'LOCK TABLE airbyte_events."{table}" IN ACCESS EXCLUSIVE MODE')
        async with await anyio.open_process(serve, env=environ_of(**settings)) as listener:
            try:
                await until(lambda: onlooker.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone())
                listener.send_signal(signal.SIGTERM)
                with anyio.fail_after(8):
                    assert await listener.wait() == 0
            finally:
                if listener.returncode is None:
                    listener.kill()
