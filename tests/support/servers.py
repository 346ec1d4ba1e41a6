"""Small HTTP servers on real sockets, for either event loop: one connection per request, every request is kept."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketListener, SocketStream

Step = Callable[[SocketStream], Awaitable[None]]


@dataclass
class Request:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Program:
    """What all the small servers do: read requests, keep them, answer each, one connection per request.

    :param url: its address, without a path.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    came: anyio.Event = field(default_factory=anyio.Event)

    async def answer(self, request: Request, stream: SocketStream) -> None:
        raise NotImplementedError

    def count(self, route: str) -> int:
        """:param route: method and a pattern of paths, ``GET /jobs/[0-9]+``."""
        return sum(re.fullmatch(route, f"{each.method} {each.path}") is not None for each in self.requests)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when it holds, which an answer can bring about a moment after it was sent."""
        with anyio.fail_after(30):
            while not condition():
                with anyio.move_on_after(0.02):
                    await self.came.wait()

    async def handle(self, stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                request = await _read(stream)
                self.requests.append(request)
                try:
                    await self.answer(request, stream)
                finally:
                    self.came.set()
                    self.came = anyio.Event()


async def _read(stream: SocketStream) -> Request:
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
    return Request(method, url.path, parse_qs(url.query), headers, body)


@asynccontextmanager
async def accepting(handle: Callable[[SocketStream], Coroutine[Any, Any, object]], port: int = 0) -> AsyncIterator[int]:
    """Pass each connection to ``handle``.

    asyncio's ``sock_accept`` raises ``InvalidStateError`` in the event loop if it is cancelled while a connection
    arrives. So what is cancelled here is the wait before it.

    :return: the port on 127.0.0.1.
    """
    (listener,) = (await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)).listeners
    assert isinstance(listener, SocketListener)

    async def accept() -> None:
        while True:
            await anyio.wait_readable(listener.extra(SocketAttribute.raw_socket))
            with anyio.CancelScope(shield=True):
                tasks.start_soon(handle, await listener.accept())

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(accept)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


def free_port() -> int:
    """Return the number of a TCP port that nothing listens on, of this machine's loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def connect(url: str) -> SocketStream:
    """Connect to the server at a URL, whatever its path."""
    at = urlsplit(url)
    assert at.hostname is not None
    assert at.port is not None
    return await anyio.connect_tcp(at.hostname, at.port)


@asynccontextmanager
async def serve(program: Program, port: int = 0) -> AsyncIterator[None]:
    async with accepting(program.handle, port) as port:
        program.url = f"http://127.0.0.1:{port}"
        yield


async def reply(stream: SocketStream, status: int, content: Any = None, **headers: str) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"] + [f"{name}: {value}" for name, value in fields.items()]
    await stream.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)


@dataclass
class ScriptedServer(Program):
    """Answers each route by its script, step after step; the last step is repeated for ever."""

    steps: dict[str, list[Step]] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)

    def on(self, route: str, *steps: Step) -> None:
        """:param route: method and path, ``GET /x``."""
        self.steps[route] = list(steps)
        self.served[route] = 0

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

    async def answer(self, request: Request, stream: SocketStream) -> None:
        await self._next_step(f"{request.method} {request.path}")(stream)

    def _next_step(self, route: str) -> Step:
        steps = self.steps.get(route)
        if not steps:
            return self.reply(404, {"title": "not in the script"})
        step = steps[min(self.served[route], len(steps) - 1)]
        self.served[route] += 1
        return step
