"""Clients that hold connections: slow ones, many, large requests, a drain."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream

from airbyte_events.listener.http.app import MOST_REQUESTS, requests_for, streams_of
from airbyte_events.web.h11_protocol import LARGEST_HEAD, MAX_CONNECTIONS, ConnectionLimits
from airbyte_events.web.rate_limit import ConcurrencyLimit
from airbyte_events.web.server import Server, bind, limits_for, serving, url_of
from support.exposed import API_TOKENS, LAST, ExposedListener, body, listening, until_end
from support.listener import bearer
from support.servers import connect
from support.waiting import in_background, until

pytestmark = pytest.mark.anyio


async def open_stream(exposed: ExposedListener, stack: contextlib.AsyncExitStack) -> bytes:
    """Open a stream of events, to be closed with the stack; the beginning of the answer is returned."""
    stream = await stack.enter_async_context(await exposed.connect())
    token = f"Authorization: Bearer {API_TOKENS[0]}\r\n".encode()
    await stream.send(b"GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n" + token + b"\r\n")
    with anyio.fail_after(30):
        return await stream.receive()


async def stall(exposed: ExposedListener, stack: contextlib.AsyncExitStack) -> SocketStream:
    """Ask for much and read nothing, until the server has noticed."""
    hog = await stack.enter_async_context(await exposed.connect())
    hog.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    before = set(exposed.limits.stalled)
    await hog.send(100 * b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: bool(exposed.limits.stalled.keys() - before))
    return hog


class TestSlowClients:
    """The time that a request may take is short here, and begins anew with each."""

    @pytest.fixture
    async def exposed(self) -> AsyncIterator[ExposedListener]:
        async with listening(ConnectionLimits(request_seconds=0.4, stalled_seconds=0.4)) as exposed:
            yield exposed

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
    async def test_are_left_however_they_drip(self, exposed: ExposedListener, begun: bytes) -> None:
        async with await exposed.connect() as stream, anyio.create_task_group() as tasks:

            async def drip() -> None:
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    while begun:
                        await stream.send(b"a")
                        await anyio.sleep(0.02)

            if begun:
                await stream.send(begun.replace(b"{path}", exposed.webhook().encode()))
            tasks.start_soon(drip)
            await until_end(stream)
            tasks.cancel_scope.cancel()
        assert not exposed.limits.waiting
        assert json.loads((await exposed.get("/v1/notifications")).content)["notifications"] == [] or b"{}POST" in begun

    async def test_a_request_after_a_request_has_its_own_time(self, exposed: ExposedListener) -> None:
        request = f"GET /healthz HTTP/1.1\r\nHost: {'x' * 50}\r\n\r\n".encode()
        async with await exposed.connect() as stream:
            for _ in range(10):
                for start in range(0, len(request), 30):
                    await stream.send(request[start : start + 30])
                    await anyio.sleep(0.01)
                assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")
                await anyio.sleep(0.05)

    async def test_what_is_answered_slowly_is_no_slow_client(self, exposed: ExposedListener) -> None:
        answer = await exposed.get("/v1/events", params={"wait": 1.5})
        assert answer.json()["events"] == []

    async def test_who_does_not_read_is_left(self) -> None:
        ended = anyio.Event()

        async def endless(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

            async def write() -> None:
                while True:
                    await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                    await anyio.lowlevel.checkpoint()

            async with in_background(write):
                while (await receive())["type"] != "http.disconnect":
                    pass
            ended.set()

        limits = ConnectionLimits(stalled_seconds=0.4)
        async with serving(endless, limits=limits) as url, await connect(url) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with anyio.fail_after(30):
                await ended.wait()
        assert not limits.stalled


class TestNoRequest:
    async def test_is_answered_like_all_others(self, exposed: ExposedListener) -> None:
        answer = await exposed.raw(b"no request \x00 secret\r\n\r\n")
        head, _, content = answer.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        assert lines[0].startswith(b"http/1.1 400 ")
        assert {b"x-content-type-options: nosniff", b"cache-control: no-store"} <= set(lines)
        assert f"content-length: {len(content)}".encode() in lines
        assert b"secret" not in answer

    async def test_nor_one_whose_end_is_read_in_two_ways(self, exposed: ExposedListener) -> None:
        """What a proxy takes for a body would be a request of somebody's choice in another's name."""
        hidden = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        length = b"Content-Length: %d\r\n" % (len(hidden) + 5)
        chunked = b"Transfer-Encoding: chunked\r\n"
        for told in (length + chunked, chunked + length):
            answer = await exposed.raw(b"POST /nowhere HTTP/1.1\r\nHost: x\r\n" + told + b"\r\n0\r\n\r\n" + hidden)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert answer.count(b"HTTP/1.1 ") == 1


class TestManyConnections:
    async def test_who_sends_a_request_is_served_whoever_holds_the_rest(self) -> None:
        async with listening(ConnectionLimits(most=20)) as exposed, contextlib.AsyncExitStack() as stack:
            idle = [await stack.enter_async_context(await exposed.connect()) for _ in range(60)]
            for stream in idle[1:]:
                # Those that made way for others have been reset.
                with contextlib.suppress(anyio.BrokenResourceError):
                    await stream.send(b"POST /webhooks/default/x HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
            for _ in range(30):
                async with httpx.AsyncClient(base_url=exposed.url, trust_env=False, timeout=10) as http:
                    assert (await http.get("/healthz")).status_code == 200
                    assert (await http.post(exposed.webhook(), content=b"{}")).status_code == 200
            assert len(exposed.limits.waiting) <= 20
            # The longest one goes first, and is told why.
            assert (await until_end(idle[0])).startswith(b"HTTP/1.1 503 ")

    async def test_who_came_before_a_crowd_was_taken_in_is_told_to_come_again(self) -> None:
        """More requests at once than there are connections, sent before the first was read: none goes unanswered."""
        async with listening(ConnectionLimits(most=40)) as exposed:
            answers: list[bytes] = []

            async def ask() -> None:
                answers.append(await exposed.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))

            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(ask)
            assert len(answers) == 50
            assert {answer[:13] for answer in answers} <= {b"HTTP/1.1 200 ", b"HTTP/1.1 503 "}

    async def test_those_in_use_are_not_taken_away(self) -> None:
        async with listening(ConnectionLimits(most=5)) as exposed, contextlib.AsyncExitStack() as stack:
            headers = bearer(API_TOKENS[0]) | {"Accept": "text/event-stream"}
            streams = []
            for _ in range(5):
                http = await stack.enter_async_context(httpx.AsyncClient(base_url=exposed.url, trust_env=False))
                answer = await stack.enter_async_context(http.stream("GET", "/v1/events", headers=headers))
                lines = answer.aiter_lines()
                assert await anext(lines) == "event: hello"
                streams.append(lines)
            refused = await exposed.raw(b"")
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: " in refused
            assert b"x-content-type-options: nosniff" in refused
            head, _, content = refused.partition(b"\r\n\r\n")
            assert f"content-length: {len(content)}".encode() in head
            exposed.listener.drain()
            for lines in streams:
                assert "event: goaway" in [line async for line in lines]

    async def test_the_reserve_is_for_webhooks_and_health(self) -> None:
        async with listening(ConnectionLimits(most=8, reserve=4)) as exposed, contextlib.AsyncExitStack() as stack:
            answers = [await open_stream(exposed, stack) for _ in range(5)]
            assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 4 + [b"HTTP/1.1 503 "]
            assert b"\r\nretry-after: 5\r\n" in answers[-1].lower()
            for _ in range(10):
                assert (await exposed.raw(b"GET /healthz" + LAST)).startswith(b"HTTP/1.1 200 ")
                assert (await exposed.raw(b"GET /openapi.json" + LAST)).startswith(b"HTTP/1.1 503 ")
                async with httpx.AsyncClient(base_url=exposed.url, trust_env=False, timeout=10) as http:
                    assert (await http.post(exposed.webhook(), content=b"{}")).status_code == 200
            assert exposed.limits.taken <= 8

    async def test_idle_ones_make_way_for_any_request_once_they_are_not_new(self) -> None:
        async with listening(ConnectionLimits(most=8, reserve=4)) as exposed, contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(await exposed.connect())
            await until(lambda: len(exposed.limits.waiting) == 8)

            async def served() -> bool:
                return (await exposed.raw(b"GET /openapi.json" + LAST)).startswith(b"HTTP/1.1 200 ")

            await until(served)

    async def test_those_that_take_nothing_make_way(self) -> None:
        async with (
            listening(ConnectionLimits(most=8, reserve=4, spared_seconds=0.0)) as exposed,
            contextlib.AsyncExitStack() as stack,
        ):
            hogs = [await stall(exposed, stack) for _ in range(4)]
            # The one that has taken nothing for longest goes first.
            assert (await exposed.raw(b"GET /openapi.json" + LAST)).startswith(b"HTTP/1.1 200 ")
            await until_end(hogs[0])
            assert len(exposed.limits.stalled) == 3
            assert (await exposed.http.post(exposed.webhook(), content=b"{}")).status_code == 200

    async def test_those_that_take_nothing_are_spared_for_a_moment(self) -> None:
        async with (
            listening(ConnectionLimits(most=4, reserve=2, spared_seconds=30)) as exposed,
            contextlib.AsyncExitStack() as stack,
        ):
            for _ in range(2):
                await stall(exposed, stack)
            assert (await exposed.raw(b"GET /openapi.json" + LAST)).startswith(b"HTTP/1.1 503 ")
            assert (await exposed.http.get("/healthz")).status_code == 200
            assert len(exposed.limits.stalled) == 2

    async def test_what_is_not_read_is_bounded_over_all_of_them(self) -> None:
        async with listening(ConnectionLimits(unread_bytes=100_000)) as exposed, contextlib.AsyncExitStack() as stack:
            hogs = [await stall(exposed, stack) for _ in range(20)]
            assert exposed.limits.unread <= 100_000
            assert 0 < len(exposed.limits.stalled) < 20
            await until_end(hogs[0])
            for each in hogs:
                await each.aclose()
            await until(lambda: exposed.limits.open == 0)
            assert (exposed.limits.unread, len(exposed.limits.stalled), len(exposed.limits.leaving)) == (0, 0, 0)

    async def test_a_pipeline_is_answered_in_order_and_bounded(self, exposed: ExposedListener) -> None:
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        answer = await exposed.raw(20 * request + b"GET /nowhere" + LAST)
        assert answer.count(b"HTTP/1.1 200 ") == 20
        assert answer.rfind(b"HTTP/1.1 404 ") > answer.rfind(b"HTTP/1.1 200 ")
        more = await exposed.raw((LARGEST_HEAD // len(request) + 20) * request)
        assert more.count(b"HTTP/1.1 200 ") <= 1
        await exposed.healthy()

    async def test_a_crowd_of_requests_takes_turns_with_others(self, exposed: ExposedListener) -> None:
        """However many come at once, webhooks are stored in their 2 s meanwhile."""
        async with contextlib.AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(await exposed.connect()) for _ in range(200)]
            for stream in crowd:
                await stream.send(20 * b"POST /webhooks/default/wrong HTTP/1.1\r\nHost: x\r\n\r\n")
            posts = [await exposed.http.post(exposed.webhook(), content=body(number)) for number in range(1, 6)]
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
        async with listening(connections=8) as exposed, contextlib.AsyncExitStack() as stack:
            assert streams_of(requests_for(8)) == 3
            answers = [await open_stream(exposed, stack) for _ in range(4)]
            assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 3 + [b"HTTP/1.1 503 "]
            assert b"\r\nretry-after: 5\r\n" in answers[-1].lower()
            assert (await exposed.get("/v1/jobs")).status_code == 200
            assert (await exposed.get("/v1/events")).status_code == 200

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
    async def test_what_is_too_large_is_not_read_to_the_end(self, exposed: ExposedListener, request_: bytes) -> None:
        async with await exposed.connect() as stream, anyio.create_task_group() as tasks:

            async def send() -> None:
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await stream.send(request_)

            tasks.start_soon(send)
            # The answer is lost at times, as the server leaves while there is more to come.
            assert (await until_end(stream) or b"HTTP/1.1 400 ").startswith(b"HTTP/1.1 400 ")
        await exposed.healthy()

    async def test_a_large_body_behind_a_small_head_is_no_large_head(self, exposed: ExposedListener) -> None:
        content = body(1) + b" " * 60_000
        head = f"POST {exposed.webhook()} HTTP/1.1\r\nContent-Length: {len(content)}\r\n"
        rest = b"Host: x\r\nConnection: close\r\n\r\n" + content
        assert (await exposed.raw(head.encode() + rest)).startswith(b"HTTP/1.1 202 ")


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
            # The clients outlive the server.
            async with contextlib.AsyncExitStack() as stack, anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [bound])
                for begun in (
                    b"",
                    b"GET / HT",
                    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
                    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                ):
                    stream = await stack.enter_async_context(await connect(url_of(bound)))
                    await stream.send(begun or b"G")
                await until(lambda: len(limits.waiting) == 3 and len(limits.stalled) == 1)
                server.should_exit = True
