"""Mapped tasks of a real Airflow: from a job's end to the task's success, and what a thousand that wait cost.

All wait in one triggerer at the same time: this project's tasks, and beside them tasks of a trigger that Airbyte tells
directly, each of them once with a worker that ends the task, and once ended by the trigger. Those that Airbyte tells
directly begin before this project's tasks, so that Airflow's own stalls are theirs. Then some jobs of all of them end
one by one, so slowly that no task queues for a worker; then those that are left end at once, burst by burst.
"""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_stack import AirflowStack
from loop import Loop
from part import Aim, Row, number
from part import seconds as shown
from processes import StackError
from quantiles import percentiles
from rig import HERE, ORACLE, PUSH, Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_api import TaskInstance
    from processes import Processes

TITLE = "From a job's completion to the task's success, in Airflow"
NOTE = (
    "Mapped tasks of a real Airflow wait in one triggerer. *Floor* is a trigger that receives Airbyte's webhook, and "
    "whose task has as many XComs. A worker completes the task, or the trigger (`end_from_trigger=True`): then Airflow "
    "stores each XCom in a loop of the triggerer's supervisor. Airflow is slower while more tasks wait, so half of the "
    "floor's burst completes before this project's and half after. The triggerer shares the processors with all "
    "others; its waits for one are those of an idle thread."
)
COLUMNS = (PUSH.column, ORACLE.column)
COLUMN_OF = {side.name: side.column for side in (PUSH, ORACLE)}
DAGS = {"oracle": "bench_mapped_floor", "push": "bench_mapped"}
"""The DAG of each side, in the order of their beginning."""
WORKERS = 6
STARTS = 3.0
"""Tasks a second that workers begin, or go on with, on two cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """A number for each group of tasks: who tells the trigger, and who ends the task."""

    push_trigger: int = 0
    oracle_trigger: int = 0
    push_worker: int = 0
    oracle_worker: int = 0

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def of(self, side: str) -> int:
        """The number of one side: ``push`` or ``oracle``."""
        return sum(number for name, number in asdict(self).items() if name.startswith(side))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """:param tasks: how many wait.
    :param one_by_one: of these, whose jobs end one by one; those of the rest but one end at once, group by group.
    :param seconds: over which the ends are spread.
    :param quiet: seconds for which all wait and requests are counted; longer than the provider's shortest deferral on a
        busy machine, which would delay the tasks that began last.
    :param bound: seconds after which the start or the end of all tasks is given up.
    """

    tasks: Groups
    one_by_one: Groups
    seconds: float
    quiet: float = 60.0
    bound: float = 900.0


FULL = Scale(
    tasks=Groups(push_trigger=281, oracle_trigger=271, push_worker=30, oracle_worker=25),
    one_by_one=Groups(push_trigger=30, oracle_trigger=20, push_worker=30, oracle_worker=25),
    seconds=40.0,
    quiet=15.0,
)
SMALL = Scale(
    tasks=Groups(push_trigger=8, oracle_trigger=8, push_worker=2, oracle_worker=2),
    one_by_one=Groups(push_trigger=2, oracle_trigger=2, push_worker=2, oracle_worker=2),
    seconds=4.0,
    quiet=2.0,
)


def at_once(count: int) -> Scale:
    """The full scale, but for how many jobs of each side end at once."""
    few = FULL.one_by_one
    tasks = replace(
        FULL.tasks, push_trigger=few.push_trigger + count + 1, oracle_trigger=few.oracle_trigger + count + 1
    )
    return replace(FULL, tasks=tasks, bound=FULL.bound + tasks.total)


def duration(scale: Scale) -> float:
    """About how long it takes, in seconds."""
    resumed = scale.tasks.push_worker + scale.tasks.oracle_worker
    return 60 + (scale.tasks.total + resumed) / STARTS + scale.seconds + scale.quiet


def rows(seen: Mapping[str, Any]) -> Iterator[Row]:
    for by in ("worker", "trigger"):
        for name in ("p50", "p95", "p99"):
            yield _row(f"a {by} completes the task, {name}", seen["one_by_one"], by, name)
    what = f"{seen['at_once']['count']:,} jobs complete at once: last success, by trigger"
    yield Row(what=what, cells={column: shown(seen["at_once"][side]) for side, column in COLUMN_OF.items()})
    phases = seen["phases"]
    pushed = PUSH.column
    tasks = Groups(**seen["tasks"])
    count = tasks.of("push")
    begun = sum(phases["starting_push"]["requests"].values()) / count
    waited = sum(phases["waiting"]["requests"].values()) * 60 / phases["waiting"]["seconds"]
    yield Row(what=f"requests a task, while {count:,} begin", cells={pushed: number(begun)})
    yield Row(what=f"requests a minute, {count:,} waiting", cells={pushed: number(waited)})
    stall = "longest stall of the triggerer while"
    yield _stalls(f"{stall} {count:,} begin (floor: {tasks.of('oracle'):,})", phases, "starting_{}")
    yield _stalls("longest of them without waits for a processor", phases, "starting_{}", "blocked")
    longest = shown(phases["waiting"]["stalls"]["longest"])
    yield Row(what=f"{stall} {count:,} wait", cells={pushed: longest})
    yield _stalls(f"{stall} jobs complete at once", phases, "at_once_{}")


def _row(what: str, groups: Mapping[str, Any], by: str, figure: str) -> Row:
    found = {column: groups.get(f"{side}_{by}") for side, column in COLUMN_OF.items()}
    return Row(what=what, cells={column: shown(each[figure]) for column, each in found.items() if each})


def _stalls(what: str, phases: Mapping[str, Any], name: str, figure: str = "longest") -> Row:
    """:param name: how the names of each side's phases begin, with ``{}`` for the side."""
    cells = {}
    for side, column in COLUMN_OF.items():
        begin = name.format(side)
        cells[column] = shown(max(each["stalls"][figure] for what, each in phases.items() if what.startswith(begin)))
    return Row(what=what, cells=cells)


def aims(seen: Mapping[str, Any]) -> Iterator[Aim]:
    at_once = seen["at_once"]
    ratio = at_once["push"] / at_once["oracle"]
    yield Aim(
        what=f"{at_once['count']:,} jobs complete at once: last success within 1.15 times the floor",
        value=f"{ratio:.2f} times",
        met=ratio <= 1.15,
    )
    ours = [each["stalls"] for name, each in seen["phases"].items() if "oracle" not in name]
    theirs = [each["stalls"] for name, each in seen["phases"].items() if "oracle" in name]
    blocked, longest, floor = (
        max(each[name] for each in stalls)
        for stalls, name in ((ours, "blocked"), (ours, "longest"), (theirs, "longest"))
    )
    yield Aim(
        what="no stall of Airflow's triggerer over 50 ms",
        value=f"{shown(blocked)}, with waits for a processor {shown(longest)} (floor: {shown(floor)})",
        met=blocked <= 0.050,
    )


def measure(processes: Processes, home: Path, scale: Scale, progress: Callable[[str], None]) -> dict[str, Any]:
    """Seconds from the commit of a job's end to the end of its task, by group: ``one_by_one``; by side those from the
    first job's end to the last task's, ``at_once``; requests by route, and stalls of the triggerer's loop, by phase.
    """
    rig = Rig(processes, home, "mapped", listener=True)
    try:
        with _airflow(rig, scale) as airflow:
            return Mapped(rig, airflow, scale, progress).measure()
    finally:
        rig.close()


def _airflow(rig: Rig, scale: Scale) -> AirflowStack:
    seconds = str(24 * 3600)
    settings = {
        "BENCH_MAPPED": str(rig.home / "mapped.json"),
        "ORACLE_PORT": str(rig.oracle_port),
        "PYTHONPATH": str(HERE),
        "AIRFLOW__CORE__PARALLELISM": str(WORKERS),
        "AIRFLOW__TRIGGERER__CAPACITY": str(2 * scale.tasks.total),
        # The DAG's file stays as it is, and is read again by each worker in any case.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": seconds,
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": seconds,
    }
    tasks = scale.tasks
    oracle = rig.workspace(f"http://127.0.0.1:{rig.oracle_port}/")
    told = {
        "monitor": str(rig.home / "monitor.jsonl"),
        "max_active_tasks": WORKERS,
        "ours": {
            "push_worker": {"arguments": {}, "values": rig.connections(tasks.push_worker)},
            "push_trigger": {
                "arguments": {"end_from_trigger": True},
                "values": rig.connections(tasks.push_trigger),
            },
        },
        "oracle": {
            "oracle_worker": {"arguments": {}, "values": rig.start_jobs(tasks.oracle_worker, oracle)},
            "oracle_trigger": {
                "arguments": {"end_from_trigger": True},
                "values": rig.start_jobs(tasks.oracle_trigger, oracle),
            },
        },
    }
    (rig.home / "mapped.json").write_text(json.dumps(told))
    return AirflowStack(
        rig.home / "airflow", HERE / "dags", connections=rig.airflow_connections(pushed=True), settings=settings
    )


class Mapped:
    """One measurement.

    :param rig: with what is in ``mapped.json`` there.
    :param progress: is called with a line now and then.
    """

    def __init__(self, rig: Rig, airflow: AirflowStack, scale: Scale, progress: Callable[[str], None]) -> None:
        self._rig, self._airflow, self._scale, self._progress = rig, airflow, scale, progress
        told = json.loads((rig.home / "mapped.json").read_text())
        self._loop = Loop(airflow, Path(told["monitor"]))
        self._values = {name: each["values"] for kind in ("ours", "oracle") for name, each in told[kind].items()}
        self._run_ids: dict[str, str] = {}

    def measure(self) -> dict[str, Any]:
        """See :func:`measure`."""
        self._loop.watch()
        phases = {
            **{
                f"starting_{side}": self._phase(f"all of {side} have begun", partial(self._start, side))
                for side in DAGS
            },
            "waiting": self._phase("all waited", lambda: self._airflow.processes.watch(self._scale.quiet)),
            "one_by_one": self._phase("jobs ended one by one", self._end_one_by_one),
            **self._end_at_once(),
        }
        chosen, _ = self._chosen()
        left = [ids[-1] for name, ids in self._jobs().items() if len(chosen[name]) < len(ids)]
        self._end_now(left, self._begun)
        tasks = {
            (task.task_id, task.map_index): task
            for dag_id, run_id in self._run_ids.items()
            for task in self._airflow.api.all_task_instances(dag_id, run_id)
        }
        return {
            "tasks": asdict(self._scale.tasks),
            "one_by_one": {name: self._late(tasks, name, ids) for name, ids in chosen.items() if ids},
            "at_once": self._at_once(tasks),
            "phases": phases,
            "watchdog": self._loop.blocked(),
        }

    def _phase(self, what: str, act: Callable[[], None]) -> dict[str, Any]:
        requests, begun = self._rig.requests_by_route(), time.time()
        act()
        ended = time.time()
        counts = self._rig.requests_by_route().items()
        made = {route: more for route, count in counts if (more := count - requests.get(route, 0))}
        late = self._loop.stalls(begun, ended)
        told = ", ".join(f"{count:,} {route}" for route, count in made.items()) or "none"
        timers = f"timers up to {late['longest'] * 1000:.0f} ms late, p99 {late['p99'] * 1000:.1f} ms"
        self._progress(f"{what}: {ended - begun:.0f} s; requests: {told}; the triggerer's loop: {timers}")
        return {"seconds": ended - begun, "requests": made, "stalls": late}

    def _start(self, side: str) -> None:
        self._run_ids[DAGS[side]] = self._airflow.trigger_dag(DAGS[side])
        self._until("wait", self._waiting, self._begun, timeout=self._scale.bound)

    def _end_one_by_one(self) -> None:
        """At even distances in a random order."""
        chosen, _ = self._chosen()
        job_ids = [job_id for ids in chosen.values() for job_id in ids]
        random.shuffle(job_ids)
        begin, step = time.time() + 2 + len(job_ids) * 0.005, self._scale.seconds / max(1, len(job_ids))
        self._rig.end_at({job_id: begin + (number + random.random()) * step for number, job_id in enumerate(job_ids)})
        wanted = self._scale.one_by_one.total
        self._until("ended, one by one", self._ended, wanted, timeout=self._scale.seconds + 120)

    def _end_at_once(self) -> dict[str, dict[str, Any]]:
        """A phase for each burst, so that none has another's load."""
        ended, phases = self._scale.one_by_one.total, {}
        for place, (side, job_ids) in enumerate(self._bursts(), 1):
            ended += len(job_ids)
            what = f"{len(job_ids):,} jobs of {side} ended at once"
            phases[f"at_once_{side}_{place}"] = self._phase(what, partial(self._end_now, job_ids, ended))
        return phases

    def _bursts(self) -> list[tuple[str, list[int]]]:
        """Sides, and jobs of them that end at once, in their order.

        Airflow takes longer for a task while more triggers wait. So half of the floor's end before this project's, and
        half after them: in the mean as many wait beside both.
        """
        rest = self._chosen()[1]
        pushed, floor = (rest[f"{side}_trigger"] for side in COLUMN_OF)
        half = len(floor) // 2
        return [("oracle", floor[:half]), ("push", pushed), ("oracle", floor[half:])]

    def _at_once(self, tasks: Mapping[tuple[str, int], TaskInstance]) -> dict[str, Any]:
        """Seconds by side, and the ``count`` of jobs of each."""
        seconds: dict[str, float] = {}
        for side, job_ids in self._bursts():
            begun, ended = self._rig.ended(job_ids), self._ends(tasks, f"{side}_trigger", job_ids)
            # How long a burst takes to begin is in the first one's time.
            first = min(ended) if side in seconds else min(begun.values())
            seconds[side] = seconds.get(side, 0.0) + max(ended) - first
        return {**seconds, "count": sum(len(job_ids) for side, job_ids in self._bursts() if side == "push")}

    def _end_now(self, job_ids: list[int], ended: int) -> None:
        self._rig.end_now(job_ids)
        self._until("ended", self._ended, ended, timeout=self._scale.bound)

    def _until(self, what: str, count: Callable[[], int], wanted: int, *, timeout: float) -> None:
        """Returns when so many tasks are there; tells how far it is."""
        told = time.monotonic()

        def probe() -> bool:
            nonlocal told
            found = count()
            if time.monotonic() > told + 10:
                told = time.monotonic()
                self._progress(f"{found:,} of {wanted:,} tasks {what}")
            if found < wanted:
                time.sleep(1)  # Airflow has enough to do
            return found >= wanted

        self._airflow.processes.wait_until(probe, f"{wanted} tasks that {what}", timeout=timeout)

    @property
    def _begun(self) -> int:
        """The number of tasks of the sides that have begun so far."""
        return sum(self._scale.tasks.of(side) for side, dag_id in DAGS.items() if dag_id in self._run_ids)

    def _waiting(self) -> int:
        """As many as are on the triggerer's loop, once all are deferred."""
        deferred = self._count("deferred")
        return deferred if deferred < self._begun else self._loop.triggers

    def _ended(self) -> int:
        return self._count("success")

    def _count(self, state: str) -> int:
        """:raises StackError: if a task has failed."""
        count = self._airflow.api.count_task_instances
        if failed := sum(count(dag_id, run_id, "failed") for dag_id, run_id in self._run_ids.items()):
            raise StackError(f"{failed:,} tasks failed")
        return sum(count(dag_id, run_id, state) for dag_id, run_id in self._run_ids.items())

    def _chosen(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """The jobs of each group, by map index: those that end one by one, and the rest.

        The last one of the rest is left out: a DAG run that has ended would spare the scheduler work, and the groups
        that end later would be faster.
        """
        jobs, counts = self._jobs(), asdict(self._scale.one_by_one)
        return (
            {name: job_ids[: counts[name]] for name, job_ids in jobs.items()},
            {name: job_ids[counts[name] : -1] for name, job_ids in jobs.items()},
        )

    def _jobs(self) -> dict[str, list[int]]:
        """The jobs of each group, by map index."""
        found = self._rig.jobs_by_connection()
        return {
            name: [found[value] if isinstance(value, str) else value for value in values]
            for name, values in self._values.items()
        }

    def _late(
        self, tasks: Mapping[tuple[str, int], TaskInstance], name: str, job_ids: list[int]
    ) -> dict[str, float | int | None]:
        """Of the group's tasks that wait for these jobs."""
        begun = self._rig.ended(job_ids)
        return percentiles(
            [at - begun[job_id] for job_id, at in zip(job_ids, self._ends(tasks, name, job_ids), strict=True)]
        )

    def _ends(self, tasks: Mapping[tuple[str, int], TaskInstance], name: str, job_ids: list[int]) -> list[float]:
        """When the group's tasks ended that wait for these jobs, in seconds since the epoch."""
        index_of = {job_id: index for index, job_id in enumerate(self._jobs()[name])}
        return [_seconds(tasks[name, index_of[job_id]]) for job_id in job_ids]


def _seconds(task: TaskInstance) -> float:
    return math.inf if task.end_date is None else task.end_date.timestamp()
