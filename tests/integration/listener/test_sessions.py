"""The dashboard's sessions: what opens them, what they open, and when they end."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie

import httpx
import pytest

from airbyte_events.bus.bus import EventBus
from airbyte_events.listener.http.api import API
from airbyte_events.listener.http.app import create_app
from airbyte_events.listener.http.feed import Feed
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.web.auth import Tokens, digest_of, new_token
from airbyte_events.web.rate_limit import REFUSALS_AT_ONCE
from airbyte_events.web.server import serving
from airbyte_events.web.sessions import LIFETIME_SECONDS, Sessions
from support.loops import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio
OURS = {"X-Requested-With": "airbyte-events"}


@dataclass
class Visitor:
    """A browser, and what the listener has that it visits."""

    http: httpx.AsyncClient
    token: str
    tokens: Tokens
    sessions: Sessions

    async def log_in(self) -> httpx.Response:
        return await self.http.post("/session", json={"token": self.token}, headers=OURS)

    async def opens(self) -> bool:
        return (await self.http.get("/v1/jobs")).status_code == 200


@asynccontextmanager
async def listening(cookies: httpx.Cookies | None = None) -> AsyncIterator[Visitor]:
    token = new_token()
    tokens = Tokens([digest_of(token)])
    store = MemoryStore()
    async with store, EventBus(store) as bus:
        sessions = Sessions(tokens)
        app = create_app(API(Feed(bus, store, {}), {}), None, None, None, tokens, dict, sessions=sessions)
        async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False, cookies=cookies) as http:
            yield Visitor(http, token, tokens, sessions)
            bus.close()


@pytest.fixture
async def visitor() -> AsyncIterator[Visitor]:
    async with listening() as visitor:
        yield visitor


async def test_a_token_opens_one_and_it_opens_the_api(visitor: Visitor) -> None:
    assert not await visitor.opens()
    answer = await visitor.log_in()
    [cookie] = SimpleCookie(answer.headers["set-cookie"]).values()
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert int(cookie["max-age"]) == LIFETIME_SECONDS
    assert visitor.token not in cookie.value
    assert digest_of(visitor.token) not in cookie.value
    assert await visitor.opens()
    assert (await visitor.http.get("/session")).json() == {"signed_in": True, "operator": False}
    await visitor.http.delete("/session", headers=OURS)
    assert not await visitor.opens()


class TestCodes:
    """Of log-in links."""

    async def redeem(self, visitor: Visitor, code: str) -> int:
        return (await visitor.http.post("/session", content=json.dumps({"code": code}), headers=OURS)).status_code

    async def test_one_opens_a_session_once(self, visitor: Visitor) -> None:
        code = visitor.sessions.new_code()
        assert await self.redeem(visitor, code) == 200
        assert await visitor.opens()
        assert await self.redeem(visitor, code) == 401

    async def test_a_new_one_replaces_the_last(self, visitor: Visitor) -> None:
        old, new = visitor.sessions.new_code(), visitor.sessions.new_code()
        assert [await self.redeem(visitor, each) for each in (old, "", new)] == [401, 401, 200]

    async def test_none_is_valid_before_there_is_one(self, visitor: Visitor) -> None:
        assert [await self.redeem(visitor, each) for each in ("", "\udc80", "a")] == [401, 401, 401]

    async def test_one_expires(self, visitor: Visitor) -> None:
        assert await self.redeem(visitor, visitor.sessions.new_code(seconds=0)) == 401

    async def test_its_session_ends_with_the_tokens(self, visitor: Visitor) -> None:
        assert await self.redeem(visitor, visitor.sessions.new_code()) == 200
        visitor.tokens.replace([digest_of(new_token())])
        assert not await visitor.opens()


async def test_who_came_by_https_has_it_sent_by_nothing_else(visitor: Visitor) -> None:
    """A proxy in front ends TLS; the browser tells where its page is from."""
    for origin, secure in (("https://events.example.com", True), (str(visitor.http.base_url), "")):
        headers = {**OURS, "Origin": origin}
        answer = await visitor.http.post("/session", json={"token": visitor.token}, headers=headers)
        [cookie] = SimpleCookie(answer.headers["set-cookie"]).values()
        assert cookie["secure"] == secure, origin


async def test_a_page_of_another_site_opens_and_changes_nothing(visitor: Visitor) -> None:
    foreign = {"Origin": "https://elsewhere.example.com", "Content-Type": "text/plain"}
    assert (await visitor.http.post("/session", json={"token": visitor.token}, headers=foreign)).status_code == 403
    await visitor.log_in()
    assert (await visitor.http.delete("/session", headers=foreign)).status_code == 403
    for path in ("/v1/watches", "/v1/notifications/1/replay", "/v1/deliveries/1/retry"):
        assert (await visitor.http.post(path, json={}, headers=foreign)).status_code == 401, path
        assert (await visitor.http.post(path, json={}, headers=OURS)).status_code in (400, 404), path


async def test_it_ends_with_its_token(visitor: Visitor) -> None:
    await visitor.log_in()
    visitor.tokens.replace([digest_of(visitor.token), digest_of(new_token())])
    assert await visitor.opens()
    visitor.tokens.replace([digest_of(new_token())])
    assert not await visitor.opens()


async def test_what_was_not_given_out_opens_nothing(visitor: Visitor) -> None:
    await visitor.log_in()
    [(name, session)] = visitor.http.cookies.items()
    until, _, signature = session.partition(".")
    later = f"{int(until) + 1}.{signature}"
    over = str(int(time.time()) - 1)
    ended = f"{over}.{visitor.tokens.sign(visitor.token, f'session until {over}'.encode())}"
    for wrong in (later, ended, f"{until}.{'0' * 64}", until, "", "é", session + "0", "." + session):
        visitor.http.cookies.clear()
        answer = await visitor.http.get("/v1/jobs", headers={b"Cookie": f"{name}={wrong}".encode()})
        assert answer.status_code == 401, wrong


@pytest.mark.parametrize(
    "body",
    [
        b'{"token": "\\ud800"}',
        b'{"token": "x\\udfff"}',
        b'{"token": "\xed\xa0\x80"}',
        b'{"token": 7}',
        b"[" * 4000,
        b"\xff",
    ],
)
async def test_whatever_is_no_token_is_refused_and_counted(visitor: Visitor, body: bytes) -> None:
    """Half a surrogate pair among them: JSON can hold it, UTF-8 can not."""
    answers = [await visitor.http.post("/session", content=body, headers=OURS) for _ in range(REFUSALS_AT_ONCE + 1)]
    assert [each.status_code for each in answers] == [401] * REFUSALS_AT_ONCE + [429]
    assert (await visitor.log_in()).status_code == 200


async def test_two_listeners_of_a_host_do_not_log_each_other_out(visitor: Visitor) -> None:
    """Browsers keep cookies by host, whatever the port."""
    await visitor.log_in()
    async with listening(visitor.http.cookies) as other:
        await other.log_in()
        visitor.http.cookies.update(other.http.cookies)
        assert await visitor.opens()
        assert await other.opens()


async def test_an_unknown_path_is_a_page_for_browsers_and_json_for_all_others(visitor: Visitor) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    page = await visitor.http.get("/nothing", headers=browser)
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    answers = [
        await visitor.http.get("/nothing"),
        await visitor.http.post("/nothing", headers=browser),
        await visitor.http.get("/static/nothing.js", headers=browser),
        await visitor.http.get("/webhooks/default/nothing", headers=browser),
    ]
    assert [(each.status_code, each.json()) for each in answers] == [(404, {"error": "not found"})] * 4
    await visitor.log_in()
    unknown = await visitor.http.get("/v1/nothing", headers=browser)
    assert (unknown.status_code, unknown.json()) == (404, {"error": "not found"})


def test_any_listener_with_the_token_takes_it() -> None:
    token = new_token()
    here, there = (Sessions(Tokens([digest_of(token)])) for _ in range(2))
    session = here.create(token)
    assert session is not None
    assert there.valid(session)
    assert here.create("another") is None
