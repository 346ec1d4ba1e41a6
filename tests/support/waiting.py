"""How tests wait for what no event announces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any

import anyio


async def a_moment() -> None:
    """Wait before a condition is checked again. Without that, a test takes a processor from those it waits for."""
    await anyio.sleep(0.005)


async def until(condition: Callable[[], Any], *, within: float = 30) -> Any:
    """Return what the condition returns, or what it awaits, once that is true.

    :param within: seconds; then it is a failure.
    """
    with anyio.fail_after(within):
        while True:
            held = condition()
            if isawaitable(held):
                held = await held
            if held:
                return held
            await a_moment()


async def a_while() -> None:
    """Wait before a request is made again: it takes a processor longer than :func:`a_moment`."""
    await anyio.sleep(0.03)


@asynccontextmanager
async def in_background(call: Callable[..., Coroutine[Any, Any, Any]], *args: object) -> AsyncIterator[None]:
    """Run something while the block runs; it is cancelled then."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, *args)
        yield
        tasks.cancel_scope.cancel()
