"""How many notifications a second the listener takes, durably, beside a bare endpoint on the same HTTP server."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from part import Aim, Row
from part import seconds as shown
from processes import StackError, free_ports
from rig import HERE, Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from processes import Processes

TITLE = "Webhooks that one listener stores"
NOTE = "Webhooks are answered once they are on disk (SQLite). *Floor* is an endpoint of that server without a store."
COLUMNS = ("pushed", "floor")
CONFIRM_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """:param rounds: of each of the two, in turns.
    :param count: notifications a round, each of a job of its own.
    :param connections: one request under way on each; kept alive if the server does.
    """

    rounds: int = 3
    count: int = 4000
    connections: int = 32


FULL = Scale()
SMALL = Scale(rounds=1, count=500)


def duration(scale: Scale) -> float:
    """About how long it takes, in seconds."""
    return scale.rounds * (4 + scale.count * 0.002)


def rows(seen: Mapping[str, Any]) -> Iterator[Row]:
    listener, bare = seen["listener"], seen["bare"]
    cells = {"pushed": f"{listener['per_second']:,.0f}", "floor": f"{bare['per_second']:,.0f}"}
    yield Row(what=f"webhooks a second, {seen['connections']} connections", cells=cells)
    for name in ("p50", "p99"):
        cells = {"pushed": shown(listener[name]), "floor": shown(bare[name])}
        yield Row(what=f"time to the answer meanwhile, {name}", cells=cells)
    what = f"until all {seen['count']:,} are confirmed, after the last answer"
    yield Row(what=what, cells={"pushed": shown(seen["confirmed_after"])})


def aims(seen: Mapping[str, Any]) -> Iterator[Aim]:
    yield from ()


def measure(processes: Processes, home: Path, scale: Scale, progress: Callable[[str], None]) -> dict[str, Any]:
    """Medians over the rounds. ``confirmed_after``: seconds from the last answer until the API has confirmed all."""
    ours: list[dict[str, Any]] = []
    bare: list[dict[str, Any]] = []
    confirmed = []
    for number in range(1, scale.rounds + 1):
        rig = Rig(processes, home, f"ingest-{number}", listener=True)
        bare_url = _start_bare(processes, rig)
        rig.set_webhook_url(None)  # the load generator sends them
        jobs = rig.start_jobs(scale.count)
        rig.end_now(jobs)
        if number % 2:  # each goes first in turn
            bare.append(_load(bare_url, jobs[0], scale))
        ours.append(_load(rig.webhook_url, jobs[0], scale))
        confirmed.append(_confirmed(rig, scale.count))
        if not number % 2:
            bare.append(_load(bare_url, jobs[0], scale))
        rig.close()
    pairs = zip(ours, bare, strict=True)
    return {
        "listener": _medians(ours),
        "bare": _medians(bare),
        "ratio": statistics.median(one["per_second"] / other["per_second"] for one, other in pairs),
        "confirmed_after": statistics.median(confirmed),
        "connections": scale.connections,
        "rounds": scale.rounds,
        "count": scale.count,
    }


def _start_bare(processes: Processes, rig: Rig) -> str:
    (port,) = free_ports(1)
    name = rig.start("bare", [sys.executable, str(HERE / "bare.py"), str(port)])
    url = f"http://127.0.0.1:{port}/webhooks/default/{rig.webhook_token}"

    def there() -> bool:
        try:
            return httpx.get(url, trust_env=False).status_code == httpx.codes.METHOD_NOT_ALLOWED
        except httpx.TransportError:
            return False

    processes.wait_until(there, "the bare endpoint", timeout=30, blame=[name])
    return url


def _load(url: str, first_job: int, scale: Scale) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "load.py"), "--url", url, "--first-job", str(first_job)]
    command += ["--count", str(scale.count), "--connections", str(scale.connections)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if told.returncode:
        raise StackError(f"the load generator failed:\n{told.stderr}")
    result: dict[str, Any] = json.loads(told.stdout)
    if result["statuses"] != {"202": scale.count}:
        raise StackError(f"not every notification was taken: {result['statuses']}")
    return result


def _confirmed(rig: Rig, count: int) -> float:
    """Seconds until no notification waits to be confirmed any more."""
    began = time.monotonic()
    headers = {"Authorization": f"Bearer {rig.api_token}"}
    with httpx.Client(base_url=str(rig.listener_url), headers=headers, trust_env=False, timeout=60) as listener:
        while time.monotonic() < began + CONFIRM_SECONDS:
            newest = listener.get("/v1/notifications?limit=1").raise_for_status().json()["notifications"][0]
            if newest["id"] >= count and newest["outcome"] != "pending":
                return time.monotonic() - began
            time.sleep(0.1)
    raise StackError(f"notifications were not confirmed within {CONFIRM_SECONDS:g} s")


def _medians(rounds: list[dict[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in ("per_second", "p50", "p99")}
