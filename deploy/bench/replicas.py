"""Webhooks a second that one listener takes on PostgreSQL, and that three take together."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from part import Aim, Row
from processes import StackError
from rig import HERE, Rig

from postgres_server import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from processes import Processes

TITLE = "Several listeners on PostgreSQL"
NOTE = "All share the machine with the server and the load: what more listeners add is that one may fail."
COLUMNS = ("one listener", "three listeners")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """:param rounds: of each number of listeners, in turns.
    :param count: webhooks a round.
    """

    rounds: int = 2
    count: int = 3_000


FULL = Scale()
SMALL = Scale(rounds=1, count=300)
CONNECTIONS = 32


def duration(scale: Scale) -> float:
    """About how long it takes, in seconds."""
    return 5 + 2 * scale.rounds * (5 + scale.count * 0.002)


def rows(seen: Mapping[str, Any]) -> Iterator[Row]:
    figures = (f"{seen[count]:,.0f}" for count in ("1", "3"))
    yield Row(what="webhooks stored a second", cells=dict(zip(COLUMNS, figures, strict=True)))


def aims(seen: Mapping[str, Any]) -> Iterator[Aim]:
    yield from ()


def measure(processes: Processes, home: Path, scale: Scale, progress: Callable[[str], None]) -> dict[str, Any]:
    """Webhooks a second, by the number of listeners: medians."""
    found: dict[str, list[float]] = {"1": [], "3": []}
    with running(fsync="on", autovacuum="on", shared_buffers="128MB", max_connections="100") as server:
        for number in range(scale.rounds):
            for count in found:
                schema = f"bench_{number}_{count}"
                store = server.url(schema=schema)
                rig = Rig(processes, home, schema, listener=True, store=store)
                urls = [rig.webhook_url, *(rig.another_listener() for _ in range(int(count) - 1))]
                rig.set_webhook_url(None)
                jobs = rig.start_jobs(scale.count)
                rig.end_now(jobs)
                found[count].append(_load(urls, jobs, scale))
                rig.close()
    return {count: statistics.median(each) for count, each in found.items()} | {"rounds": scale.rounds}


def _load(urls: list[str], jobs: list[int], scale: Scale) -> float:
    share = scale.count // len(urls)
    started = []
    for number, url in enumerate(urls):
        command = [sys.executable, str(HERE / "load.py"), "--url", url, "--first-job", str(jobs[number * share])]
        command += ["--count", str(share), "--connections", str(CONNECTIONS // len(urls))]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    rates: list[float] = []
    for process in started:
        told, fault = process.communicate(timeout=120)
        if process.returncode:
            raise StackError(f"the load generator failed:\n{fault}")
        result = json.loads(told)
        if set(result["statuses"]) != {"202"}:
            raise StackError(f"not every notification was taken: {result['statuses']}")
        rates.append(result["per_second"])
    # They begin and end together but for the start of a process each: what all took is the sum.
    return sum(rates)
