"""The listener is killed at any moment, under load, and started again on the same store."""

from __future__ import annotations

import random
import signal

import anyio
import anyio.to_thread
import pytest

from postgres_server import PostgresServer
from soak.listening import Listener
from soak.scene import Run

pytestmark = pytest.mark.anyio

LONGEST_START = 0.8
"""Seconds; a listener is up in 0.5 on a machine that does nothing else."""

JOBS_PER_ROUND = 40


async def test_i1_i2_i5_kill_9_under_load(run: Run) -> None:
    kills = run.rounds(100, 2)
    scene = run.scene()

    async def kill(listener: Listener) -> None:
        for number in range(kills):
            scene.crowd.most = JOBS_PER_ROUND * (number + 1)
            await _kill(listener, run.dice)

    verdict = await scene.play(kill)
    run.report("kill -9, SQLite", rounds=kills, faults=kills, **verdict.figures, more=str(scene.crowd))
    verdict.check()


async def test_i1_i2_i5_kill_9_under_load_with_postgresql(run: Run, postgres: PostgresServer) -> None:
    """In some rounds it is PostgreSQL that is killed. A lease outlasts its holder by more than a round: now and then
    the next one has time to take over.
    """
    kills = run.rounds(100, 2)
    killed = 0

    async def kill(listener: Listener) -> None:
        nonlocal killed
        for number in range(kills):
            scene.crowd.most = JOBS_PER_ROUND * (number + 1)
            if number % 20 == 10:
                await listener.ready(supervised=True)
                await scene.until_told([job for job in scene.crowd.jobs if job.terminal])
            if number % 5 != 1:
                await _kill(listener, run.dice)
            else:
                killed += 1
                await anyio.sleep(run.dice.uniform(0, 0.8))
                await anyio.to_thread.run_sync(postgres.stop, run.dice.choice((signal.SIGQUIT, signal.SIGKILL)))
                await anyio.to_thread.run_sync(postgres.start)
                await listener.ready(supervised=True)

    scene = run.scene(STORE=postgres.url())
    verdict = await scene.play(kill, each_second=20)
    more = f"{killed} of them PostgreSQL's; {scene.crowd}"
    run.report("kill -9, PostgreSQL", rounds=kills, faults=kills, **verdict.figures, more=more)
    verdict.check()


async def _kill(listener: Listener, dice: random.Random) -> None:
    if dice.random() < 0.25:
        await anyio.sleep(dice.uniform(0, LONGEST_START))
    else:
        await listener.ready()
        await anyio.sleep(dice.uniform(0.1, 0.8))
    await listener.kill()
    listener.start()
