"""What the parts of a memory store share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio.lowlevel

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.store.notify import Wakeups

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


class MemoryPart:
    """The waiting tasks, and the capacity for events, completed jobs and notifications each."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._wakeups = Wakeups()

    def news(self, topic: str) -> AbstractContextManager[Wakeup]:
        return self._wakeups.subscribe(topic)

    def _wake(self, topic: str, names: Iterable[str]) -> None:
        self._wakeups.wake(f"{topic}/{name}" for name in names)


def at_once(function: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a method async: it runs after a checkpoint."""

    @functools.wraps(function)
    async def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        await anyio.lowlevel.checkpoint()
        return function(self, *args, **kwargs)

    return method
