"""Who asks for much and reads nothing, over raw sockets."""

from __future__ import annotations

import contextlib
import select
import socket
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from airbyte_events.web.server import allow_open_files

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Hogs:
    """``async with Hogs(port, 3_200, request) as hogs``: so many connections, each of which has sent all of that.

    Those that are ended are opened again.

    :param asked: what each sends.
    """

    def __init__(self, port: int, count: int, asked: bytes) -> None:
        self.ended = 0
        self._port, self._count, self._asked = port, count, asked
        self._sockets: dict[int, socket.socket] = {}
        self._poll = select.poll()

    async def __aenter__(self) -> Self:
        allow_open_files()
        await self.hold()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for each in self._sockets.values():
            each.close()

    async def hold(self) -> None:
        """Open again those that were ended."""
        for number, _ in self._poll.poll(0):
            self.ended += 1
            self._poll.unregister(number)
            self._sockets.pop(number).close()
        missing = self._count - len(self._sockets)
        for opened in range(missing):
            self._open()
            if opened % 50 == 0:
                await anyio.lowlevel.checkpoint()

    def _open(self) -> None:
        hog = socket.socket()
        hog.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        hog.settimeout(5)
        try:
            hog.connect(("127.0.0.1", self._port))
            hog.sendall(self._asked)
        except OSError:
            hog.close()
            return
        self._sockets[hog.fileno()] = hog
        # Nothing is read: what was sent is no reason to look, the end of the connection is.
        with contextlib.suppress(OSError):
            self._poll.register(hog, select.POLLRDHUP | select.POLLERR)
