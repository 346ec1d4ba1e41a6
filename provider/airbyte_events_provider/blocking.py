"""Calling coroutine functions from a worker's synchronous code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio.from_thread import start_blocking_portal

T = TypeVar("T")


def run_blocking(function: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function in an event loop in a new thread, and return its result.

    As the calling thread only waits, a signal that Airflow turns into an exception does not interrupt the event loop:
    the coroutine is cancelled, and ends in order, before the exception is raised. ``on_kill`` may call this, too.
    """
    with start_blocking_portal() as portal:
        return portal.call(function)
