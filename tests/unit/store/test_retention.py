"""Retention: what is old or too much goes, and whoever reads on from there is told."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from airbyte_events.errors import CursorExpired
from airbyte_events.events import JobRef
from airbyte_events.store.base import EventStore
from airbyte_events.store.reconcile import Verdict
from airbyte_events.store.records import Attempt, DeliveryState, Outcome
from support.stored import FAILED, NOON, SUCCEEDED, event, received, sequences

pytestmark = pytest.mark.anyio

ALL = 10**9
HOUR = timedelta(hours=1)


async def kept(store: EventStore, after: int) -> list[int]:
    return sequences((await store.read(after)).events)


async def test_events_go_by_age(store: EventStore) -> None:
    await store.append([event(job_id, observed_at=NOON + job_id * HOUR) for job_id in range(1, 11)])
    pruned = await store.prune(NOON + 4 * HOUR, keep=ALL)
    assert (pruned.events, pruned.notifications) == (3, 0)
    assert await kept(store, 3) == list(range(4, 11))
    for after in range(3):
        with pytest.raises(CursorExpired):
            await store.read(after)
    assert (await store.prune(NOON + 4 * HOUR, keep=ALL)).events == 0


async def test_events_go_by_number(store: EventStore) -> None:
    await store.append([event(job_id) for job_id in range(1, 11)])
    assert (await store.prune(NOON - HOUR, keep=4)).events == 6
    assert await kept(store, 6) == [7, 8, 9, 10]


async def test_many_go_in_steps(store: EventStore) -> None:
    await store.append([event(job_id) for job_id in range(1, 901)])
    for number in range(900):
        await received(store, str(number).encode(), outcome=Outcome.IGNORED)
    pruned = await store.prune(NOON + HOUR, keep=ALL)
    assert (pruned.events, pruned.notifications) == (900, 900)
    assert await store.notifications() == []


async def test_i5_what_is_kept_has_no_gap(store: EventStore) -> None:
    """A clock that was wrong for a while."""
    ages = [1, 2, 9, 1, 2, 9, 3]
    await store.append([event(number, observed_at=NOON + age * HOUR) for number, age in enumerate(ages, 1)])
    assert (await store.prune(NOON + 5 * HOUR, keep=ALL)).events == 2
    assert await kept(store, 2) == [3, 4, 5, 6, 7]


async def test_an_emptied_log_goes_on_where_it_was(store: EventStore) -> None:
    await store.append([event(1), event(1, SUCCEEDED)])
    assert (await store.prune(NOON + HOUR, keep=ALL)).events == 2
    assert (await store.head(), await kept(store, 2), await store.history(JobRef("default", 1))) == (2, [], [])
    with pytest.raises(CursorExpired):
        await store.read(1)
    assert (await store.append([event(2)])).verdicts == [Verdict.NEW]
    assert await kept(store, 2) == [3]


async def test_i2_a_job_whose_events_are_gone_ends_once_all_the_same(store: EventStore) -> None:
    await store.append([event(1), event(1, SUCCEEDED)])
    await store.prune(NOON + HOUR, keep=0)
    assert (await store.append([event(1, SUCCEEDED), event(1, FAILED)])).verdicts == [
        Verdict.REPEAT,
        Verdict.CONTRADICTION,
    ]
    (state,) = (await store.states([JobRef("default", 1)])).values()
    assert state.status is SUCCEEDED
    assert [each.ref.job_id for each in await store.jobs()] == [1]


async def test_notifications_go_once_they_are_settled(store: EventStore) -> None:
    ids = {name: await received(store, name.encode()) for name in ("old", "late", "pending")}
    ids["ignored"] = await received(store, b"ignored", outcome=Outcome.IGNORED)
    await store.settle({ids["old"]: Outcome.CONFIRMED}, NOON)
    await store.settle({ids["late"]: Outcome.CONFIRMED}, NOON + 2 * HOUR)
    assert (await store.prune(NOON + HOUR, keep=ALL)).notifications == 2
    assert {each.id for each in await store.notifications()} == {ids["late"], ids["pending"]}
    assert [each.id for each in await store.pending("default")] == [ids["pending"]]
    # What is gone may come again.
    assert await received(store, b"old") not in ids.values()


async def test_notifications_go_when_nothing_of_them_is_to_be_sent(store: EventStore) -> None:
    for name in ("due", "delivered", "dead"):
        await received(store, name.encode(), outcome=Outcome.IGNORED, targets=["slack", "chat"])
    for each in await store.due("default"):
        state = DeliveryState(each.notification.body.decode())
        if state is not DeliveryState.DUE or each.target == "chat":
            done = DeliveryState.DELIVERED if state is DeliveryState.DUE else state
            await store.attempted([Attempt(delivery=each.id, state=done, due_at=NOON)])
    assert (await store.prune(NOON + HOUR, keep=ALL)).notifications == 2
    assert [each.body for each in await store.notifications()] == [b"due"]
    assert {each.target for each in await store.deliveries()} == {"slack", "chat"}


async def test_others_write_meanwhile(store: EventStore) -> None:
    await store.append([event(job_id) for job_id in range(1, 501)])
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: store.prune(NOON + HOUR, keep=ALL))
            for job_id in range(501, 521):
                tasks.start_soon(store.append, [event(job_id, observed_at=NOON + 2 * HOUR)])
    assert await kept(store, 500) == list(range(501, 521))


async def test_stats_tell_what_is_kept(store: EventStore) -> None:
    empty = await store.stats()
    assert (empty.first, empty.head, empty.events, empty.jobs, empty.notifications) == (0, 0, 0, 0, 0)
    await store.append([event(job_id) for job_id in range(1, 11)])
    await store.append([event(10, SUCCEEDED)])
    await received(store, b"1", targets=["a", "b"])
    await received(store, b"2", outcome=Outcome.IGNORED)
    dead, _ = await store.due("default")
    await store.attempted([Attempt(delivery=dead.id, state=DeliveryState.DEAD, due_at=NOON)])
    await store.prune(NOON - HOUR, keep=4)
    stats = await store.stats()
    assert (stats.first, stats.head, stats.pending, stats.due, stats.dead) == (8, 11, 1, 1, 1)
    assert stats.bytes >= empty.bytes
