"""What waits for a connection to SQLite, and runs in a worker thread when it is its turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from sqlite3 import Connection
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import StoreError

T = TypeVar("T")


class Operation(Generic[T]):
    """Something to run on a connection, and whoever waits for it."""

    __slots__ = ("committed", "done", "error", "run", "value")

    def __init__(self, run: Callable[[Connection], T], committed: Callable[[T], object] | None) -> None:
        self.run = run
        self.committed = committed
        self.done = anyio.Event()
        self.error: Exception | None = None
        self.value: T


class Lane:
    """Operations of one connection, in the order in which they were asked for.

    :param run: runs some of them together, in a worker thread, and gives each its value or its error.
    :param most: so many together.
    """

    def __init__(self, run: Callable[[Sequence[Operation[Any]]], None], *, most: int | None = None) -> None:
        self._run = run
        self._most = most
        self._waiting: dict[Operation[Any], None] = {}
        self._wake = Wakeup()
        self._closing = False
        # A thread of its own: however many are used elsewhere, by the files that anybody may load, say.
        self._thread = anyio.CapacityLimiter(1)

    async def do(self, run: Callable[[Connection], T], committed: Callable[[T], object] | None = None) -> T:
        """Run it when it is its turn. Whoever is cancelled meanwhile leaves: what was begun is finished all the same,
        and what was not is not begun.

        :param committed: called in the event loop with the result, also if nobody waits any more.
        :raises StoreError: if the lane is closed.
        """
        if self._closing:
            raise StoreError("the store is closed")
        operation = Operation(run, committed)
        self._waiting[operation] = None
        self._wake.set()
        try:
            await operation.done.wait()
        finally:
            self._waiting.pop(operation, None)
        if operation.error is not None:
            raise operation.error
        return operation.value

    def close(self) -> None:
        """Take nothing more; :meth:`serve` ends when all is done."""
        self._closing = True
        self._wake.set()

    async def serve(self) -> None:
        """Run operations until it is closed."""
        # Shielded, so that a cancelled process still finishes and answers what it has begun.
        with anyio.CancelScope(shield=True):
            while not (self._closing and not self._waiting):
                await self._wake.wait()
                while self._waiting:
                    await self._run_next()
                if self._closing:
                    self._wake.set()

    async def _run_next(self) -> None:
        batch = list(islice(self._waiting, self._most))
        for operation in batch:
            del self._waiting[operation]
        await anyio.to_thread.run_sync(self._run, batch, limiter=self._thread)
        for operation in batch:
            operation.done.set()
            if operation.committed is not None and operation.error is None:
                operation.committed(operation.value)
