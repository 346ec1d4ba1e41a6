"""What many waiting triggers cost the process that they wait in."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from typing import Any

import pytest

from support.airflow_stage import AirflowStage

pytestmark = pytest.mark.anyio

TRIGGERS = 500


async def test_a_waiting_trigger_takes_little_memory(stage: AirflowStage) -> None:
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


async def test_a_waiting_trigger_is_one_task_and_leaves_no_reference_cycles(stage: AirflowStage) -> None:
    count = 50
    jobs = [stage.start_elsewhere() for _ in range(count)]
    before = len(asyncio.all_tasks())
    firing = [stage.firing(stage.trigger(job)) for job in jobs]
    await stage.waited_for(count)
    assert len(asyncio.all_tasks()) - before < count + 20  # the hub's own
    gc.collect()
    gc.disable()
    try:
        for job in jobs:
            stage.end(job)
        for task in firing:
            await task
        # Of what the simulator and the client do meanwhile.
        assert gc.collect() < 10 * count
    finally:
        gc.enable()


async def test_i10_many_triggers_do_not_hold_up_the_event_loop(stage: AirflowStage) -> None:
    few, many = await _longest_step(stage, TRIGGERS // 10), await _longest_step(stage, TRIGGERS)
    print(f"longest step: {few * 1000:.1f} ms with {TRIGGERS // 10} triggers, {many * 1000:.1f} ms with {TRIGGERS}")
    assert many < 4 * max(few, 0.02)


async def _longest_step(stage: AirflowStage, count: int) -> float:
    """Seconds of this thread's own work, whatever else the machine does, until so many triggers wait."""
    jobs = [stage.start_elsewhere() for _ in range(count)]
    steps: list[float] = []
    watching = asyncio.get_running_loop().create_task(_watch(steps))
    firing = []
    for job in jobs:
        firing.append(stage.firing(stage.trigger(job)))
        await asyncio.sleep(0)
    await stage.waited_for(count)
    watching.cancel()
    await asyncio.wait([watching])
    for job in jobs:
        stage.end(job)
        await asyncio.sleep(0)
    for task in firing:
        await task
    return max(steps)


async def _watch(steps: list[float]) -> None:
    while True:
        before = time.thread_time()
        await asyncio.sleep(0.001)
        steps.append(time.thread_time() - before)


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
