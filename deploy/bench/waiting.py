"""What waiting costs: requests to Airbyte, and memory in the triggerer, by number of tasks whose jobs run on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from part import Aim, Row, kilobytes, number
from rig import BARE, OFFICIAL, POLL, PUSH, Rig, wait_until_started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from processes import Processes

TITLE = "Requests and memory while tasks wait"
NOTE = "The jobs run on. Requests are those that reach Airbyte; memory is what one more trigger takes."
SIDES = (PUSH, POLL, OFFICIAL)
COLUMNS = tuple(side.column for side in (*SIDES, BARE))
PROOF = 6
"""Jobs that end before anything is counted: by their webhooks the listener learns that push works."""
FEW = 100
"""Triggers: what fewer of them take is not told."""
LONG = 60.0
"""Seconds that jobs run before anything is counted. They began all at once, and for so long a list of changed jobs
has all of them, which is not how tasks wait for an hour.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """:param tasks: numbers of tasks that wait. Memory is measured at the last one.
    :param settled: seconds, see :data:`LONG`.
    :param seconds: over which requests are counted: whole periods of the official provider.
    """

    tasks: tuple[int, ...] = (100, 1000)
    seconds: float = 60.0
    settled: float = LONG


FULL = Scale()
SMALL = Scale(tasks=(10,), seconds=3.0, settled=3.0)


def duration(scale: Scale) -> float:
    """About how long it takes, in seconds."""
    return 25 + scale.settled + scale.seconds


def rows(seen: Mapping[str, Any]) -> Iterator[Row]:
    per_minute = seen["requests_per_minute"]
    for count in per_minute["push"]:
        cells = {side.column: number(per_minute[side.name][count]) for side in SIDES}
        yield Row(what=f"requests a minute, {int(count):,} waiting", cells=cells)
    if taken := seen["bytes_per_trigger"]:
        cells = {side.column: kilobytes(taken[side.name]["uss"]) for side in (*SIDES, BARE)}
        yield Row(what=f"memory a waiting trigger, {seen['triggers']:,} waiting", cells=cells)


def aims(seen: Mapping[str, Any]) -> Iterator[Aim]:
    count = str(seen["triggers"])
    pushed, polled, theirs = (seen["requests_per_minute"][side][count] for side in ("push", "poll", "official"))
    if theirs is not None:
        # None at all is at most one in the time that was measured.
        fewer = theirs / max(pushed, 60 / seen["seconds"])
        yield Aim(
            what=f"at least 100 times fewer requests than official, {int(count):,} waiting",
            value=f"{'' if pushed else '≥ '}{fewer:,.0f} times",
            met=fewer >= 100,
        )
    if polled is not None:
        yield Aim(
            what=f"at most 20 requests a minute, polling only, {int(count):,} waiting",
            value=number(polled),
            met=polled <= 20,
        )
    if taken := seen["bytes_per_trigger"]:
        over = max(taken[side]["uss"] for side in ("push", "poll")) - taken["bare"]["uss"]
        yield Aim(what="at most 20 kB a waiting trigger over the floor", value=kilobytes(over), met=over <= 20_000)


def measure(processes: Processes, home: Path, scale: Scale, progress: Callable[[str], None]) -> dict[str, Any]:
    """Requests a minute and bytes a waiting trigger. All sides and numbers wait at the same time, each number of
    each side on a simulator of its own, whose requests are counted.
    """
    rigs = {
        (side, count): Rig(processes, home, f"waiting-{side.name}-{count}", listener=side.pushed)
        for side in SIDES
        for count in scale.tasks
    }
    waiters = {key: rig.wait(key[0], rig.start_jobs(key[1]), memory=True) for key, rig in rigs.items()}
    begun = time.monotonic()
    bare = waiters[BARE, scale.tasks[-1]] = next(iter(rigs.values())).wait(
        BARE, range(1, scale.tasks[-1] + 1), memory=True
    )
    wait_until_started(processes, list(waiters.values()), timeout=120 + scale.tasks[-1] * 0.6)
    proven = {key: rig.start_jobs(PROOF) for key, rig in rigs.items() if key[0].pushed}
    for key, job_ids in proven.items():
        for job_id in job_ids:
            rigs[key].end_now([job_id])
            time.sleep(0.2)
    processes.watch(max(3.0, begun + scale.settled - time.monotonic()))
    before = {key: rig.requests() for key, rig in rigs.items()}
    started = time.monotonic()
    processes.watch(scale.seconds)
    minutes = (time.monotonic() - started) / 60
    requests = {key: rig.requests() - before[key] for key, rig in rigs.items()}
    seen = {key: each.stop() for key, each in waiters.items()}
    for rig in rigs.values():
        rig.close()
    assert bare.side is BARE
    return {
        "seconds": scale.seconds,
        "requests_per_minute": {
            side.name: {
                # In less than its interval nothing is seen of a side.
                str(count): requests[side, count] / minutes if scale.seconds >= side.poll_interval else None
                for count in scale.tasks
            }
            for side in SIDES
        },
        "triggers": scale.tasks[-1],
        # By a few triggers what was loaded meanwhile would be divided.
        "bytes_per_trigger": {side.name: seen[side, scale.tasks[-1]]["bytes"] for side in (*SIDES, BARE)}
        if scale.tasks[-1] >= FEW
        else None,
    }
