"""Requests and the proxies of the environment, over sockets."""

from __future__ import annotations

import os

import anyio
import pytest

from airbyte_events._utils.proxies import async_client, blocking_client
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _through(monkeypatch: pytest.MonkeyPatch, server: ScriptedServer) -> None:
    """``server`` is the proxy, whatever is asked for."""
    for name in [each for each in os.environ if each.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HTTP_PROXY", server.url)
    server.on("GET /", server.reply(200, {"through": "the proxy"}))


def hosts(server: ScriptedServer) -> list[str]:
    return [request.headers["host"] for request in server.requests]


async def test_a_request_goes_through_the_proxy(server: ScriptedServer) -> None:
    async with async_client() as http:
        assert (await http.get("http://airbyte.invalid/")).json() == {"through": "the proxy"}
    assert hosts(server) == ["airbyte.invalid"]


@pytest.mark.parametrize("no_proxy", ["127.0.0.0/8", "localhost,::1/128,127.0.0.1", "*"])
async def test_what_no_proxy_holds_does_not(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, no_proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    async with async_client() as http:
        assert (await http.get(f"{server.url}/")).is_success
    assert hosts(server) == [server.url.removeprefix("http://")]


async def test_a_proxy_that_was_given_comes_first_and_no_proxy_holds_for_it(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with async_client(given=[("http://", server.url)]) as http:
        assert (await http.get("http://airbyte.invalid/")).is_success
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    async with async_client(given=[("all://", "http://127.0.0.1:9")]) as http:
        assert (await http.get(f"{server.url}/")).is_success
    assert hosts(server) == ["airbyte.invalid", server.url.removeprefix("http://")]


async def test_code_that_blocks_goes_the_same_ways(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")

    def ask() -> None:
        with blocking_client(given=[("https://", "http://127.0.0.1:9")]) as http:
            assert http.get("http://airbyte.invalid/").is_success

    await anyio.to_thread.run_sync(ask)
    assert hosts(server) == ["airbyte.invalid"]
