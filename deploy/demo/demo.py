"""Runs an Airbyte simulator, the listener and a real Airflow on this machine. The example DAG waits for a sync in three
ways, and a table shows when each step happened.

On a terminal everything stays up afterwards, until Ctrl-C. Elsewhere it ends, with status 1 if a task did not succeed.
All of it listens on loopback, on free ports, and nothing is left running.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from airflow_api import AirflowApiError, TaskInstance
from airflow_stack import AirflowStack
from evidence import collect
from feed import FeedReader
from processes import StackError, ended_by_signals
from progress import Progress
from rich.console import Console
from services import Addresses, Services
from timeline import table

HERE = Path(__file__).resolve().parent
DAG_ID = "airbyte_events_demo"
WAITERS = ("synchronous", "sensor", "deferrable")
"""The DAG's tasks that wait for a sync, in the order of the Airbyte connections that they wait on."""


def main() -> int:
    options = parse()
    console = Console(width=None if sys.stdout.isatty() else 200)
    if console.is_terminal:
        console.print(
            "This demo starts an Airbyte simulator, the listener and Airflow, and runs a DAG: about two minutes. "
            + ("Then it ends." if options.once else "Then it stays up, and prints the addresses. Ctrl-C stops it.")
        )
    options.home.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="run-", dir=options.home))
    status: int | None = None
    try:
        with ended_by_signals():
            status = run(home, options, console)
    except KeyboardInterrupt:
        console.print("stopped, nothing is left running")
        status = 130
    except SystemExit as exc:  # a signal
        status = int(exc.code or 0)
    except (StackError, AirflowApiError) as exc:
        console.print(f"the demo failed: {exc}", markup=False, highlight=False, style="red", soft_wrap=True)
        status = 1
    finally:
        if options.keep or status in (None, 1):
            console.print(f"kept, with all logs: {home}", markup=False, highlight=False, soft_wrap=True)
        else:
            shutil.rmtree(home, ignore_errors=True)
    return status


def run(home: Path, options: argparse.Namespace, console: Console) -> int:
    """Start, show, stop; return the exit status."""
    progress = Progress(console)
    addresses = Addresses.choose()
    with ExitStack() as stack:
        stack.callback(progress, "all has stopped")
        feed = stack.enter_context(FeedReader(addresses.listener_url, addresses.api_token))
        with progress.during("starting simulator and listener"):
            services = stack.enter_context(
                Services(addresses, home, connections=len(WAITERS), duration=options.duration, progress=progress)
            )
        with progress.during("starting Airflow"):
            airflow = stack.enter_context(
                AirflowStack(
                    home / "airflow", HERE / "dags", connections=addresses.airflow_connections(), progress=progress
                )
            )
        connection_ids = services.connection_ids()
        with progress.during(f"running DAG {DAG_ID}"):
            run_id, tasks = run_dag(airflow, connection_ids, progress, timeout=options.duration + 180)
        timelines = [
            collect(
                tasks[name],
                connection_id,
                airflow=airflow.api,
                dag_id=DAG_ID,
                run_id=run_id,
                services=services,
                feed=feed,
            )
            for name, connection_id in zip(WAITERS, connection_ids, strict=True)
        ]
        console.print()
        console.print(table(timelines))
        console.print()
        for task in tasks.values():
            if task.state != "success":
                reason = airflow.log_tail(DAG_ID, run_id, task.task_id) if task.try_number else ""
                progress(f"task {task.task_id} is {task.state}{reason}")
        if console.is_terminal and not options.once:
            with contextlib.suppress(KeyboardInterrupt):
                stay(airflow, services, console)
            progress("stopping")
    return 0 if all(task.state == "success" for task in tasks.values()) else 1


def run_dag(
    airflow: AirflowStack, connection_ids: list[str], progress: Progress, *, timeout: float
) -> tuple[str, dict[str, TaskInstance]]:
    """Run the DAG, and report every change of its tasks."""
    run_id = airflow.trigger_dag(DAG_ID, {"connections": connection_ids})
    progress(f"run {run_id} started")
    states: dict[str, str | None] = {}

    def tell(tasks: dict[str, TaskInstance]) -> None:
        for task in tasks.values():
            if task.state != states.get(task.task_id):
                progress(f"task {task.task_id}: {task.state}")
            states[task.task_id] = task.state

    return run_id, airflow.wait_for_run(DAG_ID, run_id, timeout=timeout, seen=tell)


def stay(airflow: AirflowStack, services: Services, console: Console) -> NoReturn:
    """Stay up until Ctrl-C, or until something ends by itself.

    :raises StackError: then.
    """
    addresses = services.addresses
    lines = {
        "Airflow": f"{airflow.url} (no log-in: everybody is admin)",
        "the DAG": f"{airflow.url}/dags/{DAG_ID}",
        "dashboard": services.dashboard(),
        "Airbyte": f"{addresses.airbyte_url} (simulated; client id {addresses.client_id}, "
        f"secret {addresses.client_secret})",
    }
    for name, text in lines.items():
        console.print(f"  {name:9} {text}", markup=False, highlight=False, soft_wrap=True)
    console.print("\nAll of it stays up. Ctrl-C stops it.")
    while True:
        services.processes.watch(1.0)
        airflow.processes.watch(1.0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=15.0, metavar="SECONDS", help="of a sync (default: 15)")
    parser.add_argument("--once", action="store_true", help="end after the timeline on a terminal, too")
    parser.add_argument("--keep", action="store_true", help="leave database and logs behind; a failed demo always does")
    parser.add_argument(
        "--home",
        type=Path,
        default=HERE.parent.parent / ".demo",
        metavar="FOLDER",
        help="where database and logs are put, in a folder for each run (default: .demo)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
