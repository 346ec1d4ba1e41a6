"""What strangers can do to a listener: next to nothing, and nothing for long. Raw sockets where it matters."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import anyio
import httpx
import pytest
import trustme
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSAttribute
from pydantic import SecretStr

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.errors import SettingsError
from airbyte_events.listener.assembly import Listener, assemble
from airbyte_events.listener.http.app import MOST_REQUESTS, requests_for, streams_of
from airbyte_events.listener.settings import InstanceSettings, Settings, load
from airbyte_events.monitor.monitor import ASKED_AT_ONCE, ASKED_PER_SECOND
from airbyte_events.simulator import Fault, Script, Simulator, serve_simulator
from airbyte_events.store.registry import store_location
from airbyte_events.web.h11_protocol import LARGEST_HEAD, MAX_CONNECTIONS, ConnectionLimits
from airbyte_events.web.rate_limit import REFUSALS_AT_ONCE, ConcurrencyLimit
from airbyte_events.web.security_headers import SecurityHeaders
from airbyte_events.web.server import Server, bind, limits_for, serving, url_of
from airbyte_events.web.tls import Certificate
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio

API_TOKENS = ("api-token-number-one-000", "api-token-number-two-000")
WEBHOOK_TOKENS = ("webhook-token-number-one", "webhook-token-number-two")


@pytest.fixture
def anyio_backend() -> str:
    """uvicorn's."""
    return "asyncio"


@dataclass
class Rig:
    """A served listener of an Airbyte.

    :param http: shows no token.
    """

    sim: Simulator
    listener: Listener
    limits: ConnectionLimits
    http: httpx.AsyncClient
    url: str

    def webhook(self, token: str = WEBHOOK_TOKENS[0], instance: str = "default") -> str:
        return f"/webhooks/{instance}/{token}"

    async def get(self, path: str, token: str = API_TOKENS[0], **options: Any) -> httpx.Response:
        return await self.http.get(path, headers={"Authorization": f"Bearer {token}"}, **options)

    async def connect(self) -> SocketStream:
        at = urlsplit(self.url)
        assert at.hostname is not None
        assert at.port is not None
        return await anyio.connect_tcp(at.hostname, at.port)

    async def raw(self, data: bytes) -> bytes:
        """All that is answered, until the server ends the connection."""
        async with await self.connect() as stream:
            await stream.send(data)
            return await until_end(stream)

    async def healthy(self) -> None:
        with anyio.fail_after(30):
            assert (await self.http.get("/healthz")).status_code == 200


@asynccontextmanager
async def listening(
    limits: ConnectionLimits | None = None, *, connections: int = MAX_CONNECTIONS, **given: Any
) -> AsyncIterator[Rig]:
    limits = limits or ConnectionLimits()
    async with serve_simulator(Simulator()) as sim:
        values: dict[str, Any] = {
            "instances": {"default": InstanceSettings(airbyte_url=sim.url)},
            "store": store_location("memory:"),
            "api_tokens": tuple(map(SecretStr, API_TOKENS)),
            "webhook_tokens": tuple(map(SecretStr, WEBHOOK_TOKENS)),
            "poll_interval": 3600.0,
            "poll_interval_proven": 3600.0,
            "poll_interval_idle": 3600.0,
        }
        async with (
            assemble(Settings(**values | given), connections=connections) as listener,
            serving(listener.app, limits=limits, timeout_graceful_shutdown=30) as url,
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as http,
        ):
            yield Rig(sim, listener, limits, http, url)
            listener.drain()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with listening() as rig:
        yield rig


LAST = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def open_stream(rig: Rig, stack: contextlib.AsyncExitStack) -> bytes:
    """Open a stream of events, to be closed with the stack; the beginning of the answer is returned."""
    stream = await stack.enter_async_context(await rig.connect())
    token = f"Authorization: Bearer {API_TOKENS[0]}\r\n".encode()
    await stream.send(b"GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n" + token + b"\r\n")
    with anyio.fail_after(30):
        return await stream.receive()


async def stall(rig: Rig, stack: contextlib.AsyncExitStack) -> SocketStream:
    """Ask for much and read nothing, until the server has noticed."""
    hog = await stack.enter_async_context(await rig.connect())
    hog.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    before = set(rig.limits.stalled)
    await hog.send(100 * b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: bool(rig.limits.stalled.keys() - before))
    return hog


async def until_end(stream: SocketStream) -> bytes:
    data = b""
    with anyio.fail_after(30), contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            data += await stream.receive()
    return data


def reported(caplog: pytest.LogCaptureFixture, times: int) -> bool:
    return caplog.text.count("could not reload secrets") == times


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Return when it holds; what is elsewhere can only be asked for."""
    with anyio.fail_after(30):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await anyio.sleep(0.01)


def body(job_id: int, **data: Any) -> bytes:
    block = {"type": "section", "text": {"type": "mrkdwn", "text": "Sync completed: <https://x|Orders>"}}
    now = format_time(utcnow())
    told = {"jobId": job_id, "success": True, "startedAt": now, "finishedAt": now, **data}
    return json.dumps({"text": "x", "blocks": [block], "data": told}).encode()


def shown(answer: httpx.Response) -> tuple[int, str, bytes]:
    headers = [(name, value) for name, value in answer.headers.multi_items() if name != "date"]
    return answer.status_code, str(headers), answer.content


class TestTokens:
    async def test_each_of_several_opens_its_own_door_only(self, rig: Rig) -> None:
        for token in API_TOKENS:
            assert (await rig.get("/v1/jobs", token)).status_code == 200
            assert (await rig.http.post(rig.webhook(token), content=b"{}")).status_code == 404
        for token in WEBHOOK_TOKENS:
            assert (await rig.get("/v1/jobs", token)).status_code == 401
            assert (await rig.http.post(rig.webhook(token), content=b"{}")).status_code == 200

    async def test_one_404_whatever_is_wrong(self, rig: Rig) -> None:
        right, wrong = rig.webhook(), rig.webhook("wrong-token-of-some-length")
        asked = [
            ("POST", wrong),
            ("POST", rig.webhook(instance="other")),
            ("POST", rig.webhook("x", "other")),
            *((method, path) for path in (right, wrong) for method in ("GET", "PUT", "OPTIONS", "DELETE")),
            ("POST", "/webhooks/"),
            ("GET", "/nowhere"),
            ("POST", "/healthz"),
            ("GET", "/v1"),
            ("GET", "/docs"),
        ]
        assert len(asked) < REFUSALS_AT_ONCE
        answers = {shown(await rig.http.request(method, path, content=b"{}")) for method, path in asked}
        assert [answer[0] for answer in answers] == [404]

    async def test_401_is_one_whether_there_is_such_a_path_or_not(self, rig: Rig) -> None:
        paths = ("/v1/jobs", "/v1/nothing", "/v1/jobs/default/1", "/v1/watches", "/v1/")
        answers = {shown(await rig.get(path, "wrong-token-of-some-length")) for path in paths}
        assert [answer[0] for answer in answers] == [401]

    async def test_too_many_wrong_ones_lock_nobody_out(self, rig: Rig) -> None:
        for _ in range(REFUSALS_AT_ONCE):
            await rig.http.post(rig.webhook("wrong"), content=b"{}")
        refused = [
            await rig.http.post(rig.webhook("wrong"), content=b"{}"),
            await rig.http.post(rig.webhook(instance="other"), content=b"{}"),
            await rig.http.get(rig.webhook()),
            await rig.http.get("/nowhere"),
            await rig.get("/v1/jobs", "wrong"),
        ]
        assert [answer.status_code for answer in refused] == [429] * 5
        assert len({shown(answer) for answer in refused}) == 1
        assert "retry-after" in refused[0].headers
        # From the same address, after as many wrong ones as you like:
        assert (await rig.http.post(rig.webhook(), content=body(1))).status_code == 202
        assert (await rig.get("/v1/jobs")).status_code == 200
        assert (await rig.get("/v1/jobs/default/77")).status_code == 404
        assert (await rig.get("/v1/nothing")).status_code == 404
        await rig.healthy()

    async def test_half_a_surrogate_pair_is_an_error_of_whoever_sends_it(self, rig: Rig) -> None:
        """JSON and percent signs can spell what no UTF-8 text holds."""
        headers = {"Authorization": f"Bearer {API_TOKENS[0]}"}
        halves = ("\\ud800", "\\udfff", "x\\udc80")
        for half in halves:
            for content in (f'{{"jobs": [{{"instance": "{half}", "job_id": 1}}]}}', f'{{"{half}": []}}', f'"{half}"'):
                answer = await rig.http.post("/v1/watches", content=content, headers=headers)
                assert answer.status_code == 400, content
            assert (await rig.http.post(rig.webhook(), content=f'{{"text": "{half}"}}')).status_code == 200
        for path in ("/v1/events?after=%ED%A0%80", "/v1/jobs?%ED%A0%80=1", "/v1/jobs?limit=%ED%A0%80"):
            assert (await rig.get(path)).status_code == 400, path
        assert (await rig.get("/v1/jobs?instance=%ED%A0%80")).status_code == 200
        assert (await rig.get("/v1/jobs/%ED%A0%80/1")).status_code == 404
        assert (await rig.http.post(rig.webhook("%ED%A0%80"), content=b"{}")).status_code == 404
        assert (await rig.http.get("/v1/jobs", headers={b"Authorization": b"Bearer \xed\xa0\x80"})).status_code == 401
        resumed = [(name.encode(), value.encode()) for name, value in headers.items()]
        resumed.append((b"Last-Event-ID", b"\xed\xa0\x80"))
        assert (await rig.http.get("/v1/events", headers=resumed)).status_code == 400


class TestRotation:
    """Kubernetes writes a secret into a new folder and swaps a link to it."""

    @staticmethod
    def mount(folder: Path, version: int, **files: str) -> None:
        data = folder / f"..{version}"
        data.mkdir(parents=True)
        for name, text in files.items():
            (data / name).write_text(text)
            link = folder / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        (folder / "..tmp").symlink_to(data.name)
        (folder / "..tmp").rename(folder / "..data")

    async def test_without_a_restart(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "airbyte_events")
        self.mount(tmp_path, 1, api=API_TOKENS[0], webhook=WEBHOOK_TOKENS[0], client="first-secret")
        async with serve_simulator(Simulator(client_id="id", client_secret="second-secret")) as sim:
            for name, value in {
                "AIRBYTE_URL": sim.url,
                "CLIENT_ID": "id",
                "CLIENT_SECRET_FILE": tmp_path / "client",
                "API_TOKENS_FILE": tmp_path / "api",
                "WEBHOOK_TOKENS_FILE": tmp_path / "webhook",
                "STORE": "memory:",
                "POLL_INTERVAL_IDLE": 0.1,
                "POLL_INTERVAL": 0.1,
            }.items():
                monkeypatch.setenv(f"AIRBYTE_EVENTS_{name}", str(value))
            async with (
                assemble(load()) as listener,
                serving(listener.app) as url,
                httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as http,
                anyio.create_task_group() as tasks,
            ):

                async def opens(*tokens: str) -> list[int]:
                    headers = [{"Authorization": f"Bearer {token}"} for token in tokens]
                    return [(await http.get("/v1/jobs", headers=each)).status_code for each in headers]

                async def second_opens() -> bool:
                    return await opens(API_TOKENS[1]) == [200]

                async def follow() -> None:
                    await listener.secrets.follow(load, every=0.02)

                tasks.start_soon(follow)
                assert await opens(*API_TOKENS) == [200, 401]
                both = ",".join(API_TOKENS)
                self.mount(tmp_path, 2, api=both, webhook=WEBHOOK_TOKENS[0], client="second-secret")
                await until(second_opens)
                assert await opens(*API_TOKENS) == [200, 200]
                # What the first secret was refused, the second gets.
                await until(lambda: sim.traffic.counts["GET /jobs"] > 0)
                # Nothing is lost while a file is not there or holds nonsense; it is told of once.
                for version, text in enumerate(("", "too-short"), 3):
                    self.mount(tmp_path, version, api=text, webhook=WEBHOOK_TOKENS[0], client="second-secret")
                    await until(partial(reported, caplog, version - 2))
                    assert await opens(*API_TOKENS) == [200, 200]
                self.mount(tmp_path, 9, api=API_TOKENS[1], webhook=WEBHOOK_TOKENS[1], client="second-secret")
                await until(lambda: "reloaded webhook tokens" in caplog.text)
                assert await opens(*API_TOKENS) == [401, 200]
                posts = [await http.post(f"/webhooks/default/{token}", content=b"{}") for token in WEBHOOK_TOKENS]
                assert [each.status_code for each in posts] == [404, 200]
                listener.drain()
                tasks.cancel_scope.cancel()
        for secret in (*API_TOKENS, *WEBHOOK_TOKENS, "first-secret", "second-secret", "too-short"):
            assert secret not in caplog.text


class TestAddresses:
    async def test_the_receiver_is_there_for_those_allowed_only(self) -> None:
        async with listening(webhook_allow=("192.0.2.0/24",), trusted_proxies=("127.0.0.1",)) as rig:

            async def post(*forwarded: str) -> httpx.Response:
                headers = [("X-Forwarded-For", line) for line in forwarded]
                return await rig.http.post(rig.webhook(), content=b"{}", headers=headers)

            assert (await post("192.0.2.1")).status_code == 200
            assert (await post("203.0.113.1, 192.0.2.1")).status_code == 200
            elsewhere = [await post(), await post("203.0.113.1"), await post("192.0.2.1, 203.0.113.1"), await post("x")]
            nowhere = await rig.http.post("/nowhere")
            assert {shown(each) for each in elsewhere} == {shown(nowhere)}
            # It is about the receiver: who reads the feed shows a token.
            assert (await rig.get("/v1/jobs")).status_code == 200

    async def test_nobody_is_believed_unless_configured(self) -> None:
        async with listening(webhook_allow=("192.0.2.0/24",)) as rig:
            for header in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
                headers = {header: "for=192.0.2.1" if header == "Forwarded" else "192.0.2.1"}
                assert (await rig.http.post(rig.webhook(), content=b"{}", headers=headers)).status_code == 404
        async with listening(webhook_allow=("127.0.0.1", "::1")) as rig:
            assert (await rig.http.post(rig.webhook(), content=b"{}")).status_code == 200

    async def test_refusals_are_counted_for_whom_a_trusted_proxy_names(self) -> None:
        async with listening(trusted_proxies=("127.0.0.0/8",)) as rig:

            async def get(address: str) -> int:
                return (await rig.http.get("/nowhere", headers={"X-Forwarded-For": address})).status_code

            found = [await get("192.0.2.1") for _ in range(REFUSALS_AT_ONCE + 2)]
            assert set(found) == {404, 429}
            assert await get("192.0.2.2") == 404


class TestHeaders:
    async def test_are_on_every_answer(self, rig: Rig) -> None:
        answers = [
            await rig.http.get("/healthz"),
            await rig.http.get("/readyz"),
            await rig.http.get("/nowhere"),
            await rig.get("/v1/jobs"),
            await rig.get("/v1/jobs", "wrong"),
            await rig.get("/v1/jobs?limit=x"),
            await rig.http.post(rig.webhook(), content=b"{}"),
            await rig.http.post(rig.webhook(), content=b""),
            await rig.http.post(rig.webhook("wrong"), content=b"{}"),
        ]
        assert [each.status_code for each in answers] == [200, 200, 404, 200, 401, 400, 200, 400, 404]
        for answer in answers:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert "default-src 'none'; frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert "server" not in answer.headers

    async def test_no_other_site_may_read_or_ask(self, rig: Rig) -> None:
        origin = {"Origin": "https://elsewhere.example"}
        preflight = {
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        answers = [
            await rig.http.get("/healthz", headers=origin),
            await rig.http.get("/v1/jobs", headers=origin | {"Authorization": f"Bearer {API_TOKENS[0]}"}),
            await rig.http.options("/v1/watches", headers=preflight),
            await rig.http.options(rig.webhook(), headers=preflight),
        ]
        assert [each.status_code for each in answers] == [200, 200, 401, 404]
        for answer in answers:
            assert not [name for name in answer.headers if name.startswith("access-control-")]

    async def test_a_page_may_load_its_own_and_nothing_inline(self) -> None:
        async def page(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"max-age=60")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"<p>"})

        async with serving(SecurityHeaders(page)) as url, httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(url)
        (policy,) = answer.headers.get_list("content-security-policy")
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert (rules["default-src"], rules["script-src"], rules["frame-ancestors"]) == ("'none'", "'self'", "'none'")
        assert "unsafe" not in policy
        assert answer.headers.get_list("cache-control") == ["max-age=60"]


class TestSlowClients:
    """The time that a request may take is short here, and begins anew with each."""

    @pytest.fixture
    async def rig(self) -> AsyncIterator[Rig]:
        async with listening(ConnectionLimits(request_seconds=0.4, stalled_seconds=0.4)) as rig:
            yield rig

    @pytest.mark.parametrize(
        "begun",
        [
            b"",
            b"P",
            b"POST {path} HTTP/1.1\r\nHost: x\r\nX-A: ",
            b"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{",
            b"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
            b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{",
            b"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}POST {path} HTTP/1.1\r\nX-A: ",
        ],
    )
    async def test_are_left_however_they_drip(self, rig: Rig, begun: bytes) -> None:
        async with await rig.connect() as stream, anyio.create_task_group() as tasks:

            async def drip() -> None:
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    while begun:
                        await stream.send(b"a")
                        await anyio.sleep(0.02)

            if begun:
                await stream.send(begun.replace(b"{path}", rig.webhook().encode()))
            tasks.start_soon(drip)
            await until_end(stream)
            tasks.cancel_scope.cancel()
        assert not rig.limits.waiting
        assert json.loads((await rig.get("/v1/notifications")).content)["notifications"] == [] or b"{}POST" in begun

    async def test_a_request_after_a_request_has_its_own_time(self, rig: Rig) -> None:
        request = f"GET /healthz HTTP/1.1\r\nHost: {'x' * 50}\r\n\r\n".encode()
        async with await rig.connect() as stream:
            for _ in range(10):
                for start in range(0, len(request), 30):
                    await stream.send(request[start : start + 30])
                    await anyio.sleep(0.01)
                assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")
                await anyio.sleep(0.05)

    async def test_what_is_answered_slowly_is_no_slow_client(self, rig: Rig) -> None:
        answer = await rig.get("/v1/events", params={"wait": 1.5})
        assert answer.json()["events"] == []

    async def test_who_does_not_read_is_left(self) -> None:
        ended = anyio.Event()

        async def endless(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

            async def write() -> None:
                while True:
                    await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                    await anyio.lowlevel.checkpoint()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()
            ended.set()

        limits = ConnectionLimits(stalled_seconds=0.4)
        async with serving(endless, limits=limits) as url:
            at = urlsplit(url)
            assert at.hostname is not None
            assert at.port is not None
            async with await anyio.connect_tcp(at.hostname, at.port) as stream:
                await stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                with anyio.fail_after(30):
                    await ended.wait()
        assert not limits.stalled


class TestNoRequest:
    async def test_is_answered_like_all_others(self, rig: Rig) -> None:
        answer = await rig.raw(b"no request \x00 secret\r\n\r\n")
        head, _, content = answer.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        assert lines[0].startswith(b"http/1.1 400 ")
        assert {b"x-content-type-options: nosniff", b"cache-control: no-store"} <= set(lines)
        assert f"content-length: {len(content)}".encode() in lines
        assert b"secret" not in answer

    async def test_nor_one_whose_end_is_read_in_two_ways(self, rig: Rig) -> None:
        """What a proxy takes for a body would be a request of somebody's choice in another's name."""
        hidden = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        length = b"Content-Length: %d\r\n" % (len(hidden) + 5)
        chunked = b"Transfer-Encoding: chunked\r\n"
        for told in (length + chunked, chunked + length):
            answer = await rig.raw(b"POST /nowhere HTTP/1.1\r\nHost: x\r\n" + told + b"\r\n0\r\n\r\n" + hidden)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert answer.count(b"HTTP/1.1 ") == 1


class TestManyConnections:
    async def test_who_sends_a_request_is_served_whoever_holds_the_rest(self) -> None:
        async with listening(ConnectionLimits(most=20)) as rig, contextlib.AsyncExitStack() as stack:
            idle = [await stack.enter_async_context(await rig.connect()) for _ in range(60)]
            for stream in idle[1:]:
                # Those that made way for others have been reset.
                with contextlib.suppress(anyio.BrokenResourceError):
                    await stream.send(b"POST /webhooks/default/x HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
            for _ in range(30):
                async with httpx.AsyncClient(base_url=rig.url, trust_env=False, timeout=10) as http:
                    assert (await http.get("/healthz")).status_code == 200
                    assert (await http.post(rig.webhook(), content=b"{}")).status_code == 200
            assert len(rig.limits.waiting) <= 20
            # The longest one goes first, and is told why.
            assert (await until_end(idle[0])).startswith(b"HTTP/1.1 503 ")

    async def test_who_came_before_a_crowd_was_taken_in_is_told_to_come_again(self) -> None:
        """More requests at once than there are connections, sent before the first was read: none goes unanswered."""
        async with listening(ConnectionLimits(most=40)) as rig:
            answers: list[bytes] = []

            async def ask() -> None:
                answers.append(await rig.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))

            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(ask)
            assert len(answers) == 50
            assert {answer[:13] for answer in answers} <= {b"HTTP/1.1 200 ", b"HTTP/1.1 503 "}

    async def test_those_in_use_are_not_taken_away(self) -> None:
        async with listening(ConnectionLimits(most=5)) as rig, contextlib.AsyncExitStack() as stack:
            headers = {"Authorization": f"Bearer {API_TOKENS[0]}", "Accept": "text/event-stream"}
            streams = []
            for _ in range(5):
                http = await stack.enter_async_context(httpx.AsyncClient(base_url=rig.url, trust_env=False))
                answer = await stack.enter_async_context(http.stream("GET", "/v1/events", headers=headers))
                lines = answer.aiter_lines()
                assert await anext(lines) == "event: hello"
                streams.append(lines)
            refused = await rig.raw(b"")
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: " in refused
            assert b"x-content-type-options: nosniff" in refused
            head, _, content = refused.partition(b"\r\n\r\n")
            assert f"content-length: {len(content)}".encode() in head
            rig.listener.drain()
            for lines in streams:
                assert "event: goaway" in [line async for line in lines]

    async def test_the_reserve_is_for_webhooks_and_health(self) -> None:
        async with listening(ConnectionLimits(most=8, reserve=4)) as rig, contextlib.AsyncExitStack() as stack:
            answers = [await open_stream(rig, stack) for _ in range(5)]
            assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 4 + [b"HTTP/1.1 503 "]
            assert b"\r\nretry-after: 5\r\n" in answers[-1].lower()
            for _ in range(10):
                assert (await rig.raw(b"GET /healthz" + LAST)).startswith(b"HTTP/1.1 200 ")
                assert (await rig.raw(b"GET /openapi.json" + LAST)).startswith(b"HTTP/1.1 503 ")
                async with httpx.AsyncClient(base_url=rig.url, trust_env=False, timeout=10) as http:
                    assert (await http.post(rig.webhook(), content=b"{}")).status_code == 200
            assert rig.limits.taken <= 8

    async def test_idle_ones_make_way_for_any_request_once_they_are_not_new(self) -> None:
        async with listening(ConnectionLimits(most=8, reserve=4)) as rig, contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(await rig.connect())
            await until(lambda: len(rig.limits.waiting) == 8)

            async def served() -> bool:
                return (await rig.raw(b"GET /openapi.json" + LAST)).startswith(b"HTTP/1.1 200 ")

            await until(served)

    async def test_those_that_take_nothing_make_way(self) -> None:
        async with (
            listening(ConnectionLimits(most=8, reserve=4, spared_seconds=0.0)) as rig,
            contextlib.AsyncExitStack() as stack,
        ):
            hogs = [await stall(rig, stack) for _ in range(4)]
            # The one that has taken nothing for longest goes first.
            assert (await rig.raw(b"GET /openapi.json" + LAST)).startswith(b"HTTP/1.1 200 ")
            await until_end(hogs[0])
            assert len(rig.limits.stalled) == 3
            assert (await rig.http.post(rig.webhook(), content=b"{}")).status_code == 200

    async def test_those_that_take_nothing_are_spared_for_a_moment(self) -> None:
        async with (
            listening(ConnectionLimits(most=4, reserve=2, spared_seconds=30)) as rig,
            contextlib.AsyncExitStack() as stack,
        ):
            for _ in range(2):
                await stall(rig, stack)
            assert (await rig.raw(b"GET /openapi.json" + LAST)).startswith(b"HTTP/1.1 503 ")
            assert (await rig.http.get("/healthz")).status_code == 200
            assert len(rig.limits.stalled) == 2

    async def test_what_is_not_read_is_bounded_over_all_of_them(self) -> None:
        async with listening(ConnectionLimits(unread_bytes=100_000)) as rig, contextlib.AsyncExitStack() as stack:
            hogs = [await stall(rig, stack) for _ in range(20)]
            assert rig.limits.unread <= 100_000
            assert 0 < len(rig.limits.stalled) < 20
            await until_end(hogs[0])
            for each in hogs:
                await each.aclose()
            await until(lambda: rig.limits.open == 0)
            assert (rig.limits.unread, len(rig.limits.stalled), len(rig.limits.leaving)) == (0, 0, 0)

    async def test_a_pipeline_is_answered_in_order_and_bounded(self, rig: Rig) -> None:
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        answer = await rig.raw(20 * request + b"GET /nowhere" + LAST)
        assert answer.count(b"HTTP/1.1 200 ") == 20
        assert answer.rfind(b"HTTP/1.1 404 ") > answer.rfind(b"HTTP/1.1 200 ")
        more = await rig.raw((LARGEST_HEAD // len(request) + 20) * request)
        assert more.count(b"HTTP/1.1 200 ") <= 1
        await rig.healthy()

    async def test_a_crowd_of_requests_takes_turns_with_others(self, rig: Rig) -> None:
        """However many come at once, webhooks are stored in their 2 s meanwhile."""
        async with contextlib.AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(await rig.connect()) for _ in range(200)]
            for stream in crowd:
                await stream.send(50 * b"POST /webhooks/default/wrong HTTP/1.1\r\nHost: x\r\n\r\n")
            posts = [await rig.http.post(rig.webhook(), content=body(number)) for number in range(1, 6)]
        assert [each.status_code for each in posts] == [202] * 5

    @pytest.mark.parametrize("files", [1, 8, 256, 1024, 4096, 16_384])
    @pytest.mark.parametrize("servers", [1, 2])
    def test_however_few_files_there_are_webhooks_have_theirs(self, files: int, servers: int) -> None:
        limits = limits_for(files, servers)
        # As many again may be leaving, and some are for the store.
        assert 2 * servers * limits.most <= max(files - min(256, files // 4), 2 * servers)
        requests = requests_for(limits.most)
        assert 1 <= streams_of(requests) <= requests
        if files >= 256:
            assert limits.reserve >= 10
            assert streams_of(requests) < requests < limits.most - limits.reserve
        assert limits.most <= MAX_CONNECTIONS
        assert requests <= MOST_REQUESTS

    async def test_streams_are_refused_before_all_others(self) -> None:
        async with listening(connections=8) as rig, contextlib.AsyncExitStack() as stack:
            assert streams_of(requests_for(8)) == 3
            answers = [await open_stream(rig, stack) for _ in range(4)]
            assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 3 + [b"HTTP/1.1 503 "]
            assert b"\r\nretry-after: 5\r\n" in answers[-1].lower()
            assert (await rig.get("/v1/jobs")).status_code == 200
            assert (await rig.get("/v1/events")).status_code == 200

    async def test_the_api_leaves_connections_to_webhooks_and_health(self) -> None:
        assert MOST_REQUESTS < MAX_CONNECTIONS * 0.75
        release, begun = anyio.Event(), anyio.Event()

        async def held(scope: Any, receive: Any, send: Any) -> None:
            begun.set()
            await release.wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        async with (
            serving(ConcurrencyLimit(held, 1)) as url,
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as http,
            anyio.create_task_group() as tasks,
        ):
            found: list[int] = []

            async def get() -> None:
                found.append((await http.get("/")).status_code)

            tasks.start_soon(get)
            await begun.wait()
            refused = await http.get("/")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            release.set()
            await until(lambda: found == [204])
            assert (await http.get("/")).status_code == 204


class TestSizes:
    @pytest.mark.parametrize(
        "request_",
        [
            b"GET /" + b"a" * LARGEST_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /healthz?" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * LARGEST_HEAD + b"\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 40_000 + b"\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2_000_000,
            b"\r\n" * 100_000,
        ],
    )
    async def test_what_is_too_large_is_not_read_to_the_end(self, rig: Rig, request_: bytes) -> None:
        async with await rig.connect() as stream, anyio.create_task_group() as tasks:

            async def send() -> None:
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await stream.send(request_)

            tasks.start_soon(send)
            # The answer is lost at times, as the server leaves while there is more to come.
            assert (await until_end(stream) or b"HTTP/1.1 400 ").startswith(b"HTTP/1.1 400 ")
        await rig.healthy()

    async def test_a_large_body_behind_a_small_head_is_no_large_head(self, rig: Rig) -> None:
        content = body(1) + b" " * 60_000
        head = (
            f"POST {rig.webhook()} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        assert (await rig.raw(head.encode() + content)).startswith(b"HTTP/1.1 202 ")


class TestDrain:
    async def test_is_not_held_up_by_those_who_stall(self) -> None:
        """The drain has a minute here, and whoever ends within the test's time was not waited for so long."""
        limits = ConnectionLimits()

        async def endless(scope: Any, receive: Any, send: Any) -> None:
            if scope["method"] == "POST":
                while (await receive())["type"] != "http.disconnect":
                    pass
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(1_000):
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await send({"type": "http.response.body"})

        with bind("127.0.0.1", 0) as bound, anyio.fail_after(30):
            server = Server(endless, limits=limits, timeout_graceful_shutdown=60)
            at = urlsplit(url_of(bound))
            assert at.hostname is not None
            assert at.port is not None
            # The clients outlive the server.
            async with contextlib.AsyncExitStack() as stack, anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [bound])
                for begun in (
                    b"",
                    b"GET / HT",
                    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
                    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                ):
                    stream = await stack.enter_async_context(await anyio.connect_tcp(at.hostname, at.port))
                    await stream.send(begun or b"G")
                await until(lambda: len(limits.waiting) == 3 and len(limits.stalled) == 1)
                server.should_exit = True


@dataclass
class Files:
    """A certificate's files."""

    folder: Path
    authority: trustme.CA

    def __post_init__(self) -> None:
        self.cert, self.key = self.folder / "tls.crt", self.folder / "tls.key"

    def issue(self, *names: str, key: bool = True, kind: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
        issued = self.authority.issue_cert(*names, key_type=kind)
        self.cert.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        if key:
            self.key.write_bytes(issued.private_key_pem.bytes())

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, trustme.CA())


class TestTLS:
    async def test_a_renewed_certificate_is_shown_without_a_restart(self, files: Files) -> None:
        files.issue("127.0.0.1", "old.example")
        certificate = Certificate(files.cert, files.key)
        async with listening() as plain, listening_by_tls(plain.listener, certificate) as port:

            async def names() -> list[str]:
                async with await anyio.connect_tcp(
                    "127.0.0.1", port, tls=True, ssl_context=files.client(), tls_hostname="127.0.0.1"
                ) as stream:
                    shown: Any = stream.extra(TLSAttribute.peer_certificate)
                    return [name for kind, name in shown["subjectAltName"] if kind == "DNS"]

            assert await names() == ["old.example"]
            assert not certificate.reload()
            # The certificate is there before its key: what was shown is shown until both are.
            files.issue("127.0.0.1", "half.example", key=False)
            with pytest.raises(SettingsError, match="TLS_CERTFILE"):
                certificate.reload()
            assert await names() == ["old.example"]
            files.issue("127.0.0.1", "new.example")
            assert certificate.reload()
            assert await names() == ["new.example"]
            # A server has one of each kind, and a client takes the kind that it prefers: the one of before is gone.
            files.issue("127.0.0.1", "other-kind.example", kind=trustme.KeyType.RSA)
            assert certificate.reload()
            assert await names() == ["other-kind.example"]

    async def test_garbage_and_silence_harm_nobody(self, files: Files) -> None:
        files.issue("127.0.0.1")
        async with (
            listening() as plain,
            listening_by_tls(plain.listener, Certificate(files.cert, files.key)) as port,
            await anyio.connect_tcp("127.0.0.1", port),
            await anyio.connect_tcp("127.0.0.1", port) as garbage,
        ):
            await garbage.send(b"GET / HTTP/1.1\r\n\r\n")
            await until_end(garbage)
            async with httpx.AsyncClient(verify=files.client(), trust_env=False) as http:
                assert (await http.get(f"https://127.0.0.1:{port}/healthz")).status_code == 200

    def test_wants_tls_1_2_or_newer(self, files: Files) -> None:
        files.issue("127.0.0.1")
        assert Certificate(files.cert, files.key).context.minimum_version is ssl.TLSVersion.TLSv1_2

    def test_what_can_not_be_used_is_told_in_one_line(self, files: Files) -> None:
        files.issue("127.0.0.1")
        files.key.write_text("no key")
        with pytest.raises(SettingsError, match=r"^AIRBYTE_EVENTS_TLS_CERTFILE: .* not PEM, or .*; for .*$"):
            Certificate(files.cert, files.key)
        with pytest.raises(SettingsError, match="no such file"):
            Certificate(files.folder / "none", None)


@asynccontextmanager
async def listening_by_tls(listener: Listener, certificate: Certificate) -> AsyncIterator[int]:
    async with serving(listener.app, tls=certificate.context, timeout_graceful_shutdown=5) as url:
        port = urlsplit(url).port
        assert port is not None
        yield port


class TestOutwardRequests:
    """Airbyte's API is asked, and nothing else that somebody names."""

    @pytest.fixture
    async def canary(self) -> AsyncIterator[tuple[str, list[bytes]]]:
        """The address of a server, and what it was asked."""
        asked: list[bytes] = []

        async def take(stream: SocketStream) -> None:
            async with stream:
                asked.append(await stream.receive())

        server = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with server, anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, take)
            yield f"http://127.0.0.1:{server.extra(SocketAttribute.local_port)}", asked
            tasks.cancel_scope.cancel()

    async def test_no_url_of_a_payload_is_requested(self, rig: Rig, canary: tuple[str, list[bytes]]) -> None:
        url, asked = canary
        job = rig.sim.world.start_job(rig.sim.world.add_connection(Script.hanging()))
        rig.sim.world.end_job(job, "succeeded")
        part = {"id": url, "name": url, "url": url}
        parts = dict.fromkeys(("workspace", "connection", "source", "destination"), part)
        content = json.loads(body(job.id, **parts, errorMessage=url))
        content["text"] = f"<{url}>"
        content["blocks"] += [{"type": "image", "image_url": url}, {"type": "section", "accessory": {"url": url}}]
        content["response_url"] = content["callback"] = content["next"] = url
        sent = {"X-Forwarded-Host": urlsplit(url).netloc, "Host": urlsplit(url).netloc, "Referer": url, "Origin": url}
        answer = await rig.http.post(rig.webhook(), content=json.dumps(content), headers=sent)
        assert answer.status_code == 202
        page = await rig.get("/v1/events", params={"after": await origin(rig), "wait": 10})
        assert [each["data"]["job_id"] for each in page.json()["events"]] == [job.id]
        await rig.healthy()
        assert asked == []

    async def test_redirects_of_the_api_are_not_followed(
        self, server: ScriptedServer, canary: tuple[str, list[bytes]], caplog: pytest.LogCaptureFixture
    ) -> None:
        url, asked = canary
        location = {"Location": f"{url}/api/public/v1/jobs"}
        for route in ("POST /api/public/v1/applications/token", "GET /api/public/v1/jobs", "GET /api/public/v1/jobs/7"):
            server.on(route, *(server.reply(status, {}, location) for status in (301, 302, 303, 307, 308)))
        airbyte = InstanceSettings(airbyte_url=f"{server.url}/api/public/v1")
        async with listening(instances={"default": airbyte}) as rig:
            assert (await rig.http.post(rig.webhook(), content=body(7))).status_code == 202
            await until(lambda: server.count("GET /api/public/v1/jobs/7") > 0)
            await until(lambda: "could not confirm notifications" in caplog.text)
        assert asked == []


class TestForgedNotifications:
    """Who knows the webhook URL and nothing else."""

    async def test_cause_a_bounded_number_of_requests(self, rig: Rig) -> None:
        count = 12 * ASKED_AT_ONCE
        real = rig.sim.world.start_job(rig.sim.world.add_connection(Script.hanging()))
        began = anyio.current_time()
        before = sum(rig.sim.traffic.counts.values())
        for start in range(0, count, 3):
            # A few at a time: each is a request of its own, unless that is bounded.
            for number in range(start, start + 3):
                content = body(1_000_000 + number)
                assert (await rig.http.post(rig.webhook(), content=content)).status_code == 202
            if start == count // 2 // 3 * 3:
                rig.sim.world.end_job(real, "succeeded")
                assert (await rig.http.post(rig.webhook(), content=body(real.id))).status_code == 202

        async def outcomes() -> list[str]:
            found = (await rig.get("/v1/notifications", params={"limit": 1000})).json()["notifications"]
            return [each["outcome"] for each in found]

        await until_confirmed(rig)
        found = await outcomes()
        requests = sum(rig.sim.traffic.counts.values()) - before
        seconds = anyio.current_time() - began
        # Four for those under way when a second begins, and one page or two for each look.
        assert requests <= ASKED_AT_ONCE + 2 * ASKED_PER_SECOND * (seconds + 1) + 4
        # The true one among them is confirmed, and no other.
        assert found.count("confirmed") == 1
        assert (await rig.get(f"/v1/jobs/default/{real.id}")).json()["job"]["status"] == "succeeded"
        assert len((await rig.get("/v1/jobs")).json()["jobs"]) == 1

    async def test_ends_of_long_ago_do_not_have_all_jobs_listed(self, rig: Rig) -> None:
        long_ago = format_time(utcnow() - timedelta(days=3650))

        async def forge(number: int) -> None:
            forged = body(2_000_000 + number, startedAt=long_ago, finishedAt=long_ago)
            assert (await rig.http.post(rig.webhook(), content=forged)).status_code == 202

        # Many at once, so that lists are requested for them.
        async with anyio.create_task_group() as tasks:
            for number in range(2 * ASKED_AT_ONCE):
                tasks.start_soon(forge, number)
        await until_confirmed(rig)
        lists = [dict(parse_qsl(call.query)) for call in rig.sim.traffic.recent("GET /jobs")]
        # Without a time polling asks for refreshes alone, one page of them, to know whether lists leave those out.
        untimed = [each for each in lists if "updatedAtStart" not in each]
        assert [each.get("jobType") for each in untimed] == ["refresh"] * len(untimed)
        assert len(untimed) <= 1
        since = [each["updatedAtStart"] for each in lists if "updatedAtStart" in each]
        assert len(since) > 1
        assert min(since) > (format_time(utcnow() - timedelta(days=1)) or "")

    async def test_answers_do_not_wait_for_airbyte(self, rig: Rig) -> None:
        rig.sim.add_fault(Fault(kind="slow", delay=30.0))
        with anyio.fail_after(30):
            for number in range(50):
                assert (await rig.http.post(rig.webhook(), content=body(number + 1))).status_code == 202
        rig.sim.faults.clear()


async def until_confirmed(rig: Rig) -> None:
    async def confirmed() -> bool:
        found = (await rig.get("/v1/notifications", params={"limit": 1000})).json()["notifications"]
        return all(each["outcome"] != "pending" for each in found)

    await until(confirmed)


async def origin(rig: Rig) -> str:
    """The cursor before the first event."""
    epoch, _, _ = (await rig.get("/v1/events")).json()["cursor"].partition("-")
    return f"{epoch}-0"


def test_beyond_loopback_nobody_listens_without_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRBYTE_EVENTS_AIRBYTE_URL", "http://127.0.0.1:9")
    for host in ("0.0.0.0", "::", "192.0.2.1", "events.example.com"):
        with pytest.raises(SettingsError, match="TOKENS"):
            load(host=host)
