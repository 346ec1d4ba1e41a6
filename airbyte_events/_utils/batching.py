"""Operations that wait for their batch."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Self, TypeVar

import anyio

from airbyte_events._utils.wakeup import Wakeup

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed:
    """The error of one operation, where others of its batch may have succeeded."""

    error: Exception


class Operation(Generic[I, T]):
    """An item that one task waits for and another one runs."""

    __slots__ = ("_done", "_result", "item")

    def __init__(self, item: I) -> None:
        self.item = item
        self._done = anyio.Event()
        self._result: T | Failed

    def finish(self, result: T | Failed) -> None:
        """Give its result to the task that waits for it."""
        self._result = result
        self._done.set()

    async def wait(self) -> T:
        """Return the result.

        :raises Exception: the error, if it failed.
        """
        await self._done.wait()
        if isinstance(self._result, Failed):
            raise self._result.error
        return self._result


class Batcher(Generic[I, T]):
    """Runs items in batches, in the order of submission: what is submitted while a batch runs is the next batch.

    An async context manager: leaving it accepts nothing more, and returns when all that was submitted has run. A batch
    runs to its end even if the process is cancelled.

    :param run: runs a batch, one at a time, and returns the result of each item, :class:`Failed` for one that failed.
        What it raises is raised for every item of the batch.
    :param max_items: the most items of a batch; None: no limit.
    :param max_size: the largest total size of a batch. An item that is larger has a batch of its own.
    """

    def __init__(
        self,
        run: Callable[[Sequence[I]], Awaitable[Sequence[T | Failed]]],
        *,
        max_items: int | None = None,
        size: Callable[[I], int] = lambda item: 0,
        max_size: float = math.inf,
    ) -> None:
        self._run = run
        self._max_items = max_items
        self._size = size
        self._max_size = max_size
        self._waiting: dict[Operation[I, T], None] = {}
        self._wakeup = Wakeup()
        self._closed = False

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._run_all)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        self._wakeup.set()
        # What the body raised is its own affair: a task group would wrap it.
        await self._tasks.__aexit__(None, None, None)

    async def submit(self, item: I) -> T:
        """Run an item in the next batch, and return its result.

        A caller that is cancelled before the batch begins withdraws the item. After that, the item runs all the same.

        :raises anyio.ClosedResourceError: if the batcher is closed.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        operation: Operation[I, T] = Operation(item)
        self._waiting[operation] = None
        self._wakeup.set()
        try:
            return await operation.wait()
        finally:
            self._waiting.pop(operation, None)

    async def _run_all(self) -> None:
        # Shielded: a process that is cancelled still finishes what it has accepted.
        with anyio.CancelScope(shield=True):
            while self._waiting or not self._closed:
                await self._wakeup.wait()
                while batch := self._take():
                    await self._run_batch(batch)

    async def _run_batch(self, batch: Sequence[Operation[I, T]]) -> None:
        results: Sequence[T | Failed]
        try:
            results = await self._run([operation.item for operation in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for a batch of {len(batch)}")
        except Exception as exc:  # belongs to the callers
            results = [Failed(exc)] * len(batch)
        for operation, result in zip(batch, results, strict=True):
            operation.finish(result)

    def _take(self) -> list[Operation[I, T]]:
        batch: list[Operation[I, T]] = []
        total = 0
        for operation in islice(self._waiting, self._max_items):
            total += self._size(operation.item)
            if batch and total > self._max_size:
                break
            batch.append(operation)
        for operation in batch:
            del self._waiting[operation]
        return batch
