"""Calling coroutines from synchronous code: the one place where a worker enters an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio.from_thread import start_blocking_portal

T = TypeVar("T")


def run_blocking(function: Callable[[], Awaitable[T]]) -> T:
    """Run the coroutine function in an event loop in a thread of its own, and return its result.

    The calling thread only waits. So a signal that Airflow turns into an exception or a call of ``on_kill`` does not
    interrupt an event loop: the coroutine is cancelled, and ends in order, before the exception goes on. ``on_kill``
    may call this, too.
    """
    with start_blocking_portal() as portal:
        return portal.call(function)
