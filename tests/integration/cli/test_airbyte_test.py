"""Airbyte sends its own test, and the commands say where the way breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from airbyte_events.airbyte import AirbyteClient, Credentials
from airbyte_events.cli.webhooks.airbyte_test import prove_by_airbyte
from airbyte_events.cli.webhooks.probe import Proof
from airbyte_events.feed.client import FeedClient
from airbyte_events.listener.assembly import assemble
from airbyte_events.listener.http.probes import MOST, Probes
from airbyte_events.simulator import Fault, Simulator, serve_simulator
from airbyte_events.web.server import serving
from support.listener import API_TOKEN, CLIENT_SECRET, WEBHOOK_TOKEN, bearer, instance_of, settings_of
from support.servers import Program, Request, reply, serve

pytestmark = pytest.mark.anyio

WHERE = "https://events.example.com/…"


@dataclass(kw_only=True)
class Scene:
    """A simulated Airbyte, a listener, and clients of both."""

    sim: Simulator
    url: str
    http: httpx.AsyncClient
    token: str | None = API_TOKEN

    def receiver(self, *, instance: str = "default", token: str = WEBHOOK_TOKEN) -> str:
        return f"{self.url}/webhooks/{instance}/{token}"

    async def prove(self, url: str | None = None, *, listener: str | None = None) -> Proof:
        credentials = Credentials(client_id="client", client_secret=CLIENT_SECRET)
        airbyte = AirbyteClient(self.http, self.sim.url, credentials=credentials, attempts=1)
        feed = FeedClient(self.http, listener or self.url, self.token)
        proof = await prove_by_airbyte(airbyte, url or self.receiver(), WHERE, feed)
        for secret in (CLIENT_SECRET, API_TOKEN, WEBHOOK_TOKEN):
            assert secret not in proof.text + proof.remedy
        return proof

    async def fault(self, *args: Any, **values: Any) -> str:
        proof = await self.prove(*args, **values)
        assert proof.remedy
        assert proof.by_airbyte
        return proof.text

    async def inbox(self) -> list[dict[str, Any]]:
        headers = bearer(API_TOKEN)
        listed = (await self.http.get(f"{self.url}/v1/notifications", headers=headers)).json()["notifications"]
        assert isinstance(listed, list)
        return listed


@asynccontextmanager
async def staged(**settings: Any) -> AsyncIterator[Scene]:
    simulator = Simulator(client_id="client", client_secret=CLIENT_SECRET)
    async with serve_simulator(simulator) as sim, httpx.AsyncClient() as http:
        given = settings_of(instance_of(sim.url, secret=CLIENT_SECRET), **settings)
        async with assemble(given) as listener, serving(listener.app) as url:
            yield Scene(sim=sim, url=url, http=http)
            listener.drain()


@pytest.fixture
async def scene(anyio_backend: str) -> AsyncIterator[Scene]:
    async with staged() as scene:
        yield scene


@dataclass
class Proxy(Program):
    """In front of a listener: ``pass_on`` makes its response of a request."""

    pass_on: Callable[[Request], Any] = lambda request: None

    async def answer(self, request: Request, stream: Any) -> None:
        status = await self.pass_on(request)
        await reply(stream, status, {"event": 1})


def target(request: Request) -> str:
    return f"{request.path}?{urlencode(request.query, doseq=True)}"


@asynccontextmanager
async def proxied(pass_on: Callable[[Request], Any]) -> AsyncIterator[str]:
    proxy = Proxy(pass_on=pass_on)
    async with serve(proxy):
        yield proxy.url


async def test_it_arrives_whole(scene: Scene) -> None:
    proof = await scene.prove()
    (stored,) = await scene.inbox()
    assert (stored["kind"], stored["outcome"]) == ("test", "ignored")
    assert (proof.remedy, proof.by_airbyte) == ("", True)
    assert f"is notification {stored['id']} of the listener {scene.url}" in proof.text
    assert "arrived whole" in proof.text


async def test_again_it_is_the_same_notification_and_arrives_too(scene: Scene) -> None:
    await scene.prove()
    assert not (await scene.prove()).remedy


async def test_a_wrong_token_is_told_apart(scene: Scene) -> None:
    text = await scene.fault(scene.receiver(token="x" * 30))
    assert "did not arrive: the host is this listener, and the token in the URL is not one of its" in text


async def test_a_wrong_instance_is_told_apart(scene: Scene) -> None:
    assert "the host is this listener, and it has no Airbyte of the name" in await scene.fault(
        scene.receiver(instance="other")
    )


async def test_an_address_that_may_not_send_is_told_apart() -> None:
    async with staged(webhook_allow=["192.0.2.0/24"]) as scene:
        assert "accepts no webhooks from the address" in await scene.fault()


async def test_a_host_that_airbyte_can_not_reach(scene: Scene) -> None:
    text = await scene.fault(f"http://127.0.0.1:9/webhooks/default/{WEBHOOK_TOKEN}")
    assert "did not arrive: Airbyte can't reach the host: " in text
    assert "one posted from here does not, either: no response" in text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "a proxy or another server there responded with an error"),
        (200, "got a success, and did not arrive at the listener {url}"),
    ],
)
async def test_a_server_that_answers_instead_of_the_listener(scene: Scene, status: int, words: str) -> None:
    async def answer(request: Request) -> int:
        return status

    async with proxied(answer) as url:
        text = await scene.fault(f"{url}/webhooks/default/{WEBHOOK_TOKEN}")
    assert words.format(url=scene.url) in text


@pytest.mark.parametrize(
    ("body", "words"), [(b"", "it reached the listener without its body"), (b"<html>", "with another body")]
)
async def test_a_proxy_that_loses_or_changes_the_body(scene: Scene, body: bytes, words: str) -> None:
    async def change(request: Request) -> int:
        return (await scene.http.post(f"{scene.url}{target(request)}", content=body)).status_code

    async with proxied(change) as url:
        assert words in await scene.fault(f"{url}/webhooks/default/{WEBHOOK_TOKEN}")


async def test_a_proxy_that_loses_the_response(scene: Scene) -> None:
    async def lose(request: Request) -> int:
        await scene.http.post(f"{scene.url}{target(request)}", content=request.body)
        return 502

    async with proxied(lose) as url:
        text = await scene.fault(f"{url}/webhooks/default/{WEBHOOK_TOKEN}")
    assert "arrived whole" in text
    assert "but Airbyte got no success" in text


async def test_another_listener_of_the_store_receives_it(scene: Scene) -> None:
    async def elsewhere(request: Request) -> int:
        # What another process received is in the inbox, and not among this one's probes.
        return (await scene.http.post(f"{scene.url}{request.path}", content=request.body)).status_code

    async with proxied(elsewhere) as url:
        proof = await scene.prove(f"{url}/webhooks/default/{WEBHOOK_TOKEN}")
    assert not proof.remedy
    assert "by another listener with the same store" in proof.text


async def test_without_an_api_token_airbytes_word_counts(scene: Scene) -> None:
    scene = replace(scene, token=None)
    proof = await scene.prove()
    assert (proof.remedy, proof.by_airbyte) == ("", True)
    assert "arrived, by the response" in proof.text
    assert "responded with an error" in await scene.fault(scene.receiver(token="x" * 30))


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 404}, {"kind": "html"}, {"kind": "empty"}])
async def test_where_airbyte_sends_none_one_is_posted_from_here(scene: Scene, fault: dict[str, Any]) -> None:
    scene.sim.add_fault(Fault(route="POST /notifications/try_webhook", **fault))
    proof = await scene.prove()
    assert (proof.remedy, proof.by_airbyte) == ("", False)
    assert "posted from here" in proof.text


async def test_a_probe_is_not_forwarded_and_its_responses_are_those_of_others(scene: Scene) -> None:
    headers = bearer(API_TOKEN)
    probe = (await scene.http.post(f"{scene.url}/v1/probes", headers=headers)).json()["probe"]

    async def responses(query: str) -> list[tuple[int, bytes, dict[str, str]]]:
        found = []
        for url in (scene.receiver(token="x" * 30), scene.receiver(instance="other"), f"{scene.url}/webhooks/x"):
            answer = await scene.http.post(f"{url}{query}", json={"text": "Hello"})
            fields = {name: value for name, value in answer.headers.items() if name != "date"}
            found.append((answer.status_code, answer.content, fields))
        return found

    assert await responses("") == await responses(f"?probe={probe}")
    for path in (f"/v1/probes/{probe}", "/v1/probes"):
        assert (await scene.http.request("GET" if probe in path else "POST", f"{scene.url}{path}")).status_code == 401


class TestProbes:
    def scope(self, query: bytes) -> dict[str, Any]:
        return {"type": "http", "query_string": query}

    def test_one_that_nobody_announced_is_none(self) -> None:
        probes = Probes()
        probe = probes.announce()
        assert probes.of(self.scope(b"a=b&probe=" + probe.id.encode() + b"&c")) is probe
        for query in (b"", b"probe=", b"probe=" + b"x" * 22, b"probe=" + probe.id.encode() + b"x", b"\xff" * 9):
            assert probes.of(self.scope(query)) is None
        assert probes.of({"type": "http"}) is None

    def test_they_are_bounded(self) -> None:
        probes = Probes()
        first = probes.announce()
        made = [probes.announce() for _ in range(MOST)]
        assert probes.get(first.id) is None
        assert all(probes.get(each.id) is each for each in made)

    def test_they_expire(self) -> None:
        probes = Probes()
        probe = probes.announce()
        probe.expires_at = 0.0
        assert probes.of(self.scope(b"probe=" + probe.id.encode())) is None
