"""Rows that can't be read: left out, counted, logged once; nobody who reads or writes fails for them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.bus.bus import EventBus
from airbyte_events.events import JobRef
from airbyte_events.store.postgres.store import PostgresStore
from airbyte_events.store.reconcile import Verdict
from airbyte_events.store.records import Attempt, DeliveryState, Outcome
from airbyte_events.store.rows import LOGGED
from airbyte_events.store.sqlite.store import SQLiteStore
from support.stored import FAILED, NOON, RUNNING, SUCCEEDED, event, received

from .conftest import Kind

pytestmark = pytest.mark.anyio

Spoil = Callable[[str], None]
"""Runs SQL on a store's tables, which are named ``{s}events`` and so on."""

DEEP = "[" * 3_000 + "]" * 3_000


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "sqlite":
        return Kind(lambda folder: SQLiteStore(folder / "events.db"), durable=True)
    url = request.getfixturevalue("postgres_url")
    return Kind(lambda folder: PostgresStore(f"{url}?schema={_schema(folder)}"), durable=True, shared=True)


def _schema(folder: Path) -> str:
    return "t" + hashlib.sha256(str(folder).encode()).hexdigest()[:24]


@pytest.fixture
def spoil(kind: Kind, tmp_path: Path, request: pytest.FixtureRequest) -> Spoil:
    def in_file(sql: str) -> None:
        with closing(sqlite3.connect(tmp_path / "events.db")) as connection, connection:
            for each in sql.split(";"):
                connection.execute(each.format(s=""))

    def in_database(sql: str) -> None:
        with psycopg.connect(request.getfixturevalue("postgres_url")) as connection:
            for each in sql.split(";"):
                connection.execute(each.format(s=f"{_schema(tmp_path)}."))

    return in_database if kind.shared else in_file


def ids(events: Any) -> list[int]:
    return [each.ref.job_id for each in events]


EVENT_FAULTS = {
    "no object": "data = '[]'",
    "nothing in it": "data = '{{}}'",
    "too deep": f"data = '{DEEP}'",
    "of another job": "data = replace(CAST(data AS text), '\"job_id\": 2', '\"job_id\": 3')",
    "of another status": 'data = replace(CAST(data AS text), \'"status": "running"\', \'"status": "succeeded"\')',
    "of year 9999": "data = replace(CAST(data AS text), '2024-01-01', '9999-12-31')",
    "without a time": "data = replace(CAST(data AS text), 'observed_at', 'x')",
    # What only SQLite stores.
    "no JSON": "data = '{{\"instance'",
    "no text": "data = x'ff00'",
    "a number": "data = 7",
    "no UTF-8": "data = CAST(x'22ff22' AS TEXT)",
}
SQLITE_ONLY = ("no JSON", "no text", "a number", "no UTF-8")


@pytest.fixture(params=list(EVENT_FAULTS))
def fault(request: pytest.FixtureRequest, kind: Kind) -> str:
    if kind.shared and request.param in SQLITE_ONLY:
        pytest.skip("PostgreSQL does not take it")
    sql = EVENT_FAULTS[request.param]
    return sql.replace("replace(", "(SELECT replace(").replace("')", "')::json)") if kind.shared else sql


class TestEvents:
    async def test_i5_the_others_are_read_by_all(
        self, kind: Kind, tmp_path: Path, spoil: Spoil, fault: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with kind.open(tmp_path) as store:
            await store.append([event(1), event(2), event(3)])
            spoil(f"UPDATE {{s}}events SET {fault} WHERE job_id = 2")
        async with kind.open(tmp_path) as store, EventBus(store) as bus:
            for _ in range(3):
                page = await store.read(0, limit=10)
                assert (ids(page.events), page.position) == ([1, 3], 3)
            page = await store.read(1, limit=1)
            assert (ids(page.events), page.position) == ([], 2)
            assert ids(await store.history(JobRef("default", 2))) == []
            with bus.subscribe(after=0) as events, anyio.fail_after(30):
                assert ids(await events.receive(10)) == [1, 3]
                await store.append([event(4)])
                assert ids(await events.receive(10)) == [4]
            assert bus.healthy
            assert store.unreadable == {"events": 1}
        assert caplog.text.count("table=events key=2") == 1

    async def test_i2_a_state_that_is_damaged_is_the_logs(
        self, kind: Kind, tmp_path: Path, spoil: Spoil, fault: str
    ) -> None:
        """A job ends once, also where only the log still knows that it has."""
        async with kind.open(tmp_path) as store:
            await store.append([event(1), event(2), event(3)])
            spoil(f"UPDATE {{s}}jobs SET {fault} WHERE job_id = 2")
            assert ids(await store.jobs()) == [3, 1]
            assert ids(await store.jobs(limit=2)) == [3, 1]
            states = await store.states([JobRef("default", number) for number in (1, 2, 3)])
            assert {ref.job_id: state.status for ref, state in states.items()} == {1: RUNNING, 2: RUNNING, 3: RUNNING}
            assert (await store.append([event(2)])).verdicts == [Verdict.REPEAT]
            await store.annotate([event(2, url="https://example.com")])
            assert (await store.append([event(2, SUCCEEDED), event(2, FAILED)])).verdicts == [
                Verdict.NEW,
                Verdict.CONTRADICTION,
            ]
            assert ids(await store.jobs()) == [2, 3, 1]
            assert (await store.states([JobRef("default", 2)]))[JobRef("default", 2)].previous_status is RUNNING

    async def test_i3_what_is_known_nowhere_is_learnt_again(
        self, kind: Kind, tmp_path: Path, spoil: Spoil, fault: str
    ) -> None:
        async with kind.open(tmp_path) as store:
            # Of the newest event it would be seen that the log is not what it was.
            await store.append([event(1), event(2), event(3)])
            spoil(f"UPDATE {{s}}jobs SET {fault} WHERE job_id = 2; UPDATE {{s}}events SET {fault} WHERE job_id = 2")
            assert ids((await store.states([JobRef("default", 2)])).values()) == []
            assert (await store.append([event(2, SUCCEEDED)])).verdicts == [Verdict.NEW]
            assert (await store.states([JobRef("default", 2)]))[JobRef("default", 2)].status is SUCCEEDED

    async def test_are_pruned_with_those_before(self, kind: Kind, tmp_path: Path, spoil: Spoil, fault: str) -> None:
        now = utcnow()
        async with kind.open(tmp_path) as store:
            await store.append([event(1), event(2), event(3), event(4, observed_at=now)])
            spoil(f"UPDATE {{s}}events SET {fault} WHERE job_id = 2")
            assert (await store.prune(now - timedelta(days=1), keep=10)).events == 3
            assert ids((await store.read(3)).events) == [4]


async def test_an_event_of_a_time_to_come_does_not_keep_those_before(kind: Kind, tmp_path: Path) -> None:
    """A clock that was years ahead when it was observed."""
    now = utcnow()
    async with kind.open(tmp_path) as store:
        await store.append([event(1), event(2, observed_at=now + timedelta(days=900)), event(3), event(4)])
        assert (await store.prune(now - timedelta(days=1), keep=10)).events == 4


async def test_many_are_counted_and_few_logged(
    kind: Kind, tmp_path: Path, spoil: Spoil, caplog: pytest.LogCaptureFixture
) -> None:
    async with kind.open(tmp_path) as store:
        await store.append([event(number) for number in range(1, 200)])
        spoil("UPDATE {s}events SET data = '[]' WHERE job_id < 199")
        for _ in range(2):
            page = await store.read(0, limit=150)
            assert (page.events, page.position) == ([], 150)
        assert store.unreadable == {"events": 150}
    assert caplog.text.count("skipped a row") == LOGGED
    assert caplog.text.count("no more of them are logged") == 1


NOTIFICATION_FAULTS = {
    "a job id below zero": "job_id = -1",
    "time": "received_at = 'infinity'",
    "outcome": "outcome = 'nonsense'",
    # What only SQLite stores.
    "no time": "received_at = 'nonsense'",
    "text for bytes": "body = 'text'",
    "bytes for text": "kind = x'ff'",
    "text for a number": "job_id = 'x'",
    "no UTF-8": "kind = CAST(x'ff' AS TEXT)",
}


@pytest.fixture(params=list(NOTIFICATION_FAULTS))
def inbox_fault(request: pytest.FixtureRequest, kind: Kind) -> str:
    if kind.shared and list(NOTIFICATION_FAULTS).index(request.param) > 2:
        pytest.skip("PostgreSQL does not take it")
    return NOTIFICATION_FAULTS[request.param]


class TestInbox:
    async def test_the_others_are_read(self, kind: Kind, tmp_path: Path, spoil: Spoil, inbox_fault: str) -> None:
        async with kind.open(tmp_path) as store:
            numbers = [await received(store, b"%d" % each, targets=["slack"]) for each in range(5)]
            await store.settle(dict.fromkeys(numbers, Outcome.CONFIRMED), NOON)
            spoil(f"UPDATE {{s}}notifications SET {inbox_fault} WHERE id = {numbers[3]}")
            rest = [number for number in reversed(numbers) if number != numbers[3]]
            assert [each.id for each in await store.notifications()] == rest
            assert [each.id for each in await store.notifications(limit=3)] == rest[:3]
            assert [each.notification.id for each in await store.deliveries(limit=4)] == rest
            (told,) = (await store.announcements({JobRef("default", 1): None})).values()
            assert sorted(each.id for each in told) == rest[::-1]
            assert (await store.stats()).notifications == 5
            assert store.unreadable == {"notifications": 1, "deliveries": 1}

    async def test_i4_one_that_waits_holds_nobody_up(
        self, kind: Kind, tmp_path: Path, spoil: Spoil, inbox_fault: str
    ) -> None:
        """It does not wait any more, and the next page begins behind it."""
        if "outcome" in inbox_fault:
            pytest.skip("then it does not wait")
        async with kind.open(tmp_path) as store:
            numbers = [await received(store, b"%d" % each, targets=["slack"]) for each in range(4)]
            spoil(f"UPDATE {{s}}notifications SET {inbox_fault} WHERE id <= {numbers[2]}")
            with anyio.fail_after(30):
                assert [each.id for each in await store.pending("default", limit=2)] == [numbers[3]]
                due = await store.due("default", limit=2)
                assert [each.notification.id for each in due] == [numbers[3]]
                await store.attempted([Attempt(delivery=due[0].id, state=DeliveryState.DELIVERED, due_at=NOON)])
                # Nobody asks again and again for what can't be sent.
                assert await store.due("default") == []
                assert await store.next_due("default") is None
            stats = await store.stats()
            assert (stats.pending, stats.due, stats.dead) == (1, 0, 3)

    async def test_others_are_pruned(self, kind: Kind, tmp_path: Path, spoil: Spoil, inbox_fault: str) -> None:
        async with kind.open(tmp_path) as store:
            numbers = [await received(store, b"%d" % each) for each in range(5)]
            await store.settle(dict.fromkeys(numbers, Outcome.CONFIRMED), NOON)
            spoil(f"UPDATE {{s}}notifications SET {inbox_fault} WHERE id = {numbers[1]}")
            assert (await store.prune(utcnow(), keep=10)).notifications >= 4


@pytest.mark.parametrize(
    "fault", ["due_at = '-infinity'", "attempts = -1", "due_at = ''", "attempts = 'x'", "dangling"]
)
async def test_i4_a_delivery_that_can_not_be_sent_is_given_up(
    kind: Kind, tmp_path: Path, spoil: Spoil, fault: str
) -> None:
    if kind.shared and fault not in ("due_at = '-infinity'", "attempts = -1"):
        pytest.skip("PostgreSQL does not take it")
    async with kind.open(tmp_path) as store:
        number = await received(store, b"{}", targets=["slack", "chat"])
        spoil(
            f"DELETE FROM {{s}}notifications WHERE id = {number}"
            if fault == "dangling"
            else f"UPDATE {{s}}deliveries SET {fault} WHERE target = 'slack'"
        )
        left = [] if fault == "dangling" else ["chat"]
        assert [each.target for each in await store.due("default")] == left
        stats = await store.stats()
        assert (stats.due, stats.dead) == (len(left), 2 - len(left))


async def test_values_and_watches_of_nonsense_stop_nobody(kind: Kind, tmp_path: Path, spoil: Spoil) -> None:
    async with kind.open(tmp_path) as store:
        await store.watch([JobRef("default", 1)], 60)
        spoil(f"UPDATE {{s}}watches SET since = '{'infinity' if kind.shared else 'nonsense'}'")
        assert list(await store.watched("default")) == [1]


async def test_i5_an_epoch_that_is_missing_is_made_anew(
    kind: Kind, tmp_path: Path, spoil: Spoil, request: pytest.FixtureRequest
) -> None:
    async with kind.open(tmp_path) as store:
        await store.append([event(1), event(2)])
        epoch = store.epoch
    spoil("DELETE FROM {s}log" if kind.shared else "DELETE FROM meta WHERE key = 'epoch'")
    async with kind.open(tmp_path) as store:
        assert store.epoch not in ("", epoch)
        assert (await store.append([event(3)])).verdicts == [Verdict.NEW]
        assert ids((await store.read(0)).events) == [1, 2, 3]
