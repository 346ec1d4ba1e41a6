"""What many waiting triggers cost the process that they wait in."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from typing import Any

import pytest

pytestmark = pytest.mark.anyio

TRIGGERS = 500


async def test_a_waiting_trigger_takes_little_memory(stage: Any) -> None:
    one = stage.start_elsewhere()
    first = stage.firing(stage.trigger(one))
    await stage.waited_for()
    jobs = [stage.start_elsewhere() for _ in range(TRIGGERS)]
    bare = await _memory_of([_bare() for _ in jobs])
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    firing = [stage.firing(stage.trigger(job)) for job in jobs]
    await stage.waited_for(TRIGGERS + 1)
    gc.collect()
    each = (tracemalloc.get_traced_memory()[0] - before) / TRIGGERS
    tracemalloc.stop()
    for job in [one, *jobs]:
        stage.end(job)
    for task in [first, *firing]:
        await task
    print(f"{each - bare:,.0f} bytes a waiting trigger, over a bare task")
    assert each - bare < 20_000


async def test_i10_many_triggers_do_not_hold_up_the_event_loop(stage: Any) -> None:
    jobs = [stage.start_elsewhere() for _ in range(TRIGGERS)]
    # What the simulator, in the same loop, does is no trigger's stall: it ends the jobs and answers a few requests.
    stalls: list[float] = []
    watching = asyncio.get_running_loop().create_task(_watch(stalls))
    firing = [stage.firing(stage.trigger(job)) for job in jobs]
    await stage.waited_for(TRIGGERS)
    waiting = max(stalls)
    for job in jobs:
        stage.end(job)
        await asyncio.sleep(0)
    for task in firing:
        await task
    watching.cancel()
    await asyncio.wait([watching])
    print(f"longest stall: {waiting * 1000:.1f} ms until all waited, {max(stalls) * 1000:.1f} ms in all")
    assert waiting < 0.2


async def _watch(stalls: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        stalls.append(time.perf_counter() - before - 0.001)


async def _memory_of(coroutines: list[Any]) -> float:
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks = [asyncio.get_running_loop().create_task(each) for each in coroutines]
    await asyncio.sleep(0)
    each = (tracemalloc.get_traced_memory()[0] - before) / len(tasks)
    tracemalloc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return each


async def _bare() -> None:
    await asyncio.Event().wait()
