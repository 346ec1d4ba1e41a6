"""A TCP proxy that passes bytes on, or spoils them."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskStatus

from support.servers import accepting

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_BROKEN = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class Fault(Enum):
    """What a proxy does to what passes through."""

    NONE = "none"
    LATENCY = "latency"
    """Everything is late."""
    SILENCE = "half-open"
    """Connections are taken, and stay; nothing passes any more, and nobody is told."""
    RESET = "reset"
    """Connections are reset, those there are at once and new ones with their first bytes."""
    DRIP = "byte by byte"
    """Each byte is a packet of its own."""
    CUT = "cut mid-frame"
    """Answers break off after some bytes."""
    REFUSED = "refused"
    """Nobody listens."""


FAULTS = tuple(fault for fault in Fault if fault is not Fault.NONE)


class Proxy:
    """``async with Proxy(port) as proxy``: what comes to ``proxy.port`` goes to that port of this machine.

    :param late: seconds that each piece is late by with :attr:`Fault.LATENCY`.
    :param cut_after: bytes of an answer that pass with :attr:`Fault.CUT`.
    """

    def __init__(self, target: int, *, late: float = 0.3, cut_after: int = 150) -> None:
        self.fault = Fault.NONE
        self.connections = 0
        """How many there have been."""
        self._target, self._late, self._cut_after = target, late, cut_after
        self._live: set[SocketStream] = set()
        self._silenced: set[SocketStream] = set()

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        self.port = 0
        await self._listen()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def become(self, fault: Fault) -> None:
        """From now on, do that, to the connections that there are, too."""
        was, self.fault = self.fault, fault
        # What was silenced stays so for ever: its bytes are lost. Its ends hear of it at last, as after a restart.
        for stream in self._live if fault in (Fault.RESET, Fault.REFUSED) else self._silenced:
            _reset(stream)
        if Fault.REFUSED in (was, fault) and was is not fault:
            await (self._listen() if was is Fault.REFUSED else self._close())

    async def _listen(self) -> None:
        self._closing, self._closed = anyio.Event(), anyio.Event()
        await self._tasks.start(self._accept, self._closing, self._closed)

    async def _accept(self, close: anyio.Event, closed: anyio.Event, *, task_status: TaskStatus[None]) -> None:
        async with accepting(self._handle, self.port) as self.port:
            task_status.started()
            await close.wait()
        closed.set()

    async def _close(self) -> None:
        self._closing.set()
        await self._closed.wait()

    async def _handle(self, client: SocketStream) -> None:
        self.connections += 1
        with suppress(*_BROKEN):
            async with client, await anyio.connect_tcp("127.0.0.1", self._target) as server:
                self._live |= {client, server}
                try:
                    async with anyio.create_task_group() as pumps:
                        pumps.start_soon(self._pump, client, server, None, pumps.cancel_scope)
                        pumps.start_soon(self._pump, server, client, self._cut_after, pumps.cancel_scope)
                finally:
                    self._live -= {client, server}
                    self._silenced -= {client, server}

    async def _pump(
        self, source: SocketStream, sink: SocketStream, cut_after: int | None, both: anyio.CancelScope
    ) -> None:
        passed = 0
        with suppress(*_BROKEN):
            while True:
                data = await source.receive()
                if self.fault is Fault.LATENCY:
                    await anyio.sleep(self._late)
                if self.fault is Fault.SILENCE or source in self._silenced:
                    self._silenced |= {source, sink}
                    continue
                if self.fault is Fault.RESET:
                    _reset(source)
                    _reset(sink)
                    break
                if self.fault is Fault.CUT and cut_after is not None:
                    await sink.send(data[: max(0, cut_after - passed)])
                    passed += len(data)
                    if passed > cut_after:
                        break
                    continue
                size = 1 if self.fault is Fault.DRIP else len(data)
                for start in range(0, len(data), size):
                    await sink.send(data[start : start + size])
        both.cancel()


def _reset(stream: SocketStream) -> None:
    """Have the socket closed by a reset, now."""
    raw = stream.extra(SocketAttribute.raw_socket)
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.shutdown(socket.SHUT_RD)
