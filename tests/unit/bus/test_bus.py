"""The bus: everybody sees the log's order, nobody holds anybody up, nothing is lost or told twice."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from airbyte_events.bus.bus import BUFFER, BUFFER_BYTES, BUFFERED_BYTES, RECENT_BYTES, EventBus, Subscription
from airbyte_events.errors import CursorExpired, StoreError
from airbyte_events.events import EVERYTHING, EventFilter, JobError, JobEvent, JobStatus
from airbyte_events.store.base import EventStore
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import LogPage
from support.memory import alive
from support.stored import RUNNING, CountingStore, event, flips, sequences

pytestmark = pytest.mark.anyio


def large(number: int, size: int = 50_000) -> list[JobEvent]:
    """So many changes of one job, each of which has much to tell."""
    error = JobError(message="x" * size)
    return [replace(each, error=error) for each in flips(number)]


def only(job_id: int) -> EventFilter:
    return EventFilter(instances=frozenset({"default"}), job_ids=frozenset({job_id}))


class OthersStore(MemoryStore):
    """One to which another process appends: the bus has to read the events."""

    async def changed(self, after: int, *, epoch: str | None = None) -> Sequence[JobEvent]:
        await super().changed(after, epoch=epoch)
        return ()


@pytest.fixture(params=[MemoryStore, OthersStore])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[MemoryStore]:
    kind: type[MemoryStore] = request.param
    async with kind() as store:
        yield store


@pytest.fixture
async def bus(store: MemoryStore) -> AsyncIterator[EventBus]:
    with anyio.fail_after(30):
        async with EventBus(store) as bus:
            yield bus


async def published(bus: EventBus, store: MemoryStore) -> None:
    """Return when all that is in the log has been handed out."""
    while bus.position < await store.head():
        await anyio.lowlevel.checkpoint()


async def rest(events: Subscription) -> list[int]:
    """What comes until the end."""
    return sequences([each async for each in events])


class TestOrder:
    async def test_is_the_logs_for_every_subscriber(self, bus: EventBus, store: MemoryStore) -> None:
        with bus.subscribe() as one, bus.subscribe() as other:
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(store.append, [event(number * 10 + each) for each in range(1, 11)])
            await anyio.wait_all_tasks_blocked()
            bus.close()
            log = sequences(list((await store.read(0)).events))
            assert await rest(one) == await rest(other) == log == list(range(1, 101))

    async def test_begins_with_what_is_published_from_now_on(self, bus: EventBus, store: MemoryStore) -> None:
        await store.append([event(1)])
        await published(bus, store)
        with bus.subscribe() as events:
            await store.append([event(2)])
            assert [each.ref.job_id for each in await events.receive(10)] == [2]

    async def test_a_bus_begins_at_the_head(self, store: MemoryStore) -> None:
        await store.append([event(1)])
        async with EventBus(store) as bus:
            assert bus.position == 1
            with bus.subscribe() as new, bus.subscribe(after=0) as old:
                await store.append([event(2)])
                assert sequences([await anext(new)]) == [2]
                assert sequences([await anext(old), await anext(old)]) == [1, 2]

    async def test_what_is_appended_by_another_bus_owner_is_seen(self, bus: EventBus, store: MemoryStore) -> None:
        async with EventBus(store) as other:
            with bus.subscribe() as here, other.subscribe() as there:
                await store.append([event(1)])
                assert await anext(here) == await anext(there)


class TestEnd:
    async def test_comes_after_delivery(self, bus: EventBus, store: MemoryStore) -> None:
        with bus.subscribe() as events:
            await store.append([event(1), event(2)])
            await published(bus, store)
            bus.close()
            assert await rest(events) == [1, 2]
            with pytest.raises(anyio.EndOfStream):
                await events.receive(1)

    async def test_comes_to_a_reader_that_waits(self, bus: EventBus) -> None:
        async def read() -> None:
            with bus.subscribe() as events:
                assert await rest(events) == []

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            bus.close()

    async def test_comes_after_a_reader_that_fell_behind_has_caught_up(self, bus: EventBus, store: MemoryStore) -> None:
        with bus.subscribe() as events:
            await store.append(flips(BUFFER * 3))
            await published(bus, store)
            bus.close()
            assert await rest(events) == list(range(1, BUFFER * 3 + 1))

    async def test_is_at_once_on_a_bus_that_is_closed(self, bus: EventBus, store: MemoryStore) -> None:
        await store.append([event(1)])
        await published(bus, store)
        bus.close()
        with bus.subscribe() as new, bus.subscribe(after=0) as old:
            assert (await rest(new), await rest(old)) == ([], [1])

    async def test_leaving_the_bus_ends_its_subscriptions(self, store: MemoryStore) -> None:
        async def read(bus: EventBus) -> None:
            with bus.subscribe() as events:
                assert await rest(events) == []

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks, EventBus(store) as bus:
                tasks.start_soon(read, bus)
                await anyio.wait_all_tasks_blocked()

    async def test_an_error_in_the_body_comes_out_as_it_is(self, store: MemoryStore) -> None:
        with pytest.raises(LookupError):
            async with EventBus(store):
                raise LookupError


class TestComingBack:
    @pytest.mark.parametrize("restarted", [False, True])
    async def test_a_crowd_does_not_read_the_log_a_hundred_times(self, restarted: bool) -> None:
        async with CountingStore() as store, EventBus(store) as first:
            await store.append(flips(2 * BUFFER))
            await published(first, store)
            async with EventBus(store) if restarted else contextlib.nullcontext(first) as bus:
                store.told = 0
                for after in range(BUFFER + 1, BUFFER + 101):
                    with bus.subscribe(after=after) as events:
                        assert sequences(await events.receive(BUFFER)) == list(range(after + 1, 2 * BUFFER + 1))
                assert store.told <= 100  # one each, to see that they are still kept
                told: list[int] = []
                with bus.subscribe(after=BUFFER - 1) as events:
                    while len(told) < BUFFER + 1:
                        told += sequences(await events.receive(BUFFER))
                assert told == list(range(BUFFER, 2 * BUFFER + 1))

    async def test_only_what_is_wanted_is_told(self, bus: EventBus, store: MemoryStore) -> None:
        await store.append([event(job_id) for job_id in range(1, 11)])
        await published(bus, store)
        with bus.subscribe(after=3, wanted=only(7)) as events:
            assert sequences(await events.receive(9)) == [7]
            assert events.position == 10


class TestFallingBehind:
    async def test_i6_a_stalled_subscriber_holds_no_more_than_the_buffer(self) -> None:
        async with MemoryStore(capacity=100) as store, EventBus(store) as bus:
            before = len(alive(JobEvent))
            with bus.subscribe() as events, bus.subscribe(wanted=only(1)) as keyed:
                for _ in range(3 * BUFFER // 100):
                    await store.append(flips(100))
                    await published(bus, store)
                # The buffer that both share, and the newest, which are at hand for whoever comes back.
                assert 2 * BUFFER <= len(alive(JobEvent)) - before <= 2 * BUFFER + 200
                for each in (events, keyed):
                    for _ in range(BUFFER):
                        await anext(each)
                    # What it held is told; what was forgotten meanwhile is not passed over in silence.
                    with pytest.raises(CursorExpired):
                        await anext(each)
            assert len(alive(JobEvent)) - before <= BUFFER + 200

    @pytest.mark.parametrize("size", [50_000, 500_000, 3 * BUFFER_BYTES])
    async def test_i6_a_stalled_subscriber_holds_so_many_bytes(
        self, bus: EventBus, store: MemoryStore, size: int
    ) -> None:
        count = 4 * BUFFER_BYTES // size + 5
        with bus.subscribe() as events:
            await store.append(large(count, size))
            await published(bus, store)
            assert events.buffered_bytes <= BUFFER_BYTES + large(1, size)[0].weight
            seen: list[int] = []
            while len(seen) < count:
                batch = await events.receive(BUFFER, 64 * 1024)
                assert len(batch) <= 2
                seen += sequences(batch)
                assert events.buffered_bytes <= BUFFER_BYTES + large(1, size)[0].weight
            assert seen == list(range(1, count + 1))
            assert events.buffered_bytes == 0
        assert bus.buffered_bytes == 0

    async def test_i6_all_of_them_together_hold_so_many_bytes_and_miss_nothing(
        self, bus: EventBus, store: MemoryStore
    ) -> None:
        readers, count = 2 * BUFFERED_BYTES // BUFFER_BYTES, 100
        with contextlib.ExitStack() as stack:
            stalled = [stack.enter_context(bus.subscribe()) for _ in range(readers)]
            # One after the other came back later, and has read nothing since.
            late = [stack.enter_context(bus.subscribe(after=0)) for _ in range(readers)]
            for number in range(count):
                await store.append(large(2)[:1] if number % 2 else large(2)[1:])
                await published(bus, store)
                for each in late[number : number + 1]:
                    assert await each.receive(1)
            assert bus.buffered_bytes <= BUFFERED_BYTES + readers * (BUFFER_BYTES // 10)
            for each in stalled:
                seen: list[int] = []
                while len(seen) < count:
                    seen += sequences(await each.receive(BUFFER, BUFFER_BYTES))
                assert seen == list(range(1, count + 1))
        assert bus.buffered_bytes == 0

    async def test_the_newest_that_are_at_hand_have_so_many_bytes(self) -> None:
        async with MemoryStore() as store:
            await store.append(large(BUFFER // 2))
            async with EventBus(store) as bus:
                assert sum(each.weight for each in bus.recent) <= RECENT_BYTES
                first = sequences([*bus.recent])[0]
                for after in (0, first - 2, first - 1, first):
                    with bus.subscribe(after=after) as events:
                        seen: list[int] = []
                        while len(seen) < BUFFER // 2 - after:
                            seen += sequences(await events.receive(BUFFER))
                        assert seen == list(range(after + 1, BUFFER // 2 + 1))
                await store.append(large(BUFFER)[::-1])
                await published(bus, store)
                assert sum(each.weight for each in bus.recent) <= RECENT_BYTES

    async def test_the_publisher_is_never_blocked(self, bus: EventBus, store: MemoryStore) -> None:
        with bus.subscribe(), bus.subscribe(wanted=only(1)), bus.subscribe(after=0), bus.subscribe() as reader:
            seen = []
            for number in range(30):
                await store.append(flips(BUFFER // 5))
                seen += await reader.receive(BUFFER)
                while len(seen) < (number + 1) * BUFFER // 5:
                    seen += await reader.receive(BUFFER)
            assert sequences(seen) == list(range(1, 6 * BUFFER + 1))

    @pytest.mark.parametrize("extra", [-1, 0, 1, BUFFER, 3 * BUFFER + 7])
    @pytest.mark.parametrize("wanted", [EVERYTHING, only(1)], ids=["all", "one"])
    async def test_i5_misses_and_doubles_nothing(
        self, bus: EventBus, store: MemoryStore, extra: int, wanted: EventFilter
    ) -> None:
        with bus.subscribe(wanted=wanted) as events:
            await store.append(flips(3))
            seen = [await anext(events)]
            await store.append(flips(BUFFER + extra - 2))
            await published(bus, store)
            for _ in range(3):
                seen += await events.receive(17)
            await store.append([event(1, JobStatus.SUCCEEDED)])
            while not seen[-1].terminal:
                seen += await events.receive(100)
            assert sequences(seen) == list(range(1, await store.head() + 1))

    async def test_i5_an_idle_place_is_not_lost_when_the_log_forgets_what_was_not_wanted(self) -> None:
        async with MemoryStore(capacity=2 * BUFFER) as store, EventBus(store) as bus:
            with bus.subscribe(wanted=only(1)) as events:
                for _ in range(10):
                    await store.append(flips(BUFFER, 2))
                    await published(bus, store)
                await store.append(flips(BUFFER + 5))
                await published(bus, store)
                bus.close()
                assert len(await rest(events)) == BUFFER + 5

    async def test_a_reader_is_told_when_its_place_is_gone(self) -> None:
        async with MemoryStore(capacity=10) as store, EventBus(store) as bus:
            await store.append(flips(50))
            await published(bus, store)
            for after in (0, 39, 51):
                with bus.subscribe(after=after) as events, pytest.raises(CursorExpired):
                    await events.receive(1)

    async def test_the_bus_goes_on_when_the_log_forgot_what_it_had_not_read(self) -> None:
        async with OthersStore(capacity=10) as store, EventBus(store) as bus:
            with bus.subscribe() as events:
                # Without a checkpoint for the bus in between.
                await store.append(flips(50))
                with pytest.raises(CursorExpired):
                    await events.receive(1)
            with bus.subscribe(after=bus.position) as events:
                await store.append([event(2)])
                assert [each.ref.job_id for each in await events.receive(10)] == [2]
            assert bus.healthy


class TestPosition:
    async def test_moves_on_with_what_is_not_wanted(self, bus: EventBus, store: MemoryStore) -> None:
        with bus.subscribe(wanted=only(1)) as events:
            await store.append([event(2), event(3)])
            await published(bus, store)
            assert events.position == bus.position == 2
            await store.append([event(1), event(4)])
            await published(bus, store)
            assert events.position == 2
            await anext(events)
            assert events.position == 4

    async def test_i5_never_goes_back_and_is_where_to_begin_again(self, bus: EventBus, store: MemoryStore) -> None:
        wanted = EventFilter(job_ids=frozenset({1, 3}))
        dice = random.Random(5)
        positions, seen = [0], 0
        with bus.subscribe(wanted=wanted) as events:
            for _ in range(30):
                await store.append([each for _ in range(dice.randint(1, 60)) for each in flips(2, dice.randint(1, 3))])
                await published(bus, store)
                positions.append(events.position)
                for _ in range(dice.randint(0, 3)):
                    with anyio.move_on_after(0 if dice.random() < 0.3 else 1):
                        seen += len(await events.receive(dice.randint(1, 40)))
                    positions.append(events.position)
                    told = [each for each in (await store.read(0, limit=100_000)).events if wanted.matches(each)]
                    later = [number for number in sequences(told) if number > events.position]
                    assert len(told) - seen == len(later)
        assert positions == sorted(positions)

    async def test_a_cancelled_receive_loses_nothing(self, bus: EventBus, store: MemoryStore) -> None:
        for after in (None, 0):
            with bus.subscribe(after=after) as events:
                await store.append(flips(10))
                seen: list[JobEvent] = []
                for steps in range(16):
                    async with anyio.create_task_group() as tasks:

                        async def receive() -> None:
                            seen.extend(await events.receive(1))  # noqa: B023

                        tasks.start_soon(receive)
                        for _ in range(steps % 4):
                            await anyio.lowlevel.checkpoint()
                        tasks.cancel_scope.cancel()
                with anyio.move_on_after(0.05):
                    while True:
                        seen += await events.receive(3)
                told = sequences(seen)
                assert told == list(range(told[0], await store.head() + 1))


class TestLeaving:
    async def test_leaves_nothing_behind(self, bus: EventBus, store: MemoryStore) -> None:
        for number in range(3):
            with bus.subscribe(), bus.subscribe(wanted=only(1)), bus.subscribe(wanted=only(1)):
                await store.append([event(number + 1)])
        assert alive(Subscription) == []

    async def test_while_being_published_to(self, bus: EventBus, store: MemoryStore) -> None:
        async def take_one(job_id: int) -> None:
            with bus.subscribe(wanted=only(job_id)) as events:
                assert (await anext(events)).ref.job_id == job_id

        async with anyio.create_task_group() as tasks:
            for job_id in range(1, 101):
                tasks.start_soon(take_one, job_id)
                tasks.start_soon(take_one, job_id)
            await anyio.wait_all_tasks_blocked()
            await store.append([event(job_id) for job_id in range(1, 101)])


Outcome = tuple[int, EventFilter, list[int]]


async def follow_at_random(dice: random.Random, bus: EventBus, stages: list[anyio.Event]) -> Outcome:
    """Join somewhere at some time, read in gulps, stall, leave and join again until the end.

    :return: where it began, what it wanted, what it saw.
    """
    wanted = dice.choice([EVERYTHING, only(dice.randint(1, 6)), EventFilter(job_ids=frozenset({1, 4}))])
    await dice.choice(stages).wait()
    begin = place = dice.choice([0, bus.position, dice.randint(0, bus.position)])
    seen: list[int] = []
    with contextlib.suppress(anyio.EndOfStream):
        while True:
            with bus.subscribe(after=place, wanted=wanted) as events:
                for _ in range(dice.randint(1, 30)):
                    seen += sequences(await events.receive(dice.choice([1, 50, 2_000])))
                    if dice.random() < 0.2:
                        await dice.choice(stages).wait()
                place = events.position
    return begin, wanted, seen


async def write_at_random(dice: random.Random, store: EventStore, jobs: list[int], stages: list[anyio.Event]) -> None:
    for stage in stages:
        for _ in range(dice.randint(10, 20)):
            statuses = [RUNNING, JobStatus.INCOMPLETE, JobStatus.PENDING]
            await store.append([event(dice.choice(jobs), dice.choice(statuses)) for _ in range(dice.randint(1, 60))])
        stage.set()
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("seed", range(3))
async def test_i5_whoever_joins_leaves_and_stalls_sees_its_suffix(seed: int) -> None:
    """Writers and subscribers of all kinds at once; each must see the log behind its place, filtered, and no more."""
    outcomes: list[Outcome] = []

    async def follow(number: int) -> None:
        outcomes.append(await follow_at_random(random.Random(seed * 1000 + number), bus, stages))

    async with MemoryStore() as store, EventBus(store) as bus:
        stages = [anyio.Event() for _ in range(6)]
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for number in range(40):
                    tasks.start_soon(follow, number)
                async with anyio.create_task_group() as writers:
                    for first in (1, 3, 5):
                        dice = random.Random(seed * 1000 - first)
                        writers.start_soon(write_at_random, dice, store, [first, first + 1], stages)
                await published(bus, store)
                bus.close()
        log = (await store.read(0, limit=100_000)).events
    assert len(log) > 3 * BUFFER
    assert len(outcomes) == 40
    for begin, wanted, seen in outcomes:
        expected = sequences([each for each in log if wanted.matches(each)])
        assert seen == [number for number in expected if number > begin]


class FailingStore(OthersStore):
    """One whose log can't be read while ``failing``."""

    failing = False

    async def read(self, after: int, **options: Any) -> LogPage:
        await self.head()
        return await super().read(after, **options)

    async def head(self) -> int:
        if self.failing:
            raise StoreError("the disk is on fire")
        return await super().head()


class TestFailingStore:
    async def test_i4_the_bus_heals_with_its_store(self, caplog: pytest.LogCaptureFixture) -> None:
        async with FailingStore() as store, EventBus(store) as bus:
            with bus.subscribe() as events, anyio.fail_after(30):
                store.failing = True
                await store.append(flips(20))
                await anyio.wait_all_tasks_blocked()
                assert not bus.healthy
                assert caplog.text.count("the disk is on fire") == 1
                store.failing = False
                assert sequences(await events.receive(100)) == list(range(1, 21))
                assert bus.healthy

    async def test_a_reader_that_is_behind_is_told_and_can_go_on(self) -> None:
        async with FailingStore() as store, EventBus(store) as bus:
            await store.append(flips(5))
            await published(bus, store)
            with bus.subscribe(after=0) as events:
                store.failing = True
                with pytest.raises(StoreError):
                    await events.receive(1)
                store.failing = False
                assert sequences(await events.receive(9)) == [1, 2, 3, 4, 5]

    async def test_i4_survives_a_store_that_forgets_and_fails_at_once(self) -> None:
        """The store fails right after it said that the bus's place is gone."""

        class Store(OthersStore):
            failures = 1

            async def head(self) -> int:
                if self.failures and await super().head():
                    self.failures -= 1
                    raise StoreError("no more")
                return await super().head()

        async with Store(capacity=5) as store, EventBus(store) as bus:
            with bus.subscribe() as events, anyio.fail_after(30):
                await store.append(flips(20))
                with pytest.raises(CursorExpired):
                    await events.receive(1)
            assert store.failures == 0
            assert bus.position == 20
