"""Behind a pooler that gives every transaction another session: nothing is left in one, and all works."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import anyio
import psycopg
import pytest

from airbyte_events.events import EventFilter, JobRef, JobStatus
from airbyte_events.store.postgres.store import PostgresStore
from airbyte_events.store.reconcile import Verdict
from airbyte_events.store.records import Attempt, DeliveryState, Outcome
from postgres_server import PostgresServer
from support.stored import NOON, event, receipt_of
from support.waiting import until

from .pooler import Pooler, pooler

pytestmark = pytest.mark.anyio

SESSION = """
SELECT (SELECT count(*) FROM pg_prepared_statements) + (SELECT count(*) FROM pg_cursors)
    + (SELECT count(*) FROM pg_listening_channels())
    + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
    + (SELECT count(*) FROM pg_settings WHERE source = 'session')
"""


@pytest.fixture
async def pool(server: PostgresServer) -> AsyncIterator[Pooler]:
    async with pooler(server.port) as pool:
        yield pool


@pytest.fixture
def pooled(server: PostgresServer, database: str, pool: Pooler) -> str:
    return server.url(database, port=pool.port)


async def test_all_works_and_no_session_is_changed(pooled: str, pool: Pooler, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ref = JobRef("default", 1)
    async with PostgresStore(pooled) as store, PostgresStore(pooled) as other:
        await until(lambda: caplog.text.count("a pooler is in front of the store") >= 2)
        lease = await store.acquire("x", "one", 60)
        assert lease is not None
        await store.watch([ref], 60)
        assert list(await other.watched("default")) == [1]
        told = [event(1), event(1, JobStatus.SUCCEEDED)]
        assert (await store.append(told, lease=lease)).verdicts == [Verdict.NEW] * 2
        assert (await other.append(told)).verdicts == [Verdict.REPEAT] * 2
        await store.annotate([event(1, JobStatus.SUCCEEDED)])
        receipt = await receipt_of(store, b"body", targets=["t"])
        assert (await receipt_of(other, b"body")).duplicate
        (delivery,) = await other.due("default")
        await store.attempted([Attempt(delivery=delivery.id, state=DeliveryState.DELIVERED, due_at=NOON)])
        await store.settle({receipt.id: Outcome.CONFIRMED}, NOON)
        await store.remember("key", "value", lease=lease)
        assert len((await other.read(0, wanted=EventFilter(terminal=True))).events) == 1
        assert await other.watched("default") == {}
        assert (await other.stats()).events == 2
        assert await store.prune(NOON, keep=0) is not None
        await store.release(lease)
    assert pool.transactions > 20
    async with await psycopg.AsyncConnection.connect(pooled, autocommit=True, prepare_threshold=None) as connection:
        pids = set()
        for _ in range(pool.sessions * 2):
            found = await connection.execute(f"SELECT pg_backend_pid(), ({SESSION})")
            pid, left = await found.fetchone() or (0, -1)
            pids.add(pid)
            assert left == 0
    # Each transaction had another session indeed.
    assert len(pids) > 1


@pytest.mark.parametrize("kind", ["log", "inbox", "watches"])
async def test_i4_news_comes_without_notifications(pooled: str, kind: str) -> None:
    async with PostgresStore(pooled) as store, PostgresStore(pooled) as other:
        with anyio.fail_after(30):
            if kind == "log":
                await other.append([event(1)])
                await store.changed(0)
                return
            with store.news(f"{kind}/default") as news:
                if kind == "inbox":
                    await receipt_of(other, b"body")
                    while not await store.pending("default"):
                        await news.wait()
                else:
                    await other.watch([JobRef("default", 1)], 60)
                    while not await store.watched("default"):
                        await news.wait()


async def test_i2_order_and_ends_hold(pooled: str) -> None:
    async with PostgresStore(pooled) as store, PostgresStore(pooled) as other:

        async def write(writer: PostgresStore, status: JobStatus) -> None:
            for job_id in range(1, 21):
                await writer.append([event(job_id), event(job_id, status)])

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write, store, JobStatus.SUCCEEDED)
                tasks.start_soon(write, other, JobStatus.FAILED)
        events = (await store.read(0)).events
        assert [each.cursor.sequence for each in events if each.cursor] == list(range(1, len(events) + 1))
        assert sorted(each.ref.job_id for each in events if each.terminal) == list(range(1, 21))


async def test_many_that_start_together_make_one_log(pooled: str) -> None:
    epochs = []

    async def start() -> None:
        async with PostgresStore(pooled) as store:
            epochs.append(store.epoch)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(start)
    assert len(set(epochs)) == 1
