from __future__ import annotations

import time

import anyio
import anyio.lowlevel
import pytest

from airbyte_events._utils.turns import Turns

pytestmark = pytest.mark.anyio


async def continued_by_turn(turns: Turns, tasks: int, work: float) -> list[int]:
    """Let tasks that wake at once work for so many seconds; return how many continued in each turn of the loop."""
    continued = [0]
    wake = anyio.Event()

    async def one() -> None:
        await wake.wait()
        await turns.wait()
        continued[-1] += 1
        time.sleep(work)  # noqa: ASYNC251 -- work that blocks the event loop

    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(one)
        await anyio.wait_all_tasks_blocked()
        wake.set()
        while sum(continued) < tasks:
            continued.append(0)
            await anyio.lowlevel.checkpoint()
    return continued


async def test_a_turn_ends_once_its_time_is_over() -> None:
    continued = await continued_by_turn(Turns(0.010), 20, work=0.004)
    assert sum(continued) == 20
    # After 0, 4 and 8 ms; on trio, also in the turn that the counting task shares with the next one.
    assert max(continued) <= 3 * 2


async def test_a_turn_with_time_left_is_used() -> None:
    continued = await continued_by_turn(Turns(60), 100, work=0)
    assert sum(continued) == 100
    assert max(continued) > 1


async def test_tasks_continue_in_the_order_of_their_coming() -> None:
    turns, order = Turns(0), list[int]()

    async def one(number: int) -> None:
        await turns.wait()
        order.append(number)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(one, number)
            await anyio.lowlevel.checkpoint()
    assert order == sorted(order)


async def test_a_cancelled_task_keeps_no_other_waiting() -> None:
    turns = Turns(0)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await turns.wait()
    assert scope.cancelled_caught
    with anyio.fail_after(30):
        await turns.wait()
