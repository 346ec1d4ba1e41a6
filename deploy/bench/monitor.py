"""Watches the event loop of Airflow's triggerer from within: a trigger, that is, which ends with the triggerer."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from heartbeat import Heartbeat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EVERY = 1.0


class MonitorTrigger(BaseTrigger):
    """Adds a line a second to a file: ``at`` (seconds since the epoch), ``late`` (of each beat, in seconds),
    ``collection``, ``blocked`` (see :class:`heartbeat.Heartbeat`) and ``triggers`` (on the loop).

    :param output: the file.
    """

    def __init__(self, output: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.output = output

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "monitor.MonitorTrigger", {"output": self.output}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await self._watch()
        yield TriggerEvent({})  # type: ignore[no-untyped-call]

    async def _watch(self) -> None:
        heartbeat = Heartbeat()
        beating = asyncio.get_running_loop().create_task(heartbeat.beat())
        try:
            while True:
                await asyncio.sleep(EVERY)
                self._write(heartbeat)
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating

    def _write(self, heartbeat: Heartbeat) -> None:
        late, heartbeat.late = heartbeat.late, []
        collection, heartbeat.collection = heartbeat.collection, 0.0
        blocked, heartbeat.blocked = heartbeat.blocked, 0.0
        # Triggers may have tasks of their own: the triggerer names its own for each, "DAG/run/task/… (ID 17)".
        triggers = sum("(ID " in task.get_name() for task in asyncio.all_tasks())
        line = {"at": time.time(), "triggers": triggers, "collection": collection, "blocked": blocked}
        with Path(self.output).open("a") as file:
            file.write(json.dumps({**line, "late": [round(each, 5) for each in late]}) + "\n")
