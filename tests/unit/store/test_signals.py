"""Signals in the log of every store: beside the jobs, and unseen by those who do not ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airbyte_events.events import WHOLE_LOG, EventFilter, JobEvent, JobRef, Signal, SignalKind
from airbyte_events.store.base import EventStore
from airbyte_events.store.reconcile import Verdict
from support.stored import FAILED, NOON, event

from .conftest import Kind

pytestmark = pytest.mark.anyio


def signal(job_id: int = 1, *, raised: bool = True, connection_id: str = "c1", **values: Any) -> JobEvent:
    given: dict[str, Any] = {
        "kind": SignalKind.STALLED,
        "raised": raised,
        "job_id": job_id,
        "message": "moved nothing",
    } | values
    return JobEvent.of_signal(
        Signal(**given), instance="default", connection_id=connection_id, observed_at=NOON, records=5, bytes=6
    )


def only(**values: Any) -> EventFilter:
    return EventFilter(jobs=False, signals=True, **values)


async def test_each_is_raised_once_and_resolved_once_and_may_be_raised_again(store: EventStore) -> None:
    verdicts = [
        (await store.append([each])).verdicts[0]
        for each in (
            signal(),
            signal(message="another"),
            signal(2),
            signal(raised=False),
            signal(raised=False),
            signal(),
        )
    ]
    new, repeat = Verdict.NEW, Verdict.REPEAT
    assert verdicts == [new, repeat, new, new, repeat, new]
    assert [each.signal.raised for each in (await store.read(0, wanted=only())).events if each.signal] == [
        *(True, True, False, True)
    ]


async def test_jobs_and_their_readers_do_not_notice(store: EventStore) -> None:
    await store.append([event(1, connection_id="c1"), signal(1), event(1, FAILED, connection_id="c1")])
    assert [each.status for each in (await store.read(0)).events] == ["running", FAILED]
    assert [each.ref.job_id for each in await store.jobs()] == [1]
    assert len(await store.history(JobRef("default", 1))) == 2
    assert (await store.states([JobRef("default", 1)]))[JobRef("default", 1)].status is FAILED
    for wanted in (EventFilter(terminal=False), EventFilter(connection_ids=frozenset(["c1"]), terminal=False)):
        assert await store.jobs(wanted=wanted) == []


async def test_are_read_by_those_who_ask_by_instance_and_connection(store: EventStore) -> None:
    await store.append(
        [event(1, FAILED), signal(1), signal(2, connection_id="c2"), signal(2, connection_id="c2", raised=False)]
    )
    assert len((await store.read(0, wanted=WHOLE_LOG)).events) == 4
    failed = EventFilter(statuses=frozenset([FAILED]), job_ids=frozenset([9]), signals=True)
    assert [each.signal is None for each in (await store.read(0, wanted=failed)).events] == [False] * 3
    by_connection = only(instances=frozenset(["default"]), connection_ids=frozenset(["C2"]))
    assert len((await store.read(0, wanted=by_connection)).events) == 2
    assert await store.jobs(wanted=only(instances=frozenset(["other"]))) == []
    (raised,) = await store.jobs(wanted=only(terminal=False))
    assert raised == (await store.states([raised.ref]))[raised.ref]
    assert (raised.signal, raised.records, raised.bytes) == (signal(1).signal, 5, 6)


async def test_the_latest_states_survive(kind: Kind, tmp_path: Path) -> None:
    if not kind.durable:
        pytest.skip("a store in memory")
    async with kind.open(tmp_path) as store:
        await store.append([signal(1), signal(2), signal(2, raised=False)])
    async with kind.open(tmp_path) as store:
        assert (await store.append([signal(1), signal(2, raised=False)])).verdicts == [Verdict.REPEAT] * 2
        assert [each.signal.job_id for each in await store.jobs(wanted=only(terminal=False)) if each.signal] == [1]
