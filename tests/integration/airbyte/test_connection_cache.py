"""What connections are called is requested once, and remembered."""

from __future__ import annotations

import logging

import anyio
import httpx
import pytest

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.airbyte.connection_cache import BURST
from airbyte_events.errors import AirbyteStatusError, ServerError
from airbyte_events.jobs import Connection
from support.airbyte import client_of, problem
from support.events import CONNECTION
from support.servers import ScriptedServer
from support.waiting import in_background, until

pytestmark = pytest.mark.anyio

WORKSPACE = "18dccc91-0ab1-4f72-9ed7-0b8fc27c5826"
API = "/api/public/v1"
ORDERS = b'{"name": "Orders", "workspaceId": "18dccc91-0ab1-4f72-9ed7-0b8fc27c5826"}'


@pytest.fixture
def client(http: httpx.AsyncClient, server: ScriptedServer) -> AirbyteClient:
    return client_of(http, server.url)


async def test_callers_share_one_request(client: AirbyteClient, server: ScriptedServer) -> None:
    server.on(f"GET {API}/connections/{CONNECTION}", server.reply(body=ORDERS))
    found = []

    async def find(needed: bool) -> None:
        found.append((await client.describe_connection(CONNECTION, needed=needed)).name)

    async with anyio.create_task_group() as tasks:
        for place in range(6):
            tasks.start_soon(find, place % 2 == 1)
    assert found == ["Orders"] * 6
    assert len(server.requests) == 1


async def test_a_caller_that_is_cancelled_leaves_the_request_to_the_next(
    client: AirbyteClient, server: ScriptedServer
) -> None:
    server.on(f"GET {API}/connections/{CONNECTION}", server.hang(), server.reply(body=ORDERS))
    async with in_background(client.describe_connection, CONNECTION):
        await until(lambda: server.requests)
    assert (await client.describe_connection(CONNECTION, needed=True)).name == "Orders"


async def test_workspaces_are_named_where_they_are_wanted(client: AirbyteClient, server: ScriptedServer) -> None:
    server.on(f"GET {API}/connections/{CONNECTION}", server.reply(body=ORDERS))
    server.on(f"GET {API}/workspaces/{WORKSPACE}", server.reply(body=b'{"name": "Data"}'))
    assert await client.describe_connection(CONNECTION) == Connection(name="Orders", workspace_id=WORKSPACE)
    for _ in range(2):
        found = await client.describe_connection(CONNECTION, workspace=True)
        assert found == Connection(name="Orders", workspace_id=WORKSPACE, workspace="Data")
    assert len(server.requests) == 2


async def test_a_workspace_that_cannot_be_read_costs_no_name(client: AirbyteClient, server: ScriptedServer) -> None:
    server.on(f"GET {API}/connections/{CONNECTION}", server.reply(body=ORDERS))
    server.on(f"GET {API}/workspaces/{WORKSPACE}", server.reply(403))
    found = await client.describe_connection(CONNECTION, needed=True, workspace=True)
    assert found == Connection(name="Orders", workspace_id=WORKSPACE)


async def test_what_is_needed_is_asked_for_again_after_a_failure_in_passing(
    client: AirbyteClient, server: ScriptedServer
) -> None:
    server.on(f"GET {API}/connections/{CONNECTION}", server.reply(500), server.reply(body=ORDERS))
    assert await client.describe_connection(CONNECTION) == Connection()
    assert await client.describe_connection(CONNECTION) == Connection()
    assert len(server.requests) == 1
    assert (await client.describe_connection(CONNECTION, needed=True)).name == "Orders"


async def test_a_workspace_is_requested_once(client: AirbyteClient, server: ScriptedServer) -> None:
    server.on(f"GET {API}/connections/{CONNECTION}", server.reply(500), server.reply(body=ORDERS))
    with pytest.raises(ServerError):
        await client.workspace_of(CONNECTION)
    assert [await client.workspace_of(CONNECTION) for _ in range(2)] == [WORKSPACE] * 2
    assert (await client.describe_connection(CONNECTION)).name == "Orders"
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [403, 404, 422])
async def test_a_refusal_of_a_workspace_is_remembered_unless_a_proxy_responded(
    client: AirbyteClient, server: ScriptedServer, status: int
) -> None:
    refusal = server.reply(status, problem(status, "refused"))
    server.on(f"GET {API}/connections/{CONNECTION}", server.reply(status, body=b"<html>"), refusal)
    with pytest.raises(AirbyteStatusError):
        await client.workspace_of(CONNECTION)
    assert [await client.workspace_of(CONNECTION) for _ in range(2)] == [None, None]
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_what_is_needed_and_cannot_be_read_is_not_asked_for_at_every_call(
    client: AirbyteClient, server: ScriptedServer, status: int
) -> None:
    server.on(f"GET {API}/connections/{CONNECTION}", server.reply(status))
    for _ in range(3):
        assert await client.describe_connection(CONNECTION, needed=True) == Connection()
    assert len(server.requests) == 1


async def test_a_refusal_is_logged_once(
    client: AirbyteClient, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [f"5f0c3d52-8f27-4a5e-9f7e-{number:012}" for number in range(3)]
    for id_ in ids:
        server.on(f"GET {API}/connections/{id_}", server.reply(403))
        await client.describe_connection(id_)
    warnings = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert f"could not read a name: path=/connections/{ids[0]}" in warnings[0]


async def test_requests_are_limited_and_what_is_needed_waits_for_its_turn(
    client: AirbyteClient, server: ScriptedServer
) -> None:
    ids = [f"5f0c3d52-8f27-4a5e-9f7e-{number:012}" for number in range(BURST + 30)]
    for id_ in ids:
        server.on(f"GET {API}/connections/{id_}", server.reply(body=ORDERS))
    found = [await client.describe_connection(id_) for id_ in ids * 2]
    assert BURST <= len(server.requests) < BURST + 20
    assert found.count(Connection()) >= 20
    assert (await client.describe_connection(ids[-1], needed=True)).name == "Orders"


async def test_no_id_becomes_another_path(client: AirbyteClient, server: ScriptedServer) -> None:
    for id_ in ("../jobs", "", "a/b", "a?b"):
        assert await client.describe_connection(id_, needed=True) == Connection()
        assert await client.workspace_of(id_) is None
    assert server.requests == []
