"""What stands between two of them spoils what passes: every waiter ends, and nothing is lost or doubled."""

from __future__ import annotations

import random
from functools import partial

import anyio
import pytest

from postgres_server import PostgresServer
from soak.listening import Listener
from soak.proxy import FAULTS, Fault, Proxy
from soak.scene import Run, Ways
from support.servers import free_port

pytestmark = pytest.mark.anyio

PAIRS = {
    "Airbyte to listener": "webhooks",
    "listener to Airbyte": "airbyte",
    "follower, hub to listener": "feed",
    "hub to Airbyte": "hub_airbyte",
}


@pytest.mark.parametrize("pair", PAIRS)
async def test_i2_i4_i5_faults_between(run: Run, pair: str) -> None:
    way, port = PAIRS[pair], free_port()
    faults = _faults(run.dice, run.rounds(3, 0))
    async with Proxy(port if way in ("webhooks", "feed") else int(run.airbyte.url.rpartition(":")[2])) as proxy:
        scene = run.scene(ways=Ways(**{way: proxy.url}), port=port)
        verdict = await scene.play(partial(_spoil, proxy, faults, run.dice), each_second=20)
        more = f"{scene.crowd}; {proxy.connections} connections"
    run.report(f"wire: {pair}", rounds=len(faults), faults=len(faults), **verdict.figures, more=more)
    verdict.check()


async def test_i1_i4_faults_between_listener_and_postgresql(run: Run, postgres: PostgresServer) -> None:
    faults = _faults(run.dice, run.rounds(3, 0))
    async with Proxy(postgres.port) as proxy:
        scene = run.scene(STORE=postgres.url(port=proxy.port))
        verdict = await scene.play(partial(_spoil, proxy, faults, run.dice), each_second=20)
        more = f"{scene.crowd}; {proxy.connections} connections"
    run.report("wire: listener to PostgreSQL", rounds=len(faults), faults=len(faults), **verdict.figures, more=more)
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
