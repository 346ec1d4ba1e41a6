"""What stands between two of them spoils what passes: every waiter ends, and nothing is lost or doubled."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest

from airbyte_events.simulator import Simulator
from postgres_server import PostgresServer
from soak.listening import Listener, free_port
from soak.proxy import FAULTS, Fault, Proxy
from soak.scene import Scene, Ways

pytestmark = pytest.mark.anyio

PAIRS = {
    "Airbyte to listener": "webhooks",
    "listener to Airbyte": "airbyte",
    "follower, hub to listener": "feed",
    "hub to Airbyte": "hub_airbyte",
}


@pytest.mark.parametrize("pair", PAIRS)
async def test_i2_i4_i5_faults_between(
    pair: str,
    airbyte: Simulator,
    http: httpx.AsyncClient,
    tmp_path: Path,
    dice: random.Random,
    rounds: Callable[[int, int], int],
    report: Callable[..., None],
) -> None:
    way, port = PAIRS[pair], free_port()
    faults = _faults(dice, rounds(3, 0))
    async with Proxy(port if way in ("webhooks", "feed") else int(airbyte.url.rpartition(":")[2])) as proxy:
        scene = Scene(airbyte, http, tmp_path, dice, ways=Ways(**{way: proxy.url}), port=port)
        verdict = await scene.play(partial(_spoil, proxy, faults, dice), each_second=20)
        more = f"{scene.crowd}; {proxy.connections} connections"
    report(f"wire: {pair}", rounds=len(faults), faults=len(faults), **verdict.figures, more=more)
    verdict.check()


async def test_i1_i4_faults_between_listener_and_postgresql(
    airbyte: Simulator,
    http: httpx.AsyncClient,
    tmp_path: Path,
    dice: random.Random,
    rounds: Callable[[int, int], int],
    report: Callable[..., None],
    postgres: PostgresServer,
) -> None:
    faults = _faults(dice, rounds(3, 0))
    async with Proxy(postgres.port) as proxy:
        scene = Scene(airbyte, http, tmp_path, dice, STORE=postgres.url(port=proxy.port))
        verdict = await scene.play(partial(_spoil, proxy, faults, dice), each_second=20)
        more = f"{scene.crowd}; {proxy.connections} connections"
    report("wire: listener to PostgreSQL", rounds=len(faults), faults=len(faults), **verdict.figures, more=more)
    verdict.check()


def _faults(dice: random.Random, rounds: int) -> list[Fault]:
    """All kinds in each round, or one of them without rounds."""
    return [fault for _ in range(rounds) for fault in dice.sample(FAULTS, len(FAULTS))] or dice.sample(FAULTS, 1)


async def _spoil(proxy: Proxy, faults: list[Fault], dice: random.Random, listener: Listener) -> None:
    for fault in faults:
        await proxy.become(fault)
        await anyio.sleep(dice.uniform(0.5, 1.5))
        await proxy.become(Fault.NONE)
        await anyio.sleep(dice.uniform(0, 0.5))
