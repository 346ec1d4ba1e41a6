"""Owns an Airflow with tasks at work, or a few processes, until somebody ends it: run by tests as a process of its own.

    python owner.py airflow HOME DAGS
    python owner.py processes HOME GRACE

It prints ``ready``.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "demo"))

from airflow_stack import AirflowStack  # noqa: E402
from processes import Processes, ended_by_signals  # noqa: E402

STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
os.fork() or os.setsid()
while True:
    signal.pause()
"""


def main(kind: str, home: Path, argument: str) -> None:
    with ExitStack() as stack:
        stack.enter_context(ended_by_signals())
        if kind == "airflow":
            airflow = stack.enter_context(AirflowStack(home, Path(argument)))
            run_id = airflow.trigger_dag("hangs")
            airflow.wait_for_task("hangs", run_id, "defer", {"deferred"})
            airflow.wait_for_task("hangs", run_id, "run", {"running"})
        else:
            processes = stack.enter_context(Processes(home, home))
            for name in ("one", "two"):
                processes.start(name, [sys.executable, "-c", STUBBORN], env=os.environ, grace=float(argument))
        print("ready", flush=True)
        while True:
            signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
