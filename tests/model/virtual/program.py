"""Something that runs on a machine, can be killed, and started again."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from model.virtual.clock import Machine


class Program:
    """Something that runs on a machine until it is ended, and can be started again."""

    def __init__(self, machine: Machine, tasks: TaskGroup) -> None:
        self.machine = machine
        self._tasks = tasks
        self._scope: anyio.CancelScope | None = None
        self._over = anyio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        raise NotImplementedError

    @property
    def running(self) -> bool:
        return self._scope is not None

    async def start(self) -> None:
        """Returns once it is ready."""
        ready, self._over, self._scope = anyio.Event(), anyio.Event(), anyio.CancelScope()

        async def live(scope: anyio.CancelScope, over: anyio.Event) -> None:
            try:
                with scope:
                    await self.run(ready.set)
            finally:
                over.set()

        self.machine.run(self._tasks.start_soon, live, self._scope, self._over)
        await ready.wait()

    async def kill(self) -> None:
        """End it as it is: nobody is told, connections break."""
        if self._scope is not None:
            scope, self._scope = self._scope, None
            scope.cancel()
            await self._over.wait()
