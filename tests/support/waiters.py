"""Waits for jobs, in tasks of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskGroup

from airbyte_events.events import JobEvent
from airbyte_events.hub.hub import Hub


@dataclass
class Waiters:
    """Waits in tasks of their own, with what came of them."""

    tasks: TaskGroup
    results: dict[int, JobEvent | BaseException] = field(default_factory=dict)
    done: anyio.Event = field(default_factory=anyio.Event)

    def wait(self, hub: Hub, job_id: int, key: int | None = None, **options: Any) -> anyio.CancelScope:
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                try:
                    self.results[job_id if key is None else key] = await hub.wait(job_id, **options)
                except Exception as exc:
                    self.results[job_id if key is None else key] = exc
                self.done.set()
                self.done = anyio.Event()

        self.tasks.start_soon(run)
        return scope

    async def result(self, key: int) -> Any:
        with anyio.fail_after(30):  # a busy machine is not a fault
            while key not in self.results:
                await self.done.wait()
        return self.results[key]
