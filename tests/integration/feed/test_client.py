"""The client of a listener's feed against servers that are none, or are ill."""

from __future__ import annotations

import contextlib
import gzip
import json
import traceback
import tracemalloc
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events.errors import FeedError, FeedRefused, FeedUnreachable, SettingsError
from airbyte_events.events import Cursor, JobRef
from airbyte_events.feed.client import LARGEST_RESPONSE, FeedClient
from support.events import event_of
from support.feed import ScriptedFeed
from support.listener import API_TOKEN
from support.servers import serve
from support.waiting import in_background

pytestmark = pytest.mark.anyio


@pytest.fixture
def client(feed: ScriptedFeed, http: httpx.AsyncClient) -> FeedClient:
    return FeedClient(http, feed.url, API_TOKEN, hello=30, silence=30, answer=30)


@pytest.fixture
def impatient(feed: ScriptedFeed, http: httpx.AsyncClient) -> FeedClient:
    return FeedClient(http, feed.url, API_TOKEN, hello=0.3, silence=0.3, answer=0.3)


async def read(client: FeedClient, count: int = 1, **options: Any) -> list[Any]:
    found = []
    with anyio.fail_after(30):
        async with client.stream(**options) as frames:
            async for frame in frames:
                found.append(frame)
                if len(found) == count:
                    break
    return found


class TestStream:
    async def test_says_what_it_wants_and_reads_what_is_said(self, feed: ScriptedFeed, client: Any) -> None:
        event = event_of(5)
        feed.hello = (
            feed.frame("hello", {"epoch": "e1"})
            + b"event: of a newer listener\nid: whatever\ndata: [1, 2\n\n"
            + feed.job(event)
            + feed.frame("bookmark", id="e1-9")
        )
        hello, job, bookmark = await read(client, 3, after=Cursor("e1", 3), instance="default")

        assert (hello.name, hello.cursor, hello.data) == ("hello", Cursor("e1", 0), {"epoch": "e1"})
        assert (job.name, job.cursor, job.event.ref) == ("job", Cursor("e1", 1), JobRef("default", 5))
        assert (bookmark.name, bookmark.cursor, bookmark.event) == ("bookmark", Cursor("e1", 9), None)
        (request,) = feed.requests
        assert request.query == {"instance": ["default"]}
        assert request.headers["last-event-id"] == "e1-3"
        assert request.headers["authorization"] == f"Bearer {API_TOKEN}"
        assert request.headers["accept"] == "text/event-stream"
        # A compressed stream is one that something holds back.
        assert request.headers["accept-encoding"] == "identity"

    async def test_ends_with_the_answer(self, feed: ScriptedFeed, client: Any) -> None:
        async with client.stream() as frames, anyio.create_task_group() as tasks:

            async def hang_up() -> None:
                await feed.until(lambda: bool(feed.closers))
                feed.hang_up()

            tasks.start_soon(hang_up)
            assert [frame.name async for frame in frames] == ["hello"]

    async def test_frames_come_however_they_are_cut(self, feed: ScriptedFeed, client: Any) -> None:
        feed.hello = b""
        async with client.stream() as frames, anyio.create_task_group() as tasks:

            async def drip() -> None:
                await feed.until(lambda: bool(feed.streams))
                for byte in feed.frame("bookmark", {"name": "ü"}):
                    await feed.say(bytes([byte]))

            tasks.start_soon(drip)
            assert (await anext(frames)).name == "hello"
            assert (await anext(frames)).data == {"name": "ü"}

    @pytest.mark.parametrize("first", [None, b": a comment\n", b"event: hel"])
    async def test_one_that_never_says_hello(self, feed: ScriptedFeed, impatient: Any, first: bytes | None) -> None:
        feed.hello = first
        with pytest.raises(FeedUnreachable, match="did not respond in time"):
            await read(impatient)

    async def test_one_that_drips_and_says_nothing(self, feed: ScriptedFeed, impatient: Any) -> None:
        feed.hello = None

        async def drip() -> None:
            await feed.until(lambda: bool(feed.streams))
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                while True:
                    await feed.say(b": still here\n")
                    await anyio.lowlevel.checkpoint()

        async with in_background(drip):
            with pytest.raises(FeedUnreachable, match="did not respond in time"):
                await read(impatient)

    async def test_one_that_goes_silent(self, impatient: Any) -> None:
        with pytest.raises(FeedUnreachable, match="did not respond in time"):
            await read(impatient, 2)

    @pytest.mark.parametrize(
        "garbage",
        [
            b"event: job\ndata: no json\n\n",
            b"event: job\ndata: {}\n\n",
            b"event: hello\ndata: []\n\n",
            b"event: hello\ndata: " + b"[" * 100_000 + b"\n\n",
            b"event: hello\nid: yesterday\ndata: {}\n\n",
            b"event: hello\ndata: \xff\xfe\n\n",
            b'event: job\ndata: {"id": "e1-1", "data": 5}\n\n',
            b'event: job\ndata: {"id": "no cursor", "data": {}}\n\n',
            b"x" * (1 << 21),
        ],
    )
    async def test_garbage(self, feed: ScriptedFeed, client: Any, garbage: bytes) -> None:
        feed.hello = garbage
        with pytest.raises(FeedUnreachable, match="a frame that is no feed's"):
            await read(client)

    async def test_an_event_that_can_not_be_read_moves_the_cursor_on(self, feed: ScriptedFeed, client: Any) -> None:
        feed.hello = (
            b'event: job\nid: e1-7\ndata: {"id": "e1-7", "data": {"job_id": 1e999, "instance": "a", "observed_at": '
            b'"2024-01-01T00:00:00Z", "status": "failed", "origin": "poll"}}\n\n'
        )
        (frame,) = await read(client, 1)
        assert (frame.name, frame.event, frame.cursor) == ("job", None, Cursor("e1", 7))

    @pytest.mark.parametrize(
        ("status", "error"), [(400, FeedRefused), (401, FeedRefused), (404, FeedRefused), (503, FeedUnreachable)]
    )
    async def test_a_refusal(self, feed: ScriptedFeed, client: Any, status: int, error: type[FeedError]) -> None:
        feed.faults["/v1/events"] = status
        with pytest.raises(error) as caught:
            await read(client)
        assert getattr(caught.value, "status_code", 503) == status

    async def test_a_listener_that_is_not_there(self, feed: ScriptedFeed, http: httpx.AsyncClient) -> None:
        async with serve(ScriptedFeed()):
            pass
        gone = ScriptedFeed()
        async with serve(gone):
            pass
        with pytest.raises(FeedUnreachable, match="does not respond: Connection refused"):
            await read(FeedClient(http, gone.url, None))

    async def test_a_reader_that_leaves_closes_the_connection(self, feed: ScriptedFeed, client: Any) -> None:
        await read(client)
        (stream,) = feed.streams
        with pytest.raises(anyio.EndOfStream), anyio.fail_after(30):
            await stream.receive()

    async def test_a_token_is_sent_without_the_space_around_it(
        self, feed: ScriptedFeed, http: httpx.AsyncClient
    ) -> None:
        await read(FeedClient(http, feed.url, f" {API_TOKEN}\n"))
        assert feed.requests[0].headers["authorization"] == f"Bearer {API_TOKEN}"


class TestAnotherServer:
    """Airbyte's own address given for the listener's, say."""

    @pytest.mark.parametrize("status", [200, 302, 404])
    async def test_a_web_page(self, http: httpx.AsyncClient, status: int) -> None:
        class Page(ScriptedFeed):
            async def answer(self, request: Any, stream: Any) -> None:
                head = (
                    f"HTTP/1.1 {status} OK\r\nContent-Type: text/html\r\nConnection: close\r\nLocation: /login\r\n\r\n"
                )
                await stream.send(head.encode() + b"<html>\n<p>" + request.headers["authorization"].encode())

        page = Page()
        async with serve(page):
            client = FeedClient(http, page.url, API_TOKEN)
            with pytest.raises(FeedRefused) as caught:
                await read(client)
            assert API_TOKEN not in str(caught.value)
            assert "\n" not in str(caught.value)
            with pytest.raises(FeedError) as failed:
                await client.watch([JobRef("default", 1)])
            assert API_TOKEN not in "".join(traceback.format_exception(failed.value))
            assert page.count("GET /login") == 0


class TestWatch:
    async def test_states_and_unknown_jobs(self, feed: ScriptedFeed, client: Any) -> None:
        feed.states = {1: event_of(1)}
        feed.unknown = {2}
        answer = await client.watch([JobRef("default", 1), JobRef("default", 2), JobRef("default", 3)])
        assert {ref: state.status.value for ref, state in answer.states.items()} == {JobRef("default", 1): "succeeded"}
        assert answer.unknown == {JobRef("default", 2)}

    async def test_a_state_that_can_not_be_read_is_one_that_the_listener_can_not_report(
        self, http: httpx.AsyncClient
    ) -> None:
        known = event_of(2).data() | {"origin": "kafka", "streams": [1, 2]}
        states = [{"job_id": 1}, event_of(1).data() | {"observed_at": "9999-12-31T00:00:00Z"}, known, 5, None]

        class Newer(ScriptedFeed):
            async def answer(self, request: Any, stream: Any) -> None:
                body = json.dumps({"jobs": states, "more": {}}).encode()
                await stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)

        newer = Newer()
        async with serve(newer):
            answer = await FeedClient(http, newer.url, None).watch([JobRef("default", 1), JobRef("default", 2)])
        assert list(answer.states) == [JobRef("default", 2)]

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"<html>",
            b"[]",
            b"{}",
            b'{"jobs": null}',
            b'{"jobs": [], "unknown": [{"instance": "a", "job_id": []}]}',
            b'{"jobs": [], "unknown": 5}',
            b'{"jobs": ' + b"[" * 100_000,
        ],
    )
    async def test_garbage(self, http: httpx.AsyncClient, answer: bytes) -> None:
        class Odd(ScriptedFeed):
            async def answer(self, request: Any, stream: Any) -> None:
                await stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + answer)

        odd = Odd()
        async with serve(odd):
            with pytest.raises(FeedUnreachable, match="no listener's"):
                await FeedClient(http, odd.url, None).watch([JobRef("default", 1)])

    @pytest.mark.parametrize(
        ("status", "error"), [(200, FeedUnreachable), (401, FeedRefused), (400, FeedRefused), (503, FeedUnreachable)]
    )
    @pytest.mark.parametrize("bomb", [True, False])
    async def test_an_answer_that_is_too_large_or_unfolds(
        self, http: httpx.AsyncClient, status: int, error: type[FeedError], bomb: bool
    ) -> None:
        body = gzip.compress(bytes(64 << 20), 1) if bomb else bytes(LARGEST_RESPONSE + 1)
        head = f"HTTP/1.1 {status} ?\r\nConnection: close\r\n" + ("Content-Encoding: gzip\r\n" if bomb else "")

        class Large(ScriptedFeed):
            async def answer(self, request: Any, stream: Any) -> None:
                await stream.send(head.encode() + b"\r\n" + body)

        large = Large()
        async with serve(large):
            client = FeedClient(http, large.url, None)
            tracemalloc.start()
            try:
                for ask in (
                    (client.watch([JobRef("default", 1)]), read(client)) if status != 200 else (client.watch([]),)
                ):
                    with pytest.raises(error) as caught:
                        await ask
                    assert getattr(caught.value, "status_code", status) == status
                assert tracemalloc.get_traced_memory()[1] < 3 * LARGEST_RESPONSE
            finally:
                tracemalloc.stop()

    async def test_i4_an_answer_that_never_ends(self, http: httpx.AsyncClient) -> None:
        class Endless(ScriptedFeed):
            async def answer(self, request: Any, stream: Any) -> None:
                await stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                while True:
                    await stream.send(b" ")
                    await anyio.lowlevel.checkpoint()

        endless = Endless()
        async with serve(endless):
            with pytest.raises(FeedUnreachable, match="did not respond in time"):
                await FeedClient(http, endless.url, None, answer=0.1).watch([JobRef("default", 1)])


class TestSecrets:
    async def test_i7_none_in_repr_url_or_error(self, http: httpx.AsyncClient, feed: ScriptedFeed) -> None:
        host = feed.url.removeprefix("http://")
        feed.faults = {"/v1/events": 401, "/v1/watches": 400}
        client = FeedClient(http, f"http://user:pa55word@{host}/?key=s3cret", API_TOKEN)
        shown = [repr(client), client.url]
        for ask in (read(client), client.watch([JobRef("default", 1)])):
            with pytest.raises(FeedRefused) as caught:
                await ask
            shown.append("".join(traceback.format_exception(caught.value)))
        assert client.url == feed.url
        for text in shown:
            assert "pa55word" not in text
            assert "s3cret" not in text
            assert API_TOKEN not in text

    async def test_i7_a_token_that_is_none_is_refused_unseen(self, http: httpx.AsyncClient) -> None:
        for token in ("s3crét", "s3c\nret"):
            with pytest.raises(SettingsError) as caught:
                FeedClient(http, "http://listener:8484", token)
            assert "s3c" not in str(caught.value)

    @pytest.mark.parametrize("url", ["http://[::1", "http://s3cret@listener:port"])
    async def test_i7_a_url_that_is_none_is_refused_unseen(self, http: httpx.AsyncClient, url: str) -> None:
        with pytest.raises(SettingsError, match="http://listener:8484") as caught:
            FeedClient(http, url, None)
        assert "s3cret" not in str(caught.value)
