"""Runs triggers on one event loop, as Airflow's triggerer does, until SIGTERM; then writes what it saw as JSON::

    python waiters.py --trigger MODULE:CLASS --jobs FIRST-LAST --output FILE [--poll-interval SECONDS] [--memory]

Runs in any environment that has Airflow and the trigger. Airflow connections come from ``AIRFLOW_CONN_*``. A file of
the output's name with ``.started`` at its end appears when every trigger has had its first turn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import psutil  # type: ignore[import-untyped]
from heartbeat import Heartbeat, stalls

BATCH = 50
"""New triggers that the triggerer takes at a time, about once a second."""
CONNECTION = "airbyte_bench"


class Waiters:
    """Triggers of one class, and what was seen of them.

    :param trigger: ``module:class``.
    :param poll_interval: seconds, an argument of the trigger.
    :param memory: measure what a trigger takes; what the first one loads and keeps for all does not count.
    """

    def __init__(self, trigger: str, job_ids: range, output: Path, *, poll_interval: float, memory: bool) -> None:
        module, _, name = trigger.partition(":")
        self._class = getattr(importlib.import_module(module), name)
        self._job_ids = list(job_ids)
        self._output = output
        self._poll_interval = poll_interval
        self._memory = memory
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._events: dict[int, tuple[float, Any]] = {}
        self._errors: dict[int, str] = {}
        self._heartbeat = Heartbeat()
        self._first = {"uss": 0, "rss": 0}
        self._before = 0

    async def run(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self.leave())
        left = self._job_ids
        if self._memory:
            self._start(left[:1])
            await asyncio.sleep(3)
            self._first, self._before, left = measure(), 1, left[1:]
        beat = asyncio.create_task(self._heartbeat.beat())
        for number in range(0, len(left), BATCH):
            self._start(left[number : number + BATCH])
            await asyncio.sleep(1)
        self._output.with_name(self._output.name + ".started").touch()
        await beat

    def _start(self, job_ids: list[int]) -> None:
        for job_id in job_ids:
            trigger = self._class(
                job_id=job_id, conn_id=CONNECTION, end_time=time.time() + 86400, poll_interval=self._poll_interval
            )
            self._tasks[job_id] = asyncio.create_task(self._wait(job_id, trigger))

    async def _wait(self, job_id: int, trigger: Any) -> None:
        try:
            async for event in trigger.run():
                self._events[job_id] = time.time(), event.payload
        except Exception as exc:  # as the triggerer: one that fails is none of the others' business
            self._errors[job_id] = repr(exc)
        finally:
            with contextlib.suppress(Exception):
                await trigger.cleanup()

    def leave(self) -> NoReturn:
        """Write down what was seen, the stall that goes on now included, and end this process at once."""
        beat = self._heartbeat
        beat.note()
        beat.judge()
        told = {**stalls(beat.late), "collection": beat.collection, "blocked": beat.blocked}
        result = {
            "triggers": len(self._tasks),
            "waiting": sum(not task.done() for task in self._tasks.values()),
            "events": {job_id: {"at": at, "payload": payload} for job_id, (at, payload) in self._events.items()},
            "errors": self._errors,
            "stalls": told,
            "bytes": self._bytes() if self._memory else None,
        }
        part = self._output.with_name(self._output.name + ".part")
        part.write_text(json.dumps(result, default=str))
        part.replace(self._output)
        os._exit(0)

    def _bytes(self) -> dict[str, float]:
        count = max(1, len(self._tasks) - self._before)
        return {name: (amount - self._first[name]) / count for name, amount in measure().items()}


def measure() -> dict[str, int]:
    """Bytes that this process alone holds (USS), and all that it has mapped and touched (RSS)."""
    gc.collect()
    memory = psutil.Process().memory_full_info()
    return {"uss": memory.uss, "rss": memory.rss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trigger", required=True, metavar="MODULE:CLASS")
    parser.add_argument("--jobs", required=True, metavar="FIRST-LAST")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE")
    parser.add_argument("--poll-interval", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--memory", action="store_true", help="measure memory")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    first, _, last = options.jobs.partition("-")
    waiters = Waiters(
        options.trigger,
        range(int(first), int(last) + 1),
        options.output,
        poll_interval=options.poll_interval,
        memory=options.memory,
    )
    asyncio.run(waiters.run())


if __name__ == "__main__":
    main()
