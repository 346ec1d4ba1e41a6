"""The simulator's HTTP server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.types import ASGIApp

from airbyte_events.simulator.app import simulator_app
from airbyte_events.simulator.broken_responses import BreakableProtocol
from airbyte_events.simulator.simulator import Simulator
from airbyte_events.web.server import Server, bind, url_of

_DRAIN_SECONDS = 1.0
"""Seconds for responses in flight at shutdown."""


class _QuickServer(Server):
    """Stops at once: test suites start it hundreds of times, and uvicorn takes 0.2 s to stop."""

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        super().__init__(app, **options)
        self._stopped = anyio.Event()

    def stop(self) -> None:
        # Not should_exit: during the start it makes uvicorn leave its sockets open.
        self._stopped.set()

    async def main_loop(self) -> None:
        while not self._stopped.is_set():
            # Updates the Date header, from which clients read Airbyte's clock.
            await self.on_tick(0)
            with anyio.move_on_after(1):
                await self._stopped.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            _, unfinished = await asyncio.wait(self.server_state.tasks, timeout=_DRAIN_SECONDS)
            for task in unfinished:
                task.cancel()


@asynccontextmanager
async def serve_simulator(
    simulator: Simulator | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Simulator]:
    """Serve a simulator on a socket while this is entered. Runs on asyncio.

    :param simulator: a plain one unless given.
    :param port: 0: any free one; see the simulator's ``url``.
    :raises OSError: if the address can't be bound.
    """
    simulator = simulator or Simulator()
    with bind(host, port) as listening:
        simulator.url = url_of(listening)
        server = _QuickServer(simulator_app(simulator), http=BreakableProtocol, timeout_keep_alive=75)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listening])
            try:
                async with simulator.running():
                    yield simulator
            finally:
                server.stop()
