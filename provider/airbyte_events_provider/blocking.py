"""Coroutines for code that is not asynchronous: the one place where a worker's code enters an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio.from_thread import start_blocking_portal

T = TypeVar("T")


def run_blocking(function: Callable[[], Awaitable[T]]) -> T:
    """Run the coroutine function to its end, in an event loop in a thread of its own.

    The calling thread only waits. So a signal that Airflow turns into an exception or a call of ``on_kill`` (a
    time-out, a kill) meets no event loop half-way: the coroutine is cancelled, and ends in order, before the exception
    goes on; and ``on_kill`` may come here, too.
    """
    with start_blocking_portal() as portal:
        return portal.call(function)
