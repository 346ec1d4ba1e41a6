"""Headers for a gateway: they go to the origin of the API, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
import httpx
import pytest

from airbyte_events.airbyte import Credentials
from airbyte_events.airbyte.gateway import parse_headers
from airbyte_events.errors import AirbyteError, AirbyteProtocolError
from airbyte_events_provider.connections.settings import AirbyteSettings
from airbyte_events_provider.hooks.sdk import open_sdk
from support.airbyte import client_of
from support.servers import ScriptedServer, serve

pytestmark = pytest.mark.anyio

BASE = "/api/public/v1"
TOKEN = f"{BASE}/applications/token"
VALUE = "canary-for-the-gateway"
GATEWAY = {"CF-Access-Client-Secret": VALUE}
ISSUED = ScriptedServer.reply(200, {"access_token": "token", "expires_in": 900})
CREDENTIALS = Credentials(client_id="id", client_secret="secret-of-the-client")


def sent(server: ScriptedServer) -> dict[str, str | None]:
    """The value by path."""
    return {each.path: each.headers.get("cf-access-client-secret") for each in server.requests}


@pytest.fixture
async def other(anyio_backend: str) -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    async with serve(scripted):
        yield scripted


async def test_every_request_to_the_api_has_them(http: httpx.AsyncClient, server: ScriptedServer) -> None:
    server.on(f"POST {TOKEN}", ISSUED)
    server.on(f"GET {BASE}/jobs", ScriptedServer.reply(200, {"data": []}))
    server.on(f"GET {BASE}/health", ScriptedServer.reply(200))
    airbyte = client_of(http, server.url, credentials=CREDENTIALS, headers=GATEWAY)
    await airbyte.health()
    await airbyte.list_jobs()
    await airbyte.failure(1)
    assert len(sent(server)) == 4
    assert set(sent(server).values()) == {VALUE}
    assert server.requests[-1].headers["authorization"] == "Bearer token"


async def test_a_token_endpoint_elsewhere_has_none(
    http: httpx.AsyncClient, server: ScriptedServer, other: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.on("POST /token", ISSUED)
    server.on(f"GET {BASE}/jobs", ScriptedServer.reply(200, {"data": []}))
    airbyte = client_of(http, server.url, credentials=CREDENTIALS, headers=GATEWAY)
    # A setting that names another server without TLS is refused.
    airbyte._token_url = f"{other.url}/token"
    await airbyte.list_jobs()
    assert sent(other) == {"/token": None}
    assert sent(server) == {f"{BASE}/jobs": VALUE}


async def test_no_redirect_is_followed(http: httpx.AsyncClient, server: ScriptedServer, other: ScriptedServer) -> None:
    server.on(f"GET {BASE}/jobs", ScriptedServer.reply(302, headers={"Location": f"{other.url}/login"}))
    with pytest.raises(AirbyteProtocolError, match="a login: let requests"):
        await client_of(http, server.url, headers=GATEWAY).list_jobs()
    assert other.requests == []


async def test_no_message_has_them(http: httpx.AsyncClient, server: ScriptedServer) -> None:
    server.on(f"GET {BASE}/jobs", ScriptedServer.reply(403, {"message": f"{VALUE} and Basic dXNlcjpwYXNz"}))
    airbyte = client_of(http, server.url, headers=GATEWAY | {"Authorization": "Basic dXNlcjpwYXNz"})
    with pytest.raises(AirbyteError) as caught:
        await airbyte.list_jobs()
    assert str(caught.value).endswith("403: *** and ***")
    assert VALUE not in repr(airbyte)


async def test_changed_ones_are_used(http: httpx.AsyncClient, server: ScriptedServer) -> None:
    server.on(f"GET {BASE}/jobs", ScriptedServer.reply(200, {"data": []}))
    airbyte = client_of(http, server.url, headers=GATEWAY)
    new = {"CF-Access-Client-Secret": "another"}
    assert [airbyte.authenticate(None, each) for each in (GATEWAY, new, new)] == [False, True, False]
    await airbyte.list_jobs()
    assert sent(server) == {f"{BASE}/jobs": "another"}


async def test_airbytes_sdk_sends_them_to_the_api_alone(server: ScriptedServer, other: ScriptedServer) -> None:
    location = {"Location": f"{other.url}/elsewhere"}
    server.on(f"GET {BASE}/jobs", ScriptedServer.reply(302, headers=location))
    other.on("GET /elsewhere", ScriptedServer.reply(200, {"data": []}))
    settings = AirbyteSettings(conn_id="c", url=f"{server.url}{BASE}", headers=tuple(GATEWAY.items()))

    def call() -> None:
        from airbyte_api.api import ListJobsRequest

        sdk: Any = open_sdk(settings)
        sdk.jobs.list_jobs(request=ListJobsRequest())
        sdk.sdk_configuration.client.close()

    await anyio.to_thread.run_sync(call)
    assert (sent(server), sent(other)) == ({f"{BASE}/jobs": VALUE}, {"/elsewhere": None})


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("no colon", "not of the form Name: value"),
        ("a name: x", "not of the form Name: value"),
        ("X-Empty:", "the header X-Empty has no value"),
        (f"X-Broken: {VALUE}\n{VALUE}", "the header X-Broken has no value, or"),
        (f"Host: {VALUE}", "the header Host can't be set"),
        (f"authorization: {VALUE}", "use another header, such as Proxy-Authorization"),
        ("X-Twice: 1", "the header X-Twice is there twice"),
    ],
)
async def test_wrong_ones_are_named_without_their_value(line: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        parse_headers(["x-twice: 0", line], authorized=True)
    assert VALUE not in str(caught.value)
