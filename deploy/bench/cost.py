"""What a completion costs: processor time of the listener and of a triggerer, and statements and syncs of the store.
And what a listener takes that has nothing to do.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import psycopg
from part import Aim, Row, number
from processes import StackError
from rig import HERE, PUSH, Rig, wait_until_started

from postgres_server import PostgresServer, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from processes import Processes

TITLE = "What a completion costs"
NOTE = (
    "Jobs complete at a constant rate, each with a webhook that Airbyte's API confirms and a task that waits. "
    "Processor time is that of the whole process, less what it takes when nothing completes. A sync (fsync) is that of "
    "a commit. One by one: each webhook is confirmed before the next. What the listener does without webhooks, such as "
    "renewing leases, is subtracted at its mean rate."
)
COLUMNS = ("listener", "triggerer")
RATE = 100
SPACED = 0.2
"""Seconds between webhooks that come one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """:param seconds: for which jobs complete, :data:`RATE` a second.
    :param quiet: seconds of each measurement in which nothing completes.
    :param watched: numbers of jobs that an idle listener watches.
    :param background: seconds in which a listener without webhooks is counted: longer than any interval at which it
        does something.
    :param spaced: webhooks that come one by one and are counted: so many that the interval of a poll in which they
        began makes no difference.
    :param webhooks: that come at once and are counted.
    :param told: seconds after which all processes of PostgreSQL have reported what they did: after one at the earliest,
        and once they are idle for ten.
    """

    seconds: float = 8.0
    quiet: float = 8.0
    watched: tuple[int, ...] = (0, 100, 10_000)
    background: float = 60.0
    spaced: int = 200
    webhooks: int = 30
    told: float = 11.0


FULL = Scale()
SMALL = Scale(seconds=1.0, quiet=1.0, watched=(0, 100), background=1.0, spaced=5, webhooks=5, told=1.0)


def duration(scale: Scale) -> float:
    """About how long it takes, in seconds."""
    completions = 25 + 3 * scale.seconds + scale.quiet
    idle = sum(scale.quiet + 2 + count * 0.003 for count in scale.watched)
    return completions + 5 + idle + 2 * (15 + scale.background + scale.spaced * SPACED) + 4 * scale.told


def rows(seen: Mapping[str, Any]) -> Iterator[Row]:
    completion = seen["completion"]
    cells = {column: f"{completion[column] * 1000:.2f} ms" for column in COLUMNS}
    yield Row(what=f"processor time per completion, {completion['rate']} a second", cells=cells)
    for count, idle in seen["idle"].items():
        watched = f"{int(count):,} jobs watched" if int(count) else "nothing watched"
        yield Row(
            what=f"idle, {watched}: processor time a minute", cells={"listener": f"{idle['processor'] * 60:.2f} s"}
        )
        yield Row(what=f"idle, {watched}: memory", cells={"listener": f"{idle['memory'] / 2**20:.0f} MiB"})
    for store, ways in seen["stores"].items():
        for way, each in ways.items():
            for what in ("statements", "syncs"):
                yield Row(what=f"{what} per webhook, {store}, {way}", cells={"listener": number(each[what])})


def aims(seen: Mapping[str, Any]) -> Iterator[Aim]:
    yield from ()


def measure(processes: Processes, home: Path, scale: Scale, progress: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of processor time, bytes, and counts."""
    return {
        "completion": _completion(processes, home, scale),
        "idle": _idle(processes, home, scale, progress),
        "stores": {
            "SQLite": _stored(processes, home, scale, SQLiteCounts(home)),
            "PostgreSQL": _postgres(processes, home, scale),
        },
    }


def _completion(processes: Processes, home: Path, scale: Scale) -> dict[str, float]:
    rig = Rig(processes, home, "cost", listener=True)
    job_ids = rig.start_jobs(RATE + int(RATE * scale.seconds))
    waiters = rig.wait(PUSH, job_ids)
    wait_until_started(processes, [waiters], timeout=len(job_ids) / 20 + 60)
    # The first completions of a process import modules, and open connections.
    _end(rig, processes, job_ids[:RATE], 1 / RATE)
    quiet, ended = job_ids[:0], job_ids[RATE:]
    idle = _taken(rig, lambda: _end(rig, processes, quiet, scale.quiet))
    busy = _taken(rig, lambda: _end(rig, processes, ended, 1 / RATE))
    # On a busy machine some triggers fire later.
    processes.watch(5)
    told = waiters.stop()["events"]
    rig.close()
    if missing := [job_id for job_id in ended if str(job_id) not in told]:
        raise StackError(f"{len(missing)} of {len(ended)} triggers did not fire")
    return {
        "rate": RATE,
        **{
            column: (busy[column] - idle[column] / idle["seconds"] * busy["seconds"]) / len(ended) for column in COLUMNS
        },
    }


def _end(rig: Rig, processes: Processes, job_ids: list[int], every: float) -> None:
    """Have jobs complete at even distances; return when all is done."""
    begin = time.time() + 1 + len(job_ids) * 0.005
    rig.end_at({job_id: begin + place * every for place, job_id in enumerate(job_ids)})
    processes.watch(max(0.0, begin + max(1, len(job_ids)) * every - time.time()))
    # On a busy machine, the simulator is later.
    processes.wait_until(lambda: len(rig.ended(job_ids)) == len(job_ids), "the jobs' completions", timeout=60)
    processes.watch(2)


def _taken(rig: Rig, act: Callable[[], None]) -> dict[str, float]:
    processes = {"listener": "listener", "triggerer": "waiters1"}
    before = {column: rig.usage(what).processor for column, what in processes.items()}
    began = time.monotonic()
    act()
    taken = {column: rig.usage(what).processor - before[column] for column, what in processes.items()}
    return {**taken, "seconds": time.monotonic() - began}


def _idle(
    processes: Processes, home: Path, scale: Scale, progress: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    rig = Rig(processes, home, "idle", listener=True)
    found = {}
    watched: list[int] = []
    with httpx.Client(
        base_url=str(rig.listener_url),
        headers={"Authorization": f"Bearer {rig.api_token}"},
        trust_env=False,
        timeout=60,
    ) as listener:
        for count in scale.watched:
            new = rig.start_jobs(count - len(watched))
            for start in range(0, len(new), 1_000):
                jobs = [{"instance": "default", "job_id": job_id} for job_id in new[start : start + 1_000]]
                listener.post("/v1/watches", json={"jobs": jobs}).raise_for_status()
            watched += new
            processes.watch(2)
            before, began = rig.usage("listener"), time.monotonic()
            processes.watch(scale.quiet)
            after = rig.usage("listener")
            share = (after.processor - before.processor) / (time.monotonic() - began)
            found[str(count)] = {"processor": share, "memory": after.memory}
            progress(f"{count:,} jobs watched: {share * 100:.1f} % of a processor, {after.memory / 2**20:.0f} MiB")
    rig.close()
    return found


class Counts(Protocol):
    """What a store has done so far."""

    environment: dict[str, str]

    def read(self) -> dict[str, float]:
        """Return the number of ``statements`` and ``syncs``."""


class SQLiteCounts:
    """As the listener itself counts it."""

    def __init__(self, home: Path) -> None:
        self._path = home / "counts.json"
        self.environment = {"COUNTS": str(self._path)}

    def read(self) -> dict[str, float]:
        time.sleep(0.3)
        counts = json.loads(self._path.read_text())
        return {"statements": counts["statements"], "syncs": counts["commits"]}


class PostgresCounts:
    """As the server counts it: by its log, and ``pg_stat_io``."""

    def __init__(self, server: PostgresServer, told: float) -> None:
        self.environment: dict[str, str] = {}
        self._server, self._told = server, told
        self._connection = psycopg.connect(server.url(), autocommit=True)

    def read(self) -> dict[str, float]:
        time.sleep(self._told)
        synced = self._connection.execute("SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'").fetchone()
        statements = re.findall(r"\] LOG:  (?:statement|execute [^:]*): (?!SELECT sum\(fsyncs\))", self._server.log)
        return {"statements": len(statements), "syncs": float(synced[0]) if synced else 0.0}


def _postgres(processes: Processes, home: Path, scale: Scale) -> dict[str, dict[str, float]]:
    with running(fsync="on", log_statement="all", log_min_messages="log") as server:
        return _stored(processes, home, scale, PostgresCounts(server, scale.told), server.url(schema="cost"))


def _stored(
    processes: Processes, home: Path, scale: Scale, counts: Counts, store: str | None = None
) -> dict[str, dict[str, float]]:
    command = ("env", *(f"{name}={value}" for name, value in counts.environment.items()))
    serve = (*command, sys.executable, str(HERE / "counting.py"), "serve")
    rig = Rig(processes, home, f"stored-{type(counts).__name__}", listener=True, store=store, serve=serve)
    job_ids = rig.start_jobs(1 + scale.spaced + scale.webhooks)
    _end(rig, processes, job_ids[:1], 1)
    seen = [(time.monotonic(), counts.read())]
    spaced, at_once = job_ids[1 : scale.spaced + 1], job_ids[scale.spaced + 1 :]
    for some, every in (([], scale.background), (spaced, SPACED), (at_once, 0)):
        _end(rig, processes, some, every)
        seen.append((time.monotonic(), counts.read()))
    rig.close()
    (began, first), (quiet, idle), *rest = seen
    background = {what: (idle[what] - first[what]) / (quiet - began) for what in first}
    found, before = {}, (quiet, idle)
    for way, some, now in zip(("one by one", f"{scale.webhooks} at once"), (spaced, at_once), rest, strict=True):
        seconds = now[0] - before[0]
        found[way] = {what: (now[1][what] - before[1][what] - background[what] * seconds) / len(some) for what in first}
        before = now
    return found
