"""What is announced: each completion once, to the targets that want it, from the time on that a target is there."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import httpx
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.bus.bus import EventBus
from airbyte_events.events import JobEvent, Signal, SignalKind
from airbyte_events.listener.forwarding.forwarder import Forwarder
from airbyte_events.listener.notify.announcer import Announcer
from airbyte_events.listener.notify.targets import notify_targets
from airbyte_events.store.base import EventStore
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.sqlite.store import SQLiteStore
from support.airbyte import client_of
from support.events import CONNECTION, event_of
from support.notify import table
from support.servers import ScriptedServer
from support.waiting import a_moment, in_background

pytestmark = pytest.mark.anyio

AIRBYTE = "https://airbyte.example.com"
WORKSPACE = "18dccc91-0ab1-4f72-9ed7-0b8fc27c5826"


@dataclass
class LogAndOutbox:
    """An instance's log and outbox."""

    store: EventStore
    http: httpx.AsyncClient
    url: str = AIRBYTE
    tables: list[Any] = field(default_factory=lambda: [table("all")])

    @asynccontextmanager
    async def announcing(self) -> AsyncIterator[None]:
        """The instance's leader announces, and has come to the end of the log."""
        lease = await self.store.acquire("sources/default", "me", 60)
        assert lease is not None
        async with EventBus(self.store) as bus, anyio.create_task_group() as tasks:
            connections = client_of(self.http, self.url)
            targets = notify_targets(self.tables, "default")
            announcer = Announcer("default", targets, AIRBYTE, bus, self.store, connections)
            tasks.start_soon(announcer.run, lease)
            await self.announced_up_to(await self.store.head())
            yield
            await self.announced_up_to(await self.store.head())
            tasks.cancel_scope.cancel()

    async def announced_up_to(self, sequence: int) -> None:
        with anyio.fail_after(30):
            while True:
                stored = await self.store.recall("notify/default") or ""
                found = re.fullmatch(r'{"position": "\w+-(\d+)", "since": {.*}}', stored)
                if found and int(found[1]) >= sequence and f'"position": "{self.store.epoch}-' in stored:
                    return
                await a_moment()

    async def complete(self, *job_ids: int, status: str = "succeeded", **values: Any) -> None:
        await self.store.append([replace(event_of(job_id, status), **values) for job_id in job_ids])

    async def announced(self, target: str = "all") -> list[int | None]:
        """The jobs that are in the outbox for a target, in order."""
        found = await self.store.deliveries(limit=1000)
        return [each.notification.job_id for each in reversed(found) if each.target == f"notify/{target}"]


@pytest.fixture
async def outbox(tmp_path: Path, http: httpx.AsyncClient) -> AsyncIterator[LogAndOutbox]:
    async with SQLiteStore(tmp_path / "events.db") as store:
        yield LogAndOutbox(store, http)


async def test_every_kind_of_completion_is(outbox: LogAndOutbox) -> None:
    async with outbox.announcing():
        for job_id, job_type in enumerate(("sync", "refresh", "reset", "clear", None), 1):
            await outbox.complete(job_id, job_type=job_type)
        await outbox.complete(6, status="failed")
        await outbox.complete(7, status="cancelled")
        await outbox.complete(8, status="running")
    assert await outbox.announced() == [1, 2, 3, 4, 5, 6, 7]
    assert await outbox.store.notifications() == []


async def test_the_body_is_the_events_envelope(outbox: LogAndOutbox) -> None:
    async with outbox.announcing():
        await outbox.complete(1, status="failed")
    (delivery,) = await outbox.store.deliveries()
    (event,) = (await outbox.store.read(0)).events
    assert json.loads(delivery.notification.body) == event.envelope(AIRBYTE)


async def test_history_is_not(outbox: LogAndOutbox) -> None:
    await outbox.complete(1)
    async with outbox.announcing():
        await outbox.complete(2)
        await outbox.complete(3, finished_at=utcnow() - timedelta(hours=25))
        await outbox.complete(4, finished_at=utcnow() - timedelta(hours=23))
        # By a clock that was set back since.
        await outbox.complete(5, finished_at=utcnow() + timedelta(hours=25))
    assert await outbox.announced() == [2, 4, 5]


async def test_what_came_while_nobody_announced_is_once(outbox: LogAndOutbox) -> None:
    async with outbox.announcing():
        await outbox.complete(1)
    stored = await outbox.store.recall("notify/default")
    await outbox.complete(2)
    async with outbox.announcing():
        pass
    # The process ended before it had stored how far it was.
    assert stored is not None
    await outbox.store.remember("notify/default", stored)
    async with outbox.announcing():
        await outbox.complete(3)
    assert await outbox.announced() == [1, 2, 3]


async def test_a_new_target_starts_now(outbox: LogAndOutbox) -> None:
    async with outbox.announcing():
        await outbox.complete(1)
    outbox.tables.append(table("new"))
    await outbox.complete(2)
    async with outbox.announcing():
        await outbox.complete(3)
    assert await outbox.announced("new") == [3]
    assert await outbox.announced() == [1, 2, 3]


async def test_one_that_was_removed_and_is_back_starts_now(outbox: LogAndOutbox) -> None:
    async with outbox.announcing():
        await outbox.complete(1)
    tables, outbox.tables = outbox.tables, []
    async with outbox.announcing():
        pass
    await outbox.complete(2)
    outbox.tables = tables
    async with outbox.announcing():
        await outbox.complete(3)
    assert await outbox.announced() == [1, 3]


@pytest.mark.parametrize(
    "value", ["", "x", "{}", '{"position": 7}', '{"position": "0-1", "since": {"notify/all": "x"}}']
)
async def test_a_position_that_is_none_is_the_newest(outbox: LogAndOutbox, value: str) -> None:
    await outbox.store.remember("notify/default", value)
    await outbox.complete(1)
    async with outbox.announcing():
        await outbox.complete(2)
    assert await outbox.announced() == [2]


async def test_a_log_that_was_replaced_or_cut_off_is_continued(
    outbox: LogAndOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    async with outbox.announcing():
        await outbox.complete(1)
    async with MemoryStore(capacity=3) as other:
        await other.remember("notify/default", await outbox.store.recall("notify/default") or "")
        outbox.store = other
        await outbox.complete(*range(10, 20))
        async with outbox.announcing():
            await outbox.complete(20)
        assert await outbox.announced() == [20]
    assert "completions may not have been announced: instance=default error=" in caplog.text


async def test_another_leader_ends_it(outbox: LogAndOutbox) -> None:
    lease = await outbox.store.acquire("sources/default", "me", 60)
    assert lease is not None
    async with EventBus(outbox.store) as bus:
        targets = notify_targets(outbox.tables)
        old = Announcer("default", targets, AIRBYTE, bus, outbox.store, client_of(outbox.http, AIRBYTE))
        await outbox.store.release(lease)
        await outbox.store.acquire("sources/default", "another", 60)
        with anyio.fail_after(30):
            await old.run(lease)
    assert await outbox.store.recall("notify/default") is None


async def test_a_thousand_connections_that_are_late_at_once_are_one_message(
    outbox: LogAndOutbox, server: ScriptedServer
) -> None:
    server.on("POST /chat", server.reply(body=b"ok"))
    outbox.tables = [table("chat", type="slack", url=f"{server.url}/chat", group_seconds=30, signals=("overdue",))]
    overdue = Signal(kind=SignalKind.OVERDUE, raised=True, message="no sync has succeeded")
    late = [
        JobEvent.of_signal(overdue, instance="default", connection_id=str(UUID(int=number)), observed_at=utcnow())
        for number in range(1000)
    ]
    async with in_background(Forwarder("default", notify_targets(outbox.tables), outbox.store).run):
        async with outbox.announcing():
            await outbox.store.append(late)
        with anyio.fail_after(30):
            while (await outbox.store.stats()).due:
                await a_moment()
    assert [request.json()["text"] for request in server.requests] == ["1,000 connections overdue"]
    assert "and 990 more" in server.requests[0].body.decode()


class TestFilters:
    async def test_by_what_the_event_has(self, outbox: LogAndOutbox) -> None:
        outbox.tables = [
            table("failed", statuses=("failed",)),
            table("clears", job_types=("clear",)),
            table("others", instances=("other",)),
            table("one", connections=(CONNECTION.upper(),)),
            table("two", connections=(WORKSPACE,)),
        ]
        async with outbox.announcing():
            await outbox.complete(1)
            await outbox.complete(2, status="failed")
            await outbox.complete(3, job_type="reset")
            await outbox.complete(4, connection_id=WORKSPACE)
        told = {name: await outbox.announced(name) for name in ("failed", "clears", "others", "one", "two")}
        assert told == {"failed": [2], "clears": [3], "others": [], "one": [1, 2, 3], "two": [4]}

    async def test_by_names_that_airbyte_has_and_not_those_of_webhooks(
        self, outbox: LogAndOutbox, server: ScriptedServer
    ) -> None:
        outbox.url = server.url
        connection = {"connectionId": CONNECTION, "name": "Orders, daily", "workspaceId": WORKSPACE}
        server.on(f"GET /api/public/v1/connections/{CONNECTION}", server.reply(body=json.dumps(connection).encode()))
        server.on(f"GET /api/public/v1/workspaces/{WORKSPACE}", server.reply(body=b'{"name": "Data"}'))
        outbox.tables = [
            table("name", connections=("orders, daily",)),
            table("other", connections=("forged",)),
            table("workspace", workspaces=("data",)),
            table("id", workspaces=(WORKSPACE,)),
            table("elsewhere", workspaces=("forged",)),
        ]
        forged = {"connection": "forged", "workspace": "forged"}
        async with outbox.announcing():
            await outbox.complete(1, 2, names=forged, workspace_id="forged", unconfirmed=frozenset({"names"}))
        told = {
            each.settings.name: await outbox.announced(each.settings.name)
            for each in notify_targets(outbox.tables).values()
        }
        assert told == {"name": [1, 2], "other": [], "workspace": [1, 2], "id": [1, 2], "elsewhere": []}
        assert len(server.requests) == 2

    @pytest.mark.parametrize("status", [403, 404, 500])
    async def test_a_name_that_is_not_known_is_announced(
        self, outbox: LogAndOutbox, server: ScriptedServer, status: int
    ) -> None:
        outbox.url = server.url
        server.on(f"GET /api/public/v1/connections/{CONNECTION}", server.reply(status))
        outbox.tables = [table("name", connections=("orders",)), table("id", connections=(WORKSPACE,))]
        async with outbox.announcing():
            await outbox.complete(1)
        assert (await outbox.announced("name"), await outbox.announced("id")) == ([1], [])
