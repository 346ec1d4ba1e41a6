"""A block of code that ends when something else does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio


@asynccontextmanager
async def until(work: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run work beside the body: ``async with until(work)``. The one that ends first, or fails, cancels the other.

    Errors are raised as they are: a task group would wrap them.
    """
    error: Exception | None = None
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            nonlocal error
            try:
                await work()
            except Exception as exc:
                error = exc
            tasks.cancel_scope.cancel()

        tasks.start_soon(run)
        try:
            yield
        except Exception as exc:
            error = exc
        tasks.cancel_scope.cancel()
    if error is not None:
        raise error
