"""Connections by name: one list for all callers, and candidates where a name is unknown or ambiguous."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest

from airbyte_events.airbyte.connection_search import MOST_CANDIDATES, ConnectionSearch
from airbyte_events.errors import NotSent, UnknownConnection
from airbyte_events.simulator import Script, Simulator, serve_simulator
from support.airbyte import client_of
from support.waiting import in_background

pytestmark = pytest.mark.anyio

WORKSPACE, ELSEWHERE = str(uuid4()), str(uuid4())


class Lists:
    """What Airbyte would list, and how often it was asked."""

    def __init__(self) -> None:
        self.connections: list[dict[str, Any]] = []
        self.asked: list[str | None] = []
        self.held: anyio.Event | None = None

    def add(self, *names: object, workspace_id: str = WORKSPACE, **fields: Any) -> list[str]:
        made = [{"connectionId": str(uuid4()), "name": name, "workspaceId": workspace_id, **fields} for name in names]
        self.connections += made
        return [one["connectionId"] for one in made]

    async def __call__(self, workspace_id: str | None) -> list[dict[str, Any]]:
        self.asked.append(workspace_id)
        if self.held is not None:
            await self.held.wait()
        return [one for one in self.connections if workspace_id in (None, one.get("workspaceId"))]


@pytest.fixture
def lists() -> Lists:
    return Lists()


@pytest.fixture
def names(lists: Lists) -> ConnectionSearch:
    return ConnectionSearch(lists)


async def refusal(names: ConnectionSearch, name: str, workspace_id: str | None = None) -> str:
    with pytest.raises(UnknownConnection) as info:
        await names.find(name, workspace_id)
    return str(info.value)


async def test_many_callers_share_one_list(lists: Lists, names: ConnectionSearch) -> None:
    ids, found, lists.held = lists.add(*(f"connection {n}" for n in range(50))), {}, anyio.Event()

    async def find(number: int) -> None:
        found[number] = await names.find(f"connection {number}")

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(find, number)
        await anyio.wait_all_tasks_blocked()
        lists.held.set()
    assert [found[number] for number in range(50)] == ids
    assert len(lists.asked) == 1


async def test_a_caller_that_is_cancelled_leaves_the_list_to_the_next(lists: Lists, names: ConnectionSearch) -> None:
    (id_,), lists.held = lists.add("orders"), anyio.Event()
    async with in_background(names.find, "orders"):
        await anyio.wait_all_tasks_blocked()
    lists.held.set()
    assert await names.find("orders") == id_


async def test_names_are_of_a_workspace(lists: Lists, names: ConnectionSearch) -> None:
    (here,), (there,) = lists.add("orders"), lists.add("orders", workspace_id=ELSEWHERE)
    assert await names.find("orders", WORKSPACE) == here
    assert await names.find("orders", ELSEWHERE.upper()) == there
    message = await refusal(names, "orders")
    assert message.startswith("Airbyte has 2 connections named 'orders': write the id of one, or its workspace's id: ")
    assert f"{here} (workspace {WORKSPACE}), {there} (workspace {ELSEWHERE})" in message


async def test_the_closest_names_come_first(lists: Lists, names: ConnectionSearch) -> None:
    lists.add(*(f"alpha {number}" for number in range(200)), "Orders EU", "orders us")
    message = await refusal(names, "ORDERS EU")
    assert message.startswith("Airbyte has no connection named 'ORDERS EU': the closest are 'Orders EU', 'orders us', ")
    assert message.count("alpha") == MOST_CANDIDATES - 2
    assert message.endswith(f" and {202 - MOST_CANDIDATES} more")


async def test_many_of_one_name_are_not_all_listed(lists: Lists, names: ConnectionSearch) -> None:
    lists.add(*["orders"] * 500)
    message = await refusal(names, "orders")
    assert message.count("workspace ") == MOST_CANDIDATES
    assert message.endswith(f" and {500 - MOST_CANDIDATES} more")


async def test_nothing_to_choose_from(lists: Lists, names: ConnectionSearch) -> None:
    assert "lists no connection: may the client read the workspace?" in await refusal(names, "orders", WORKSPACE)
    assert lists.asked == [WORKSPACE]


async def test_odd_fields_are_no_connection_and_no_control_characters(lists: Lists, names: ConnectionSearch) -> None:
    lists.add(None, 7, [], "x\n\x1b[31m" + "y" * 1000)
    lists.connections += [{"workspaceId": WORKSPACE}, {"connectionId": {}, "name": "orders"}]
    lists.add("orders", status="deprecated")
    message = await refusal(names, "orders")
    assert "x??[31m" in message
    assert len(message) < 200
    assert message.isprintable()


async def test_workspaces_are_kept_within_bounds(lists: Lists, names: ConnectionSearch) -> None:
    lists.add("orders")
    for _ in range(100):
        await refusal(names, "orders", str(uuid4()))
    assert len(names._lists) < 20


class TestAirbyte:
    @pytest.fixture
    def anyio_backend(self) -> str:
        """The simulator's."""
        return "asyncio"

    async def test_lists_are_paged_and_limited_to_the_workspace(self) -> None:
        simulator = Simulator()
        other = simulator.world.add_workspace("other")
        for number in range(150):
            simulator.world.add_connection(Script.hanging(), name=f"connection {number}")
        twin = simulator.world.add_connection(Script.hanging(), name="connection 7", workspace_id=other.id)
        async with serve_simulator(simulator) as sim, httpx.AsyncClient() as http:
            airbyte = client_of(http, sim.url)
            found = await airbyte.find_connection("connection 149")
            assert simulator.world.connections[found].name == "connection 149"
            assert sim.traffic.counts["GET /connections"] == 2
            assert await airbyte.find_connection("connection 7", other.id) == twin.id
            assert sim.traffic.counts["GET /connections"] == 3

    async def test_no_answer_is_no_unknown_name(self) -> None:
        async with httpx.AsyncClient() as http:
            with pytest.raises(NotSent):
                await client_of(http, "http://127.0.0.1:1").find_connection("orders")
