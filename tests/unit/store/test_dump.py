"""A store that was dumped and restored is the store that it was, to everyone who follows it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from airbyte_events.errors import CursorExpired, StoreError
from airbyte_events.events import JobError
from airbyte_events.store.base import EventStore
from airbyte_events.store.dump import Record
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.reconcile import Verdict
from airbyte_events.store.records import Attempt, DeliveryState, Outcome
from airbyte_events.store.sqlite.store import SQLiteStore
from airbyte_events.store.verification import Verification

from .conftest import FAILED, NOON, SUCCEEDED, Kind, event, received, sequences

pytestmark = pytest.mark.anyio

ALL = 10**9


async def fill(store: EventStore) -> None:
    error = JobError(message='"\n☃', type=None, origin="source")
    await store.append([event(1), event(2), event(1, SUCCEEDED, records=3), event(3, instance="other"), event(4)])
    await store.append([event(2, FAILED, connection_id="c", names={"source": "s"}), event(1, FAILED)])
    await store.annotate([event(2, FAILED, error=error)])
    first = await received(store, bytes(range(256)), targets=["a", "b"])
    await received(store, b"pending")
    await received(store, b"", kind="rejected", job_id=None, outcome=Outcome.REJECTED, instance="other")
    # The newest is removed again: its ids are not given twice all the same.
    await store.receive(
        instance="default",
        body=b"gone",
        kind="test",
        job_id=None,
        outcome=Outcome.IGNORED,
        received_at=NOON - timedelta(hours=2),
        targets=["c"],
    )
    await store.settle({first: Outcome.CONFIRMED}, NOON + timedelta(hours=2))
    gone, due, _ = await store.due("default")
    await store.attempted([Attempt(delivery=gone.id, state=DeliveryState.DELIVERED, due_at=NOON)])
    await store.attempted([Attempt(delivery=due.id, state=DeliveryState.DEAD, due_at=NOON, fault="answered 404")])
    await store.remember("looked_at/default", "2024")
    await store.prune(NOON - timedelta(hours=1), keep=4)


async def dumped(store: EventStore) -> list[Record]:
    async with aclosing(store.dump()) as records:
        # As JSON, which is what a file has.
        return [json.loads(json.dumps(record)) async for record in records]


class these:  # noqa: N801  # it reads as the function that it stands for
    """Records, one after the other. Not a generator, which whoever stops early would have to close."""

    def __init__(self, records: list[Record]) -> None:
        self._records = iter(records)

    def __aiter__(self) -> these:
        return self

    async def __anext__(self) -> Record:
        await anyio.lowlevel.checkpoint()
        try:
            return next(self._records)
        except StopIteration:
            raise StopAsyncIteration from None


async def state_of(store: EventStore) -> list[object]:
    """All that can be seen of it."""
    return [
        store.epoch,
        await store.head(),
        (await store.read(2)).events,
        await store.jobs(),
        await store.notifications(),
        await store.pending("default"),
        await store.deliveries(),
        await store.due("default"),
        await store.recall("looked_at/default"),
    ]


def faults(records: list[Record]) -> list[str]:
    verification = Verification()
    for record in records:
        verification.take(record)
    verification.finish()
    return verification.faults


async def test_what_is_restored_is_the_same(kind: Kind, store: EventStore, tmp_path: Path) -> None:
    await fill(store)
    records = await dumped(store)
    assert faults(records) == []
    (tmp_path / "other").mkdir()
    async with kind.open(tmp_path / "other") as restored:
        await restored.restore(these(records))
        assert await state_of(restored) == await state_of(store)
        assert await dumped(restored) == records


async def test_i5_every_cursor_goes_on(kind: Kind, store: EventStore, tmp_path: Path) -> None:
    await fill(store)
    records = await dumped(store)
    (tmp_path / "other").mkdir()
    async with kind.open(tmp_path / "other") as restored:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(restored.changed, 5)
                await restored.restore(these(records))
        assert sequences((await restored.read(4)).events) == [5, 6]
        with pytest.raises(CursorExpired):
            await restored.read(1)
        # What is new follows, what was known is known, and no id is given twice.
        repeat, new, contradiction = (
            await restored.append([event(1, SUCCEEDED), event(9), event(2, SUCCEEDED)])
        ).verdicts
        assert (repeat, new, contradiction) == (Verdict.REPEAT, Verdict.NEW, Verdict.CONTRADICTION)
        assert await restored.head() == 7
        known = {each.id for each in await restored.notifications()}
        assert await received(restored, b"pending") in known
        assert records[0]["received"] > max(known)
        assert await received(restored, b"new", targets=["a"]) > records[0]["received"]
        newest, *others = [each.id for each in await restored.deliveries()]
        assert newest > records[0]["forwarded"] > max(others)


@pytest.mark.parametrize("other", ["memory", "sqlite"])
async def test_moves_to_another_kind_of_store_and_back(
    kind: Kind, store: EventStore, tmp_path: Path, other: str
) -> None:
    await fill(store)
    (tmp_path / "back").mkdir()
    between = MemoryStore() if other == "memory" else SQLiteStore(tmp_path / "between.db")
    async with between, kind.open(tmp_path / "back") as back:
        async with aclosing(store.dump()) as records:
            await between.restore(records)
        async with aclosing(between.dump()) as records:
            await back.restore(records)
        assert await state_of(back) == await state_of(between) == await state_of(store)


async def test_an_empty_one_is_restored_too(kind: Kind, store: EventStore, tmp_path: Path) -> None:
    records = await dumped(store)
    assert faults(records) == []
    (tmp_path / "other").mkdir()
    async with kind.open(tmp_path / "other") as restored:
        await restored.remember("api_token", "made when it was opened")
        await restored.restore(these(records))
        assert restored.epoch == store.epoch
        assert (await restored.append([event(1)])).verdicts == [Verdict.NEW]
        assert await restored.head() == 1


async def test_one_that_is_not_empty_is_left_alone(store: EventStore) -> None:
    await fill(store)
    records, before = await dumped(store), await state_of(store)
    with pytest.raises(StoreError, match="not empty"):
        await store.restore(these(records))
    assert await state_of(store) == before


SPOILT: dict[str, Record | None] = {
    "nothing": None,
    "no log": {"record": "value", "key": "x", "value": "1"},
    "newer": {"record": "log", "format": 99, "epoch": "ab", "head": 1, "received": 0, "forwarded": 0},
}


@pytest.mark.parametrize("spoilt", SPOILT)
async def test_what_is_no_dump_is_refused(store: EventStore, spoilt: str) -> None:
    epoch = store.epoch
    record = SPOILT[spoilt]
    with pytest.raises(StoreError, match="export"):
        await store.restore(these([] if record is None else [record]))
    assert store.epoch == epoch
    assert (await store.append([event(1)])).verdicts == [Verdict.NEW]


@pytest.mark.parametrize(
    ("kind_of_record", "change"),
    [
        ("event", {"data": "not JSON"}),
        ("event", {"data": {}}),
        ("job", {"sequence": "x"}),
        ("notification", {"body": "AAAA"}),
        ("notification", {"outcome": "unheard of"}),
        ("delivery", {"notification": 99}),
        ("delivery", {"due_at": None}),
        ("value", {"record": "unheard of"}),
    ],
)
async def test_a_record_that_can_not_be_read_leaves_the_store_empty(
    kind: Kind, store: EventStore, tmp_path: Path, kind_of_record: str, change: Record
) -> None:
    await fill(store)
    records = await dumped(store)
    spoilt = next(record for record in records if record["record"] == kind_of_record)
    spoilt.update(change)
    assert faults(records) != []
    (tmp_path / "other").mkdir()
    async with kind.open(tmp_path / "other") as restored:
        epoch = restored.epoch
        with pytest.raises(StoreError):
            await restored.restore(these(records))
        assert (restored.epoch, await restored.head(), await restored.notifications()) == (epoch, 0, [])
        assert (await restored.append([event(1)])).verdicts == [Verdict.NEW]
        assert sequences((await restored.read(0)).events) == [1]


async def test_one_who_is_cancelled_leaves_the_store_empty(kind: Kind, store: EventStore, tmp_path: Path) -> None:
    await fill(store)
    records = await dumped(store)

    async def stuck() -> AsyncGenerator[Record, None]:
        for record in records[:-1]:
            yield record
        scope.cancel()
        await anyio.sleep_forever()

    (tmp_path / "other").mkdir()
    async with kind.open(tmp_path / "other") as restored:
        with anyio.CancelScope() as scope:
            async with aclosing(stuck()) as some:
                await restored.restore(some)
        assert scope.cancelled_caught
        assert await restored.head() == 0
        await restored.restore(these(records))
        assert await state_of(restored) == await state_of(store)


async def test_compacting_keeps_everything(store: EventStore) -> None:
    await fill(store)
    before = await state_of(store)
    await store.compact()
    assert await state_of(store) == before
    assert await store.damage() == []


class TestVerification:
    """What is wrong is found."""

    @pytest.fixture
    async def records(self) -> list[Record]:
        async with MemoryStore() as store:
            await store.append([event(1), event(2), event(1, SUCCEEDED), event(2, FAILED), event(3)])
            await received(store, b"1", targets=["a"])
            await received(store, b"2")
            return await dumped(store)

    @staticmethod
    def find(records: list[Record], kind: str, number: int) -> Record:
        return next(
            each for each in records if each["record"] == kind and number in (each.get("sequence"), each.get("id"))
        )

    async def test_nothing_is_wrong(self, records: list[Record]) -> None:
        assert faults(records) == []

    async def test_a_gap(self, records: list[Record]) -> None:
        records.remove(self.find(records, "event", 2))
        assert faults(records) == ["events 2 to 2 are missing"]

    async def test_the_end_is_missing(self, records: list[Record]) -> None:
        records.remove(self.find(records, "event", 5))
        assert faults(records) == [
            "the state of job default/3 is that of event 5, which tells of another job",
            "events 5 to 5 are missing",
        ]

    async def test_a_double(self, records: list[Record]) -> None:
        records.insert(2, self.find(records, "event", 1))
        assert faults(records) == ["event 1 is there twice"]

    async def test_i2_a_second_end(self, records: list[Record]) -> None:
        self.find(records, "event", 1)["data"]["status"] = "failed"
        assert faults(records) == ["event 3 tells of job default/1 after its end, event 1"]

    async def test_a_state_that_the_log_does_not_tell(self, records: list[Record]) -> None:
        self.find(records, "job", 3)["data"]["status"] = "cancelled"
        assert faults(records) == [
            "the state of job default/1 is cancelled of event 3, and its newest event is 3, succeeded"
        ]

    async def test_a_state_that_is_not_there(self, records: list[Record]) -> None:
        records.remove(self.find(records, "job", 4))
        assert faults(records) == ["1 jobs have events and no state, such as default/2"]

    async def test_what_is_not_json(self, records: list[Record]) -> None:
        self.find(records, "event", 5)["data"] = "{"
        found = faults(records)
        assert found[0].startswith("event 5 can't be read")

    async def test_a_body_that_is_not_the_one_that_came(self, records: list[Record]) -> None:
        self.find(records, "notification", 2)["digest"] = "00" * 32
        assert faults(records) == [
            "notification 2 can't be read: its body is not the one that came: the digest differs"
        ]

    async def test_a_delivery_of_nothing(self, records: list[Record]) -> None:
        records.remove(self.find(records, "notification", 1))
        assert faults(records) == ["delivery 1 forwards notification 1, which is not there"]

    async def test_many_are_counted(self, records: list[Record]) -> None:
        verification = Verification()
        verification.take(records[0])
        for _ in range(500):
            verification.take({"record": "event", "sequence": 1, "data": {}})
        assert len(verification.faults) == 100
        assert verification.untold > 400
