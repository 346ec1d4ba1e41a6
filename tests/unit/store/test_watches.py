"""Watches: the jobs that somebody waits for, whichever process was asked."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.events import JobRef
from airbyte_events.store.base import EventStore
from airbyte_events.store.records import Outcome, Queues
from support.stored import FAILED, SUCCEEDED, event, receipt_of
from support.waiting import until

pytestmark = pytest.mark.anyio

LONG, SHORT = 600.0, 0.05


def refs(*job_ids: int, instance: str = "default") -> list[JobRef]:
    return [JobRef(instance, job_id) for job_id in job_ids]


async def test_are_kept_by_instance(store: EventStore) -> None:
    before = utcnow()
    await store.watch([*refs(1, 2**63 - 1), *refs(1, 3, instance="other")], LONG)
    await store.watch([], LONG)
    watched = await store.watched("default")
    assert set(watched) == {1, 2**63 - 1}
    assert all((moment - before).total_seconds() < 60 for moment in watched.values())
    assert set(await store.watched("other")) == {1, 3}
    assert await store.watched("nowhere") == {}


async def test_who_asks_again_has_asked_since_the_first_time(store: EventStore) -> None:
    await store.watch(refs(1), SHORT)
    since = await store.watched("default")
    await store.watch(refs(1, 2), LONG)
    await anyio.sleep(2 * SHORT)  # time alone ends a watch
    watched = await store.watched("default")
    assert set(watched) == {1, 2}
    if since:  # a machine that is slow enough has seen the first one end
        assert watched[1] == since[1]


async def test_one_who_asks_for_less_does_not_end_it_for_others(store: EventStore) -> None:
    await store.watch(refs(1), LONG)
    await store.watch(refs(1), SHORT)
    await anyio.sleep(2 * SHORT)  # time alone ends a watch
    assert set(await store.watched("default")) == {1}


async def test_end_by_themselves(store: EventStore) -> None:
    await store.watch(refs(1), SHORT)
    await store.watch(refs(2), LONG)

    async def only_the_other_is_left() -> bool:
        return set(await store.watched("default")) == {2}

    await until(only_the_other_is_left)


async def test_what_waits_for_an_instance_is_counted(store: EventStore) -> None:
    assert await store.queues("default") == Queues(watched=0, pending_since=None, due_since=None)
    await store.watch([*refs(*range(1, 8)), *refs(9, instance="other")], LONG)
    at = utcnow()
    for number, instance, outcome in (
        (1, "default", Outcome.IGNORED),
        (2, "default", Outcome.PENDING),
        (3, "default", Outcome.PENDING),
    ):
        await receipt_of(
            store,
            b"{}%d" % number,
            instance=instance,
            job_id=number,
            outcome=outcome,
            received_at=at + timedelta(seconds=number),
            targets=["chat"],
        )
    queues = await store.queues("default")
    assert queues.watched == len(await store.watched("default")) == 7
    assert queues.pending_since == (await store.pending("default"))[0].received_at == at + timedelta(seconds=2)
    assert queues.due_since == await store.next_due("default")
    assert queues.due_since is not None
    assert await store.queues("other") == Queues(watched=1, pending_since=None, due_since=None)


async def test_end_with_the_job(store: EventStore) -> None:
    await store.append([event(1), event(4, FAILED)])
    await store.watch(refs(1, 2, 3, 4), LONG)
    assert set(await store.watched("default")) == {1, 2, 3}
    await store.append([event(1, SUCCEEDED), event(2), event(3, FAILED, instance="other")])
    assert set(await store.watched("default")) == {2, 3}
    await store.watch(refs(1), LONG)
    assert set(await store.watched("default")) == {2, 3}


async def test_news_of_jobs_that_were_not_watched(store: EventStore) -> None:
    with store.news("watches/default") as wakeup, anyio.fail_after(30):
        await store.watch(refs(1), LONG)
        while set(await store.watched("default")) != {1}:
            await wakeup.wait()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.watch, refs(2), LONG)
            while set(await store.watched("default")) != {1, 2}:
                await wakeup.wait()
