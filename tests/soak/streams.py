"""Hundreds of raw streams, at little cost: each keeps the sequences of the events that it was told."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import TYPE_CHECKING

import anyio

from airbyte_events.events import Cursor
from soak.listening import API_TOKEN

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_EVENT = re.compile(rb"event: (?:job|signal)\nid: [^\n-]+-([0-9]+)\n")
_NAME = re.compile(rb"event: ([a-z]+)\n")


class Stream(asyncio.Protocol):
    """One stream.

    :param stalls: it reads nothing after the hello.
    :param seen: sequences, in the order in which they came.
    :param last: the name of its last frame.
    """

    def __init__(self, first: Cursor, stalls: bool) -> None:
        self.seen: list[int] = []
        self.last = b""
        self.stalls = stalls
        self.hello = anyio.Event()
        self.ended = anyio.Event()
        self._first = first
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(
            # With signals, so that no sequence is left out: three failures in a row raise one.
            f"GET /v1/events?signals=true&after={self._first} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
            f"Authorization: Bearer {API_TOKEN}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._rest += data
        end = self._rest.rfind(b"\n\n")
        if end < 0:
            return
        whole, self._rest = self._rest[: end + 2], self._rest[end + 2 :]
        self.seen += map(int, _EVENT.findall(whole))
        if names := _NAME.findall(whole):
            self.last = names[-1]
            if self.stalls and not self.hello.is_set():
                self.transport.pause_reading()
            self.hello.set()

    def has(self, sequence: int) -> bool:
        """Whether it has been told of an event, or never will be."""
        return self.ended.is_set() or (bool(self.seen) and self.seen[-1] >= sequence)

    def connection_lost(self, exc: Exception | None) -> None:
        self.hello.set()
        self.ended.set()


class Streams:
    """``async with Streams(port, first, 1_000) as streams``: all are open when it is entered.

    :param first: where to begin.
    :param stalled: they read nothing after the hello.
    """

    def __init__(self, port: int, first: Cursor, count: int, *, stalled: bool = False) -> None:
        self._port, self._first, self._count, self._stalled = port, first, count, stalled
        self.streams: list[Stream] = []

    async def __aenter__(self) -> Self:
        for _ in range(self._count):
            raw = socket.socket()
            if self._stalled:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(raw, ("127.0.0.1", self._port))
            _, stream = await loop.create_connection(lambda: Stream(self._first, self._stalled), sock=raw)
            self.streams.append(stream)
        for stream in self.streams:
            with anyio.fail_after(60):
                await stream.hello.wait()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for stream in self.streams:
            stream.transport.abort()
        await asyncio.sleep(0)

    async def until_seen(self, upto: int, seconds: float = 120) -> None:
        """Returns when each has been told of that event or has ended, or the time is up."""
        with anyio.move_on_after(seconds):
            for stream in self.streams:
                while not stream.has(upto):  # noqa: ASYNC110 -- there are a thousand
                    await anyio.sleep(0.02)
