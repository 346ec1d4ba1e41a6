"""A SQLite database in memory, for the notifications of a memory store, and methods that run at once."""

from __future__ import annotations

import functools
import sqlite3
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio.lowlevel

from airbyte_events.store.sqlite.schema import create_in_memory

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


class MemoryDatabase:
    """A database that is created by its first use. Transactions run at once, in the order of their calls."""

    @functools.cached_property
    def connection(self) -> sqlite3.Connection:
        connection = create_in_memory()
        # Stores in memory are not closed.
        weakref.finalize(self, connection.close)
        return connection

    async def transact(
        self, run: Callable[[sqlite3.Connection], T], committed: Callable[[T], object] | None = None
    ) -> T:
        await anyio.lowlevel.checkpoint_if_cancelled()
        result = run(self.connection)
        if committed is not None:
            committed(result)
        await anyio.lowlevel.cancel_shielded_checkpoint()
        return result

    async def read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        await anyio.lowlevel.checkpoint()
        return run(self.connection)


def at_once(function: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a method async: it runs after a checkpoint."""

    @functools.wraps(function)
    async def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        await anyio.lowlevel.checkpoint()
        return function(self, *args, **kwargs)

    return method
