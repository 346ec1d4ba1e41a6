"""Deliveries: notifications that are forwarded, each to its targets."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.store.base import COMPLETION, EventStore
from airbyte_events.store.records import Attempt, Delivery, DeliveryState, Outcome
from support.stored import NOON, received

pytestmark = pytest.mark.anyio

DUE, DELIVERED, DEAD = DeliveryState.DUE, DeliveryState.DELIVERED, DeliveryState.DEAD
LATER = timedelta(hours=1)


def targets(deliveries: list[Delivery]) -> list[str]:
    return [each.target for each in deliveries]


async def test_are_due_at_once(store: EventStore) -> None:
    id_ = await received(store, b"body", targets=["slack", "chat"])
    due = await store.due("default")
    assert {(each.target, each.state, each.attempts, each.fault) for each in due} == {
        ("slack", DUE, 0, None),
        ("chat", DUE, 0, None),
    }
    assert {(each.notification.id, each.notification.body) for each in due} == {(id_, b"body")}
    assert await store.due("other") == []
    next_due = await store.next_due("default")
    assert next_due is not None
    assert next_due <= utcnow()
    assert await store.next_due("other") is None


async def test_a_body_that_came_before_is_not_forwarded_again(store: EventStore) -> None:
    await received(store, b"body", targets=["slack"])
    await received(store, b"body", targets=["slack", "chat"])
    await received(store, b"body", targets=["slack"], instance="other")
    assert targets(await store.due("default")) == ["slack"]
    assert targets(await store.due("other")) == ["slack"]


async def test_what_was_tried_is_due_again_later_delivered_or_dead(store: EventStore) -> None:
    await received(store, b"1", targets=["a", "b", "c", "d"])
    by_target = {each.target: each for each in await store.due("default")}
    later = utcnow() + LATER
    await store.attempted(
        [
            Attempt(delivery=by_target["a"].id, state=DUE, due_at=later, fault="answered 503"),
            Attempt(delivery=by_target["b"].id, state=DELIVERED, due_at=later),
            Attempt(delivery=by_target["c"].id, state=DEAD, due_at=later, fault="answered 404"),
            Attempt(delivery=999, state=DEAD, due_at=later),
        ]
    )
    assert targets(await store.due("default")) == ["d"]
    assert await store.next_due("default", but=["d"]) == later
    told = {each.target: (each.state, each.attempts, each.fault) for each in await store.deliveries()}
    assert told == {
        "a": (DUE, 1, "answered 503"),
        "b": (DELIVERED, 1, None),
        "c": (DEAD, 1, "answered 404"),
        "d": (DUE, 0, None),
    }
    await store.attempted([Attempt(delivery=by_target["a"].id, state=DUE, due_at=later, fault="no answer")])
    assert [(each.attempts, each.fault) for each in await store.deliveries() if each.target == "a"] == [
        (2, "no answer")
    ]
    # The dead one is made due again.
    await store.attempted([Attempt(delivery=by_target["c"].id, state=DUE, due_at=utcnow())])
    assert sorted(targets(await store.due("default"))) == ["c", "d"]
    await store.attempted([])


async def test_the_longest_due_comes_first(store: EventStore) -> None:
    for name in ("1", "2", "3"):
        await received(store, name.encode(), targets=[name])
    by_target = {each.target: each.id for each in await store.due("default")}
    for minutes, name in ((1, "2"), (2, "1")):
        await store.attempted([Attempt(delivery=by_target[name], state=DUE, due_at=NOON - timedelta(minutes=minutes))])
    assert targets(await store.due("default")) == ["1", "2", "3"]
    assert targets(await store.due("default", limit=2)) == ["1", "2"]
    assert targets(await store.due("default", limit=2, skip=2)) == ["3"]


async def test_a_slow_target_does_not_hide_the_others(store: EventStore) -> None:
    for number in range(5):
        await received(store, str(number).encode(), targets=["slow"])
    await received(store, b"last", targets=["fast"])
    assert targets(await store.due("default", but=["slow"], limit=2)) == ["fast"]
    assert targets(await store.due("default", to="fast")) == ["fast"]
    assert await store.due("default", to="other") == []
    assert await store.next_due("default", to="fast") is not None
    assert await store.next_due("default", to="other") is None
    assert await store.due("default", but=["slow", "fast"]) == []
    assert await store.next_due("default", but=["slow", "fast"]) is None


async def test_are_paged_newest_first(store: EventStore) -> None:
    for number in range(3):
        await received(store, str(number).encode(), targets=["a", "b"])
    everything = await store.deliveries()
    assert [each.id for each in everything] == sorted((each.id for each in everything), reverse=True)
    assert len(everything) == 6
    first = await store.deliveries(limit=4)
    assert [*first, *await store.deliveries(before=first[-1].id)] == everything
    await store.attempted([Attempt(delivery=everything[3].id, state=DEAD, due_at=NOON, fault="x")])
    assert [each.id for each in await store.deliveries(state=DEAD)] == [everything[3].id]
    assert len(await store.deliveries(state=DUE)) == 5
    assert await store.deliveries(state=DEAD, before=everything[3].id) == []


async def test_tell_what_became_of_the_notification(store: EventStore) -> None:
    id_ = await received(store, b"1", targets=["a"])
    await store.settle({id_: Outcome.CONFIRMED}, NOON)
    assert [each.notification.outcome for each in await store.due("default")] == [Outcome.CONFIRMED]
    assert [each.notification.outcome for each in await store.deliveries()] == [Outcome.CONFIRMED]


class TestNews:
    async def test_of_the_inbox_and_of_deliveries(self, store: EventStore) -> None:
        with store.news("inbox/default") as inbox, store.news("deliveries/default") as deliveries, anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(inbox.wait)
                tasks.start_soon(deliveries.wait)
                await received(store, b"1", targets=["a"])

    async def test_of_what_is_queued_again(self, store: EventStore) -> None:
        id_ = await received(store, b"1", targets=["a"])
        (due,) = await store.due("default")
        await store.settle({id_: Outcome.CONFIRMED}, NOON)
        with store.news("inbox/default") as inbox, store.news("deliveries/default") as deliveries, anyio.fail_after(30):
            await store.settle({id_: Outcome.PENDING}, NOON)
            while not await store.pending("default"):
                await inbox.wait()
            await store.attempted([Attempt(delivery=due.id, state=DUE, due_at=NOON)])
            await deliveries.wait()
            assert targets(await store.due("default")) == ["a"]

    async def test_nothing_that_comes_between_a_look_and_a_wait_is_missed(self, store: EventStore) -> None:
        with store.news("inbox/default") as wakeup, anyio.fail_after(30):
            assert await store.pending("default") == []
            await received(store, b"1")
            await wakeup.wait()


async def test_one_that_is_postponed_was_not_attempted(store: EventStore) -> None:
    await received(store, b"1", targets=["a", "b"])
    first, second = await store.due("default")
    await store.attempted(
        [
            Attempt(delivery=first.id, state=DUE, due_at=NOON, fault="waits", sent=False),
            Attempt(delivery=second.id, state=DUE, due_at=NOON, fault="answered 503"),
        ]
    )
    assert [(each.attempts, each.fault) for each in await store.due("default")] == [(0, "waits"), (1, "answered 503")]


async def test_what_goes_out_is_no_received_notification(store: EventStore) -> None:
    sent = await received(store, b"1", kind=COMPLETION, outcome=Outcome.CONFIRMED, targets=["a"])
    came = await received(store, b"2")
    assert [each.id for each in await store.notifications()] == [came]
    assert [each.id for each in await store.notifications(outgoing=True)] == [came, sent]
    assert [each.notification.id for each in await store.due("default")] == [sent]
