"""From a job's end to the trigger's event: all sides at the same time, on the same machine and simulator."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from part import Aim, Row, within
from part import seconds as shown
from processes import StackError
from quantiles import percentiles
from rig import OFFICIAL, ORACLE, POLL, PUSH, Rig, wait_until_started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from processes import Processes

TITLE = "From a job's completion to the trigger's event"
NOTE = (
    "Jobs complete at random times, and all columns wait at the same time. *Pushed* has a listener, *polling only* has "
    "none, and *floor* is a trigger that receives Airbyte's webhook itself."
)
SIDES = (PUSH, POLL, OFFICIAL, ORACLE)
COLUMNS = tuple(side.column for side in SIDES)
START_SECONDS = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """:param push: jobs that wait for push; as many are told directly.
    :param poll: jobs that our polling finds.
    :param official: jobs of the official provider.
    :param seconds: over which the ends are spread.
    :param tail: seconds that the last event may take.
    """

    push: int = 400
    poll: int = 300
    official: int = 60
    seconds: float = 30.0
    tail: float = 62.0


FULL = Scale()
SMALL = Scale(push=30, poll=15, official=2, seconds=3.0, tail=4.0)


def duration(scale: Scale) -> float:
    """About how long it takes, in seconds."""
    return 14 + scale.official * 0.15 + scale.seconds + scale.tail


def rows(seen: Mapping[str, Any]) -> Iterator[Row]:
    for name in ("p50", "p95", "p99"):
        yield Row(what=name, cells={side.column: shown(seen[side.name][name]) for side in SIDES})


def aims(seen: Mapping[str, Any]) -> Iterator[Aim]:
    for name, limit in (("p50", 0.020), ("p99", 0.150)):
        pushed, floor = seen["push"][name], seen["oracle"][name]
        over = None if pushed is None or floor is None else max(0.0, pushed - floor)
        yield within(f"completion to trigger, pushed, {name} over the floor", over, limit)
    for name, limit in (("p50", 1.5), ("p99", 4.0)):
        yield within(f"completion to trigger, polling only, {name}", seen["poll"][name], limit)


def measure(processes: Processes, home: Path, scale: Scale, progress: Callable[[str], None]) -> dict[str, Any]:
    """Seconds from the commit of a job's end to the event of its trigger, by side."""
    rig = Rig(processes, home, "latency", listener=True)
    counts = {PUSH: scale.push, ORACLE: scale.push, POLL: scale.poll, OFFICIAL: scale.official}
    hooks = {ORACLE: f"http://127.0.0.1:{rig.oracle_port}/", POLL: None, OFFICIAL: None}
    # The first workspace is the listener's.
    workspaces = {side: rig.workspace(hooks[side]) if side in hooks else None for side in counts}
    jobs = {side: rig.start_jobs(count, workspaces[side]) for side, count in counts.items()}
    waiters = {side: rig.wait(side, job_ids) for side, job_ids in jobs.items()}
    wait_until_started(processes, list(waiters.values()), timeout=START_SECONDS)
    for side in (PUSH, ORACLE):
        rig.end_now(rig.start_jobs(1, workspaces[side]))  # the first webhook of all opens a client and connections
    begin = time.time() + 5 + sum(counts.values()) * 0.005  # until then all have their scripts
    for job_ids in jobs.values():
        rig.end_at(spread(job_ids, begin, scale.seconds))
    everything = [job_id for job_ids in jobs.values() for job_id in job_ids]
    processes.watch(max(0.0, begin + scale.seconds - time.time()))  # asking the simulator holds up its webhooks
    processes.wait_until(
        lambda: len(rig.ended(everything)) == len(everything), "all jobs' ends", timeout=scale.seconds + 60
    )
    processes.watch(scale.tail)
    result = {}
    for side, waiting in waiters.items():
        events = waiting.stop()["events"]
        wrong = [event["payload"] for event in events.values() if event["payload"]["status"] != "success"]
        if wrong:
            raise StackError(f"all jobs succeed, but {side.name} has {len(wrong)} other events: {wrong[0]}")
        ended = rig.ended(jobs[side])
        result[side.name] = percentiles(
            [events[str(job_id)]["at"] - at if str(job_id) in events else math.inf for job_id, at in ended.items()]
        )
    rig.close()
    return result


def spread(job_ids: list[int], begin: float, seconds: float) -> dict[int, float]:
    """Ends at even distances in a random order, so that no side's ends fall into step with anything."""
    shuffled = random.sample(job_ids, len(job_ids))
    step = seconds / len(shuffled)
    return {job_id: begin + (number + random.random()) * step for number, job_id in enumerate(shuffled)}
