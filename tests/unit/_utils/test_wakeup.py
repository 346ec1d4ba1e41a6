"""An event that can be awaited again and again."""

from __future__ import annotations

import anyio
import pytest

from airbyte_events._utils.wakeup import Wakeup

pytestmark = pytest.mark.anyio


async def test_set_before_the_wait_counts_once() -> None:
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    assert wakeup.is_set()
    await wakeup.wait()
    assert not wakeup.is_set()
    with anyio.move_on_after(0.01) as waiting:
        await wakeup.wait()
    assert waiting.cancelled_caught


async def test_all_who_wait_are_woken_each_time() -> None:
    wakeup = Wakeup()
    woken = 0

    async def wait() -> None:
        nonlocal woken
        while True:
            await wakeup.wait()
            woken += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait)
        for turn in (1, 2):
            await anyio.wait_all_tasks_blocked()
            wakeup.set()
            await anyio.wait_all_tasks_blocked()
            assert woken == 3 * turn
        tasks.cancel_scope.cancel()


async def test_a_wait_that_is_cancelled_leaves_the_wake_up_to_the_next() -> None:
    wakeup = Wakeup()
    with anyio.move_on_after(0.01):
        await wakeup.wait()
    wakeup.set()
    with anyio.fail_after(30):
        await wakeup.wait()


async def test_what_is_cleared_has_to_be_set_again() -> None:
    wakeup = Wakeup()
    wakeup.set()
    wakeup.clear()
    assert not wakeup.is_set()
    with anyio.move_on_after(0.01) as waiting:
        await wakeup.wait()
    assert waiting.cancelled_caught
