"""Proxies between a store and its PostgreSQL: one that goes silent, and one that pools transactions."""

from __future__ import annotations

import secrets
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import anyio
from anyio.abc import SocketStream

from support.servers import accepting

GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


@dataclass
class Wire:
    """A TCP proxy that can stop to pass anything on without a word, and take it up again.

    :param port: to connect to.
    """

    target: int
    port: int = 0
    connections: int = 0
    silent: bool = False
    _speak: anyio.Event = field(default_factory=anyio.Event)

    def silence(self) -> None:
        """Every connection there is hears nothing any more, for ever; new ones neither, until :meth:`speak`."""
        self.silent = True

    def speak(self) -> None:
        """New connections work again. Those that were silenced stay so."""
        self.silent = False

    async def handle(self, client: SocketStream) -> None:
        self.connections += 1
        lost = anyio.Event()
        async with client:
            if self.silent:
                await self._drain(client)
                return
            with suppress(*GONE):
                async with (
                    await anyio.connect_tcp("127.0.0.1", self.target) as server,
                    anyio.create_task_group() as both,
                ):
                    both.start_soon(self._copy, client, server, both.cancel_scope, lost)
                    both.start_soon(self._copy, server, client, both.cancel_scope, lost)

    async def _copy(self, source: SocketStream, to: SocketStream, scope: anyio.CancelScope, lost: anyio.Event) -> None:
        with suppress(*GONE):
            while True:
                data = await source.receive()
                if self.silent:
                    lost.set()
                if not lost.is_set():
                    await to.send(data)
        scope.cancel()

    async def _drain(self, client: SocketStream) -> None:
        with suppress(*GONE):
            while True:
                await client.receive()


@asynccontextmanager
async def wire(target: int) -> AsyncIterator[Wire]:
    proxy = Wire(target)
    async with accepting(proxy.handle) as proxy.port:
        yield proxy


class _Reader:
    """Messages of PostgreSQL's protocol, https://www.postgresql.org/docs/current/protocol-message-formats.html."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self._data = b""

    async def exactly(self, count: int) -> bytes:
        while len(self._data) < count:
            self._data += await self.stream.receive()
        data, self._data = self._data[:count], self._data[count:]
        return data

    async def message(self) -> bytes:
        head = await self.exactly(5)
        return head + await self.exactly(struct.unpack("!I", head[1:])[0] - 4)

    async def startup(self) -> bytes:
        """The first message, which has no type; encryption is refused."""
        while True:
            head = await self.exactly(4)
            body = await self.exactly(struct.unpack("!I", head)[0] - 4)
            if struct.unpack("!I", body[:4])[0] not in {80877103, 80877104}:
                return head + body
            await self.stream.send(b"N")


@dataclass
class Pooler:
    """Pools transactions: each gets another session of the server, in turn, and what a session was left with (a
    setting, a prepared statement, a LISTEN) is there for whoever comes next. What the server says in between reaches
    nobody.

    :param port: to connect to.
    :param sessions: how many there are.
    """

    target: int
    sessions: int = 3
    port: int = 0
    transactions: int = 0
    _idle: list[_Reader] = field(default_factory=list)
    opened: list[_Reader] = field(default_factory=list)

    async def handle(self, client: SocketStream) -> None:
        async with client:
            with suppress(*GONE):
                reader = _Reader(client)
                await self._welcome(reader, await reader.startup())
                while True:
                    message = await reader.message()
                    if message[:1] == b"X":
                        return
                    await self._transact(reader, message)

    async def _welcome(self, client: _Reader, startup: bytes) -> None:
        """Log in as the client says, and let it in with a key of the pooler's own."""
        server = _Reader(await anyio.connect_tcp("127.0.0.1", self.target))
        self.opened.append(server)
        await server.stream.send(startup)
        while (message := await server.message())[:1] != b"Z":
            if message[:1] == b"K":
                message = b"K" + struct.pack("!III", 12, secrets.randbits(31), secrets.randbits(31))
            await client.stream.send(message)
            if message[:1] == b"E":
                raise anyio.EndOfStream
            # Of the authentication requests these two end with an answer of the server's.
            if message[:1] == b"R" and struct.unpack("!I", message[5:9])[0] in {5, 10, 11}:
                await server.stream.send(await client.message())
        if len(self._idle) < self.sessions:
            self._idle.append(server)
        else:
            await server.stream.aclose()
        await client.stream.send(message)

    async def _transact(self, client: _Reader, message: bytes) -> None:
        while not self._idle:  # noqa: ASYNC110
            await anyio.sleep(0.001)
        self.transactions += 1
        server = self._idle.pop(0)
        while True:
            await server.stream.send(message)
            if message[:1] in b"QS" and await self._answers(client, server) == b"I":
                break
            message = await client.message()
        # Not if it broke off in between.
        self._idle.append(server)

    async def _answers(self, client: _Reader, server: _Reader) -> bytes:
        """Hand them over up to "ready for query"; whether that is within a transaction."""
        while True:
            message = await server.message()
            if message[:1] != b"A":
                await client.stream.send(message)
            if message[:1] == b"Z":
                return message[5:6]
            if message[:1] == b"G":
                while (copied := await client.message())[:1] not in b"cf":
                    await server.stream.send(copied)
                await server.stream.send(copied)


@asynccontextmanager
async def pooler(target: int) -> AsyncIterator[Pooler]:
    proxy = Pooler(target)
    async with accepting(proxy.handle) as proxy.port:
        yield proxy
    for each in proxy.opened:
        await each.stream.aclose()
