"""How long the event loop is blocked that all triggers share, when each API call takes 200 ms."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from part import Aim, Row
from part import seconds as shown
from rig import BARE, OFFICIAL, POLL, PUSH, Rig, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from processes import Processes

TITLE = "Stalls of the triggerer's event loop"
NOTE = (
    "Each request to Airbyte takes 200 ms, and a fifth of the jobs complete meanwhile. *Floor* is a trigger that only "
    "waits. ≥: stopped before every trigger had its first turn."
)
SIDES = (PUSH, POLL, OFFICIAL, BARE)
COLUMNS = tuple(side.column for side in SIDES)
LATENCY = 0.2
ENDING = 0.2
"""The share of the jobs that end while the heartbeat runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """:param tasks: numbers of tasks that wait.
    :param seconds: for which triggers are watched once all have had their first turn.
    :param bound: seconds after which a side that has not got so far is stopped.
    """

    tasks: tuple[int, ...] = (1000,)
    seconds: float = 5.0
    bound: float = 30.0


FULL = Scale()
SMALL = Scale(tasks=(10,), seconds=1.0, bound=5.0)


def duration(scale: Scale) -> float:
    """About how long it takes, in seconds."""
    ours = sum(5 + min(scale.bound, count / 50 + scale.seconds) for count in scale.tasks) * (len(SIDES) - 1)
    return ours + sum(5 + min(scale.bound, count * 0.27 + scale.seconds) for count in scale.tasks)


def rows(seen: Mapping[str, Any]) -> Iterator[Row]:
    for count in seen["push"]:
        for name, what in (("longest", "longest stall"), ("p99", "lateness of a timer, p99")):
            cells = {}
            for side in SIDES:
                each = seen[side.name][count]
                cells[side.column] = f"{'≥ ' if each['cut'] else ''}{shown(each[name])}"
            yield Row(what=f"{what}, {int(count):,} waiting", cells=cells)


def aims(seen: Mapping[str, Any]) -> Iterator[Aim]:
    ours = [each for side in (PUSH, POLL) for each in seen[side.name].values()]
    blocked, longest, collection = (max(each[name] for each in ours) for name in ("blocked", "longest", "collection"))
    yield Aim(
        what="no stall of a waiting triggerer over 50 ms",
        value=f"{shown(blocked)}, with waits for a processor {shown(longest)}; Python's garbage collector alone "
        f"{shown(collection)}",
        met=blocked <= 0.050,
    )


def measure(processes: Processes, home: Path, scale: Scale, progress: Callable[[str], None]) -> dict[str, Any]:
    """Longest stall and 99th percentile of a timer's lateness, in seconds, by side and number of tasks.

    One side at a time, so that none has the other's load. ``cut``: it was stopped before every trigger had had its
    first turn, so the longest stall is at least what is told.
    """
    return {
        side.name: {str(count): _one(processes, home, scale, side, count) for count in scale.tasks} for side in SIDES
    }


def _one(processes: Processes, home: Path, scale: Scale, side: Side, count: int) -> dict[str, Any]:
    rig = Rig(processes, home, f"stalls-{side.name}-{count}", latency=LATENCY, listener=side.pushed)
    job_ids = rig.start_jobs(count)
    ending = random.sample(job_ids, int(count * ENDING))
    waiting = rig.wait(side, job_ids)
    begun = time.monotonic()
    while not waiting.started and time.monotonic() < begun + scale.bound - scale.seconds:
        time.sleep(0.2)
    finished_start = waiting.started
    now = time.time()
    rig.end_at({job_id: now + number * scale.seconds / len(ending) for number, job_id in enumerate(ending)})
    processes.watch(scale.seconds)
    result = waiting.stop()
    rig.close()
    return {**result["stalls"], "cut": not finished_start, "delivered": len(result["events"]), "ended": len(ending)}
