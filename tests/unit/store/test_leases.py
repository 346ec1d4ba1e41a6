"""Leases: one holder at a time, and who has lost one can't write with it."""

from __future__ import annotations

import secrets
from functools import partial

import anyio
import psycopg
import pytest

from airbyte_events.errors import LeaseLost
from airbyte_events.store.base import EventStore
from airbyte_events.store.postgres.store import PostgresStore
from airbyte_events.store.reconcile import Verdict
from airbyte_events.store.records import Lease
from support.stored import event
from support.waiting import until

pytestmark = pytest.mark.anyio

LONG, SHORT = 600.0, 0.05


async def taken(store: EventStore, name: str, holder: str, seconds: float) -> Lease:
    """Taken as soon as it can be had."""
    lease: Lease = await until(partial(store.acquire, name, holder, seconds))
    return lease


async def test_is_held_by_one_and_renewed_by_it(store: EventStore) -> None:
    lease = await store.acquire("poll", "a", LONG)
    assert lease is not None
    assert (lease.name, lease.holder) == ("poll", "a")
    assert await store.acquire("poll", "b", LONG) is None
    assert await store.acquire("poll", "a", LONG) == lease
    other = await store.acquire("prune", "b", LONG)
    assert other is not None
    assert other.name == "prune"


async def test_passes_on_when_its_time_is_up(store: EventStore) -> None:
    first = await taken(store, "poll", "a", SHORT)
    second = await taken(store, "poll", "b", LONG)
    assert second.fence > first.fence
    assert await store.acquire("poll", "a", LONG) is None
    # One that is renewed does not.
    with anyio.move_on_after(4 * SHORT):
        while True:
            assert await store.acquire("poll", "b", LONG) == second
            assert await store.acquire("poll", "c", LONG) is None


async def test_passes_on_at_once_when_it_is_given_back(store: EventStore) -> None:
    first = await taken(store, "poll", "a", LONG)
    await store.release(first)
    second = await store.acquire("poll", "b", LONG)
    assert second is not None
    assert second.fence > first.fence


async def test_who_holds_which_can_be_seen(store: EventStore) -> None:
    assert await store.holders() == {}
    poll = await taken(store, "poll", "a", LONG)
    await taken(store, "prune", "b", LONG)
    assert await store.holders() == {"poll": "a", "prune": "b"}
    await store.release(poll)
    assert await store.holders() == {"prune": "b"}
    # One whose time is up is nobody's, though nobody else has taken it.
    await taken(store, "poll", "a", SHORT)

    async def is_free() -> bool:
        return "poll" not in await store.holders()

    await until(is_free)


async def test_one_that_is_lost_stays_lost(store: EventStore) -> None:
    first = await taken(store, "poll", "a", LONG)
    await store.release(first)
    second = await taken(store, "poll", "b", LONG)
    await store.release(first)
    assert await store.acquire("poll", "c", LONG) is None
    await store.append([event(1)], lease=second)
    await store.release(second)
    again = await taken(store, "poll", "a", LONG)
    assert again.fence > second.fence > first.fence


async def test_i2_who_has_lost_it_writes_nothing(store: EventStore) -> None:
    first = await taken(store, "poll", "a", SHORT)
    assert (await store.append([event(1)], lease=first)).verdicts == [Verdict.NEW]
    await store.remember("looked", "1", lease=first)
    second = await taken(store, "poll", "b", LONG)
    with pytest.raises(LeaseLost, match="poll"):
        await store.append([event(2), event(3)], lease=first)
    with pytest.raises(LeaseLost, match="poll"):
        await store.remember("looked", "2", lease=first)
    assert (await store.head(), await store.recall("looked")) == (1, "1")
    assert (await store.append([event(2)], lease=second)).verdicts == [Verdict.NEW]
    await store.remember("looked", "3", lease=second)
    assert (await store.head(), await store.recall("looked")) == (2, "3")


async def test_who_has_given_it_back_writes_nothing(store: EventStore) -> None:
    lease = await taken(store, "poll", "a", LONG)
    await store.release(lease)
    with pytest.raises(LeaseLost):
        await store.append([event(1)], lease=lease)
    assert await store.head() == 0


async def test_of_many_who_try_one_gets_it(store: EventStore) -> None:
    got: list[Lease] = []

    async def attempt(holder: str) -> None:
        if (lease := await store.acquire("poll", holder, LONG)) is not None:
            got.append(lease)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(attempt, str(number))
    assert len(got) == 1


async def test_others_are_told_when_it_is_given_back(store: EventStore) -> None:
    lease = await taken(store, "poll", "a", LONG)
    with store.news("leases/poll") as wakeup, anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wakeup.wait)
            await store.release(lease)
        assert await store.acquire("poll", "b", LONG) is not None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("ends", ["'infinity'", "clock_timestamp() + interval '1 day'", "'-infinity'"])
async def test_i4_one_that_ends_when_none_can_end_is_taken_over(postgres_url: str, ends: str) -> None:
    """The server's clock was set back, or the row is damaged: whoever had it may be gone."""
    schema = "leases_" + secrets.token_hex(8)
    async with PostgresStore(f"{postgres_url}?schema={schema}") as store:
        first = await taken(store, "poll", "a", 9)
        with psycopg.connect(postgres_url) as connection:
            connection.execute(f"UPDATE {schema}.leases SET expires_at = {ends}")
        assert (await store.holders()).get("poll") in (None, "a")
        second = await store.acquire("poll", "b", 9)
        assert second is not None
        assert second.fence > first.fence
        with pytest.raises(LeaseLost):
            await store.append([event(1)], lease=first)
        # One that is as long as it should be stays with its holder.
        assert await store.acquire("poll", "c", 9) is None
