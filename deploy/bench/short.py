"""Whether Airflow fails tasks for the speed of their triggers: short syncs of deferred tasks, in a real one.

Prints how many tasks failed, and seconds from the end of the sync to that of the task. Everything listens on loopback,
and nothing is left running. ``make short-syncs``, or with ``ARGS="--tasks 24 --min-deferral 0"``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_stack import AirflowStack
from processes import ended_by_signals
from services import Addresses, Services

from airbyte_events._utils.times import parse_time

if TYPE_CHECKING:
    from airflow_api import TaskInstance

DAG_ID = "short_syncs"
DAG_FILE = """
from airflow.sdk import DAG
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

with DAG({dag_id!r}, schedule=None, max_active_tasks={workers}):
    AirbyteTriggerSyncOperator.partial(task_id="sync", deferrable=True, retries=0).expand(connection_id={connections!r})
"""
MISMATCH = "the task instance's state attribute is"


def main() -> int:
    options = parse()
    home = Path(tempfile.mkdtemp(prefix="airbyte-events-short-"))
    try:
        with ended_by_signals():
            return measure(home, options)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def measure(home: Path, options: argparse.Namespace) -> int:
    """Run the tasks, and print what became of them; the exit status is returned."""
    addresses = Addresses.choose()
    settings = {
        "AIRFLOW__CORE__PARALLELISM": str(options.workers),
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": str(options.heartbeat),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "86400",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "86400",
    }
    if options.min_deferral is not None:
        settings["AIRFLOW__AIRBYTE_EVENTS__MIN_DEFERRAL"] = f"{options.min_deferral:g}"
    with Services(addresses, home / "services", connections=1, duration=1.0, poll_interval=3600.0) as services:
        connections = []
        for number in range(options.tasks):
            span = (options.longest - options.shortest) * number / max(1, options.tasks - 1)
            made = services.airbyte.post("/_simulator/connections", json={"duration": options.shortest + span})
            connections += made.raise_for_status().json()["connection_ids"]
        dags = home / "dags"
        dags.mkdir()
        source = DAG_FILE.format(dag_id=DAG_ID, workers=options.workers, connections=connections)
        (dags / "short_syncs.py").write_text(source)
        with AirflowStack(
            home / "airflow", dags, connections=addresses.airflow_connections(), settings=settings
        ) as airflow:
            run_id = airflow.trigger_dag(DAG_ID)
            tasks = until_ended(airflow, run_id, options)
        jobs = services.airbyte.get("/_simulator/jobs", params={"limit": 10_000}).raise_for_status().json()["jobs"]
    log = (home / "airflow" / "logs" / "components" / "scheduler.log").read_text(errors="replace")
    ended = {job["connection_id"]: parse_time(job["committed_at"]) for job in jobs if job["status"] == "succeeded"}
    late = sorted(
        (task.end_date - at).total_seconds()
        for task in tasks
        if task.state == "success" and task.end_date and (at := ended.get(connections[task.map_index]))
    )
    failed = sum(task.state == "failed" for task in tasks)
    unfinished = options.tasks - failed - sum(task.state == "success" for task in tasks)
    print(
        f"{options.tasks} tasks, syncs of {options.shortest:g} to {options.longest:g} s, {options.workers} workers, "
        f"min_heartbeat_interval {options.heartbeat}, "
        f"min_deferral {'default' if options.min_deferral is None else format(options.min_deferral, 'g')}: "
        f"{failed} failed, {log.count(MISMATCH)} mismatches in the scheduler's log, {unfinished} not ended in time, "
        f"{len(ended)} syncs succeeded"
    )
    if len(late) > 1:
        quantiles = statistics.quantiles(late, n=20)
        print(
            f"from the sync's end to the task's: median {statistics.median(late):.1f} s, p95 {quantiles[-1]:.1f} s, "
            f"longest {late[-1]:.1f} s"
        )
    return 1 if failed or unfinished else 0


def until_ended(airflow: AirflowStack, run_id: str, options: argparse.Namespace) -> list[TaskInstance]:
    """The tasks, when all have ended or the time is over."""
    until = time.monotonic() + options.seconds
    while True:
        tasks = airflow.api.all_task_instances(DAG_ID, run_id)
        ended = sum(task.ended for task in tasks)
        print(f"{ended} of {options.tasks} tasks have ended", file=sys.stderr, flush=True)
        if ended >= options.tasks or time.monotonic() > until:
            return tasks
        airflow.processes.watch(10.0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--shortest", type=float, default=0.5, help="seconds of the shortest sync")
    parser.add_argument("--longest", type=float, default=5.0, help="seconds of the longest sync")
    parser.add_argument("--workers", type=int, default=6, help="tasks that run at a time")
    parser.add_argument(
        "--heartbeat", type=int, default=5, help="[workers] min_heartbeat_interval (Airflow's default: 5)"
    )
    parser.add_argument("--min-deferral", type=float, help="[airbyte_events] min_deferral, by default its own default")
    parser.add_argument("--seconds", type=float, default=600.0, help="after which it is given up")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
