"""Servers that answer anything, over a socket: what is asked of them ends in a value or in an error of this package."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airbyte_events._utils import json_values
from airbyte_events._utils.http import no_cookies
from airbyte_events.airbyte import AirbyteClient, Credentials
from airbyte_events.errors import AirbyteError, FeedError
from airbyte_events.events import Cursor, JobRef, JobStatus
from airbyte_events.feed.client import FeedClient, FeedFrame
from support.servers import ScriptedServer

if TYPE_CHECKING:
    from anyio.abc import SocketStream


pytestmark = pytest.mark.anyio

T = TypeVar("T")

BASE = "/api/public/v1"
CANARY = "canary-of-the-client-secret"

JOB = {"jobId": 5, "status": "succeeded", "jobType": "sync", "connectionId": "c", "startTime": "2024-01-01T00:00Z"}
DATA = {
    "instance": "default",
    "job_id": 5,
    "status": "succeeded",
    "origin": "poll",
    "observed_at": "2024-01-01T00:00:00Z",
    "error": None,
}
ENVELOPE = {"id": "e1-5", "data": DATA}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(list(JobStatus)),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from([*JOB, *DATA, "data"]), each, max_size=4),
    max_leaves=8,
)
JOBS = st.fixed_dictionaries({}, optional={name: st.just(value) | VALUES for name, value in JOB.items()})
DATAS = st.fixed_dictionaries({}, optional={name: st.just(value) | VALUES for name, value in DATA.items()})
DOCUMENTS = st.one_of(
    st.just(JOB),
    JOBS,
    st.lists(JOBS, max_size=3).map(lambda jobs: {"data": jobs}),
    st.fixed_dictionaries({"access_token": VALUES | st.just("t"), "expires_in": VALUES}),
    st.fixed_dictionaries({"title": VALUES, "type": VALUES, "detail": VALUES, "data": VALUES}),
    st.lists(DATAS, max_size=2).map(lambda jobs: {"jobs": jobs, "unknown": []}),
    st.fixed_dictionaries({"jobs": VALUES, "unknown": VALUES, "error": VALUES}),
    VALUES,
)
BODIES = DOCUMENTS.map(lambda value: json.dumps(value).encode()) | st.sampled_from(
    [
        b"",
        b"<html><title>502 Bad Gateway</title>",
        b"[" * 200_000,
        b'{"jobId": ' + b"9" * 200_000 + b"}",
        b'{"jobId": NaN}',
        b'{"jobId": 5, "status": "succeeded"',
        b'{"jobId": 5, "status": "failed", "status": "succeeded"}',
        b"\xff\xfe{\0}\0",
        gzip.compress(bytes(1 << 20)),
    ]
)
TEXTS = st.binary(max_size=30).map(lambda text: bytes(byte for byte in text if byte not in b"\r\n\0"))
HEADERS = st.dictionaries(
    st.sampled_from(
        ["Location", "Retry-After", "Date", "Content-Encoding", "Set-Cookie", "Content-Type", "X", "Upgrade"]
    ),
    TEXTS
    | st.sampled_from(
        [b"//[", b"http://user:pw@x:99999/?a#b", b"\xe9", b"-1", b"1e9", b"9" * 40, b"gzip", b"text/html"]
    )
    | st.sampled_from(
        [b"Mon, 01 Jan 0001 00:00:00 +9999", b"Tue, 99 Foo 99999 99:99:99 GMT", b"a=b; expires=x; Path=/"]
    ),
    max_size=3,
)


@st.composite
def answers(
    draw: st.DrawFn, media_type: bytes = b"application/json", bodies: st.SearchStrategy[bytes] = BODIES
) -> bytes:
    """The bytes of an answer, well-formed or not."""
    body = draw(bodies)
    length = len(body) + draw(st.sampled_from([0, 0, 0, 0, -1, 1, 10**30, -(10**6)]))
    status = draw(
        st.sampled_from([200] * 8 + [201, 204, 304, 302, 308, 400, 401, 403, 404, 409, 422, 429, 500, 503, 99, 999])
    )
    head = [b"HTTP/1.1 %d x" % status, b"Connection: close"]
    if draw(st.integers(0, 9)):
        head.append(b"Content-Type: " + media_type)
    framing = draw(st.sampled_from(["length"] * 4 + ["none", "chunked", "both"]))
    if framing in ("length", "both"):
        head.append(b"Content-Length: " + str(length).encode())
    if framing in ("chunked", "both"):
        head.append(b"Transfer-Encoding: chunked")
        body = draw(
            st.sampled_from([b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), b"-1\r\n", b"f" * 40 + b"\r\n", body])
        )
    head += [name.encode() + b": " + value for name, value in draw(HEADERS).items()]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


RAW = st.binary(max_size=40) | st.just(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 30_000)


@pytest.fixture
async def http(anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, cookies=no_cookies()) as http:
        yield http


async def tried(error: type[Exception], call: Callable[[], Awaitable[T]]) -> tuple[T | None, str]:
    """What comes of it, or why nothing does, which must be by this error, and soon."""
    try:
        with anyio.fail_after(30):
            return await call(), ""
    except error as exc:
        return None, str(exc)


def harmless(message: str) -> None:
    """A message that can be logged."""
    assert CANARY not in message
    assert "\n" not in message
    assert len(message) < 600


few = settings(max_examples=max(settings().max_examples * 3 // 5, 10))


class TestAirbyte:
    @few
    @given(answer=answers() | RAW)
    @example(answer=b"HTTP/1.1 302 x\r\nLocation: //[\r\n\r\n")
    async def test_whatever_it_answers(self, server: ScriptedServer, http: httpx.AsyncClient, answer: bytes) -> None:
        said = server.raw(answer)
        for route in ("GET /jobs/5", "GET /jobs", "POST /jobs", "GET /connections", "GET /health"):
            method, _, path = route.partition(" ")
            server.on(f"{method} {BASE}{path}", said)
        calls: list[Callable[[AirbyteClient], Awaitable[Any]]] = [
            lambda client: client.get_job(5),
            lambda client: client.list_jobs(),
            lambda client: client.create_job("c"),
            lambda client: client.list_connections(),
            lambda client: client.health(),
        ]
        for call in calls:
            # Each by a client of its own, as one waits as long as it is told to.
            result, fault = await tried(
                AirbyteError, partial(call, AirbyteClient(http, server.url, attempts=1, timeout=5))
            )
            harmless(fault)
            if call is calls[0] and result is not None:
                # I3: what it says of the job stands in what was sent.
                assert result.job_id == 5
                assert not result.status.terminal or result.status.value.encode() in answer

    @few
    @given(answer=answers() | RAW)
    async def test_whatever_it_gives_for_a_token(
        self, server: ScriptedServer, http: httpx.AsyncClient, answer: bytes
    ) -> None:
        server.on(f"POST {BASE}/applications/token", server.raw(answer.replace(b"canary", CANARY.encode())))
        server.on(f"GET {BASE}/jobs/5", server.reply(200, JOB))
        credentials = Credentials(client_id="id", client_secret=CANARY)
        client = AirbyteClient(http, server.url, credentials=credentials, attempts=1, timeout=5)
        job, fault = await tried(AirbyteError, lambda: client.get_job(5))
        harmless(fault)
        assert job is None or job.status is JobStatus.SUCCEEDED


FRAMES = st.lists(
    st.one_of(
        DATAS.map(
            lambda data: b"event: job\nid: e1-5\ndata: " + json.dumps({**ENVELOPE, "data": data}).encode() + b"\n\n"
        ),
        VALUES.map(lambda data: b"event: bookmark\nid: e1-6\ndata: " + json.dumps(data).encode() + b"\n\n"),
        st.sampled_from([b'event: hello\ndata: {"epoch": "e1"}\n\n', b"event: goaway\ndata: {}\n\n", b": x\n", b"\n"]),
        st.sampled_from(
            [b"id: " + b"1" * 9_000 + b"\ndata: {}\n\n", b"id: \0\ndata: {}\r\n\r\n", b"data: " + b"[" * 9_000]
        ),
        st.binary(max_size=20),
    ),
    max_size=6,
)


def in_pieces(pieces: list[bytes]) -> Any:
    async def step(stream: SocketStream) -> None:
        for piece in pieces:
            await stream.send(piece)
            await anyio.lowlevel.checkpoint()

    return step


class TestAListener:
    @few
    @given(frames=FRAMES, size=st.integers(1, 40))
    async def test_whatever_it_streams(
        self, server: ScriptedServer, http: httpx.AsyncClient, frames: list[bytes], size: int
    ) -> None:
        stream = b"".join(frames)
        size = max(size, len(stream) // 50)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        server.on("GET /v1/events", in_pieces([head, *(stream[at : at + size] for at in range(0, len(stream), size))]))
        found = await self.followed(FeedClient(http, server.url, "token", hello=5, silence=5))
        for frame in found:
            assert frame.cursor is None or isinstance(frame.cursor, Cursor)
            if frame.event is not None:
                assert frame.name == "job"
                assert frame.event.status.value.encode() in stream or frame.event.status is JobStatus.UNKNOWN
                hash((frame.event.ref, frame.event.connection_id))

    @few
    @given(answer=answers(b"text/event-stream", BODIES | FRAMES.map(b"".join)) | RAW)
    async def test_whatever_it_answers(self, server: ScriptedServer, http: httpx.AsyncClient, answer: bytes) -> None:
        server.on("GET /v1/events", server.raw(answer))
        server.on("POST /v1/watches", server.raw(answer))
        client = FeedClient(http, server.url, CANARY, hello=5, silence=5, answer=5)
        await self.followed(client)
        told, fault = await tried(FeedError, lambda: client.watch([JobRef("default", 5)]))
        harmless(fault)
        for state in told.states.values() if told else ():
            assert json_values.parse_object(json.dumps(state.data(), allow_nan=False).encode()) == state.data()

    async def followed(self, client: FeedClient) -> list[FeedFrame]:
        found: list[FeedFrame] = []

        async def follow() -> None:
            async with client.stream() as frames:
                async for frame in frames:
                    found.append(frame)  # noqa: PERF401 -- those before the error count

        harmless((await tried(FeedError, follow))[1])
        return found
