"""The server that puts a simulator on a socket."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from airbyte_events.server import Server, bind, url_of

from .instance import Simulator
from .transport import BreakableProtocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def serve_simulator(
    simulator: Simulator | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Simulator]:
    """Serve a simulator on a socket while this is entered. Runs on asyncio.

    :param simulator: a plain one unless given.
    :param host: an address of this machine.
    :param port: 0: any free one; see the simulator's ``url``.
    :raises OSError: if the address can't be had.
    """
    simulator = simulator or Simulator()
    with bind(host, port) as listening:
        simulator.url = url_of(listening)
        server = Server(
            simulator.app,
            http=BreakableProtocol,
            server_header=True,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
        async with simulator.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listening])
            try:
                yield simulator
            finally:
                server.should_exit = True
