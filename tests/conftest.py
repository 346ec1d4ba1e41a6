"""What all tests share: both event loops, and an HTTP server that answers by a script."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

# Airflow reads these when it is imported: no setting of another Airflow reaches it, and nothing of that is touched.
for _name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[_name]
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loop",
        choices=["asyncio", "trio", "both"],
        default="both",
        help="of tests that run on either event loop, run those on this one",
    )
    parser.addoption("--pgbouncer", action="store_true", help="stores reach PostgreSQL by way of pgbouncer")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the event loop that ``--loop`` names, and those that run on one alone."""
    if (loop := config.getoption("--loop")) == "both":
        return
    others = {item for item in items if isinstance(item, pytest.Function) and _loop_of(item) not in (None, loop)}
    config.hook.pytest_deselected(items=list(others))
    items[:] = [item for item in items if item not in others]


def _loop_of(item: pytest.Function) -> str | None:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("anyio_backend")


@pytest.fixture(scope="session")
def postgres_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """A database of a PostgreSQL server, for schemas with names of their own: of the one that the environment variable
    names, or of one that runs meanwhile. Environments without the driver do without these tests."""
    pytest.importorskip("psycopg", reason="the environment has no PostgreSQL driver")
    if url := os.environ.get("AIRBYTE_EVENTS_TEST_POSTGRES_URL"):
        yield url
        return
    from tests.postgres_server import running

    with running() as server:
        if not pytestconfig.getoption("--pgbouncer"):
            yield server.url()
            return
        from tests.pgbouncer import pgbouncer

        with pgbouncer(server) as url:
            yield url


@dataclass
class Received:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)


Step = Callable[[SocketStream], Awaitable[None]]


@dataclass
class ScriptedServer:
    """Answers each route by its script, step after step; the last step is repeated for ever.

    :param url: its address, without a path.
    :param requests: all that came, in order.
    """

    url: str
    requests: list[Received] = field(default_factory=list)
    steps: dict[str, list[Step]] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)

    def on(self, route: str, *steps: Step) -> None:
        """:param route: method and path, ``GET /x``."""
        self.steps[route] = list(steps)
        self.served[route] = 0

    def count(self, route: str) -> int:
        return sum(f"{request.method} {request.path}" == route for request in self.requests)

    @staticmethod
    def raw(data: bytes) -> Step:
        """These bytes, then the end of the stream."""

        async def step(stream: SocketStream) -> None:
            await stream.send(data)

        return step

    @classmethod
    def reply(
        cls, status: int = 200, content: object = None, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Step:
        """A well-formed answer, JSON unless ``body`` is given."""
        if body is None:
            body = b"" if content is None else json.dumps(content).encode()
        fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "?"
        lines = [f"HTTP/1.1 {status} {phrase}"] + [f"{k}: {v}" for k, v in (fields | (headers or {})).items()]
        return cls.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    @staticmethod
    def reset() -> Step:
        """A TCP reset instead of an answer."""

        async def step(stream: SocketStream) -> None:
            raw_socket = stream.extra(SocketAttribute.raw_socket)
            raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        return step

    @staticmethod
    def hang() -> Step:
        """No answer until the client goes."""

        async def step(stream: SocketStream) -> None:
            await stream.receive()

        return step

    @staticmethod
    def held(event: anyio.Event, then: Step) -> Step:
        """An answer when the event is set."""

        async def step(stream: SocketStream) -> None:
            await event.wait()
            await then(stream)

        return step

    @staticmethod
    def drip() -> Step:
        """An answer whose body never ends, a byte at a time."""

        async def step(stream: SocketStream) -> None:
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{")
            while True:
                await stream.send(b" ")
                await anyio.sleep(0.02)

        return step

    async def handle(self, stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                request = await self._receive(stream)
                self.requests.append(request)
                await self._next_step(f"{request.method} {request.path}")(stream)

    def _next_step(self, route: str) -> Step:
        steps = self.steps.get(route)
        if not steps:
            return self.reply(404, {"title": "not in the script"})
        step = steps[min(self.served[route], len(steps) - 1)]
        self.served[route] += 1
        return step

    async def _receive(self, stream: SocketStream) -> Received:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += await stream.receive()
        url = urlsplit(target)
        return Received(method, url.path, parse_qs(url.query), headers, body)


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[ScriptedServer]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    scripted = ScriptedServer(url=f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, scripted.handle)
        yield scripted
        tasks.cancel_scope.cancel()
