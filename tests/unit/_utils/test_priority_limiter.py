"""Who goes first where only so many may be in at a time."""

from __future__ import annotations

import anyio
import pytest

from airbyte_events._utils.priority_limiter import PriorityLimiter

pytestmark = pytest.mark.anyio


async def order_of(priorities: list[int]) -> list[int]:
    """In what order those enter that came, in this order, while nobody could."""
    limiter = PriorityLimiter(1)
    order: list[int] = []

    async def enter(number: int, priority: int) -> None:
        async with limiter.place(priority):
            order.append(number)

    async with anyio.create_task_group() as tasks, limiter.place(0):
        for number, priority in enumerate(priorities):
            tasks.start_soon(enter, number, priority)
            await anyio.wait_all_tasks_blocked()
    return order


async def test_the_most_urgent_goes_first_and_of_those_the_first() -> None:
    assert await order_of([2, 0, 0]) == [1, 2, 0]


async def test_nobody_waits_for_ever_however_many_more_urgent_ones_come() -> None:
    order = await order_of([1] + [0] * 40)
    assert order.index(0) == 3


async def test_no_more_are_in_than_may_be() -> None:
    limiter = PriorityLimiter(3)
    inside = most = 0

    async def enter(priority: int) -> None:
        nonlocal inside, most
        async with limiter.place(priority):
            inside += 1
            most = max(most, inside)
            await anyio.lowlevel.checkpoint()
            inside -= 1

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(enter, number % 3)
    assert most == 3


async def test_who_is_cancelled_while_waiting_or_when_let_in_keeps_no_place() -> None:
    limiter = PriorityLimiter(1)
    waiting, let_in = anyio.CancelScope(), anyio.CancelScope()

    async def enter(scope: anyio.CancelScope) -> None:
        with scope:
            async with limiter.place(0):
                await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        async with limiter.place(0):
            tasks.start_soon(enter, let_in)
            tasks.start_soon(enter, waiting)
            await anyio.wait_all_tasks_blocked()
            waiting.cancel()
            await anyio.wait_all_tasks_blocked()
        # It has its place, and has not run yet.
        let_in.cancel()
        with anyio.fail_after(30):
            async with limiter.place(9):
                pass
