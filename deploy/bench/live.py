"""What live progress costs: requests to Airbyte while jobs run, by the number of viewers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from part import Aim, Row, number
from rig import Rig

from airbyte_events.monitor.progress import BURST, REQUESTS_PER_MINUTE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from processes import Processes

TITLE = "Requests for the progress of running jobs"
NOTE = (
    "A hundred jobs run and are watched, and none completes. Viewers request progress from the listener every 2 s: one "
    "viewer that of all jobs, or twenty viewers the streams of one job each. Requests are those that reach Airbyte; "
    "polls are counted apart."
)
VIEWERS = {"no viewer": 0, "one viewer of all jobs": 1, "twenty viewers of streams": 20}
COLUMNS = tuple(VIEWERS)
JOBS = 100
EVERY = 2.0
"""Seconds between two requests of a viewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """:param settled: seconds before requests are counted: one viewer sends ten requests a minute until those that may
    be sent at once are spent, and lists of changed jobs no longer have all that run.
    :param seconds: over which they are counted.
    """

    settled: float = 105.0
    seconds: float = 60.0


FULL = Scale()
SMALL = Scale(settled=2.0, seconds=6.0)


def duration(scale: Scale) -> float:
    """About how long it takes, in seconds."""
    return 20 + scale.settled + scale.seconds


def rows(seen: Mapping[str, Any]) -> Iterator[Row]:
    minutes = seen["seconds"] / 60
    for what, named in (("polls", "polls and tokens"), ("progress", "progress")):
        cells = {column: number(each[what] / minutes) for column, each in seen["viewers"].items()}
        yield Row(what=f"requests a minute, {named}", cells=cells)
    cells = {column: f"{each['shown']:,}" for column, each in seen["viewers"].items() if VIEWERS[column]}
    yield Row(what="jobs whose progress was shown", cells=cells)


def aims(seen: Mapping[str, Any]) -> Iterator[Aim]:
    for column, each in seen["viewers"].items():
        if not VIEWERS[column]:
            yield Aim(
                what=f"no request for progress while {column}", value=f"{each['progress']}", met=not each["progress"]
            )
            continue
        # And what may be left of the requests that are sent at once.
        left = 1 if seen["seconds"] >= FULL.seconds else BURST
        yield Aim(
            what=f"at most {REQUESTS_PER_MINUTE} requests a minute for progress, while {column}",
            value=f"{each['progress']} in {seen['seconds']:.0f} s",
            met=each["shown"] > 0 and each["progress"] <= left + REQUESTS_PER_MINUTE * seen["seconds"] / 60,
        )


def measure(processes: Processes, home: Path, scale: Scale, progress: Callable[[str], None]) -> dict[str, Any]:
    """Requests of each kind, and the number of jobs that were shown. All look at the same time, each number of viewers
    at a listener and a simulator of its own.
    """
    sides = {column: _Side(Rig(processes, home, f"live-{count}", listener=True)) for column, count in VIEWERS.items()}
    for each in sides.values():
        each.watch()
    _look(processes, sides, scale.settled)
    before = {column: each.requests() for column, each in sides.items()}
    shown = _look(processes, sides, scale.seconds)
    after = {column: each.requests() for column, each in sides.items()}
    for each in sides.values():
        each.close()
    return {
        "seconds": scale.seconds,
        "viewers": {
            column: {what: after[column][what] - before[column][what] for what in ("polls", "progress")}
            | {"shown": len(shown[column])}
            for column in VIEWERS
        },
    }


class _Side:
    """A rig with :data:`JOBS` running jobs."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._job_ids = rig.start_jobs(JOBS)
        self._listener = httpx.Client(
            base_url=str(rig.listener_url),
            headers={"Authorization": f"Bearer {rig.api_token}"},
            trust_env=False,
            timeout=60,
        )

    def watch(self) -> None:
        jobs = [{"instance": "default", "job_id": job_id} for job_id in self._job_ids]
        self._listener.post("/v1/watches", json={"jobs": jobs}).raise_for_status()

    def look(self, viewers: int) -> set[int]:
        """Have so many ask once; return the jobs whose progress they got."""
        asked = [self._job_ids] if viewers == 1 else [[job_id] for job_id in self._job_ids[:viewers]]
        shown: set[int] = set()
        for job_ids in asked if viewers else ():
            asked_for = f"job_id={','.join(map(str, job_ids))}&streams={'true' if viewers > 1 else 'false'}"
            response = self._listener.get(f"/v1/progress?instance=default&{asked_for}").raise_for_status()
            found = response.json()["progress"]
            shown |= {each["job_id"] for each in found if viewers == 1 or each["streams"] is not None}
        return shown

    def requests(self) -> dict[str, int]:
        """Count the requests so far: for the progress of jobs, and all others."""
        total = self._rig.requests()
        calls = self._rig.get(f"/requests?limit={total}")["recent"]
        assert len(calls) >= total, "the simulator has forgotten some"
        asked = sum(
            call["route"] == "GET /jobs/{id}"
            or "sync_progress" in call["path"]
            or (call["route"] == "GET /jobs" and "status=running" in call["query"])
            for call in calls
        )
        return {"progress": asked, "polls": total - asked}

    def close(self) -> None:
        self._listener.close()
        self._rig.close()


def _look(processes: Processes, sides: Mapping[str, _Side], seconds: float) -> dict[str, set[int]]:
    shown: dict[str, set[int]] = {column: set() for column in sides}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for column, side in sides.items():
            shown[column] |= side.look(VIEWERS[column])
        processes.watch(min(EVERY, max(0.0, until - time.monotonic())))
    return shown
