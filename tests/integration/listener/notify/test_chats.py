"""Messages to chats: one for each cause, however many jobs it has, and at a pace."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import DeliveryState
from support.airbyte import client_of
from support.events import CONNECTION
from support.notify import Outbox, table
from support.servers import ScriptedServer
from support.waiting import a_moment

pytestmark = pytest.mark.anyio

DELIVERED, DEAD = DeliveryState.DELIVERED, DeliveryState.DEAD
WORKSPACE = "18dccc91-0ab1-4f72-9ed7-0b8fc27c5826"


def slack(server: ScriptedServer, **values: Any) -> Any:
    return table("chat", url=f"{server.url}/chat", type="slack", **{"group_seconds": 0.1} | values)


@pytest.fixture
async def outbox(server: ScriptedServer) -> AsyncIterator[Outbox]:
    server.on("POST /chat", server.reply(body=b"ok"))
    async with MemoryStore(capacity=20_000) as store:
        yield Outbox(server, store, [slack(server)])


def titles(outbox: Outbox) -> list[str]:
    return [request.json()["text"] for request in outbox.server.requests]


async def test_a_burst_of_one_cause_is_one_message(outbox: Outbox) -> None:
    for number in range(40):
        await outbox.put_event(reason=f"Connection to db{number}:5432 refused", names={"connection": f"c{number}"})
    async with outbox.sending():
        await outbox.until(DELIVERED, 40)
    assert titles(outbox) == ["40 jobs failed"]
    body = outbox.server.requests[0].body.decode()
    assert "c0: sync 1" in body
    assert "and 30 more" in body


async def test_thousands_are_one_message(outbox: Outbox) -> None:
    for _ in range(2500):
        await outbox.put_event(reason="The database is down")
    async with outbox.sending():
        await outbox.until(DELIVERED, 1)
        with anyio.fail_after(30):
            while (await outbox.store.stats()).due:
                await a_moment()
    assert titles(outbox) == ["2,500 jobs failed"]


async def test_thousands_of_causes_are_a_few(outbox: Outbox) -> None:
    for number in range(600):
        await outbox.put_event(reason="reason " + "x" * number)
    async with outbox.sending():
        with anyio.fail_after(30):
            while (await outbox.store.stats()).due:
                await a_moment()
    assert titles(outbox) == ["Sync failed: " + CONNECTION] * 6 + ["594 jobs completed, with various results"]


async def test_each_state_is_a_message_of_its_own(outbox: Outbox) -> None:
    for status in ("succeeded", "failed", "cancelled", "succeeded"):
        await outbox.put_event(status)
    async with outbox.sending():
        await outbox.until(DELIVERED, 4)
    assert titles(outbox) == ["2 jobs succeeded", f"Sync failed: {CONNECTION}", f"Sync cancelled: {CONNECTION}"]


async def test_what_comes_between_two_turns_waits_for_the_next(outbox: Outbox) -> None:
    outbox.tables = [slack(outbox.server, group_seconds=0.5)]
    await outbox.put_event("cancelled")
    async with outbox.sending():
        await outbox.until(DELIVERED, 1)
        for _ in range(5):
            await outbox.put_event()
        await outbox.until(DELIVERED, 6)
    assert titles(outbox) == [f"Sync cancelled: {CONNECTION}", "5 jobs failed"]


@pytest.mark.parametrize("status", [429, 500])
async def test_a_target_that_fails_gets_all_later(outbox: Outbox, status: int) -> None:
    outbox.server.on("POST /late", outbox.server.reply(status), outbox.server.reply())
    outbox.tables = [table("chat", url=f"{outbox.server.url}/late", type="slack", group_seconds=0.1)]
    for _ in range(5):
        await outbox.put_event()
    async with outbox.sending():
        delivered = await outbox.until(DELIVERED, 5)
    assert titles(outbox) == ["5 jobs failed"] * 2
    assert {each.attempts for each in delivered} == {2}


async def test_retry_after_is_obeyed_by_all_that_goes_there(outbox: Outbox) -> None:
    outbox.server.on("POST /late", outbox.server.reply(429, headers={"Retry-After": "3000"}))
    outbox.tables = [table("chat", url=f"{outbox.server.url}/late", type="slack", group_seconds=0.1)]
    began = utcnow()
    for _ in range(5):
        await outbox.put_event()
    async with outbox.sending():
        await outbox.until_requested(1)
        with anyio.fail_after(30):
            while any(not each.attempts for each in await outbox.store.deliveries()):
                await a_moment()
        await outbox.put_event("succeeded")
        await anyio.wait_all_tasks_blocked()
    assert titles(outbox) == ["5 jobs failed"]
    tried = [each for each in await outbox.store.deliveries() if each.attempts]
    assert [each.due_at - began >= timedelta(seconds=3000) for each in tried] == [True] * 5


async def test_what_is_overdue_is_given_up_and_not_the_young(outbox: Outbox) -> None:
    outbox.server.on("POST /late", outbox.server.reply(500), outbox.server.reply())
    outbox.tables = [table("chat", url=f"{outbox.server.url}/late", type="slack", group_seconds=0.1)]
    await outbox.put_event(age=25)
    await outbox.put_event()
    async with outbox.sending():
        (dead,) = await outbox.until(DEAD, 1)
        (delivered,) = await outbox.until(DELIVERED, 1)
    assert (dead.notification.job_id, delivered.notification.job_id) == (1, 2)
    assert titles(outbox) == ["2 jobs failed", f"Sync failed: {CONNECTION}"]


async def test_after_the_clock_was_set_back_all_is_sent_once(outbox: Outbox) -> None:
    await outbox.put_event("succeeded", age=-1 / 3600)
    await outbox.put_event()
    async with outbox.sending():
        await outbox.until(DELIVERED, 2)
        await anyio.wait_all_tasks_blocked()
    assert titles(outbox) == [f"Sync failed: {CONNECTION}", f"Sync succeeded: {CONNECTION}"]


async def test_a_body_that_is_no_event_is_dead_and_alone(outbox: Outbox) -> None:
    await outbox.put_body('{"data": {}}')
    await outbox.put_event()
    async with outbox.sending():
        (dead,) = await outbox.until(DEAD, 1)
        await outbox.until(DELIVERED, 1)
    assert dead.fault == "not sent, as its body is not an event"
    assert titles(outbox) == [f"Sync failed: {CONNECTION}"]


class TestNames:
    async def test_are_airbytes(self, outbox: Outbox, http: httpx.AsyncClient, server: ScriptedServer) -> None:
        connection = {"name": "Orders", "workspaceId": WORKSPACE}
        server.on(f"GET /api/public/v1/connections/{CONNECTION}", server.reply(body=json.dumps(connection).encode()))
        server.on(f"GET /api/public/v1/workspaces/{WORKSPACE}", server.reply(body=b'{"name": "Data"}'))
        outbox.connections = client_of(http, server.url)
        await outbox.put_event()
        async with outbox.sending():
            await outbox.until(DELIVERED, 1)
        body = server.requests[-1].body.decode()
        assert json.loads(body)["text"] == "Sync failed: Orders"
        assert f"https://airbyte.example.com/workspaces/{WORKSPACE}/connections/{CONNECTION}/timeline?" in body
        assert server.count("GET .*") == 2

    async def test_are_not_needed(self, outbox: Outbox, http: httpx.AsyncClient, server: ScriptedServer) -> None:
        server.on(f"GET /api/public/v1/connections/{CONNECTION}", server.reply(404))
        outbox.connections = client_of(http, server.url)
        await outbox.put_event()
        async with outbox.sending():
            await outbox.until(DELIVERED, 1)
        assert server.requests[-1].json()["text"] == f"Sync failed: {CONNECTION}"
