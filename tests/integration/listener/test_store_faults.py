"""A listener whose store has no space, can't be written or is gone says so, and goes on once it is well again."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import httpx
import pytest

from airbyte_events.bus.bus import EventBus
from airbyte_events.listener.http.api import API
from airbyte_events.listener.http.app import create_app
from airbyte_events.listener.http.feed import Feed
from airbyte_events.listener.http.receiver import MOST_AT_ONCE
from airbyte_events.simulator import Simulator, serve_simulator
from airbyte_events.store.health import StoreHealth
from airbyte_events.store.sqlite.store import SQLiteStore
from airbyte_events.web.auth import Tokens
from airbyte_events.web.server import serving
from support.command import fresh_command
from support.loops import anyio_backend as anyio_backend
from support.servers import connect
from support.waiting import until

from .test_listener import TOKENS, Running, listening

pytestmark = pytest.mark.anyio

BODY = 60_000


@asynccontextmanager
async def served(folder: Path, data: Path, program: Sequence[str] = ()) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(serve_simulator(Simulator()))
        store = f"sqlite:///{data}/events.db"
        yield await stack.enter_async_context(listening(folder, simulator.url, program, STORE=store, **TOKENS))


async def post(listener: Running, number: int) -> httpx.Response:
    return await listener.http.post(listener.webhooks, content=b'{"x": "%d %s"}' % (number, b"x" * BODY))


async def ready_is(listener: Running, faults: dict[str, str]) -> None:
    async def reported() -> bool:
        answer = await listener.http.get("/readyz")
        assert answer.status_code == (503 if answer.json()["faults"] else 200)
        return bool(answer.json()["faults"] == faults)

    await until(reported)


@contextmanager
def small_filesystem(folder: Path) -> Iterator[Path]:
    data = folder / "small"
    data.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(data)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield data
    finally:
        subprocess.run(["umount", "--lazy", str(data)], check=True)


@contextmanager
def short_of_space(how: str, folder: Path) -> Iterator[tuple[Path, Callable[[int], None], Callable[[int], None]]]:
    """A folder, how its space ends for a process, and how there is some again."""
    if how == "small file system":
        with small_filesystem(folder) as data:
            ballast = data / "ballast"

            def fill(pid: int) -> None:
                ballast.write_bytes(b"x" * max(shutil.disk_usage(data).free - 200_000, 0))

            yield data, fill, lambda pid: ballast.unlink()
    else:
        if sys.platform != "linux":
            pytest.skip("the limits of another process can't be set here")
        (folder / "data").mkdir()
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

        def set_limit(pid: int, limit: tuple[int, int]) -> None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)

        yield (
            folder / "data",
            lambda pid: set_limit(pid, (300_000, unlimited[1])),
            lambda pid: set_limit(pid, unlimited),
        )


@pytest.mark.parametrize("how", ["small file system", "limit"])
async def test_i1_a_full_disk_refuses_and_heals(tmp_path: Path, how: str) -> None:
    with ExitStack() as stack:
        data, fill, make_space = stack.enter_context(short_of_space(how, tmp_path))
        async with served(tmp_path, data, fresh_command()) as listener:
            assert (await post(listener, 0)).status_code == 200
            await ready_is(listener, {})
            fill(listener.process.pid)
            stored, refused = {0}, 0
            for number in range(1, 60):
                answer = await post(listener, number)
                assert answer.status_code in {200, 503}
                if answer.status_code == 200:
                    stored.add(number)
                else:
                    assert answer.headers["Retry-After"] == "5"
                    refused += 1
            assert refused
            await ready_is(listener, {"store": "can't be written"})
            # What is asked for is still answered.
            assert (await listener.http.get("/v1/jobs")).status_code == 200
            assert (await listener.http.get("/healthz")).status_code == 200
            make_space(listener.process.pid)
            await ready_is(listener, {})
            assert (await post(listener, 100)).status_code == 200
            stored.add(100)
            kept = (await listener.http.get("/v1/notifications", params={"limit": 1000})).json()["notifications"]
            assert len(kept) == len(stored)
            log = listener.log.read_text()
            assert log.count("the store can't be written, webhooks are refused") == 1
            assert log.count("the store can be written again") == 1


@pytest.mark.parametrize("gone", ["removed", "replaced"])
async def test_i1_a_store_that_is_gone_is_told(tmp_path: Path, gone: str) -> None:
    async with served(tmp_path, tmp_path) as listener:
        path = tmp_path / "events.db"
        assert (await post(listener, 0)).status_code == 200
        await ready_is(listener, {})
        aside = path.rename(tmp_path / "aside")
        if gone == "replaced":
            shutil.copy(aside, path)
        assert (await post(listener, 1)).status_code == 503
        await ready_is(listener, {"store": "can't be written"})
        aside.replace(path)
        await ready_is(listener, {})
        assert (await post(listener, 1)).status_code == 200
        assert "events.db was removed or replaced" in listener.log.read_text()


async def test_i1_a_store_that_hangs_refuses_in_time_and_heals(tmp_path: Path) -> None:
    """Far more webhooks than can wait for it: each has its answer, the rest of the listener works, and of what was
    refused nothing lies about to be stored later but what was on its way to the disk."""
    answers: list[bytes] = []
    async with served(tmp_path, tmp_path) as listener:
        assert (await post(listener, 0)).status_code == 200
        await ready_is(listener, {})

        async def ask(number: int) -> None:
            body = b'{"x": "%d %s"}' % (number, b"x" * BODY)
            head = f"POST {urlsplit(listener.webhooks).path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            async with await connect(listener.webhooks) as stream:
                await stream.send(head.encode() + body)
                answers.append(await stream.receive())

        with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as tasks:
                for number in range(1, 1 + MOST_AT_ONCE + 300):
                    tasks.start_soon(ask, number)
                for _ in range(10):
                    assert (await listener.http.get("/healthz")).status_code == 200
                    assert (await listener.http.get("/v1/jobs")).status_code == 200
                await ready_is(listener, {"store": "can't be written"})
            assert len(answers) == MOST_AT_ONCE + 300
            assert all(
                answer.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 5\r\n" in answer for answer in answers
            )
            other.execute("ROLLBACK")
        await ready_is(listener, {})
        assert (await post(listener, 10_000)).status_code == 200
        kept = (await listener.http.get("/v1/notifications", params={"limit": 1000})).json()["notifications"]
        assert 2 <= len(kept) < MOST_AT_ONCE
        assert listener.log.read_text().count("too many notifications in progress, more are refused") == 1


class Connections:
    """The connections that a store has opened."""

    def __init__(self) -> None:
        self._opened: list[sqlite3.Connection] = []

    def __call__(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._opened.append(connection)
        return connection

    def execute(self, statement: str) -> None:
        for connection in self._opened:
            connection.execute(statement)


async def test_read_only_is_found_out_and_heals(tmp_path: Path) -> None:
    connections = Connections()
    async with (
        SQLiteStore(tmp_path / "events.db", connect=connections) as store,
        anyio.create_task_group() as tasks,
    ):
        health = StoreHealth(store, every=0.01, again=0.01)
        assert await health.check()
        # What SQLite says of a file system that became read-only, too.
        connections.execute("PRAGMA query_only = ON")
        tasks.start_soon(health.run)
        with anyio.fail_after(30):
            while health.writable:
                await anyio.lowlevel.checkpoint()
            connections.execute("PRAGMA query_only = OFF")
            while not health.writable:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("fault", "hopeless"), [("gone", True), ("read-only", True), ("full", False)])
async def test_a_restart_is_asked_for_where_it_may_help(tmp_path: Path, fault: str, hopeless: bool) -> None:
    """By the liveness probe, once the store could not be written for long; not where there is no space."""
    path = tmp_path / "events.db"
    connections = Connections()
    async with SQLiteStore(path, connect=connections) as store, EventBus(store) as bus:
        health = StoreHealth(store, every=0.01, again=0.01, restart_after=0.5)
        tokens = Tokens([])
        app = create_app(
            API(Feed(bus, store, {}), {}), None, None, None, tokens, dict, hopeless=lambda: health.needs_restart
        )
        async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
            assert await health.check()
            if fault == "gone":
                path.rename(tmp_path / "aside")
            elif fault == "read-only":
                connections.execute("PRAGMA query_only = ON")
            else:
                connections.execute("PRAGMA max_page_count = 1")
            health.check_soon()
            assert not await health.check()
            assert (await http.get("/healthz")).status_code == 200
            began = anyio.current_time()
            while anyio.current_time() < began + 0.6:
                assert not await health.check()
            answer = await http.get("/healthz")
            assert answer.status_code == (503 if hopeless else 200)
            if fault == "gone":
                (tmp_path / "aside").rename(path)
            elif fault == "read-only":
                connections.execute("PRAGMA query_only = OFF")
            else:
                connections.execute("PRAGMA max_page_count = 1000000")
            assert await health.check()
            assert (await http.get("/healthz")).json()["status"] == "ok"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
async def test_a_store_that_is_read_only_at_start_is_named(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "events.db"):
        pass
    (tmp_path / "events.db").chmod(0o400)
    with pytest.raises(AssertionError, match=r"can't open the store .*events\.db"):
        async with served(tmp_path, tmp_path):
            pass
