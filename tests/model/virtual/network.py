"""A network in process: real HTTP clients, real ASGI applications, and between them what can go wrong on the way."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import anyio
import httpx
from anyio.abc import TaskGroup
from starlette.types import ASGIApp, Message

from model.virtual.clock import Machine, here

LATENCY = 0.02
"""Seconds, the most that a request takes to its server."""

WINDOW = 4
"""Pieces of an answer that are on the way at a time. Who sends more waits until its client has read some."""


@dataclass(eq=False)
class Host:
    """An address, where an application is served at times.

    :param machine: where it runs.
    :param app: None refuses connections.
    :param exchanges: requests whose answers are on the way.
    :param answered: (request, status) of each request that was answered.
    :param failures: what the application raised.
    """

    name: str
    machine: Machine
    app: ASGIApp | None = None
    exchanges: set[Exchange] = field(default_factory=set)
    answered: list[tuple[httpx.Request, int]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    refusing: bool = False
    """Connections are refused, whatever is served."""
    refused: set[Machine] = field(default_factory=set)
    """The machines whose connections are refused."""
    silent: bool = False
    """Nothing gets through, in either direction, and nobody is told."""
    holding: bool = False
    """A proxy in front holds every answer's body back until it is whole, which a stream never is."""
    _tasks: TaskGroup | None = None

    def change(self, **states: bool) -> None:
        """Set ``refusing``, ``silent`` or ``holding``."""
        for name, state in states.items():
            setattr(self, name, state)
        for exchange in list(self.exchanges):
            exchange.poke()

    @asynccontextmanager
    async def serving(self, app: ASGIApp) -> AsyncIterator[None]:
        """Serve it here meanwhile. At the end every connection breaks."""
        async with anyio.create_task_group() as self._tasks:
            self.app = app
            try:
                yield
            finally:
                self.app = None
                self._tasks.cancel_scope.cancel()

    def accept(self, request: httpx.Request) -> Exchange:
        if self.app is None or self.refusing or here() in self.refused or self._tasks is None:
            raise httpx.ConnectError("connection refused", request=request)
        exchange = Exchange(self, request)
        self.machine.run(self._tasks.start_soon, exchange.run, self.app)
        return exchange


class Network(httpx.AsyncBaseTransport):
    """The transport of every HTTP client here."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}

    def host(self, name: str, machine: Machine) -> Host:
        self._hosts[name] = Host(name, machine)
        return self._hosts[name]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        await anyio.sleep(random.uniform(0, LATENCY))
        host = self._hosts.get(request.url.host)
        if host is None:
            raise httpx.ConnectError(f"no host {request.url.host}", request=request)
        if host.silent:
            await anyio.sleep_forever()
        exchange = host.accept(request)
        try:
            status, headers = await exchange.head()
        except BaseException:
            await exchange.aclose()
            raise
        return httpx.Response(status, headers=headers, stream=exchange)


class Exchange(httpx.AsyncByteStream):
    """A request and its answer, which its client reads as it comes."""

    def __init__(self, host: Host, request: httpx.Request) -> None:
        self._host = host
        self._request = request
        self._requested = False
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._pieces: deque[bytes] = deque()
        self._whole = False
        self._broken = False
        self._hung_up = False
        self._news = anyio.Event()
        host.exchanges.add(self)

    def poke(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._news.wait()

    # The server's side.

    async def run(self, app: ASGIApp) -> None:
        url, request = self._request.url, self._request
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": url.scheme,
            "path": unquote(url.raw_path.partition(b"?")[0].decode()),
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": (url.host, url.port or 80),
            "client": ("192.0.2.1", 50000),
            "state": {"simulator.transport": _Connection(self)},
        }
        try:
            await app(scope, self._receive, self._send)
        except Exception as exc:
            self._host.failures.append(exc)
        finally:
            self._broken = not self._whole
            self.poke()

    @property
    def _gone(self) -> bool:
        return self._broken or (self._hung_up and not self._host.silent)

    async def _receive(self) -> Message:
        if not self._requested:
            self._requested = True
            return {"type": "http.request", "body": self._request.content, "more_body": False}
        await self._until(lambda: self._gone or self._whole)
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # As every server does.
            date = (b"date", formatdate(time.time(), usegmt=True).encode())
            self._head = message["status"], [*message.get("headers", ()), date]
            self._host.answered.append((self._request, message["status"]))
        else:
            await self._until(lambda: len(self._pieces) < WINDOW or self._gone)
            if message.get("body"):
                self._pieces.append(message["body"])
            self._whole = not message.get("more_body", False)
        self.poke()
        await anyio.lowlevel.checkpoint()

    def breaks(self) -> None:
        """The connection ends in the middle of things."""
        self._broken = True
        self.poke()

    # The client's side.

    def _there(self) -> bool:
        if self._host.silent:
            return False
        return self._broken or self._whole or (bool(self._pieces) and not self._host.holding)

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        await self._until(lambda: not self._host.silent and (self._broken or self._head is not None))
        if self._head is None:
            raise httpx.ReadError("the connection broke", request=self._request)
        return self._head

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await self._until(self._there)
            if self._pieces:
                piece = self._pieces.popleft()
                self.poke()
                yield piece
            elif self._whole:
                return
            else:
                raise httpx.ReadError("the connection broke", request=self._request)

    async def aclose(self) -> None:
        self._hung_up = True
        self._host.exchanges.discard(self)
        self.poke()


class _Connection:
    """What the simulator breaks connections by."""

    def __init__(self, exchange: Exchange) -> None:
        self.abort = self.close = exchange.breaks

    def get_extra_info(self, name: str) -> Any:
        raise OSError(f"no {name} here")
