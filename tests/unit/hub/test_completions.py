"""Subscribers of completions: catching up, then the bus, each completion once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import anyio
import pytest

from airbyte_events.bus.bus import EventBus
from airbyte_events.events import EventFilter, JobEvent, JobStatus
from airbyte_events.hub.completions import Completions, Subscribers
from airbyte_events.hub.position import Bookmark, Position
from airbyte_events.store.memory.store import MemoryStore
from support.hubs import told
from support.stored import NOON, ended

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)


@dataclass
class Log:
    store: MemoryStore
    bus: EventBus
    subscribers: Subscribers

    async def append(self, *events: JobEvent) -> int:
        await self.store.append(events)
        head = await self.store.head()
        await self.bus.reached(head)
        return head


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    store = MemoryStore(capacity=20)
    async with EventBus(store) as bus:
        yield Log(store, bus, Subscribers(bus))


async def nothing_more(completions: Completions) -> bool:
    with anyio.move_on_after(0.01) as waiting:
        await completions.receive()
    return waiting.cancelled_caught


async def test_what_a_list_and_the_bus_both_bring_is_delivered_once(log: Log) -> None:
    with log.subscribers.joined(EventFilter(), Position(since=NOON)) as completions:
        await log.append(ended(1), ended(2))
        completions.seek()
        completions.found(ended(2))
        completions.found(ended(3))
        completions.caught_up(NOON + MINUTE)
        await log.append(ended(3))
        assert await told(completions, 3) == [2, 3, 1]
        assert await nothing_more(completions)


async def test_from_now_on_begins_when_airbytes_clock_is_known(log: Log) -> None:
    with log.subscribers.joined(EventFilter(), Position()) as completions:
        await log.append(ended(1, NOON - 2 * MINUTE), ended(2, NOON))
        assert await nothing_more(completions)
        completions.begin(NOON, elapsed=60)
        assert await told(completions, 1) == [2]


async def test_a_bookmark_comes_behind_what_its_list_brought(log: Log) -> None:
    with log.subscribers.joined(EventFilter(), Position(since=NOON)) as completions:
        completions.caught_up(NOON)
        head = await log.append(*map(ended, range(1, 6)))
        completions.bookmark(NOON + MINUTE, head)
        # One that came later takes the place of the last, not of the first.
        completions.bookmark(NOON + 2 * MINUTE, head + 1)
        completions.bookmark(NOON + 3 * MINUTE, head + 1)
        assert [await completions.receive() for _ in range(5)] != []
        assert await completions.receive() == Bookmark(NOON + MINUTE, NOON + MINUTE - timedelta(hours=1))
        assert await nothing_more(completions)
        await log.append(ended(6))
        assert await told(completions, 1) == [6]
        assert await completions.receive() == Bookmark(NOON + 3 * MINUTE, NOON + 3 * MINUTE - timedelta(hours=1))


async def test_there_is_no_bookmark_while_it_has_to_catch_up(log: Log) -> None:
    with log.subscribers.joined(EventFilter(), Position(since=NOON)) as completions:
        completions.bookmark(NOON + MINUTE, 0)
        assert await nothing_more(completions)
        completions.caught_up(NOON)
        completions.bookmark(NOON + MINUTE, 0)
        completions.miss()
        assert await nothing_more(completions)


async def test_i5_what_the_log_does_not_keep_is_caught_up(log: Log) -> None:
    with log.subscribers.joined(EventFilter(), Position(since=NOON - MINUTE)) as completions:
        completions.caught_up(NOON)
        assert await completions.receive() == Bookmark(NOON, NOON - timedelta(hours=1))
        for job_id in range(1, 2_001):
            await log.store.append([ended(job_id)])
        with anyio.fail_after(30):
            await log.bus.reached(2_000)
        for job_id in range(2_001, 4_001):
            await log.store.append([ended(job_id)])
        await log.bus.reached(4_000)
        found = []
        with anyio.fail_after(30):
            while not completions.overdue:
                with anyio.move_on_after(0.05):
                    found.append(await completions.receive())
        completions.seek()
        completions.found(ended(1_999))
        completions.caught_up(NOON + MINUTE)
        assert await told(completions, 1) == [1_999]
        await log.append(ended(4_001))
        assert await told(completions, 1) == [4_001]


async def test_i5_a_list_that_was_cut_while_catching_up_wants_another(log: Log) -> None:
    with log.subscribers.joined(EventFilter(), Position(since=NOON)) as completions:
        completions.seek()
        completions.miss()
        completions.caught_up(NOON + MINUTE)
        assert completions.late


async def test_i6_what_waits_is_bounded_by_the_bus(log: Log) -> None:
    with log.subscribers.joined(EventFilter(), Position(since=NOON - MINUTE)):
        for job_id in range(1, 20):
            await log.append(ended(job_id, url="https://airbyte/" + "x" * 2**18))
        assert log.bus.buffered_bytes <= 3 * 2**20


async def test_only_completions_that_match_are_delivered(log: Log) -> None:
    wanted = EventFilter(connection_ids=frozenset(["C"]), statuses=frozenset([JobStatus.FAILED, JobStatus.RUNNING]))
    with log.subscribers.joined(wanted, Position(since=NOON)) as completions:
        await log.append(
            ended(1), ended(2, status=JobStatus.FAILED), ended(3, status=JobStatus.RUNNING), ended(4, connection_id="d")
        )
        assert await told(completions, 1) == [2]
        assert await nothing_more(completions)


async def test_one_that_is_closed_delivers_what_it_holds(log: Log) -> None:
    with log.subscribers.joined(EventFilter(), Position(since=NOON)) as completions:
        await log.append(ended(1))
        completions.found(ended(2))
        log.subscribers.close()
        assert await told(completions, 2) == [2, 1]
        with pytest.raises(anyio.EndOfStream):
            await completions.receive()
    with log.subscribers.joined(EventFilter(), Position(since=NOON)) as late, pytest.raises(anyio.EndOfStream):
        await late.receive()
