"""What waiting costs: requests to Airbyte, and memory in the triggerer, by number of tasks whose jobs run on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rig import BARE, OFFICIAL, POLL, PUSH, Rig, wait_until_started

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Processes

SIDES = (PUSH, POLL, OFFICIAL)
PROOF = 6
"""Jobs that end before anything is counted: by their webhooks the listener learns that push works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """:param tasks: numbers of tasks that wait. Memory is measured at the last one.
    :param seconds: over which requests are counted: whole periods of the official provider.
    """

    tasks: tuple[int, ...] = (1, 100, 1000)
    seconds: float = 120.0


FULL = Scale()
QUICK = Scale(tasks=(1, 20), seconds=10.0)


def duration(scale: Scale) -> float:
    """About how long it takes, in seconds."""
    return 40 + scale.tasks[-1] * 0.16 + scale.seconds


def measure(processes: Processes, home: Path, scale: Scale) -> dict[str, Any]:
    """Requests a minute and bytes a waiting trigger. All sides and numbers wait at the same time, each number of
    each side on a simulator of its own, whose requests are counted.
    """
    rigs = {
        (side, count): Rig(processes, home, f"waiting-{side.name}-{count}", listener=side.pushed)
        for side in SIDES
        for count in scale.tasks
    }
    waiters = {key: rig.wait(key[0], rig.start_jobs(key[1]), memory=True) for key, rig in rigs.items()}
    bare = waiters[BARE, scale.tasks[-1]] = next(iter(rigs.values())).wait(
        BARE, range(1, scale.tasks[-1] + 1), memory=True
    )
    wait_until_started(processes, list(waiters.values()), timeout=120 + scale.tasks[-1] * 0.6)
    proven = {key: rig.start_jobs(PROOF) for key, rig in rigs.items() if key[0].pushed}
    for key, job_ids in proven.items():
        for job_id in job_ids:
            rigs[key].end_now([job_id])
            time.sleep(0.2)
    processes.watch(15)  # what the ends and the start brought about is over
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
        "bytes_per_trigger": {side.name: seen[side, scale.tasks[-1]]["bytes"] for side in (*SIDES, BARE)},
    }
