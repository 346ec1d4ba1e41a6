"""Several processes' stores on one database: one log, one order, one inbox, leases that keep the late out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import anyio
import psycopg
import pytest

from airbyte_events.errors import LeaseLost
from airbyte_events.events import JobRef, JobStatus
from airbyte_events.store.postgres.store import PostgresStore
from airbyte_events.store.reconcile import Verdict
from airbyte_events.store.records import Outcome
from support.stored import event, receipt_of
from support.waiting import until

pytestmark = pytest.mark.anyio

FAILED, SUCCEEDED = JobStatus.FAILED, JobStatus.SUCCEEDED


@pytest.fixture
async def other(store: PostgresStore, url: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(url) as other:
        yield other


async def test_i5_sequence_order_is_commit_order_for_a_third(
    store: PostgresStore, other: PostgresStore, url: str
) -> None:
    seen: list[int] = []

    async def follow(reader: PostgresStore) -> None:
        while len(seen) < 600:
            position = seen[-1] if seen else 0
            await reader.changed(position)
            # Whatever is committed later lies behind all of this: a hole now would be an event lost.
            seen.extend(each.cursor.sequence for each in (await reader.read(position)).events if each.cursor)
            assert seen == list(range(1, len(seen) + 1))

    async def write(writer: PostgresStore, first: int) -> None:
        for job_id in range(first, first + 25):
            await writer.append([event(job_id), event(job_id, SUCCEEDED), event(job_id, FAILED)])

    async with PostgresStore(url) as reader:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, reader)
                for number in range(6):
                    tasks.start_soon(write, store, 10_000 * number + 1)
                    tasks.start_soon(write, other, 10_000 * number + 1_001)
    assert seen == list(range(1, 601))


async def test_i2_one_end_per_job_whoever_tells_of_it_first(store: PostgresStore, other: PostgresStore) -> None:
    verdicts: list[Verdict] = []

    async def tell(teller: PostgresStore, status: JobStatus) -> None:
        for job_id in range(1, 41):
            verdicts.extend((await teller.append([event(job_id), event(job_id, status)])).verdicts)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for teller, status in ((store, SUCCEEDED), (other, FAILED), (store, SUCCEEDED), (other, FAILED)):
                tasks.start_soon(tell, teller, status)
    events = (await store.read(0)).events
    assert sorted(each.ref.job_id for each in events if each.terminal) == list(range(1, 41))
    assert verdicts.count(Verdict.NEW) == len(events)
    for each in events:
        assert [told.status for told in await other.history(each.ref)][-1].terminal


async def test_an_annotation_is_not_lost_to_an_append_beside_it(store: PostgresStore, other: PostgresStore) -> None:
    async def annotate(job_id: int) -> None:
        await other.annotate([replace(event(job_id), url="u")])

    for job_id in range(1, 21):
        await store.append([event(job_id)])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(annotate, job_id)
            tasks.start_soon(store.append, [event(job_id, SUCCEEDED)])
        (state,) = (await store.states([JobRef("default", job_id)])).values()
        (first, last) = await store.history(JobRef("default", job_id))
        assert (first.status, last.status, state.status) == (JobStatus.RUNNING, SUCCEEDED, SUCCEEDED)
        # It came before the end, whose event then has it, or it was too late.
        assert state.url == last.url


async def test_the_same_bodies_brought_to_both_are_kept_once(store: PostgresStore, other: PostgresStore) -> None:
    receipts: dict[bytes, list[bool]] = {}

    async def bring(to: PostgresStore, bodies: list[bytes]) -> None:
        for body in bodies:
            receipts.setdefault(body, []).append((await receipt_of(to, body)).duplicate)

    bodies = [str(number).encode() for number in range(60)]
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for to in (store, other):
                tasks.start_soon(bring, to, bodies)
                tasks.start_soon(bring, to, bodies[::-1])
    assert len(await store.notifications(limit=1_000)) == 60
    assert all(sorted(told) == [False, True, True, True] for told in receipts.values())


async def test_batches_of_the_same_bodies_in_another_order_do_not_wait_for_each_other(
    store: PostgresStore, other: PostgresStore
) -> None:
    with anyio.fail_after(60):
        for attempt in range(10):
            bodies = [f"{attempt} {number}".encode() * 50 for number in range(256)]
            async with anyio.create_task_group() as tasks:
                for to, some in ((store, bodies), (other, bodies[::-1])):
                    for body in some:
                        tasks.start_soon(receipt_of, to, body)
    assert len(await store.notifications(limit=10_000)) == 2_560


async def test_a_lease_that_was_lost_writes_nothing(store: PostgresStore, other: PostgresStore) -> None:
    lease = await store.acquire("x", "one", 0.0)
    assert lease is not None
    taken = await other.acquire("x", "two", 60)
    assert taken is not None
    assert taken.fence > lease.fence
    for write in (
        lambda: store.append([event(1)], lease=lease),
        lambda: store.remember("key", "late", lease=lease),
    ):
        with pytest.raises(LeaseLost):
            await write()
    assert await store.head() == 0
    assert await store.recall("key") is None
    await other.append([event(1)], lease=taken)
    # Nothing new, and still not his.
    with pytest.raises(LeaseLost):
        await store.append([event(1)], lease=lease)
    await store.release(lease)
    assert await store.acquire("x", "three", 60) is None


async def test_a_lease_does_not_pass_on_while_it_is_written_with(
    store: PostgresStore, other: PostgresStore, url: str
) -> None:
    lease = await store.acquire("x", "one", 0.0)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        assert lease is not None
        await connection.execute("SELECT airbyte_events.holds_1('x', 'one', %s)", [lease.fence])
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                taken: list[object] = []

                async def take() -> None:
                    taken.append(await other.acquire("x", "two", 60))

                tasks.start_soon(take)
                await _blocked(url)
                assert not taken
                await connection.commit()
    assert taken != [None]


async def _blocked(url: str) -> None:
    """Return once somebody waits for a lock."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        async def waiting() -> object:
            return await (await connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted")).fetchone()

        await until(waiting)


@pytest.mark.parametrize("topic", ["inbox", "watches", "deliveries", "leases", "inbox again"])
async def test_news_crosses_processes(store: PostgresStore, other: PostgresStore, topic: str) -> None:
    await store.watch([JobRef("default", 1)], 0)
    receipt = await receipt_of(store, b"first", targets=["t"])
    lease = await store.acquire("x", "one", 60)
    assert lease is not None
    name = {"leases": "leases/x", "inbox again": "inbox/default"}.get(topic, f"{topic}/default")
    with other.news(name) as news, anyio.fail_after(30):
        # What came before may come late.
        while True:
            with anyio.move_on_after(0.3) as quiet:
                await news.wait()
            if quiet.cancelled_caught:
                break
        if topic == "inbox":
            await receipt_of(store, b"second")
        elif topic == "deliveries":
            await receipt_of(store, b"second", outcome=Outcome.IGNORED, targets=["t"])
        elif topic == "watches":
            await store.watch([JobRef("default", 2)], 60)
        elif topic == "leases":
            await store.release(lease)
        else:
            await store.settle({receipt.id: Outcome.PENDING}, event().observed_at)
        await news.wait()


async def test_i5_what_was_not_announced_is_found(store: PostgresStore, url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE airbyte_events.log SET head = 1")
    with anyio.fail_after(30):
        await store.changed(0)


async def test_many_notifications_at_once_are_few_transactions(store: PostgresStore, url: str) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(receipt_of, store, str(number).encode())
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(DISTINCT xmin::text) FROM airbyte_events.notifications").fetchone()
    assert found is not None
    assert found[0] < 10
