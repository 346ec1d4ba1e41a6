"""A simulated Airbyte and a listener on real sockets, and the command line as a process that is told of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from airbyte_events.simulator import Script, Simulator, serve_simulator
from support.command_stage import API_TOKEN, CLIENT_SECRET, WEBHOOK_TOKEN, CommandStage
from support.loops import anyio_backend as anyio_backend


@pytest.fixture
async def stage(anyio_backend: str, tmp_path: Path) -> AsyncIterator[CommandStage]:
    """A simulator with one connection, called Orders, whose jobs run until they are ended; and a listener."""
    simulator = Simulator(client_id="client", client_secret=CLIENT_SECRET)
    connection = simulator.world.add_connection(Script.hanging(), name="Orders")
    async with serve_simulator(simulator):
        stage = CommandStage(sim=simulator, connection=connection, folder=tmp_path)
        stage.settings = {
            "AIRBYTE_URL": simulator.url,
            "CLIENT_ID": "client",
            "CLIENT_SECRET": CLIENT_SECRET,
            "LISTENER_TOKEN": API_TOKEN,
            "WEBHOOK_TOKENS": WEBHOOK_TOKEN,
            "STORE": f"sqlite:///{tmp_path}/events.db",
        }
        await stage.listen()
        try:
            yield stage
        finally:
            await stage.leave()
